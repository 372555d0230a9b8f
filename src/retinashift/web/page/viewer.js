// <retina-viewer>: compares the pictures of one result on a canvas, pixel by pixel.
//
// `viewer.show(photo)` takes { name, size: [W, H], layers: {bicubic, input, result, uncertainty?, reference?}, facts,
// downloads, meaning }. Layers are images of the result's size, `input` of any; `uncertainty` holds 8 levels to a grey level.

import { COLOURS, drawScale } from "./colour.js";
import { element } from "./dom.js";

const VIEWS = { slider: "Slider", side: "Side by side", difference: "Difference", error: "Error map" };
const LEFT = { bicubic: "bicubic", input: "input pixels", reference: "reference" };
const ZOOMS = { Fit: 0, "1:1": 1, "2:1": 2, "4:1": 4 };
const LEVELS_PER_GREY = 8, ZOOM_MAX = 64, GRIP = 24;

class RetinaViewer extends HTMLElement {
  connectedCallback() {
    if (this.shadowRoot) return;
    this.attachShadow({ mode: "open" });
    this.resized = new ResizeObserver(() => this.draw());
    this.clear();
  }

  /** Back to the empty frame. */
  clear(text = "Choose photographs, or take the sample, and press Upscale.") {
    this.photo = undefined;
    this.removeAttribute("stale");
    this.resized.disconnect();
    this.shadowRoot.replaceChildren(this.sheet(), element("div", { className: "empty stage" }, text));
  }

  /** Shows a result, fitted to the frame. */
  show(photo) {
    this.photo = photo;
    this.removeAttribute("stale");
    this.state = { view: "slider", left: "bicubic", split: 0.5, red: false, overlay: false, opacity: 0.6, full: 8, zoom: 0,
      x: photo.size[0] / 2, y: photo.size[1] / 2 };
    this.build();
    this.update();
    this.resized.disconnect();
    this.resized.observe(this.canvas);
  }

  sheet() { return element("link", { rel: "stylesheet", href: new URL("viewer.css", import.meta.url).href }); }

  // -- controls ----------------------------------------------------------------------------------------------------

  build() {
    const { layers } = this.photo;
    this.buttons = {};
    const toggle = (id, text, act) => {
      this.buttons[id] = element("button", { type: "button", id, onclick: () => { act(); this.update(); } }, text);
      return this.buttons[id];
    };
    const views = Object.entries(VIEWS).filter(([id]) => id !== "error" || layers.reference)
      .map(([id, text]) => toggle(id, text, () => { this.state.view = id; }));
    this.left = element("select", { id: "left", attributes: { "aria-label": "Compared with" },
      onchange: () => { this.state.left = this.left.value; this.update(); } },
      ...Object.entries(LEFT).filter(([id]) => layers[id]).map(([value, text]) => element("option", { value }, text)));
    const zooms = Object.entries(ZOOMS).map(([text, zoom]) => toggle(`zoom-${zoom}`, text, () => this.zoomTo(zoom)));
    const red = toggle("red", "Red-free", () => { this.state.red = !this.state.red; });
    const overlay = toggle("overlay", "Uncertainty", () => { this.state.overlay = !this.state.overlay; });
    overlay.hidden = !layers.uncertainty;
    const range = (id, text, min, max, step) => element("label", {}, text, element("input", { type: "range", id, min, max, step,
      value: this.state[id], oninput: event => { this.state[id] = +event.target.value; this.update(); } }));
    this.opacity = range("opacity", "opacity", 0, 1, 0.05);
    this.full = range("full", "full scale", 1, 31, 1);
    this.canvas = element("canvas", { tabIndex: 0, attributes: { role: "img", "aria-label":
      `${this.photo.name}: comparison of input and result; arrow keys move the divider, plus and minus zoom` } });
    this.legend = element("span", { className: "legend", id: "legend" });
    this.zoomText = element("span");
    this.listen();
    this.shadowRoot.replaceChildren(this.sheet(),
      element("div", { className: "bar" }, ...views, element("span", {}, "against"), this.left, ...zooms, red, overlay),
      element("div", { className: "stage" }, this.canvas),
      element("div", { className: "foot" }, this.zoomText, this.opacity, this.full, this.legend),
      element("div", { className: "save" }, ...this.photo.downloads.map(({ text, href, name, onclick = null }) =>
        element("a", { href, download: name, onclick }, text))),
      element("table", {}, ...this.photo.facts.map(([name, value]) =>
        element("tr", {}, element("th", { scope: "row" }, name), element("td", {}, String(value))))));
  }

