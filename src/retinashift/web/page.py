"""The page itself: controls at the left, the viewer at the right, a method tab, and the endpoint for programs."""

from __future__ import annotations

import html
import json
import threading
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

from retinashift.imaging.failures import explain
from retinashift.inference.settings import Mode, OutputFormat
from retinashift.web.jobs import JobSettings, run_job
from retinashift.web.method import build_method
from retinashift.web.model import Cancelled, Model
from retinashift.web.settings import PageSettings
from retinashift.web.shelf import Shelf

CSS = """
body,.gradio-container{background:#14171a!important}
.gradio-container{max-width:none!important;padding:0!important}
.gradio-container .main.fillable{padding:8px 16px!important;max-width:none!important}
.gradio-container main{max-width:none!important}
.gradio-container main>.column,.gradio-container .tabitem .column{gap:10px}
.gradio-container .tabitem{padding:10px 0 0!important}
.gradio-container .html-container{padding:0!important}
.gradio-container input[type=range]{--neutral-200:#3b4148;--slider-color:#5b9ab8}
.upload-container .icon-wrap{display:none}
.rs-bar{display:block;height:8px;background:#2a2f35;border-radius:4px;overflow:hidden}
.rs-bar i{display:block;height:100%;background:#5b9ab8;transition:width .2s}
.rs-load{display:inline-block;width:120px;margin-left:10px;vertical-align:middle}
.rs-note{color:#aab0b6;font-size:13px;padding:2px 0}
.rs-bad{color:#f0a38f} footer{display:none!important}
.rs-empty{color:#8b9299;background:#000;border-radius:6px;height:clamp(280px,calc(100vh - 200px),80vw);display:grid;
place-items:center;text-align:center;padding:0 24px}
"""
EMPTY = '<div class="rs-empty">Drop photographs at the left, or take the sample, and press Enlarge.</div>'


