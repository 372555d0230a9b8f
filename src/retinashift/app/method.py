"""The method tab: the schedule for chosen kappa, p and T, and the chain of a photograph as a strip of pictures."""

from __future__ import annotations

import base64
import html
import threading
from pathlib import Path
from typing import Any

import numpy as np

from retinashift.app.model import Model
from retinashift.app.shelf import Shelf
from retinashift.app.views import as_shown
from retinashift.imaging.files import read_image
from retinashift.imaging.photograph import Photograph
from retinashift.imaging.plot import draw_curves
from retinashift.imaging.png import encode_png

STRIP_SIDE = 64
"""Input pixels of the piece that the strip shows."""


def build_method(model: Model, shelf: Shelf) -> None:
    """Add the tab to the Blocks that is open."""
    import gradio as gr

    with gr.Tab("Method"):
        with gr.Row():
            kappa = gr.Slider(0.02, 4, 2.0, step=0.02, label="kappa: strength of the noise")
            power = gr.Slider(0.1, 3, 0.3, step=0.1, label="p: small values shift early")
            steps = gr.Slider(2, 50, 15, step=1, label="T: steps")
        curve = gr.HTML()
        files = gr.File(label="Photograph for the chain", height=100)
        draw = gr.Button("Show the chain from y0 to x0", elem_id="chain")
        strip = gr.HTML()
        private: Any = {"api_visibility": "private"}
        for control in (kappa, power, steps):
            control.release(_curve, [kappa, power, steps], curve, **private)
        gr.Button("Draw the schedule", elem_id="curve").click(_curve, [kappa, power, steps], curve, **private)
        draw.click(lambda file: _strip(model, file), files, strip, **private)


def _curve(kappa: float, power: float, steps: float) -> str:
    from retinashift.diffusion.schedule import sqrt_eta_schedule

    try:
        sqrt_eta = sqrt_eta_schedule(int(steps), kappa=float(kappa), power=float(power))
    except (ValueError, TypeError) as error:
        return html.escape(str(error))
    curves = {"sqrt(eta_t)": sqrt_eta.tolist(), "eta_t, the share of the residual": (sqrt_eta**2).tolist()}
    return _picture(draw_curves(curves, across="step t"), "schedule", "max-width:860px;width:100%")


def _strip(model: Model, file: str | None) -> str:
    """y0, then the state after each step and the estimate of x0 at it, of the middle of the photograph."""
    import torch

    if not file:
        return "Drop a photograph first."
    ticket, frames = model.join(), []
    with model.turn(ticket, threading.Event()):
        pipeline = model.pipeline()
        scheduler, codec = pipeline.scheduler, pipeline.pixel_codec
        if pipeline.codec is not None:
            return "The chain of a checkpoint with a learned codec is not drawn here."
        lr = as_shown(read_image(Path(file)).pixels)
        top, left = max(0, (lr.shape[0] - STRIP_SIDE) // 2), max(0, (lr.shape[1] - STRIP_SIDE) // 2)
        lr = lr[top : top + STRIP_SIDE, left : left + STRIP_SIDE]

        def watch(state: dict[str, Any]) -> None:
            t = int(scheduler.timesteps[state["step"]]) + 1
            for name, key in ((f"x{t - 1}", "x_t"), (f"estimate of x0 at step {t}", "x0")):
                frames.append((name, _pixels(codec.decode(state[key].float()))))

        count = scheduler.config.num_train_timesteps
        pipeline(lr, num_inference_steps=count, generator=torch.Generator().manual_seed(0), callback=watch)
        from retinashift.imaging.degradation import enlarge

        frames.insert(
            0, ("y0, enlarged bicubically", enlarge(np.ascontiguousarray(lr), pipeline.config.scale, "bicubic"))
        )
    cells = "".join(
        f'<figure style="margin:0;flex:0 0 190px">{_picture(pixels, name, "width:190px")}'
        f'<figcaption class="rs-note">{name}</figcaption></figure>'
        for name, pixels in frames
    )
    return f'<div id="strip" style="display:flex;gap:10px;overflow-x:auto">{cells}</div>'


def _pixels(image: Any) -> np.ndarray:
    """(1, 3, H, W) in [-1, 1] -> (H, W, 3) uint8."""
    return ((image[0] / 2 + 0.5).clamp(0, 1) * 255).round().byte().permute(1, 2, 0).cpu().numpy()


def _picture(pixels: np.ndarray, name: str, style: str) -> str:
    data = base64.b64encode(encode_png(Photograph(np.ascontiguousarray(pixels)))).decode()
    return f'<img alt="{html.escape(name)}" style="{style}" src="data:image/png;base64,{data}">'
