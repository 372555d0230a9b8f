"""The method tab: the schedule for chosen kappa, p and T, and the chain of the current photograph as a strip."""

from __future__ import annotations

import base64
import html
import threading
from pathlib import Path
from typing import Any

import numpy as np

from retinashift.imaging.failures import explain
from retinashift.imaging.figures.plot import draw_curves
from retinashift.imaging.files import read_image
from retinashift.imaging.formats.png import encode_png
from retinashift.imaging.photograph import Photograph
from retinashift.web.model import Cancelled, Model
from retinashift.web.shelf import Shelf
from retinashift.web.views import as_shown

STRIP_SIDE = 64
"""Input pixels of the piece that the strip shows."""
NOTE = (
    "The chain starts at x_T: the bicubic enlargement y0, and noise on it. Each step estimates x0, then shifts a part "
    "of the residual y0 - x0 away and draws less noise, down to x0. kappa, p and T above are for the curve; the strip "
    "is drawn with those of the checkpoint."
)
_LOOKED_AT = """(files, _, seed) => { const v = document.querySelector("retina-viewer");
  return [files, v && v.photo ? `${v.job.token}/${v.photo.number}` : "", seed]; }"""


def build_method(model: Model, shelf: Shelf, files: Any, seed: Any, sample: Path) -> None:
    """Add the tab to the Blocks that is open.

    Args:
        files, seed: components of the first tab.
        sample: a photograph for those who have none yet.
    """
    import gradio as gr

    with gr.Tab("Method") as tab:
        with gr.Row():
            kappa = gr.Slider(0.02, 4, 2.0, step=0.02, label="kappa: strength of the noise")
            power = gr.Slider(0.1, 3, 0.3, step=0.1, label="p: small values shift early")
            steps = gr.Slider(2, 50, 15, step=1, label="T: steps")
        with gr.Row():
            with gr.Column(scale=3, min_width=420):
                curve = gr.HTML()
            with gr.Column(scale=2, min_width=300):
                gr.HTML(f'<div class="rs-note">{NOTE}</div>')
                draw = gr.Button("Show the chain of the current photograph", elem_id="chain")
        strip, looked_at = gr.HTML(), gr.Textbox(visible=False)
        private: Any = {"api_visibility": "private", "show_progress": "hidden"}
        tab.select(schedule_picture, [kappa, power, steps], curve, **private)  # not before: it needs torch
        for control in (kappa, power, steps):
            control.change(schedule_picture, [kappa, power, steps], curve, trigger_mode="always_last", **private)

        def show(dropped: list[str] | None, looked_at: str, seed: float) -> str:
            """Of the photograph in the viewer, else of the first that was dropped, else of the sample."""
            token, _, number = looked_at.partition("/")
            photo = shelf.photo(token, number)
            if photo is not None:
                return chain_strip(model, shelf.jobs / token / number / "input.png", photo["name"], int(seed))
            file = Path(dropped[0]) if dropped else sample
            return chain_strip(model, file, file.name, int(seed))

        draw.click(show, [files, looked_at, seed], strip, js=_LOOKED_AT, **private)


def schedule_picture(kappa: float, power: float, steps: float) -> str:
    """The curve of sqrt(eta) and eta as an HTML picture, or what is wrong with the numbers."""
    from retinashift.diffusion.schedule import sqrt_eta_schedule

    try:
        sqrt_eta = sqrt_eta_schedule(int(steps), kappa=float(kappa), power=float(power))
    except (ValueError, TypeError) as error:
        return f'<div class="rs-note rs-bad" role="alert">{html.escape(str(error))}</div>'
    curves = {"sqrt(eta_t)": sqrt_eta.tolist(), "eta_t, the share of the residual": (sqrt_eta**2).tolist()}
    pixels = draw_curves(curves, across=f"step t  (kappa {kappa:g}, p {power:g})")
    return _picture(pixels, "schedule", "max-width:min(860px,72vh);width:100%")


def chain_strip(model: Model, file: Path, name: str, seed: int) -> str:
    """The frames of `draw_chain` for the middle of a photograph, as HTML; or one line of what is wrong."""
    try:
        with model.turn(model.join(), threading.Event()):
            pipeline = model.pipeline()
            from retinashift.web.chain import draw_chain

            frames = draw_chain(pipeline, _middle(as_shown(read_image(file).pixels)), seed)
            settings, sigma = pipeline.scheduler.config, pipeline.scheduler.init_noise_sigma
    except (Exception, Cancelled) as error:
        text = "the page ends" if isinstance(error, Cancelled) else explain(error).text.replace(str(file), name)
        return f'<div class="rs-note rs-bad" role="alert">{html.escape(text)}</div>'
    cells = "".join(
        f'<figure style="margin:0;flex:0 0 190px">{_picture(frame.pixels, frame.name, "width:190px")}'
        f'<figcaption class="rs-note">{frame.name}</figcaption></figure>'
        for frame in frames
    )
    note = f"{name}, the middle, the whole chain, seed {seed}, kappa {settings.kappa:g}, p {settings.power:g}"
    if pipeline.codec is None:
        note += f"; noise of the start: {127.5 * sigma:.1f} grey levels; without back-projection"
    return (
        f'<div class="rs-note">{html.escape(note)}</div>'
        f'<div id="strip" style="display:flex;gap:10px;overflow-x:auto">{cells}</div>'
    )


def _middle(pixels: np.ndarray) -> np.ndarray:
    top, left = (max(0, (side - STRIP_SIDE) // 2) for side in pixels.shape[:2])
    return np.ascontiguousarray(pixels[top : top + STRIP_SIDE, left : left + STRIP_SIDE])


def _picture(pixels: np.ndarray, name: str, style: str) -> str:
    data = base64.b64encode(encode_png(Photograph(np.ascontiguousarray(pixels)))).decode()
    return f'<img alt="{html.escape(name)}" style="{style}" src="data:image/png;base64,{data}">'
