// The page: choices at the left, the result at the right. What computes is an engine: a local server, or this browser.

import "./viewer.js";
import { zipped } from "./archive.js";
import { byId, element } from "./dom.js";
import { openMethod } from "./method.js";
import { reportPage } from "./report.js";

const ENGINES = { server: "./engine_server.js", browser: "./engine_browser.js" };
const MODES = {
  faithful: "faithful: the estimate with the least squared error, smoother than a photograph",
  realistic: "realistic: a sample as sharp as a photograph; its finest detail is plausible, not observed",
};
const NARROW = "(max-width: 900px)";

const viewer = byId("viewer");
let engine, files = [], reference = null, running = null, outcomes = [], shown = null;

async function start() {
  const { open } = await import(ENGINES[document.documentElement.dataset.engine]);
  engine = await open();
  byId("place").textContent = engine.place;
  const { pixels, bytes, count } = engine.limits;
  byId("limits").textContent = `At most ${count} files, ${(bytes / 2 ** 20).toFixed(0)} MiB each, ` +
    `${pixels.toLocaleString("en")} pixels each. ${engine.formats}`;
  byId("checkpoint").replaceChildren(...engine.checkpoints.map(({ name }) => element("option", { value: name }, name)));
  byId("checkpoint").onchange = followCheckpoint;
  followCheckpoint();
  for (const input of document.querySelectorAll("#controls input, #controls select")) input.addEventListener("input", settingsChanged);
  byId("files").onchange = event => choose([...event.target.files]);
  byId("reference").onchange = event => { reference = event.target.files[0] ?? null; settingsChanged(); };
  byId("sample").onclick = takeSample;
  byId("controls").onsubmit = event => { event.preventDefault(); run(); };
  byId("cancel").onclick = () => running?.abort();
  listenForDrops(byId("drop"));
  for (const name of ["upscale", "method"]) byId(`tab-${name}`).onclick = () => openTab(name);
  openMethod(engine, async () => files[0] ?? own("sample.png"), () => Number(byId("seed").value));
  document.documentElement.dataset.ready = "1";
}

function openTab(name) {
  for (const tab of ["upscale", "method"]) {
    byId(tab).hidden = tab !== name;
    byId(`tab-${tab}`).setAttribute("aria-pressed", tab === name);
  }
}

// -- choices -------------------------------------------------------------------------------------------------------------

const checkpoint = () => engine.checkpoints.find(({ name }) => name === byId("checkpoint").value);

/** Shows the controls that the checkpoint has. */
function followCheckpoint() {
  const { modes, note, options, scale } = checkpoint();
  byId("scale").max = byId("scale").value = scale;
  byId("about-checkpoint").textContent = note;
  byId("modes").replaceChildren(element("legend", {}, "Mode"), ...modes.map((name, i) => element("label", {},
    element("input", { type: "radio", name: "mode", value: name, checked: i === 0, oninput: settingsChanged }), ` ${MODES[name]}`)));
  for (const label of document.querySelectorAll("[data-option]")) label.hidden = !options.includes(label.dataset.option);
  settingsChanged();
}

function settings() {
  const has = name => checkpoint().options.includes(name);
  const longest = has("scale") ? Number(byId("longest-side").value) : 0;
  return {
    checkpoint: checkpoint().name,
    mode: document.querySelector("input[name=mode]:checked")?.value,
    seed: has("seed") ? Number(byId("seed").value) : 0,
    consistency: has("consistency") ? byId("consistency").checked : true,
    strength: has("strength") ? Number(byId("strength").value) : 1,
    uncertainty: has("uncertainty") && byId("uncertainty").checked,
    scale: has("scale") && !longest ? Number(byId("scale").value) : 0,
    longest_side: longest,
    turns: has("turns") && byId("turns").checked ? 8 : 1,
    format: has("format") ? byId("format").value : "png",
  };
}

/** All that decides a result, as text: a shown result belongs to another choice when this differs. */
function fingerprint() {
  const named = file => file && [file.name, file.size, file.lastModified];
  return JSON.stringify([settings(), files.map(named), named(reference)]);
}