def build_page(model: Model, shelf: Shelf, settings: PageSettings, sample: tuple[Path, Path]) -> Any:
    """The gradio Blocks. `sample` is a small photograph and its original."""
    import gradio as gr

    running: defaultdict[str, set[threading.Event]] = defaultdict(set)

    def enlarge(
        files: list[str] | None, mode: Mode, steps: float, seed: float, consistency: bool, samples: float,
        file_format: OutputFormat, reference: str | None, take_sample: bool, request: gr.Request,
    ) -> Iterator[tuple[str, Any]]:  # fmt: skip
        uploads, truth = [Path(f) for f in files or []], Path(reference) if reference else None
        if take_sample:
            uploads, truth = [sample[0]], sample[1]
        try:
            if not uploads:
                raise ValueError("no photograph was given: drop one, or take the sample")
            if len(uploads) > settings.max_files:
                raise ValueError(f"{len(uploads)} photographs are above the limit of {settings.max_files} in one job")
            chosen = JobSettings(mode, _whole(steps), _whole(seed), consistency, _whole(samples), file_format)
        except ValueError as error:
            yield _bad(str(error)), gr.skip()
            return
        session = str(request.session_hash)
        cancelled = threading.Event()
        running[session].add(cancelled)
        token, folder = shelf.new(session)
        state: dict[str, Any] = {"progress": (0.0, "waiting")}

        def work() -> None:
            try:
                state["photos"] = run_job(
                    model, uploads, chosen, folder, lambda f, t: state.update(progress=(f, t)), cancelled, truth
                )
            except Cancelled:
                state["error"] = "cancelled"
            except Exception as error:
                state["error"] = explain(error).text

        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        try:
            shown = None
            while thread.is_alive():
                if shown != state["progress"]:
                    shown = state["progress"]
                    yield _progress(*shown), gr.skip()
                thread.join(0.1)
        finally:
            cancelled.set()  # if the thread lives, the browser has gone
            running[session].discard(cancelled)
        if "photos" not in state:
            shelf.drop(token)
            yield _bad(state.get("error", "the job failed")), gr.skip()
            return
        shelf.finish(token, state["photos"])
        job = html.escape(json.dumps({"token": token, "photos": state["photos"]}))
        yield _progress(1.0, "done"), f'<retina-viewer data-job="{job}"></retina-viewer>'

    def cancel(request: gr.Request) -> None:
        for event in running[str(request.session_hash)].copy():
            event.set()

    def upscale(
        photograph: str, mode: Mode = "faithful", steps: float = 0, seed: float = 0, consistency: bool = True,
        file_format: OutputFormat = "same", samples: float = 0,
    ) -> tuple[str, dict, list[str]]:  # fmt: skip
        """Enlarge one photograph. Returns the image file, what the JSON sidecar holds, and the files of uncertainty."""
        try:
            if not photograph:
                raise ValueError("no photograph was given")
            chosen = JobSettings(mode, _whole(steps), _whole(seed), consistency, _whole(samples), file_format)
            token, folder = shelf.new("api")
            try:
                (photo,) = run_job(model, [Path(photograph)], chosen, folder, lambda *_: None, threading.Event())
                if "error" in photo:
                    raise ValueError(photo["error"])
                sidecar = json.loads((folder / "0" / f"{photo['saved']}.json").read_bytes())
                kept = (photo["saved"], *photo["maps"])
                target, *maps = (str(shelf.for_gradio(folder / "0" / name)) for name in kept)
            finally:
                shelf.drop(token)
        except (ValueError, Cancelled) as error:
            raise gr.Error(str(error) or "the page ends", print_exception=False) from None
        return target, sidecar, maps

    def forget(request: gr.Request) -> None:
        cancel(request)
        running.pop(str(request.session_hash), None)
        shelf.drop_session(str(request.session_hash))

    for handler in (enlarge, cancel, forget):  # gradio looks the class up, and its name is known in here only
        handler.__annotations__["request"] = gr.Request

    with gr.Blocks(title="RetinaShift", analytics_enabled=False, delete_cache=(600, 3600), fill_width=True) as page:
        status = gr.HTML(_status(model))
        with gr.Tab("Look"), gr.Row():
            with gr.Column(scale=1, min_width=270, elem_id="controls"):
                files = gr.File(label="Photographs", file_count="multiple", height=110, elem_id="photographs")
                with gr.Row():
                    go = gr.Button("Enlarge", variant="primary", elem_id="go", min_width=80)
                    stop = gr.Button("Cancel", elem_id="stop", min_width=80)
                take = gr.Button("Use the sample", elem_id="sample")
                mode = gr.Radio(list(get_args(Mode)), value="faithful", label="Mode", elem_id="mode",
                    info="faithful: one step, invents least; realistic: a sample, sharp, partly invented")  # fmt: skip
                with gr.Row():
                    number: Any = {"precision": 0, "minimum": 0, "min_width": 90}
                    steps = gr.Number(0, label="Steps (0: auto)", elem_id="steps", **number)
                    seed = gr.Number(0, label="Seed", **number)
                file_format = gr.Dropdown(list(get_args(OutputFormat)), value="same", label="File type")
                consistency = gr.Checkbox(True, label="In line with the input (consistency)")
                samples = gr.Slider(0, 16, 0, step=1, label="Uncertainty: samples (0: none)", elem_id="samples",
                    info="the result is their mean")  # fmt: skip
                reference = gr.File(label="HR reference (optional)", height=110, elem_id="reference")
            with gr.Column(scale=4, min_width=420):
                progress = gr.HTML(_progress(0.0, "no job yet"), elem_id="progress")
                viewer = gr.HTML(EMPTY)
        build_method(model, shelf, files, seed, sample[0])
        inputs = [files, mode, steps, seed, consistency, samples, file_format, reference]
        private: Any = {"api_visibility": "private", "show_progress": "hidden"}
        no, yes = gr.State(False), gr.State(True)
        go.click(enlarge, [*inputs, no], [progress, viewer], concurrency_limit=settings.max_waiting + 4, **private)
        take.click(enlarge, [*inputs, yes], [progress, viewer], concurrency_limit=settings.max_waiting + 4, **private)
        stop.click(cancel, concurrency_limit=None, **private)  # in the queue too: the door knows no other way in
        timer = gr.Timer(1.0)
        timer.tick(lambda: (_status(model), gr.Timer(active=not model.loaded)), None, [status, timer], **private)
        page.unload(forget)
        photograph, account = gr.File(visible=False), gr.JSON(visible=False)
        result, maps = gr.File(visible=False), gr.File(visible=False, file_count="multiple")
        gr.Button(visible=False).click(
            upscale, [photograph, mode, steps, seed, consistency, file_format, samples], [result, account, maps],
            api_name="upscale", concurrency_limit=settings.max_waiting + 4,
        )  # fmt: skip
    page.queue(max_size=2 * settings.max_waiting, api_open=False)
    return page


def _whole(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value != int(value):
        raise ValueError(f"{value!r} is no whole number")
    return int(value)


def _progress(fraction: float, text: str) -> str:
    return (
        f'<div class="rs-bar" role="progressbar" aria-valuenow="{round(100 * fraction)}">'
        f'<i style="width:{100 * fraction:.1f}%"></i></div><div class="rs-note">{html.escape(text)}</div>'
    )


def _bad(text: str) -> str:
    return f'<div class="rs-note rs-bad" role="alert">{html.escape(text)}</div>'


def _status(model: Model) -> str:
    bar = "" if model.loaded else f'<span class="rs-bar rs-load"><i style="width:{100 * model.share:.0f}%"></i></span>'
    return (
        '<div class="rs-note"><b style="color:#e6e8ea;font-size:17px">RetinaShift</b> &nbsp; for research, not for '
        f'diagnosis &nbsp;·&nbsp; <span id="model">{html.escape(model.status)}</span>{bar}</div>'
    )