  /** Brings the controls in line with the state, and draws. */
  update() {
    const { view, red, overlay, full } = this.state;
    for (const id of Object.keys(VIEWS)) this.buttons[id]?.setAttribute("aria-pressed", view === id);
    this.buttons.red.setAttribute("aria-pressed", red);
    this.buttons.overlay.setAttribute("aria-pressed", overlay);
    const map = overlay || view === "difference" || view === "error";
    this.opacity.hidden = !overlay;
    this.full.hidden = this.legend.hidden = !map;
    const scale = element("canvas");
    drawScale(scale);
    const what = overlay ? this.photo.meaning : view === "error" ? "error against the reference" : "difference";
    this.legend.replaceChildren(`${what}: 0`, scale, `${full} grey levels of 255`);
    this.draw();
  }

  // -- drawing -----------------------------------------------------------------------------------------------------

  fit() {
    const width = this.state.view === "side" ? this.canvas.width / 2 : this.canvas.width;
    return Math.min(width / this.photo.size[0], this.canvas.height / this.photo.size[1]);
  }

  zoomTo(zoom) {
    this.state.zoom = zoom * devicePixelRatio;
    [this.state.x, this.state.y] = this.photo.size.map(side => side / 2);
  }

  draw() {
    if (!this.photo) return;
    const { canvas, state, photo } = this, ratio = devicePixelRatio;
    const width = Math.round(canvas.clientWidth * ratio), height = Math.round(canvas.clientHeight * ratio);
    if (!width || !height) return;
    if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
    this.scale = state.zoom || this.fit();
    const context = canvas.getContext("2d"), side = state.view === "side", pane = side ? width >> 1 : width;
    context.fillStyle = "#000";
    context.fillRect(0, 0, width, height);
    const against = state.view === "error" ? "reference" : state.left;
    const left = this.paint(photo.layers[against], pane, against === "input"), right = this.paint(photo.layers.result, pane);
    if (state.red) [left, right].forEach(greenOnly);
    if (state.view === "difference" || state.view === "error") colourDifference(right, left, state.full);
    if (state.overlay) colourMap(right, this.paint(photo.layers.uncertainty, pane), state.full, state.opacity);
    if (side) {
      context.drawImage(left.canvas, 0, 0);
      context.drawImage(right.canvas, pane, 0);
      context.fillStyle = "#555";
      context.fillRect(pane - 1, 0, 2, height);
    } else if (state.view === "slider") {
      this.drawDivided(context, left.canvas, right.canvas, width, height, ratio);
    } else {
      context.drawImage(right.canvas, 0, 0);
    }
    if (side || state.view === "slider") {
      tag(context, LEFT[against], 10 * ratio, 8 * ratio, ratio, "left");
      tag(context, "RetinaShift", width - 10 * ratio, 8 * ratio, ratio, "right");
    }
    const caption = `${photo.name}  ${photo.size.join(" x ")}`;
    tag(context, caption, 10 * ratio, height - 30 * ratio, ratio, "left");
    this.zoomText.textContent = `zoom ${(this.scale / ratio).toFixed(2)} : 1`;
    this.dataset.shown = photo.name;
  }

  drawDivided(context, left, right, width, height, ratio) {
    const cut = Math.round(this.state.split * width);
    if (cut) context.drawImage(left, 0, 0, cut, height, 0, 0, cut, height);
    if (cut < width) context.drawImage(right, cut, 0, width - cut, height, cut, 0, width - cut, height);
    context.fillStyle = "#e6e8ea";
    context.fillRect(cut - ratio, 0, 2 * ratio, height);
    context.beginPath();
    context.arc(cut, height / 2, 13 * ratio, 0, 7);
    context.fill();
    context.fillStyle = "#222";
    context.font = `${15 * ratio}px sans-serif`;
    context.textAlign = "center";
    context.fillText("\u2194", cut, height / 2 + 5 * ratio);
  }

  /** A layer at the present zoom, as the context of a canvas of the pane's size. */
  paint(image, width, pixelated = false) {
    const { canvas, scale, state, photo } = this;
    const context = new OffscreenCanvas(width, canvas.height).getContext("2d", { willReadFrequently: true });
    context.imageSmoothingEnabled = scale < 1 && !pixelated;
    context.imageSmoothingQuality = "high";
    context.drawImage(image, width / 2 - state.x * scale, canvas.height / 2 - state.y * scale,
      photo.size[0] * scale, photo.size[1] * scale);
    return context;
  }

  // -- pointers, wheel, keys ---------------------------------------------------------------------------------------

