// Computes results tile by tile, on the graphics processor (WebGPU) where the browser has one, else in WebAssembly. Each
// tile brings a margin as wide as the network and the projection look, so that tiles give the values of the whole picture.

const WIDE = 640, HIGH = 320, MARGIN = 64, PROBE = 48, LEVELS_PER_GREY = 8;
const RUNTIMES = {
  webgpu: { module: "./ort/ort.webgpu.bundle.min.mjs", binary: "ort/ort-wasm-simd-threaded.asyncify.wasm.gz", name: "WebGPU" },
  wasm: { module: "./ort/ort.wasm.bundle.min.mjs", binary: "ort/ort-wasm-simd-threaded.wasm.gz", name: "WebAssembly" },
};

let ort, network, factor, opened, place, secondsPerPixel, queue = Promise.resolve();

// One message after the other: two networks that load at once would take each other's graphs and runtime.
onmessage = ({ data }) => { queue = queue.then(() => answer(data)); };

/** Loads the network, unless it is loaded, and computes a photograph, if one came. */
async function answer({ model, lr }) {
  try {
    if (opened !== model.file) await load(model);
    opened = model.file;
    if (lr) postMessage(await upscale(lr, model));
  } catch (error) {
    opened = undefined;
    if (lr) postMessage({ error: error.message ?? String(error) }); // without one, whoever needs the network next learns of it
  }
}

/** Fetches a file; one that ends in .gz is inflated, so that any web server will do. */
async function fetched(name) {
  const response = await fetch(new URL(name, import.meta.url));
  if (!response.ok) throw new Error(`${name} could not be fetched (${response.status})`);
  const stream = name.endsWith(".gz") ? response.body.pipeThrough(new DecompressionStream("gzip")) : response.body;
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

async function load(model) {
  postMessage({ progress: 0, text: "loading the network" });
  const files = await Promise.all([model.file, model.factor].map(name => name && fetched(name)));
  const adapter = await navigator.gpu?.requestAdapter().catch(() => null);
  if (adapter && !adapter.info?.isFallbackAdapter) { // one in software is slower than WebAssembly
    try {
      return await start("webgpu", ...files);
    } catch (error) {
      console.warn(`WebGPU cannot be used: ${error.message ?? error}`);
    }
  }
  await start("wasm", ...files);
}

/** Opens the graphs in a runtime, and measures it on a small picture. Not every network has factors of detail and map. */
async function start(kind, networkFile, factorFile) {
  const { module, binary, name } = RUNTIMES[kind];
  ort = await import(module);
  ort.env.wasm.wasmBinary = await fetched(binary);
  ort.env.wasm.numThreads = self.crossOriginIsolated ? Math.min(8, navigator.hardwareConcurrency) : 1;
  // A processor widens the fp16 weights while it loads; many graphics processors cannot, so that is done before ("basic").
  const options = { executionProviders: [kind], graphOptimizationLevel: kind === "webgpu" ? "basic" : "disabled" };
  network = await ort.InferenceSession.create(networkFile, options);
  factor = factorFile && await ort.InferenceSession.create(factorFile, { executionProviders: ["wasm"] });
  place = name;
  const probe = { data: new Uint8ClampedArray(4 * PROBE * PROBE), width: PROBE };
  const one = new ort.Tensor("float32", new Float32Array(2 * PROBE ** 2).fill(1), [1, 2, PROBE, PROBE]);
  await infer(probe, 0, 0, PROBE, PROBE, one); // the first run prepares the runtime
  const began = performance.now();
  await infer(probe, 0, 0, PROBE, PROBE, one);
  secondsPerPixel = (performance.now() - began) / 1000 / PROBE ** 2;
}

/** A rectangle of the picture as the network takes it, (1, 3, h, w) in [0, 1]. */
function tensor({ data, width }, left, top, right, bottom) {
  const w = right - left, h = bottom - top, values = new Float32Array(3 * w * h);
  for (let y = 0; y < h; y++) for (let x = 0; x < w; x++) for (let c = 0; c < 3; c++) {
    values[(c * h + y) * w + x] = data[4 * ((top + y) * width + left + x) + c] / 255;
  }
  return new ort.Tensor("float32", values, [1, 3, h, w]);
}

/** A rectangle of a map, (1, c, h, w). */
function cropped({ data, dims: [, channels, height, width] }, left, top, right, bottom) {
  const w = right - left, values = new Float32Array(channels * w * (bottom - top));
  for (let c = 0, to = 0; c < channels; c++) for (let y = top; y < bottom; y++, to += w) {
    const from = (c * height + y) * width;
    values.set(data.subarray(from + left, from + right), to);
  }
  return new ort.Tensor("float32", values, [1, channels, bottom - top, w]);
}

/** Result and standard deviation of a rectangle, (1, 3 or 1, scale*h, scale*w) in [0, 1]. */
async function infer(lr, left, top, right, bottom, factors) {
  const input = tensor(lr, left, top, right, bottom);
  const { output, uncertainty } = await network.run(factor ? { input, factors } : { input });
  return [output.data, uncertainty.data];
}

/** Starts and ends of pieces of at most `most` that cover `size`. */
function pieces(size, most) {
  const count = Math.ceil(size / most);
  return Array.from({ length: count }, (_, i) => [Math.round(i * size / count), Math.round((i + 1) * size / count)]);
}

async function upscale(lr, { scale }) {
  const { width, height } = lr, [pixels, sigma] = [0, 1].map(() => new Uint8ClampedArray(4 * scale ** 2 * width * height).fill(255));
  const { factors } = await factor?.run({ input: tensor(lr, 0, 0, width, height) }) ?? {}; // all pixels decide them
  const tiles = pieces(height, HIGH).flatMap(rows => pieces(width, WIDE).map(columns => [...rows, ...columns]));
  for (const [number, [top, bottom, left, right]] of tiles.entries()) {
    const outer = [Math.max(0, left - MARGIN), Math.max(0, top - MARGIN), Math.min(width, right + MARGIN), Math.min(height, bottom + MARGIN)];
    const expected = secondsPerPixel * (outer[2] - outer[0]) * (outer[3] - outer[1]), seconds = Math.ceil(expected * (tiles.length - number));
    postMessage({ progress: number / tiles.length, text: `tile ${number + 1} of ${tiles.length}, about ${seconds} s` });
    const [values, deviations] = await infer(lr, ...outer, factor && cropped(factors, ...outer));
    const w = scale * (outer[2] - outer[0]), h = scale * (outer[3] - outer[1]);
    for (let y = scale * top; y < scale * bottom; y++) for (let x = scale * left; x < scale * right; x++) {
      const from = (y - scale * outer[1]) * w + x - scale * outer[0], to = 4 * (y * scale * width + x);
      for (let c = 0; c < 3; c++) {
        pixels[to + c] = Math.round(255 * values[c * h * w + from]);
        sigma[to + c] = Math.round(255 * LEVELS_PER_GREY * deviations[from]);
      }
    }
  }
  return { pixels, sigma, width: scale * width, height: scale * height, place };
}
