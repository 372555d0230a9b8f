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
  const { limits, ...offered } = await json(await fetch("api/checkpoints"));
  return { ...offered, limits: { ...limits, count: 32 }, place: "Photographs go to this server only.",
    formats: "PNG, JPEG, TIFF, WebP, PPM and DICOM.", upscale, chain };
}

/** One photograph, as the viewer shows it. */
async function upscale({ file, reference, ...settings }, { signal, progress }) {
  const { id, job } = await finished({ file, ...(reference ? { reference } : {}), ...settings }, signal, progress);
  addEventListener("pagehide", () => forget(id));
  try {
    return await collected(id, file.name, job);
  } catch (error) {
    forget(id);
    throw error;
  }
}

const forget = id => fetch(`api/jobs/${id}`, { method: "DELETE", keepalive: true });

/** Queues a job and waits for its end: {id, job}. */
async function finished(fields, signal, progress) {
  const form = new FormData();
  for (const [name, value] of Object.entries(fields)) value instanceof File ? form.append(name, value, value.name) : form.append(name, value);
  const { id } = await json(await fetch("api/jobs", { method: "POST", body: form, signal }));
  try {
    for (;;) {
      signal?.throwIfAborted();
      const job = await json(await fetch(`api/jobs/${id}`, { signal }));
      const others = job.before && `waiting for ${job.before} job${job.before > 1 ? "s" : ""} of others`;
      progress?.(job.progress, job.state === "done" ? "loading the result" : others || job.text);
      if (job.state === "done") return { id, job };
      if (job.state !== "waiting" && job.state !== "running") throw new Error(job.text);
      await new Promise(done => setTimeout(done, POLL_MS));
    }
  } catch (error) {
    forget(id);
    throw error;
  }
}

/** A result as the viewer shows it, with its pictures loaded. */
async function collected(id, name, { saved, sizes, bits, seconds, record, returned, scores, ...photo }) {
  const base = `api/jobs/${id}/`, layers = {};
  await Promise.all(photo.layers.map(async layer => {
    const response = await fetch(`${base}${layer}.png`);
    if (!response.ok) throw new Error(`${name}: its pictures could not be fetched; upscale it again`);
    layers[layer] = await createImageBitmap(await response.blob());
  }));
  const downloads = photo.files.map(file => ({ name: file, href: base + encodeURIComponent(file),
    text: file === saved ? "Download image" : KINDS[file.split(".").pop()] }));
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
  return { id, name, saved, size: sizes[1], layers, facts, meaning: photo.meaning, downloads, release: () => forget(id) };
}

/** The states of the chain of one photograph: {note, frames: [{name, picture}]}, pictures as Blobs. */
async function chain(file, seed, checkpoint) {
  const { id, job: { note, files, labels } } = await finished({ file, seed, checkpoint, chain: true });
  try {
    const pictures = await Promise.all(files.map(async name => (await fetch(`api/jobs/${id}/${name}`)).blob()));
    return { note: `${file.name}, ${note}`, frames: pictures.map((picture, i) => ({ name: labels[i], picture })) };
  } finally {
    forget(id);
  }
}
