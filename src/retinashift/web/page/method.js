// The method: the schedule for any kappa, p and T, and the chain of a photograph, state by state.

import { byId, element } from "./dom.js";

const MIN_NOISE = 0.2, END = 0.99, EDGE = 46;

/** sqrt(eta_t) for t = 0..T-1; ResShift, equations 9 and 10. */
export function sqrtEta(steps, kappa, power) {
  const first = Math.min(MIN_NOISE / kappa, MIN_NOISE), b0 = (END / first) ** (1 / (steps - 1)); // eq. 10
  return Array.from({ length: steps }, (_, t) => first * b0 ** ((t / (steps - 1)) ** power * (steps - 1))); // eq. 9
}

/** Fills the tab. `photograph()` and `seed()` tell what is chosen. */
export function openMethod(engine, photograph, seed) {
  const inputs = ["kappa", "power", "steps"].map(byId);
  const redraw = () => {
    const [kappa, power, steps] = inputs.map(input => Number(input.value));
    if (inputs.every(input => input.checkValidity())) drawSchedule(byId("schedule"), sqrtEta(steps, kappa, power));
  };
  inputs.forEach(input => input.addEventListener("input", redraw));
  redraw();
  byId("chain").hidden = !engine.chain;
  byId("draw-chain").onclick = async () => {
    const note = byId("chain-note");
    byId("strip").replaceChildren();
    try {
      note.textContent = "drawing";
      const strip = await engine.chain(await photograph(), seed(), byId("checkpoint").value);
      note.textContent = strip.note;
      byId("strip").replaceChildren(...strip.frames.map(({ name, picture }) => element("figure", {},
        element("img", { alt: name, src: URL.createObjectURL(picture), onload: event => URL.revokeObjectURL(event.target.src) }),
        element("figcaption", {}, name))));
    } catch (error) {
      note.textContent = error.message;
    }
  };
}

function drawSchedule(canvas, sqrt) {
  const context = canvas.getContext("2d"), { width, height } = canvas;
  const across = t => EDGE + t / (sqrt.length - 1) * (width - 2 * EDGE), up = value => height - EDGE - value * (height - 2 * EDGE);
  context.clearRect(0, 0, width, height);
  context.font = "13px system-ui,sans-serif";
  context.fillStyle = "#aab0b6";
  context.strokeStyle = "#3b4148";
  for (const value of [0, 0.25, 0.5, 0.75, 1]) {
    context.beginPath();
    context.moveTo(EDGE, up(value));
    context.lineTo(width - EDGE, up(value));
    context.stroke();
    context.fillText(value.toFixed(2), 8, up(value) + 4);
  }
  context.fillText("step 1", EDGE, height - 14);
  context.fillText(`step ${sqrt.length}`, width - EDGE - 40, height - 14);
  const curves = [["#7cc4e8", "\u221A\u03B7", sqrt], ["#f2c66d", "\u03B7, the share of the residual", sqrt.map(value => value ** 2)]];
  curves.forEach(([colour, name, values], number) => {
    context.strokeStyle = context.fillStyle = colour;
    context.beginPath();
    values.forEach((value, t) => context[t ? "lineTo" : "moveTo"](across(t), up(value)));
    context.stroke();
    values.forEach((value, t) => values.length <= 30 && context.fillRect(across(t) - 2.5, up(value) - 2.5, 5, 5));
    context.fillText(name, EDGE + 12, 20 + 18 * number);
  });
}
