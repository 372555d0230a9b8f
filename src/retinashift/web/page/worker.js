// Computes results tile by tile. Each tile brings a margin as wide as the network and the projection look, so that tiles
// give the values of the whole picture.

import * as ort from "./ort/ort.wasm.bundle.min.mjs";

const TILE = 256, MARGIN = 64, PROBE = 48;

let session, opening, opened, secondsPerPixel;

onmessage = async ({ data: { model, lr } }) => {
  try {
    await open(model);
    if (lr) postMessage(await upscale(lr, model.scale));
  } catch (error) {
    opened = undefined;
    postMessage({ error: error.message ?? String(error) });
  }
};

/** Fetches a file; one that ends in .gz is inflated, so that any web server will do. */
async function fetched(name) {
  const response = await fetch(new URL(name, import.meta.url));
  if (!response.ok) throw new Error(`${name} could not be fetched (${response.status})`);
  const stream = name.endsWith(".gz") ? response.body.pipeThrough(new DecompressionStream("gzip")) : response.body;
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

/** Loads a network; while it is loaded already, waits for that. */
function open(model) {
  if (opened !== model.file) opening = load(model);
  opened = model.file;
  return opening;
}

async function load(model) {
  postMessage({ progress: 0, text: "loading the network" });
  if (!ort.env.wasm.wasmBinary) ort.env.wasm.wasmBinary = await fetched("ort/ort-wasm-simd-threaded.wasm.gz");
  ort.env.wasm.numThreads = self.crossOriginIsolated ? Math.min(8, navigator.hardwareConcurrency) : 1;
  session = await ort.InferenceSession.create(await fetched(model.file), { executionProviders: ["wasm"],
    graphOptimizationLevel: "disabled" }); // the graph is made for this runtime; looking for more takes seconds
  const began = performance.now();
  await infer({ data: new Uint8ClampedArray(4 * PROBE * PROBE), width: PROBE }, 0, 0, PROBE, PROBE);
  secondsPerPixel = (performance.now() - began) / 1000 / PROBE ** 2;
}

/** The network's result on a rectangle of the picture, (1, 3, scale*h, scale*w) in [0, 1]. */
async function infer({ data, width }, left, top, right, bottom) {
  const w = right - left, h = bottom - top, values = new Float32Array(3 * w * h);
  for (let y = 0; y < h; y++) for (let x = 0; x < w; x++) for (let c = 0; c < 3; c++) {
    values[(c * h + y) * w + x] = data[4 * ((top + y) * width + left + x) + c] / 255;
  }
  const { output } = await session.run({ input: new ort.Tensor("float32", values, [1, 3, h, w]) });
  return output.data;
}

/** Starts and ends of pieces of at most `TILE` that cover `size`. */
function pieces(size) {
  const count = Math.ceil(size / TILE);
  return Array.from({ length: count }, (_, i) => [Math.round(i * size / count), Math.round((i + 1) * size / count)]);
}

async function upscale(lr, scale) {
  const { width, height } = lr, pixels = new Uint8ClampedArray(4 * scale ** 2 * width * height).fill(255);
  const tiles = pieces(height).flatMap(rows => pieces(width).map(columns => [rows, columns]));
  for (const [number, [[top, bottom], [left, right]]] of tiles.entries()) {
    const outer = [Math.max(0, left - MARGIN), Math.max(0, top - MARGIN), Math.min(width, right + MARGIN), Math.min(height, bottom + MARGIN)];
    const expected = secondsPerPixel * (outer[2] - outer[0]) * (outer[3] - outer[1]), seconds = Math.ceil(expected * (tiles.length - number));
    postMessage({ progress: number / tiles.length, text: `tile ${number + 1} of ${tiles.length}, about ${seconds} s` });
    const values = await infer(lr, ...outer);
    const w = scale * (outer[2] - outer[0]), h = scale * (outer[3] - outer[1]);
    for (let y = scale * top; y < scale * bottom; y++) for (let x = scale * left; x < scale * right; x++) for (let c = 0; c < 3; c++) {
      const value = values[(c * h + y - scale * outer[1]) * w + x - scale * outer[0]];
      pixels[4 * (y * scale * width + x) + c] = Math.round(255 * value);
    }
  }
  return { pixels, width: scale * width, height: scale * height };
}
