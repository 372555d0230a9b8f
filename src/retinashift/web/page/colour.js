// The colour map of differences and uncertainty: dark to light in one direction, so that it survives print and colour blindness.

const STOPS = [[0, 0, 4], [66, 10, 104], [147, 38, 103], [221, 81, 58], [252, 165, 10], [252, 255, 164]];

/** 256 colours [r, g, b], from no difference to full scale. */
export const COLOURS = Array.from({ length: 256 }, (_, i) => {
  const position = i / 51, low = Math.min(4, Math.floor(position)), share = position - low;
  return STOPS[low].map((value, channel) => Math.round(value + (STOPS[low + 1][channel] - value) * share));
});

/** Draws the scale into a canvas, dark (0) at the left. */
export function drawScale(canvas) {
  canvas.width = 256; canvas.height = 1;
  const context = canvas.getContext("2d"), image = context.createImageData(256, 1);
  COLOURS.forEach((colour, i) => image.data.set([...colour, 255], 4 * i));
  context.putImageData(image, 0, 0);
}
