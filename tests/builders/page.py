"""A page as tests start it, talk to it byte by byte and in a browser, and stop it."""

from __future__ import annotations

import http.client
import importlib.util
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
from urllib.parse import urlencode, urlparse

import numpy as np
import torch
from PIL import Image

WAIT = 150_000  # milliseconds until a wait is given up: a busy machine may take long, and only a hang fails


@dataclass
class Page:
    """A running page: its address, process, the folder for temporary files, and what it has printed."""

    address: str
    process: subprocess.Popen
    temporary: Path
    printed: list[str] = field(default_factory=list)


def page_precision() -> str:
    """What "auto" means in a page's process; in the tests' own it means fp32."""
    found = importlib.util.find_spec("retinashift.inference.memory")
    unpatched = importlib.util.module_from_spec(found)
    found.loader.exec_module(unpatched)
    return unpatched.fast_precision(torch.device("cpu"))


def start_page(temporary: Path, *arguments: str, **environment: str) -> Page:
    """As a person starts it; it answers when this returns."""
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


def stop_page(page: Page, by: int = signal.SIGTERM) -> None:
    page.process.send_signal(by)
    page.process.wait(60)


def ask(page: Page, method: str, path: str, body: bytes | None = None, **headers: str) -> tuple[int, bytes]:
    """Status and body; the path goes out as it is, not normalised."""
    connection = http.client.HTTPConnection(urlparse(page.address).netloc, timeout=WAIT / 1000)
    connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
    response = connection.getresponse()
    return response.status, response.read()


def multipart(fields: list[tuple[str, str | None, bytes]]) -> tuple[bytes, str]:
    """Body and content type of a form: (name, file name or None, value)."""
    parts = []
    for name, file, value in fields:
        head = f'--xx\r\nContent-Disposition: form-data; name="{name}"' + (f'; filename="{file}"' if file else "")
        parts.append(head.encode() + b"\r\n\r\n" + value + b"\r\n")
    return b"".join(parts) + b"--xx--\r\n", "multipart/form-data; boundary=xx"


def upscale(page: Page, data: bytes, name: str = "eye.png", accept: str = "*/*", **options: Any) -> tuple[int, bytes]:
    """The documented request: a photograph in, a photograph or a zip out."""
    body, kind = multipart([("file", name, data)])
    query = f"?{urlencode(options)}" if options else ""
    return ask(page, "POST", f"/api/upscale{query}", body, Content_Type=kind, Accept=accept)


def submit(page: Page, name: str, data: bytes, **options: Any) -> tuple[int, Any]:
    """Queue a job; status and JSON."""
    given = [(option, None, str(value).encode()) for option, value in options.items()]
    body, kind = multipart([("file", name, data), *given])
    status, answer = ask(page, "POST", "/api/jobs", body, Content_Type=kind)
    return status, json.loads(answer)


def ended(page: Page, id: str) -> dict[str, Any]:
    """The job once it has ended."""
    end = time.monotonic() + WAIT / 1000
    while time.monotonic() < end:
        job = json.loads(ask(page, "GET", f"/api/jobs/{id}")[1])
        if job["state"] in ("done", "failed", "cancelled"):
            return job
        time.sleep(0.05)
    raise AssertionError(job)


def png(side: int) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.full((side, side, 3), 90, np.uint8)).save(file, "PNG")
    return file.getvalue()


def shot(view: Any, name: str) -> None:
    """A screenshot in the folder that RETINASHIFT_SHOTS names, to be looked at."""
    if os.environ.get("RETINASHIFT_SHOTS"):
        view.screenshot(path=str(Path(os.environ["RETINASHIFT_SHOTS"]) / name), full_page=True)


def saved(view: Any, text: str, target: Path) -> Path:
    """The file behind a download link of the viewer."""
    with view.expect_download() as download:
        view.locator("retina-viewer").get_by_text(text, exact=True).click()
    download.value.save_as(target)
    return target
