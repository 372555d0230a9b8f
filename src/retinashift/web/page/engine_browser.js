// Engine B: this browser. onnxruntime-web computes in a worker; no photograph leaves the machine.

import { pngWithText, psnr, resample, sha256 } from "./pixels.js";

const NOTE = "super-resolved by RetinaShift in a browser; fine detail is estimated, not measured; research use only";
const SIGNATURES = { png: [0x89, 0x50, 0x4e, 0x47], jpeg: [0xff, 0xd8], webp: [0x52, 0x49, 0x46, 0x46] };

let models, worker;

/** The worker, which loads the network at once: that takes as long as a small photograph. */
function ready(model) {
  worker ??= new Worker(new URL("worker.js", import.meta.url), { type: "module" });
  worker.postMessage({ model });
}

/** What the folder offers, and how to have it work. */
export async function open() {
  models = await (await fetch("models/index.json")).json();
  ready(models.checkpoints[0]);
  return {
    place: "Everything is computed in this browser: no photograph leaves this machine.",
    formats: "PNG, JPEG and WebP, 8 bit.",
    limits: { pixels: models.max_pixels, bytes: 2 ** 28, count: 32 },
    checkpoints: models.checkpoints.map(({ name, note, scale }) => ({
      name, note, scale, modes: ["faithful"], options: ["reference", "uncertainty"],
    })),
    upscale,
  };
}

/** One photograph, as the viewer shows it. */
async function upscale({ file, reference, checkpoint, uncertainty }, { signal, progress: tell }) {
  const model = models.checkpoints.find(({ name }) => name === checkpoint);
  const began = performance.now();
  tell(0, "reading");
  const lr = await read(file), { scale } = model;
  if (lr.width * lr.height > models.max_pixels) {
    throw new Error(`${lr.width} x ${lr.height} is above the limit of ${models.max_pixels.toLocaleString("en")} pixels in a browser`);
  }
  const { result, sigma, place } = await computed(model, lr, signal, tell);
  const bicubic = resample(lr, result.width, result.height), seconds = (performance.now() - began) / 1000;
  const consistency = psnr(resample(result, lr.width, lr.height), lr);
  const record = { tool: "retinashift", scale, checkpoint: model.checkpoint, mode: "faithful", precision: model.precision,
    input: await sha256(file), engine: `onnxruntime-web ${models.onnxruntime}, ${place}`, note: NOTE };
  const facts = [
    ["sizes", `${lr.width} x ${lr.height} to ${result.width} x ${result.height}, 8-bit RGB PNG; metadata of the input is not carried over`],
    ["seconds", seconds.toFixed(1)],
    ["consistency", `${consistency === Infinity ? "exact" : `${consistency.toFixed(2)} dB`}: the result reduced again, against the input`],
    ["provenance", `checkpoint ${model.name} ${model.checkpoint.slice(0, 12)}, faithful, onnxruntime-web ${models.onnxruntime}, ${place}`],
  ];
  const layers = { input: lr, bicubic, result, ...(uncertainty ? { uncertainty: sigma } : {}) };
  if (reference) {
    const hr = await read(reference);
    if (hr.width !== result.width || hr.height !== result.height) {
      facts.push(["reference", `it is ${hr.width} x ${hr.height} and the result ${result.width} x ${result.height}; a reference is not resized`]);
    } else {
      layers.reference = hr;
      facts.push(["bicubic", `PSNR ${psnr(bicubic, hr).toFixed(2)} dB (RGB, whole frame)`],
        ["RetinaShift", `PSNR ${psnr(result, hr).toFixed(2)} dB (RGB, whole frame)`]);
    }
  }
  const saved = `${file.name.replace(/\.[^.]*$/, "")}_x${scale}.png`;
  const png = async (image, more) => pngWithText(image, "retinashift", JSON.stringify({ ...record, ...more }));
  const downloads = [
    { text: "Download image", name: saved, content: await png(result) },
    { text: "Record (JSON)", name: `${saved}.json`, content: new Blob([JSON.stringify(record, null, 2)]) },
  ];
  if (uncertainty) {
    const content = await png(sigma, { meaning: `${models.meaning}; 8 levels of the picture to a grey level` });
    downloads.push({ text: "Uncertainty (PNG)", name: `${saved}.uncertainty.png`, content });
  }
  for (const one of downloads) one.href = URL.createObjectURL(one.content);
  const bitmaps = await Promise.all(Object.entries(layers).map(async ([name, image]) => [name, await createImageBitmap(image)]));
  return {
    name: file.name, saved, size: [result.width, result.height], layers: Object.fromEntries(bitmaps), facts,
    meaning: uncertainty ? models.meaning : "", downloads, release: () => downloads.forEach(({ href }) => URL.revokeObjectURL(href)),
  };
}

/** The pixels of a file, as they are: no colour conversion, no alpha, 8 bit. */
async function read(file) {
  const head = new Uint8Array(await file.slice(0, 26).arrayBuffer());
  const kind = Object.keys(SIGNATURES).find(name => SIGNATURES[name].every((byte, i) => head[i] === byte));
  if (!kind) throw new Error("not a PNG, JPEG or WebP; use the command line for TIFF, DICOM and others");
  if (kind === "png" && head[24] === 16) throw new Error("16 bit a channel, which a browser would cut to 8; use the command line");
  let bitmap;
  try {
    bitmap = await createImageBitmap(file, { colorSpaceConversion: "none", premultiplyAlpha: "none" });
  } catch {
    throw new Error("truncated or damaged: the browser cannot decode it");
  }
  const context = new OffscreenCanvas(bitmap.width, bitmap.height).getContext("2d", { willReadFrequently: true });
  context.drawImage(bitmap, 0, 0);
  bitmap.close();
  const image = context.getImageData(0, 0, context.canvas.width, context.canvas.height);
  for (let i = 3; i < image.data.length; i += 4) {
    if (image.data[i] !== 255) throw new Error("it has transparent pixels; remove the alpha channel or use the command line");
  }
  return image;
}

/** Result and uncertainty of the worker, as ImageData, and what computed them; a worker that is cancelled is replaced. */
function computed(model, lr, signal, tell) {
  return new Promise((resolve, reject) => {
    const stop = () => {
      worker.terminate();
      worker = undefined;
      ready(model);
      reject(new Error("cancelled"));
    };
    signal.addEventListener("abort", stop, { once: true });
    const settle = act => { signal.removeEventListener("abort", stop); act(); };
    worker.onmessage = ({ data }) => {
      if (data.progress !== undefined) return tell(data.progress, data.text);
      if (data.error) return settle(() => reject(new Error(data.error)));
      const [result, sigma] = [data.pixels, data.sigma].map(pixels => new ImageData(pixels, data.width, data.height));
      settle(() => resolve({ result, sigma, place: data.place }));
    };
    worker.onerror = event => settle(() => reject(new Error(event.message || "the worker could not start")));
    worker.postMessage({ model, lr: { data: lr.data, width: lr.width, height: lr.height } });
  });
}