  listen() {
    const { canvas } = this, down = new Map();
    let grip = false, gap = 0;
    const place = event => {
      const box = canvas.getBoundingClientRect();
      return [(event.clientX - box.left) * devicePixelRatio, (event.clientY - box.top) * devicePixelRatio];
    };
    canvas.onpointerdown = event => {
      canvas.setPointerCapture(event.pointerId);
      const at = place(event);
      down.set(event.pointerId, at);
      gap = 0;
      grip = this.state.view === "slider" && down.size === 1
        && Math.abs(at[0] - this.state.split * canvas.width) < GRIP * devicePixelRatio;
    };
    canvas.onpointermove = event => {
      if (!down.has(event.pointerId)) return;
      const at = place(event), before = down.get(event.pointerId);
      down.set(event.pointerId, at);
      if (down.size === 2) {
        const [one, two] = [...down.values()], now = Math.hypot(one[0] - two[0], one[1] - two[1]);
        if (gap) this.zoomBy(now / gap, (one[0] + two[0]) / 2, (one[1] + two[1]) / 2);
        gap = now;
      } else if (grip) {
        this.divideAt(at[0] / canvas.width);
      } else {
        this.state.x -= (at[0] - before[0]) / this.scale;
        this.state.y -= (at[1] - before[1]) / this.scale;
        this.draw();
      }
    };
    canvas.onpointerup = canvas.onpointercancel = event => { down.delete(event.pointerId); gap = 0; };
    canvas.addEventListener("wheel", event => {
      event.preventDefault();
      this.zoomBy(Math.exp(-event.deltaY / 400), ...place(event));
    }, { passive: false });
    canvas.onkeydown = event => {
      const move = { ArrowLeft: -0.02, ArrowRight: 0.02 }[event.key], zoom = { "+": 1.25, "=": 1.25, "-": 0.8 }[event.key];
      if (move) this.divideAt(this.state.split + move);
      else if (zoom) this.zoomBy(zoom, canvas.width / 2, canvas.height / 2);
      else return;
      event.preventDefault();
    };
  }

  divideAt(share) {
    this.state.split = Math.min(1, Math.max(0, share));
    this.draw();
  }

  zoomBy(factor, x, y) {
    const { canvas, state } = this, pane = state.view === "side" ? canvas.width / 2 : canvas.width;
    const zoom = Math.min(ZOOM_MAX, Math.max(this.fit() / 2, this.scale * factor));
    state.x += (x % pane - pane / 2) * (1 / this.scale - 1 / zoom);
    state.y += (y - canvas.height / 2) * (1 / this.scale - 1 / zoom);
    state.zoom = zoom;
    this.draw();
  }
}

/** Calls `change(data, i)` for every pixel that is there, and writes the result back. */
function eachPixel(context, change) {
  const { width, height } = context.canvas, image = context.getImageData(0, 0, width, height), { data } = image;
  for (let i = 0; i < data.length; i += 4) if (data[i + 3]) change(data, i);
  context.putImageData(image, 0, 0);
}

function greenOnly(context) { eachPixel(context, (data, i) => { data[i] = data[i + 2] = data[i + 1]; }); }

function pixelsOf(context) { return context.getImageData(0, 0, context.canvas.width, context.canvas.height).data; }

/** Blends the colour of `level` grey levels into a pixel. */
function tint(data, i, level, full, opacity) {
  const colour = COLOURS[Math.min(255, Math.floor(level / full * 255))];
  for (let c = 0; c < 3; c++) data[i + c] += (colour[c] - data[i + c]) * opacity;
}

function colourDifference(context, other, full) {
  const there = pixelsOf(other);
  eachPixel(context, (data, i) => {
    const level = (Math.abs(data[i] - there[i]) + Math.abs(data[i + 1] - there[i + 1]) + Math.abs(data[i + 2] - there[i + 2])) / 3;
    tint(data, i, level, full, 1);
  });
}

function colourMap(context, map, full, opacity) {
  const levels = pixelsOf(map);
  eachPixel(context, (data, i) => tint(data, i, levels[i] / LEVELS_PER_GREY, full, opacity));
}

function tag(context, text, x, y, ratio, align) {
  context.font = `${13 * ratio}px system-ui,sans-serif`;
  context.textAlign = align;
  const width = context.measureText(text).width + 12 * ratio;
  context.fillStyle = "rgba(0,0,0,.65)";
  context.fillRect(align === "left" ? x - 6 * ratio : x - width + 6 * ratio, y, width, 22 * ratio);
  context.fillStyle = "#e6e8ea";
  context.fillText(text, x, y + 15 * ratio);
}

customElements.define("retina-viewer", RetinaViewer);
