// Engine A: the local server of `retinashift app`. The same interface as the engine of the browser.

const POLL_MS = 250;

async function json(response) {
  if (response.ok) return response.json();
  const text = await response.text();
  let reason = text;
  try { reason = JSON.parse(text).detail ?? text; } catch { /* plain text */ }
  throw new Error(typeof reason === "string" ? reason : JSON.stringify(reason));
}

const KINDS = { json: "Record (JSON)", tif: "Uncertainty (TIFF)", png: "Uncertainty (PNG)", dcm: "Uncertainty (DICOM)" };

/** What the server offers, and how to have it work. */
export async function open() {
  const offered = await json(await fetch("api/checkpoints"));
  return { ...offered, place: "Photographs go to this server only.", formats: "PNG, JPEG, TIFF, WebP, PPM and DICOM.", run, chain };
}

async function run({ files, reference, ...settings }, { signal, progress }) {
  const { id, job } = await finished({ file: files, reference: reference ? [reference] : [], ...settings }, signal, progress);
  const forget = () => fetch(`api/jobs/${id}`, { method: "DELETE", keepalive: true });
  try {
    addEventListener("pagehide", forget);
    return await Promise.all(job.photos.map((photo, number) => collected(id, photo, number, forget)));
  } catch (error) {
    forget();
    throw error;
  }
}

/** Queues a job and waits for its end: {id, job}. */
async function finished(fields, signal, progress) {
  const form = new FormData();
  for (const [name, value] of Object.entries(fields)) {
    for (const one of Array.isArray(value) ? value : [value]) one instanceof File ? form.append(name, one, one.name) : form.append(name, one);
  }
  const { id } = await json(await fetch("api/jobs", { method: "POST", body: form, signal }));
  try {
    for (;;) {
      signal?.throwIfAborted();
      const job = await json(await fetch(`api/jobs/${id}`, { signal }));
      progress?.(job.progress, job.before ? `waiting for ${job.before} job${job.before > 1 ? "s" : ""} of others` : job.text);
      if (job.state === "done") return { id, job };
      if (job.state !== "waiting" && job.state !== "running") throw new Error(job.text);
      await new Promise(done => setTimeout(done, POLL_MS));
    }
  } catch (error) {
    fetch(`api/jobs/${id}`, { method: "DELETE", keepalive: true });
    throw error;
  }
}

/** A result as the viewer shows it, with its pictures loaded. */
async function collected(id, { name, error, saved, sizes, bits, seconds, record, returned, scores, ...photo }, number, release) {
  if (error) return { name, error };
  const base = `api/jobs/${id}/${number}/`, layers = {};
  await Promise.all(photo.layers.map(async layer => {
    const response = await fetch(`${base}${layer}.png`);
    if (!response.ok) throw new Error(`${name}: its pictures could not be fetched; upscale it again`);
    layers[layer] = await createImageBitmap(await response.blob());
  }));
  const downloads = photo.files.map(file => ({ name: file, href: base + encodeURIComponent(file),
    text: file === saved ? "Download image" : KINDS[file.split(".").pop()] }));
  downloads.push({ text: "All as zip", name: "retinashift.zip", href: `api/jobs/${id}/all.zip` });
  const { consistency_db: agrees, ensemble, steps, seed, back_projections: times } = record;
  const facts = [
    ["sizes", `${sizes.map(size => size.join(" x ")).join(" to ")}, ${bits} bit`],
    ["seconds", seconds.toFixed(1)],
    ["consistency", `${agrees === null ? "exact" : `${agrees} dB`}: the result reduced again, against the input`],
    ["self-check", returned],
    ...Object.entries(scores).map(([layer, text]) => [layer === "result" ? "RetinaShift" : layer, text]),
    ["provenance", `RetinaShift ${record.versions.retinashift}, checkpoint ${record.checkpoint.slice(0, 12)}, ` +
      `${ensemble > 1 ? `mean of ${ensemble} samples of ` : ""}${steps} step${steps > 1 ? "s" : ""}, ${seed === null ? "no noise" : `seed ${seed}`}, ` +
      `back-projections ${times}, ${record.device}`],
    ["mind", record.input_was_super_resolved ? "the input is a result of super-resolution itself" : ""],
  ].filter(([, text]) => text);
  return { name, saved, size: sizes[1], layers, facts, meaning: photo.meaning, downloads, release };
}

/** The states of the chain of one photograph: {note, frames: [{name, picture}]}, pictures as Blobs. */
async function chain(file, seed, checkpoint) {
  const { id, job: { photos: [{ error, note, files, labels }] } } = await finished({ file: [file], seed, checkpoint, chain: true });
  try {
    if (error) throw new Error(error);
    const pictures = await Promise.all(files.map(async name => (await fetch(`api/jobs/${id}/0/${name}`)).blob()));
    return { note: `${file.name}, ${note}`, frames: pictures.map((picture, i) => ({ name: labels[i], picture })) };
  } finally {
    fetch(`api/jobs/${id}`, { method: "DELETE", keepalive: true });
  }
}
