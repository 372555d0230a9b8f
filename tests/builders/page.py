"""A page as tests start it, talk to it byte by byte and in a browser, and stop it."""

from __future__ import annotations

import http.client
import io
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import numpy as np
from PIL import Image

WAIT = 150_000  # milliseconds until a wait is given up: a busy machine may take long, and only a hang fails


@dataclass
class Page:
    """A running page: its address, process, the folder in which it makes its own, and what it has printed."""

    address: str
    process: subprocess.Popen
    temporary: Path
    printed: list[str] = field(default_factory=list)


def start_page(temporary: Path, *arguments: str, **environment: str) -> Page:
    """As a person starts it; it may still say that it is starting."""
    process = subprocess.Popen(
        [sys.executable, "-m", "retinashift", "app", "--port", "0", *arguments],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        env=os.environ | {"TMPDIR": str(temporary), "PYTHONUNBUFFERED": "1"} | environment,
    )  # fmt: skip
    page = Page("", process, temporary)
    for line in process.stdout:
        page.printed.append(line)
        if found := re.search(r"http://\S+", line):
            page.address = found[0].rstrip("/").replace("0.0.0.0", "127.0.0.1")
            threading.Thread(target=lambda: page.printed.extend(process.stdout), daemon=True).start()
            return page
    raise AssertionError("".join(page.printed))


def wait_until_open(page: Page, **headers: str) -> None:
    """Until the page itself answers, not the one that says that it is starting."""
    end = time.monotonic() + 300
    while (status := ask(page, "GET", "/page/viewer.js", **headers)[0]) == 503:
        assert time.monotonic() < end
        time.sleep(0.1)
    assert status == 200


def stop_page(page: Page, by: int = signal.SIGTERM) -> None:
    page.process.send_signal(by)
    page.process.wait(300)


def ask(page: Page, method: str, path: str, body: bytes | None = None, **headers: str) -> tuple[int, bytes]:
    """Status and body; the path goes out as it is, not normalised."""
    connection = http.client.HTTPConnection(urlparse(page.address).netloc, timeout=300)
    connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
    response = connection.getresponse()
    return response.status, response.read()


def upload(page: Page, data: bytes, name: str = "eye.png") -> tuple[int, bytes]:
    head = f'--xx\r\nContent-Disposition: form-data; name="files"; filename="{name}"\r\n\r\n'.encode()
    kind = "multipart/form-data; boundary=xx"
    return ask(page, "POST", "/gradio_api/upload", head + data + b"\r\n--xx--\r\n", Content_Type=kind)


def call(
    page: Page, path: str, mode: str = "faithful", steps: int = 0, file_format: str = "same", samples: int = 0
) -> tuple[int, bytes]:
    """The documented endpoint: an event, then its stream to the end."""
    data = [{"path": path, "meta": {"_type": "gradio.FileData"}}, mode, steps, 0, True, file_format, samples]
    status, body = ask(page, "POST", "/gradio_api/call/upscale", json.dumps({"data": data}).encode(),
        Content_Type="application/json")  # fmt: skip
    return (
        ask(page, "GET", f"/gradio_api/call/upscale/{json.loads(body)['event_id']}")
        if status == 200
        else (status, body)
    )


def enlarged(page: Page, data: bytes, name: str, mode: str = "faithful") -> tuple[bytes, dict[str, Any]]:
    """Upload, enlarge, fetch: the result's bytes and what its sidecar holds."""
    status, body = upload(page, data, name)
    assert status == 200, body
    stream = call(page, json.loads(body)[0], mode)[1].decode()
    assert "event: complete" in stream, stream
    image, sidecar, _ = json.loads(stream.rpartition("data: ")[2])
    status, result = ask(page, "GET", urlparse(image["url"]).path)
    assert status == 200
    return result, sidecar


def png(side: int) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.full((side, side, 3), 90, np.uint8)).save(file, "PNG")
    return file.getvalue()


def shot(view, name: str) -> None:
    if os.environ.get("RETINASHIFT_SHOTS"):
        view.screenshot(path=str(Path(os.environ["RETINASHIFT_SHOTS"]) / name))


def give(view, where: str, *files) -> None:
    view.locator(f"#{where} input[type=file]").set_input_files([str(file) for file in files])
    view.wait_for_selector(f"#{where} .file-preview", timeout=WAIT)


def saved(view, text: str, target):
    with view.expect_download() as download:
        view.locator("retina-viewer").get_by_text(text, exact=True).click()
    download.value.save_as(target)
    return target
