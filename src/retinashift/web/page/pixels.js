// Pictures as numbers: antialiased bicubic resampling as Pillow does it, PSNR, and PNG files that say what made them.

import { crc32 } from "./archive.js";

/** Keys' cubic kernel with a = -0.5. */
function cubic(x) {
  x = Math.abs(x);
  return x < 1 ? (1.5 * x - 2.5) * x * x + 1 : x < 2 ? ((-0.5 * x + 2.5) * x - 4) * x + 2 : 0;
}

/** For each of `size` results: the first source and the weights, which sum to 1. */
function weights(from, size) {
  const step = from / size, wide = Math.max(1, step);
  return Array.from({ length: size }, (_, i) => {
    const centre = (i + 0.5) * step, first = Math.max(0, Math.floor(centre - 2 * wide + 0.5));
    const last = Math.min(from, Math.floor(centre + 2 * wide + 0.5)), taps = [];
    for (let j = first; j < last; j++) taps.push(cubic((j + 0.5 - centre) / wide));
    const sum = taps.reduce((a, b) => a + b, 0);
    return { first, taps: taps.map(tap => tap / sum) };
  });
}

/** Bicubic resampling of 8-bit RGBA `{data, width, height}`, rounded after each pass as Pillow does; alpha becomes 255. */
export function resample({ data, width, height }, newWidth, newHeight) {
  const narrow = new Uint8ClampedArray(newWidth * height * 4).fill(255);
  weights(width, newWidth).forEach(({ first, taps }, x) => {
    for (let y = 0; y < height; y++) for (let c = 0; c < 3; c++) {
      let sum = 0;
      for (let k = 0; k < taps.length; k++) sum += taps[k] * data[4 * (y * width + first + k) + c];
      narrow[4 * (y * newWidth + x) + c] = sum;
    }
  });
  const result = new Uint8ClampedArray(newWidth * newHeight * 4).fill(255);
  weights(height, newHeight).forEach(({ first, taps }, y) => {
    for (let x = 0; x < newWidth; x++) for (let c = 0; c < 3; c++) {
      let sum = 0;
      for (let k = 0; k < taps.length; k++) sum += taps[k] * narrow[4 * ((first + k) * newWidth + x) + c];
      result[4 * (y * newWidth + x) + c] = sum;
    }
  });
  return new ImageData(result, newWidth, newHeight);
}

/** PSNR in dB of the RGB values of two pictures of one size; Infinity where they are equal. */
export function psnr(one, two) {
  let sum = 0;
  for (let i = 0; i < one.data.length; i += 4) for (let c = 0; c < 3; c++) sum += (one.data[i + c] - two.data[i + c]) ** 2;
  return 10 * Math.log10(255 ** 2 / (sum / (one.data.length * 0.75)));
}

/** An ImageData as an RGB PNG Blob with a text chunk; a canvas would write a fourth channel. */
export async function pngWithText({ data, width, height }, keyword, text) {
  const rows = new Uint8Array(height * (3 * width + 1));
  for (let y = 0, to = 0; y < height; y++) {
    rows[to++] = 1; // filter "sub": each byte less that of the pixel before
    for (let x = 0; x < width; x++) for (let c = 0; c < 3; c++) {
      const from = 4 * (y * width + x) + c;
      rows[to++] = data[from] - (x ? data[from - 4] : 0);
    }
  }
  const packed = new Blob([rows]).stream().pipeThrough(new CompressionStream("deflate"));
  const header = new Uint8Array(13), view = new DataView(header.buffer);
  view.setUint32(0, width);
  view.setUint32(4, height);
  header.set([8, 2, 0, 0, 0], 8); // 8 bit, RGB
  const encoded = new TextEncoder().encode(`${keyword}\0\0\0\0\0${text}`);
  return new Blob([
    new Uint8Array([0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a]), chunk("IHDR", header), chunk("iTXt", encoded),
    chunk("IDAT", new Uint8Array(await new Response(packed).arrayBuffer())), chunk("IEND", new Uint8Array()),
  ], { type: "image/png" });
}

function chunk(kind, body) {
  const made = new Uint8Array(body.length + 12), view = new DataView(made.buffer);
  view.setUint32(0, body.length);
  made.set(new TextEncoder().encode(kind), 4);
  made.set(body, 8);
  view.setUint32(body.length + 8, crc32(made.subarray(4, body.length + 8)));
  return made;
}

/** SHA-256 of a file, in hexadecimal, where the browser has it (https and localhost); else "". */
export async function sha256(file) {
  if (!crypto.subtle) return "";
  const sum = new Uint8Array(await crypto.subtle.digest("SHA-256", await file.arrayBuffer()));
  return [...sum].map(byte => byte.toString(16).padStart(2, "0")).join("");
}
