// Engine A: the local server of `retinashift app`. The same interface as the engine of the browser.

const POLL_MS = 250;

async function json(response) {
  if (response.ok) return response.json();
  const text = await response.text();
  let reason = text;
  try { reason = JSON.parse(text).detail ?? text; } catch { /* plain text */ }
  throw new Error(typeof reason === "string" ? reason : JSON.stringify(reason));
}

/** What the server offers, and how to have it work. */
export async function open() {
  const about = await json(await fetch("api/about"));
  return { ...about, run, sample, chain };
}

async function sample() {
  const fetched = async name => new File([await (await fetch(`api/sample/${name}`)).blob()], name, { type: "image/png", lastModified: 0 });
  return { photograph: await fetched("sample.png"), reference: await fetched("original.png") };
}

async function run({ files, reference, ...settings }, { signal, progress }) {
  const form = new FormData();
  for (const file of files) form.append("file", file, file.name);
  if (reference) form.append("reference", reference, reference.name);
  for (const [name, value] of Object.entries(settings)) form.append(name, value);
  const { id } = await json(await fetch("api/jobs", { method: "POST", body: form, signal }));
  const forget = () => fetch(`api/jobs/${id}`, { method: "DELETE", keepalive: true });
  try {
    for (;;) {
      signal.throwIfAborted();
      const job = await json(await fetch(`api/jobs/${id}`, { signal }));
      progress(job.progress, job.text);
      if (job.state === "failed") throw new Error(job.text);
      if (job.state === "done") {
        addEventListener("pagehide", forget);
        return await Promise.all(job.photos.map(photo => collected(id, photo, forget)));
      }
      await new Promise(done => setTimeout(done, POLL_MS));
    }
  } catch (error) {
    forget();
    throw error;
  }
}

/** A result with its pictures loaded. */
async function collected(id, photo, release) {
  if (photo.error) return photo;
  const base = `api/jobs/${id}/${photo.number}/`, layers = {};
  await Promise.all(photo.layers.map(async name => {
    const response = await fetch(`${base}${name}.png`);
    if (!response.ok) throw new Error(`${photo.name}: its pictures could not be fetched; upscale it again`);
    layers[name] = await createImageBitmap(await response.blob());
  }));
  const downloads = photo.files.map(({ text, name }) => ({ text, name, href: base + encodeURIComponent(name) }));
  downloads.push({ text: "All as zip", name: "retinashift.zip", href: `api/jobs/${id}/all.zip` });
  return { ...photo, layers, downloads, release };
}

/** The states of the chain of one photograph: [{name, picture}], pictures as Blobs. */
async function chain(file, seed, checkpoint) {
  const form = new FormData();
  form.append("file", file, file.name);
  form.append("seed", seed);
  form.append("checkpoint", checkpoint);
  const { note, frames } = await json(await fetch("api/chain", { method: "POST", body: form }));
  const blob = text => new Blob([Uint8Array.from(atob(text), c => c.charCodeAt(0))], { type: "image/png" });
  return { note, frames: frames.map(({ name, png }) => ({ name, picture: blob(png) })) };
}