async function choose(chosen) {
  files = chosen;
  const rows = await Promise.all(files.map(preview));
  if (files !== chosen) return; // another choice came meanwhile
  const { count } = engine.limits;
  const wrong = files.length > count ? `${files.length} photographs are above the limit of ${count}`
    : rows.find(({ wrong }) => wrong)?.wrong ?? "";
  byId("uploads").replaceChildren(...rows.map(({ row }) => row));
  tell(wrong, Boolean(wrong));
  byId("run").disabled = !files.length || Boolean(wrong);
  settingsChanged();
}

/** A line with a small picture, where the browser can draw the file, and what is wrong with it, if anything. */
async function preview(file) {
  const image = element("img", { alt: "" });
  let size = "", wrong = "";
  try {
    const bitmap = await createImageBitmap(file);
    size = `, ${bitmap.width} x ${bitmap.height}`;
    if (bitmap.width * bitmap.height > engine.limits.pixels) {
      wrong = `${file.name} is ${bitmap.width} x ${bitmap.height}, above the limit of ${engine.limits.pixels.toLocaleString("en")} pixels`;
    }
    bitmap.close();
    image.src = URL.createObjectURL(file);
    image.onload = () => URL.revokeObjectURL(image.src);
  } catch { // TIFF, DICOM and others, which browsers do not draw
    image.hidden = true;
  }
  const { bytes } = engine.limits, text = `${file.name}${size}, ${Math.ceil(file.size / 1024)} KiB`;
  if (file.size > bytes) wrong = `${file.name} is ${(file.size / 2 ** 20).toFixed(1)} MiB, above the limit of ${(bytes / 2 ** 20).toFixed(0)} MiB`;
  return { row: element("li", { className: wrong ? "bad" : "" }, image, text), wrong };
}

/** A file of the page's own folder as if it had been chosen. */
async function own(name) {
  const content = await (await fetch(new URL(name, import.meta.url))).blob();
  return new File([content], name, { type: content.type, lastModified: 0 });
}

async function takeSample() {
  reference = await own("original.webp");
  await choose([await own("sample.png")]);
}

function listenForDrops(area) {
  area.ondragover = event => { event.preventDefault(); area.classList.add("over"); };
  area.ondragleave = () => area.classList.remove("over");
  area.ondrop = event => {
    event.preventDefault();
    area.classList.remove("over");
    if (event.dataTransfer.files.length) choose([...event.dataTransfer.files]);
  };
}

// -- a shown result and what it belongs to -----------------------------------------------------------------------------------

/** Dims a result that is not of the present choice, and says of which file it is. */
function settingsChanged() {
  byId("scale").disabled = byId("longest-side").value !== ""; // one of the two decides the size
  if (shown) mark(shown.fingerprint === fingerprint() ? "" : "Something else is chosen now.");
}

function mark(reason) {
  const stale = byId("stale");
  stale.hidden = !reason || !shown;
  if (!shown) return;
  viewer.toggleAttribute("stale", Boolean(reason));
  stale.textContent = reason && `${reason} The picture below is the former result of ${shown.photo.name} (${shown.made}).`;
}

function show(photo, made, print) {
  shown = { photo, made, fingerprint: print };
  viewer.show(photo);
  mark("");
}

function list(photos, made, print) {
  outcomes = photos;
  const rows = photos.map(photo => photo.error
    ? element("li", { className: "bad" }, photo.error.startsWith(photo.name) ? photo.error : `${photo.name}: ${photo.error}`)
    : element("li", {}, element("button", { type: "button", onclick: () => show(photo, made, print) }, photo.name), " done"));
  byId("outcomes").hidden = photos.length < 2 && !photos.some(photo => photo.error);
  byId("outcomes").replaceChildren(...rows);
  const first = photos.find(photo => !photo.error);
  if (first) show(first, made, print);
}

// -- a job -------------------------------------------------------------------------------------------------------------------

