// <retina-viewer data-job="...">: looks at a job's pictures on a canvas, pixel by pixel. No library, nothing loaded from elsewhere.
"use strict";
(() => {
const STYLE = `
:host{display:block;container-type:inline-size;color:#d7dade;font:14px/1.4 system-ui,sans-serif}
.bar{display:flex;flex-wrap:wrap;gap:6px 12px;align-items:center;padding:6px 0}
button,select{background:#23272c;color:#e6e8ea;border:1px solid #3b4148;border-radius:5px;padding:5px 10px;font:inherit;min-height:32px;cursor:pointer}
button[aria-pressed=true]{background:#2f5d73;border-color:#5b9ab8}
button:focus-visible,select:focus-visible,input:focus-visible,canvas:focus-visible,a:focus-visible{outline:2px solid #7cc4e8;outline-offset:1px}
label{display:inline-flex;gap:6px;align-items:center}
input[type=range]{width:110px;accent-color:#7cc4e8}
canvas{display:block;width:100%;height:clamp(280px,calc(100vh - 264px),max(280px,100cqw));background:#000;border-radius:6px;touch-action:none;cursor:grab}
.foot{display:flex;flex-wrap:wrap;gap:4px 12px;align-items:center;justify-content:space-between;color:#aab0b6;font-size:13px;padding-top:4px}
.legend{display:inline-flex;gap:6px;align-items:center}.legend i{width:90px;height:10px;border-radius:2px}.foot input[type=range]{width:80px}
table{border-collapse:collapse;margin:8px 0;width:100%}th{text-align:left;font-weight:500;color:#aab0b6;padding:3px 14px 3px 0;white-space:nowrap}
td{padding:3px 14px 3px 0;overflow-wrap:anywhere}.save a{color:#9fd6f2;margin-right:16px}.bad{color:#f0a38f}`;
const LUT = (() => { // black, violet, orange, yellow: dark to light in one direction
  const stops = [[0,0,4],[66,10,104],[147,38,103],[221,81,58],[252,165,10],[252,255,164]], out = [];
  for (let i = 0; i < 256; i++) { const x = i / 51, a = stops[Math.min(4, x | 0)], b = stops[Math.min(5, (x | 0) + 1)], f = x - Math.min(4, x | 0);
    out.push(a.map((v, c) => v + (b[c] - v) * f)); }
  return out; })();
const GRADIENT = "linear-gradient(90deg," + [0,51,102,153,204,255].map(i => `rgb(${LUT[i].map(Math.round)})`) + ")";
const make = (tag, text, props) => Object.assign(document.createElement(tag), text === undefined ? {} : {textContent: text}, props);

const load = src => new Promise((done, fail) => { // not decode(), which waits in a tab that is not looked at
  const i = new Image(); i.onload = () => done(i); i.onerror = fail; i.src = src; });

class Viewer extends HTMLElement {
  static observedAttributes = ["data-job"]; // the next job comes into the same element
  connectedCallback() {
    if (this.shadowRoot) return;
    this.root = this.attachShadow({mode: "open"}); this.resized = new ResizeObserver(() => this.draw()); this.open();
  }
  attributeChangedCallback() { if (this.root) this.open(); }
  open() {
    delete this.dataset.ready; this.photo = this.images = undefined; this.resized.disconnect(); this.root.replaceChildren();
    this.job = JSON.parse(this.dataset.job);
    this.s = {view: "slider", left: "bicubic", split: 0.5, red: false, overlay: "", opacity: 0.6, full: 8, gain: 8, zoom: 0, x: 0, y: 0};
    this.build(); this.show(0); this.resized.observe(this.canvas);
  }
  build() {
    const r = this.root; r.append(make("style", STYLE));
    const bar = make("div", undefined, {className: "bar"});
    const good = this.job.photos.filter(p => !p.error); this.good = good;
    for (const p of this.job.photos.filter(p => p.error)) r.append(make("div", `${p.name}: ${p.error}`, {className: "bad"}));
    if (good.length > 1) { const pick = make("select"); pick.setAttribute("aria-label", "photograph");
      good.forEach((p, i) => pick.append(make("option", p.name, {value: i}))); pick.onchange = () => this.show(+pick.value); bar.append(pick); }
    this.views = {};
    for (const [v, text] of [["slider","Slider"],["side","Side by side"],["difference","Difference"],["error","Error map"]]) {
      const b = make("button", text, {id: v}); b.onclick = () => { this.s.view = v; this.sync(); }; this.views[v] = b; bar.append(b); }
    this.left = make("select", undefined, {id: "left"}); this.left.setAttribute("aria-label", "compared with");
    this.left.onchange = () => { this.s.left = this.left.value; this.sync(); }; bar.append(make("span", "against"), this.left);
    for (const [text, z] of [["Fit",0],["1:1",1],["2:1",2],["4:1",4]]) { const b = make("button", text, {id: "z" + z});
      b.onclick = () => { this.zoomTo(z); }; bar.append(b); }
    this.red = make("button", "Red-free", {id: "red"}); this.red.onclick = () => { this.s.red = !this.s.red; this.sync(); }; bar.append(this.red);
    this.over = make("button", "Uncertainty", {id: "overlay"});
    this.over.onclick = () => { this.s.overlay = this.s.overlay ? "" : "uncertainty"; this.sync(); }; bar.append(this.over);
    const range = (id, text, key, min, max, step) => { const l = make("label", text), i = make("input", undefined, {type: "range", id, min, max, step, value: this.s[key]});
      i.oninput = () => { this.s[key] = +i.value; this.sync(); }; l.append(i); return l; };
    this.opacity = range("opacity", "opacity", "opacity", 0, 1, 0.05);
    this.full = range("full", "full scale", "full", 1, 31, 1);
    r.append(bar);
    this.canvas = make("canvas", undefined, {tabIndex: 0}); this.canvas.setAttribute("role", "img"); r.append(this.canvas);
    this.foot = make("div", undefined, {className: "foot"}); this.read = make("span", "\u00a0"); this.legend = make("span", undefined, {className: "legend", id: "legend"});
    this.foot.append(this.read, this.opacity, this.full, this.legend); r.append(this.foot);
    this.table = make("table"); this.save = make("div", undefined, {className: "save"}); r.append(this.save, this.table);
    this.pointers(); this.canvas.onkeydown = e => { const d = {ArrowLeft: -0.02, ArrowRight: 0.02}[e.key];
      if (d) { this.s.split = Math.min(1, Math.max(0, this.s.split + d)); e.preventDefault(); this.draw(); } };
  }
  async show(n) {
    const p = this.photo = this.good[n]; if (!p) { this.canvas.hidden = true; return; }
    const base = `result/${this.job.token}/${p.number}-`, images = {};
    this.left.replaceChildren(...[["bicubic","bicubic"],["input","input pixels"],["reference","reference"]].filter(([v]) => p.layers.includes(v)).map(([v, t]) => make("option", t, {value: v})));
    try { await Promise.all(p.layers.map(async name => { images[name] = await load(base + name + ".png"); })); }
    catch { if (this.photo === p) this.root.append(make("div", `${p.name}: its pictures could not be fetched; enlarge it again`, {className: "bad"})); return; }
    if (this.photo !== p) return;
    this.images = images; const a = p.provenance, rows = [["sizes", `${p.input} to ${p.output}`], ["seconds", p.seconds],
      ["consistency", a.consistency_db === null ? "exact" : `${a.consistency_db} dB: the result reduced again, against the input`]];
    if (p.quality && p.quality.error) rows.push(["reference", p.quality.error]);
    else if (p.quality) for (const [k, q] of Object.entries(p.quality)) rows.push([k === "result" ? "RetinaShift" : k, `PSNR ${q.psnr} dB (RGB), SSIM ${q.ssim} (luma); field of view, 8 bit`]);
    rows.push(["provenance", `RetinaShift ${a.versions.retinashift}, checkpoint ${a.checkpoint.slice(0, 12)}, ${a.ensemble > 1 ? `mean of ${a.ensemble} samples of ` : ""}${a.steps} step${a.steps > 1 ? "s" : ""}${"detail_gain" in a.options ? `, realistic (detail times ${a.options.detail_gain})` : ""}, seed ${a.seed}, back-projections ${a.back_projections}, ${a.device}`]);
    if (a.input_was_super_resolved) rows.push(["mind", "the input was a result of super-resolution itself"]);
    this.table.replaceChildren(...rows.map(([k, v]) => { const tr = make("tr"); tr.append(make("th", k), make("td", String(v))); return tr; }));
    const link = (text, href, name) => make("a", text, {href, download: name});
    this.save.replaceChildren(link("Download image", base + p.saved, p.saved), link("Sidecar (JSON)", base + p.saved + ".json", p.saved + ".json"),
      ...p.maps.map((name, i) => link(["Uncertainty (TIFF)", "Uncertainty (PNG)", "Uncertainty (DICOM)"][i], base + name, name)),
      link("Report", base + "report.html", p.saved + ".html"), link("All as zip", `result/${this.job.token}/all.zip`, "retinashift.zip"));
    this.zoomTo(0); this.sync(); this.dataset.ready = "1";
  }
  sync() {
    const s = this.s, p = this.photo; if (!p) return;
    for (const [v, b] of Object.entries(this.views)) b.setAttribute("aria-pressed", s.view === v);
    this.views.error.hidden = !p.layers.includes("error"); this.over.hidden = !p.layers.includes("uncertainty");
    this.red.setAttribute("aria-pressed", s.red); this.over.setAttribute("aria-pressed", !!s.overlay);
    const map = s.overlay || s.view === "difference" || s.view === "error";
    this.opacity.hidden = !s.overlay; this.opacity.style.display = s.overlay ? "" : "none"; this.full.style.display = map ? "" : "none";
    this.legend.replaceChildren(); if (map) { const i = make("i"); i.style.background = GRADIENT;
      const what = s.overlay ? p.meaning : s.view === "error" ? "error" : "difference";
      this.legend.append(make("span", what + " 0"), i, make("span", `${s.full} grey levels of 255`)); }
    this.draw();
  }
  fit() { const c = this.canvas, w = this.s.view === "side" ? c.width / 2 : c.width; return Math.min(w / this.photo.size[0], c.height / this.photo.size[1]); }
  zoomTo(z) { const d = devicePixelRatio; this.s.zoom = z * d; this.s.x = this.photo.size[0] / 2; this.s.y = this.photo.size[1] / 2; this.draw(); }
  paint(name, width, mid) { // a layer in the present view, as an offscreen context of the canvas' size
    const c = this.canvas, o = new OffscreenCanvas(width, c.height).getContext("2d", {willReadFrequently: true}), z = this.z, i = this.images[name], [w, h] = this.photo.size;
    o.imageSmoothingEnabled = z < 1 && name !== "input"; o.imageSmoothingQuality = "high";
    o.drawImage(i, mid - this.s.x * z, c.height / 2 - this.s.y * z, w * z, h * z); return o;
  }
  draw() {
    const c = this.canvas, s = this.s; if (!this.images || !this.photo) return;
    const d = devicePixelRatio, W = Math.round(c.clientWidth * d), H = Math.round(c.clientHeight * d); if (!W || !H) return;
    if (c.width !== W || c.height !== H) { c.width = W; c.height = H; }
    this.z = s.zoom || this.fit(); const g = c.getContext("2d"); g.fillStyle = "#000"; g.fillRect(0, 0, W, H);
    const side = s.view === "side", w = side ? W >> 1 : W, mid = w / 2, a = this.paint(s.left, w, mid), b = this.paint("result", w, mid);
    if (s.red) for (const o of [a, b]) this.each(o, w, H, (q, i) => { q[i] = q[i + 2] = q[i + 1]; });
    if (s.view === "difference") { const u = a.getImageData(0, 0, w, H).data; this.each(b, w, H, (q, i) =>
      this.tint(q, i, (Math.abs(q[i] - u[i]) + Math.abs(q[i + 1] - u[i + 1]) + Math.abs(q[i + 2] - u[i + 2])) / 3, 1)); }
    if (s.view === "error" && this.images.error) { const u = this.paint("error", w, mid).getImageData(0, 0, w, H).data; this.each(b, w, H, (q, i) => this.tint(q, i, u[i] / 8, 1)); }
    if (s.overlay && this.images.uncertainty) { const u = this.paint("uncertainty", w, mid).getImageData(0, 0, w, H).data; this.each(b, w, H, (q, i) => this.tint(q, i, u[i] / 8, s.opacity)); }
    const cut = Math.round(s.split * w);
    if (side) { g.drawImage(a.canvas, 0, 0); g.drawImage(b.canvas, w, 0); g.fillStyle = "#555"; g.fillRect(w - 1, 0, 2, H); }
    else if (s.view === "slider") { if (cut) g.drawImage(a.canvas, 0, 0, cut, H, 0, 0, cut, H); if (cut < w) g.drawImage(b.canvas, cut, 0, w - cut, H, cut, 0, w - cut, H);
      g.fillStyle = "#e6e8ea"; g.fillRect(cut - d, 0, 2 * d, H); g.beginPath(); g.arc(cut, H / 2, 13 * d, 0, 7); g.fill(); g.fillStyle = "#222"; g.font = `${15 * d}px sans-serif`; g.textAlign = "center"; g.fillText("↔", cut, H / 2 + 5 * d); }
    else g.drawImage(b.canvas, 0, 0);
    if (s.view === "slider" || side) { this.tag(g, this.left.selectedOptions[0].textContent, 10 * d, d, "left"); this.tag(g, "RetinaShift", W - 10 * d, d, "right"); }
    this.read.textContent = `zoom ${(this.z / d).toFixed(2)} : 1`;
  }
  tag(g, text, x, d, align) { g.font = `${13 * d}px system-ui,sans-serif`; g.textAlign = align; const w = g.measureText(text).width + 12 * d;
    g.fillStyle = "rgba(0,0,0,.6)"; g.fillRect(align === "left" ? x - 6 * d : x - w + 6 * d, 8 * d, w, 22 * d); g.fillStyle = "#e6e8ea"; g.fillText(text, x, 23 * d); }
  each(o, w, h, change) { const m = o.getImageData(0, 0, w, h), q = m.data; for (let i = 0; i < q.length; i += 4) if (q[i + 3]) change(q, i); o.putImageData(m, 0, 0); }
  tint(q, i, level, opacity) { const c = LUT[Math.min(255, level / this.s.full * 255) | 0]; for (let k = 0; k < 3; k++) q[i + k] += (c[k] - q[i + k]) * opacity; }
  pointers() {
    const c = this.canvas, down = new Map(); let grip = false, gap = 0; const at = e => { const r = c.getBoundingClientRect(), d = devicePixelRatio; return [(e.clientX - r.left) * d, (e.clientY - r.top) * d]; };
    c.onpointerdown = e => { c.setPointerCapture(e.pointerId); const p = at(e); down.set(e.pointerId, p); gap = 0;
      grip = this.s.view === "slider" && down.size === 1 && Math.abs(p[0] - this.s.split * c.width) < 24 * devicePixelRatio; };
    c.onpointermove = e => { if (!down.has(e.pointerId)) return; const p = at(e), q = down.get(e.pointerId); down.set(e.pointerId, p);
      if (down.size === 2) { const [u, v] = [...down.values()], n = Math.hypot(u[0] - v[0], u[1] - v[1]); if (gap) this.scale(n / gap, (u[0] + v[0]) / 2, (u[1] + v[1]) / 2); gap = n; }
      else if (grip) { this.s.split = Math.min(1, Math.max(0, p[0] / c.width)); this.draw(); }
      else { this.s.x -= (p[0] - q[0]) / this.z; this.s.y -= (p[1] - q[1]) / this.z; this.draw(); } };
    c.onpointerup = c.onpointercancel = e => { down.delete(e.pointerId); gap = 0; };
    c.addEventListener("wheel", e => { e.preventDefault(); this.scale(Math.exp(-e.deltaY / 400), ...at(e)); }, {passive: false});
  }
  scale(f, px, py) { const c = this.canvas, w = this.s.view === "side" ? c.width / 2 : c.width, z = Math.min(64, Math.max(this.fit() / 2, this.z * f)); px = px % w;
    this.s.x += (px - w / 2) * (1 / this.z - 1 / z); this.s.y += (py - c.height / 2) * (1 / this.z - 1 / z); this.s.zoom = z; this.draw(); }
}
customElements.define("retina-viewer", Viewer);
})();
