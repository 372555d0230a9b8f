"""A page in a process of its own, as a person starts it, and the browser that is there."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path

import pytest

pytest.importorskip("gradio", reason="the page needs the extra [app]")


@dataclass
class Page:
    """A running page: its address, process, and the folder in which it makes its own."""

    address: str
    process: subprocess.Popen
    temporary: Path


def start_page(temporary: Path, *arguments: str) -> Page:
    process = subprocess.Popen(
        [sys.executable, "-m", "retinashift", "app", "--port", "0", *arguments],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        env=os.environ | {"TMPDIR": str(temporary), "PYTHONUNBUFFERED": "1"},
    )  # fmt: skip
    printed = ""
    for line in process.stdout:
        printed += line
        if found := re.search(r"http://\S+", line):
            threading.Thread(target=process.stdout.read, daemon=True).start()
            return Page(found[0].rstrip("/"), process, temporary)
    raise AssertionError(printed)


def wait_until_open(page: Page) -> None:
    """Until the page itself answers, not the one that says that it is starting."""
    end = time.monotonic() + 60
    while time.monotonic() < end:
        try:
            with urllib.request.urlopen(page.address + "/page/viewer.js") as response:
                assert response.status == 200
                return
        except urllib.error.HTTPError as error:
            if error.code != 503:
                raise
            time.sleep(0.1)
    raise AssertionError("the page did not open within a minute")


def stop_page(page: Page) -> None:
    page.process.send_signal(signal.SIGTERM)
    page.process.wait(20)


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    running = start_page(tmp_path_factory.mktemp("page"), "--max-upload", "2", "--max-pixels", "1000000")
    wait_until_open(running)
    yield running
    if running.process.poll() is None:
        stop_page(running)


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    executable = os.environ.get("CHROMIUM", "/usr/bin/chromium")
    if not Path(executable).exists():
        pytest.skip(f"no Chromium at {executable} (set CHROMIUM to one)")
    playwright = pytest.importorskip("playwright.sync_api")
    flags = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
        "--disable-component-update", "--disable-sync"]  # fmt: skip
    with playwright.sync_playwright() as driver:
        context = driver.chromium.launch_persistent_context(
            str(tmp_path_factory.mktemp("profile")), executable_path=executable, headless=True, args=flags,
            viewport={"width": 1280, "height": 720}, accept_downloads=True,
        )  # fmt: skip
        context.set_default_timeout(20_000)
        yield context
        context.close()
