// One page about one result, whole in itself and readable in print: pictures, numbers, settings, and what it is not.

const CAPTIONS = {
  input: "low-resolution input, pixels repeated", bicubic: "bicubic", result: "RetinaShift",
  uncertainty: "uncertainty, 8 levels of the picture to a grey level", reference: "high-resolution reference",
};
const SIDE = 900;
const STYLE = "body{font:14px/1.45 system-ui,sans-serif;max-width:1100px;margin:20px auto;padding:0 16px;color:#111;background:#fff}" +
  "h1{font-size:20px;margin:0}p{margin:4px 0 12px;color:#333}main{display:grid;grid-template-columns:repeat(3,1fr);gap:10px}" +
  "figure{margin:0}img{width:100%;aspect-ratio:1;object-fit:contain;background:#000}figcaption{font-size:12px;color:#333}" +
  "table{border-collapse:collapse;margin-top:12px}th{text-align:left;font-weight:500;padding:2px 16px 2px 0;white-space:nowrap;" +
  "vertical-align:top}td{overflow-wrap:anywhere}@media print{@page{size:A4;margin:12mm}body{margin:0;font-size:11px}}";

const escaped = text => String(text).replace(/[&<>"']/g, c => `&#${c.charCodeAt(0)};`);

/** The report of a photo (see viewer.js) as HTML text. */
export function reportPage(photo) {
  const figures = Object.entries(photo.layers).map(([name, image]) => {
    const caption = name === "uncertainty" ? `${CAPTIONS[name]}; ${photo.meaning}` : CAPTIONS[name];
    return `<figure><img alt="${escaped(name)}" src="${picture(image, photo.size, name === "input")}">` +
      `<figcaption>${escaped(caption)}</figcaption></figure>`;
  });
  const rows = photo.facts.map(([name, value]) => `<tr><th>${escaped(name)}<td>${escaped(value)}`);
  return `<!doctype html><html lang="en"><meta charset="utf-8"><title>${escaped(photo.name)}</title><style>${STYLE}</style>` +
    `<h1>${escaped(photo.name)}, ${photo.size.join(" x ")}</h1>` +
    `<p>Upscaled by RetinaShift. Fine detail is estimated, not measured. For research use, not for diagnosis.</p>` +
    `<main>${figures.join("")}</main><table>${rows.join("")}</table></html>`;
}

/** An image as a data URL, no larger than the report shows it. */
function picture(image, [width, height], pixelated) {
  const share = Math.min(1, SIDE / Math.max(width, height)), canvas = document.createElement("canvas");
  canvas.width = Math.round(width * share);
  canvas.height = Math.round(height * share);
  const context = canvas.getContext("2d");
  context.imageSmoothingEnabled = !pixelated;
  context.imageSmoothingQuality = "high";
  context.drawImage(image, 0, 0, canvas.width, canvas.height);
  return canvas.toDataURL("image/png");
}
