"""Serving the page: a private folder, gradio behind the door, and nothing left when it ends."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import tempfile
from collections.abc import Callable
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from retinashift.web.door import Application, Door, Receive, Scope, Send, answer
from retinashift.web.model import Model
from retinashift.web.settings import PageSettings
from retinashift.web.shelf import Shelf
from retinashift.web.starting import Starting

_KINDS = {
    ".png": "image/png",
    ".json": "application/json",
    ".html": "text/html; charset=utf-8",
    ".zip": "application/zip",
}


def serve(settings: PageSettings, on_start: Callable[[str], None]) -> None:
    """Serve until interrupted. The port answers at once; the page takes its place when gradio is loaded.

    Args:
        settings: address and limits.
        on_start: called with the page's address once something answers there.

    Raises:
        ValueError: gradio is not installed. OSError: the port is taken.
    """
    if find_spec("gradio") is None:
        raise ValueError("the page needs gradio; pip install 'retinashift[app]'")
    listener = _listen(settings)
    root = Path(tempfile.mkdtemp(prefix="retinashift-page-"))  # mode 0700
    model = Model(settings.checkpoint, settings.device, settings.max_waiting)
    try:
        shelf = Shelf(root)
        _keep_gradio_quiet(shelf)
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # uvicorn raises the signal again at its end
        try:
            asyncio.run(_serve(listener, model, shelf, settings, on_start))
        except KeyboardInterrupt:
            pass
        finally:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)  # a second one must not stop the cleaning
            signal.signal(signal.SIGINT, signal.SIG_IGN)
    finally:
        listener.close()
        model.close()
        shelf.close()


async def _serve(
    listener: socket.socket, model: Model, shelf: Shelf, settings: PageSettings, on_start: Callable[[str], None]
) -> None:
    import uvicorn

    class Server(uvicorn.Server):
        async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
            logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)  # streams of open pages are cut off
            await super().shutdown(sockets)

    starting = Starting()

    async def check(file: Path) -> None:
        await asyncio.to_thread(_check_photograph, file, settings.max_pixels)

    door = Door(starting, settings, shelf.uploads, check, shelf.stored)
    config = uvicorn.Config(door, log_level="error", access_log=False, timeout_graceful_shutdown=1,
        server_header=False, lifespan="off")  # fmt: skip
    server = Server(config)
    serving = asyncio.ensure_future(server.serve(sockets=[listener]))
    while not server.started and not serving.done():
        await asyncio.sleep(0.01)
    if server.started:
        host, port = listener.getsockname()[:2]
        on_start(f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/")
    building = asyncio.ensure_future(asyncio.to_thread(_build, model, shelf, settings, starting))
    await asyncio.wait([serving, building], return_when=asyncio.FIRST_COMPLETED)
    try:
        if not serving.done():
            inside = building.result()
            async with inside.router.lifespan_context(inside):
                door.inside = _with_results(inside, shelf)
                model.start()
                await serving
    finally:
        server.should_exit = True
        await asyncio.wait([serving, building])


def _build(model: Model, shelf: Shelf, settings: PageSettings, starting: Starting) -> Any:
    """gradio's page as a FastAPI application, whose life spans that of the page."""
    starting.stage = 1
    import gradio as gr
    from fastapi import FastAPI

    starting.stage = 2
    from retinashift.web.page import CSS, build_page

    blocks = build_page(model, shelf, settings, _write_sample(shelf.root))
    starting.stage = 3
    theme = gr.themes.Base(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"])
    return gr.mount_gradio_app(
        FastAPI(docs_url=None, redoc_url=None, openapi_url=None),
        blocks,
        path="/",
        server_name=settings.host,
        server_port=settings.port,
        footer_links=[],
        run_history=False,
        allowed_paths=[],
        show_error=False,
        max_file_size=settings.max_upload,
        ssr_mode=False,
        enable_monitoring=False,
        pwa=False,
        mcp_server=False,
        theme=theme,
        css=CSS,
        js="() => document.body.classList.add('dark')",
        head='<script src="page/viewer.js" defer></script>',
    )


def _with_results(inside: Application, shelf: Shelf) -> Application:
    """gradio's page, the viewer's script, and the results."""
    script = (files("retinashift.web") / "static" / "viewer.js").read_text(encoding="utf-8")

    async def routed(scope: Scope, receive: Receive, send: Send) -> None:
        path = scope.get("path", "")
        if path == "/page/viewer.js":
            await answer(send, 200, script, "text/javascript")
        elif path.startswith("/result/"):
            await _result(shelf, path, send)
        else:
            await inside(scope, receive, send)

    return routed


async def _result(shelf: Shelf, path: str, send: Send) -> None:
    _, _, token, name = path.split("/")
    data = await asyncio.to_thread(shelf.find, token, name)
    if data is None:
        await answer(send, 404, "there is no such result (results end with the page)")
        return
    kind = _KINDS.get(Path(name).suffix, "application/octet-stream").encode()
    policy = b"default-src 'none'; img-src data: 'self'; style-src 'unsafe-inline'; sandbox"  # a report runs no script
    headers = [
        (b"content-type", kind),
        (b"content-length", str(len(data)).encode()),
        (b"cache-control", b"no-store"),
        (b"x-content-type-options", b"nosniff"),
        (b"content-security-policy", policy),
    ]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": data})


def _check_photograph(file: Path, max_pixels: int) -> None:
    """ValueError unless the file is a photograph within the limit; the message names no path."""
    from retinashift.imaging.failures import explain
    from retinashift.imaging.files import read_image

    try:
        read_image(file, max_pixels)
    except Exception as error:
        raise ValueError(explain(error).text.replace(str(file), file.name)) from None


def _listen(settings: PageSettings) -> socket.socket:
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((settings.host, settings.port))
    except OSError as error:
        listener.close()
        raise OSError(
            f"{settings.host}:{settings.port} cannot be opened ({error.strerror}); try another --port"
        ) from None
    return listener


def _keep_gradio_quiet(shelf: Shelf) -> None:
    """Before gradio is imported: no telemetry, no hub, and its files in our folder."""
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ["HF_HUB_OFFLINE"] = "1"
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    os.environ["GRADIO_TEMP_DIR"] = str(shelf.uploads)
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(shelf.root / "torch")  # torch would leave an empty folder behind


def _write_sample(root: Path) -> tuple[Path, Path]:
    """The CC0 retina of scikit-image, reduced four times, and what it was reduced from: as in `retinashift demo`."""
    import numpy as np
    import skimage.data
    from PIL import Image

    from retinashift.imaging.degradation.bicubic import bicubic_pillow
    from retinashift.imaging.files import write_image

    hr = np.asarray(Image.fromarray(skimage.data.retina()).resize((704, 704), Image.Resampling.LANCZOS))
    small, original = root / "sample.png", root / "original.png"
    write_image(small, bicubic_pillow(hr, 4))
    write_image(original, hr)
    return small, original