function tell(text, bad = false) {
  byId("status").textContent = text;
  byId("status").className = bad ? "bad" : "";
}

function busy(yes) {
  byId("run").disabled = yes || !files.length;
  byId("cancel").disabled = !yes;
  byId("bar").hidden = !yes;
}

/** The results of all chosen photographs, in their order; one that fails does not stop the others. */
async function upscaleAll(chosen, signal, progress) {
  if (reference && files.length > 1) throw new Error(`one reference was given for ${files.length} photographs; upscale its own alone`);
  const given = files, photos = [];
  for (const [number, file] of given.entries()) {
    const place = given.length > 1 ? `photograph ${number + 1} of ${given.length}, ${file.name}` : file.name;
    const tellShare = (share, text) => progress((number + share) / given.length, `${place}: ${text}`);
    try {
      photos.push(await engine.upscale({ ...chosen, file, reference }, { signal, progress: tellShare }));
    } catch (error) {
      photos.push({ name: file.name, error: error.message });
      if (!signal.aborted) continue;
      photos.forEach(photo => photo.release?.());
      throw error;
    }
  }
  return photos;
}

async function run() {
  if (!byId("controls").reportValidity()) return;
  const chosen = settings(), print = fingerprint(), names = files.map(file => file.name);
  const made = `${chosen.checkpoint}, ${chosen.mode}`;
  running = new AbortController();
  const began = performance.now();
  busy(true);
  mark(`${names.join(", ")}: the work has begun.`);
  try {
    const photos = await upscaleAll(chosen, running.signal, (share, text) => {
      byId("bar").value = share;
      const left = (performance.now() - began) / 1000 * (1 - share) / share;
      tell(share > 0.05 ? `${text}, about ${Math.ceil(left)} s left` : text);
    });
    const former = outcomes;
    photos.forEach(addReport);
    addZip(photos.filter(photo => !photo.error));
    list(photos, made, print);
    if (!former.includes(shown?.photo)) former.forEach(photo => photo.release?.()); // else it is still on the page
    const failed = photos.filter(photo => photo.error).length;
    tell(failed ? `${failed} of ${photos.length} failed` : "done", failed > 0);
    if (fingerprint() !== print) settingsChanged();
    if (matchMedia(NARROW).matches) byId("results").scrollIntoView();
  } catch (error) {
    const cancelled = running.signal.aborted, text = cancelled ? "cancelled" : error.message;
    tell(text, true);
    mark(cancelled ? "The work was cancelled." : "The work failed.");
  } finally {
    running = null;
    busy(false);
  }
}

/** Adds a download of all files of all results, packed when it is asked for. */
function addZip(photos) {
  const files = photos.flatMap(({ downloads }, i) => downloads.map(({ href, name }) => ({ href, name: photos.length > 1 ? `${i + 1}_${name}` : name })));
  const pack = async () => zipped(await Promise.all(files.map(async ({ href, name }) => {
    const response = await fetch(href);
    if (!response.ok) throw new Error(`${name} could not be fetched; upscale it again`);
    return { name, content: new Uint8Array(await response.arrayBuffer()) };
  })));
  const onclick = event => {
    event.preventDefault();
    pack().then(content => {
      const href = URL.createObjectURL(content);
      element("a", { href, download: "retinashift.zip" }).click();
      setTimeout(() => URL.revokeObjectURL(href), 60_000);
    }).catch(error => tell(error.message, true));
  };
  for (const { downloads } of photos) downloads.push({ text: "All as zip", name: "retinashift.zip", href: "#", onclick });
}

/** Adds the printable report to the downloads of a result. */
function addReport(photo) {
  if (photo.error) return;
  const href = URL.createObjectURL(new Blob([reportPage(photo)], { type: "text/html" }));
  photo.downloads.push({ text: "Report", href, name: `${photo.saved}.html` });
  const release = photo.release;
  photo.release = () => {
    release();
    URL.revokeObjectURL(href);
    Object.values(photo.layers).forEach(layer => layer.close());
  };
}

start().catch(error => tell(`The page could not start: ${error.message}`, true));
