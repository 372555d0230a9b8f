"""Seconds of a photograph in headless Chromium (WebAssembly) and by the command, and until `retinashift app` answers.

taskset -c 0 python benchmarks/browser.py build/web PHOTOGRAPH

`make web` writes the folder. Pinned to one core, all of it runs on that core. The network is loaded as the page opens;
the first photograph waits for that. The command's seconds are of one photograph with its start, and of each further one
of a folder.
"""

from __future__ import annotations

import argparse
import functools
import http.server
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from pathlib import Path

from page import page
from playwright.sync_api import Browser, expect, sync_playwright

FLAGS = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-sync"]
MORE = 6
PATIENCE_MS = 300_000


def in_browser(
    browser: Browser, address: str, photograph: Path, checkpoint: str, runs: int
) -> tuple[float, list[float]]:
    """Seconds from the opened page to its first result, and of each further one."""
    view = browser.new_page()
    view.goto(address)
    began = time.perf_counter()
    expect(view.locator("html")).to_have_attribute("data-ready", "1", timeout=PATIENCE_MS)
    view.locator("#checkpoint").select_option(checkpoint)
    view.locator("#files").set_input_files(str(photograph))
    seconds = []
    for run in range(runs + 1):
        started = time.perf_counter()
        view.locator("#run").click()
        expect(view.locator("#run")).to_be_disabled()
        expect(view.locator("#status")).to_have_text("done", timeout=PATIENCE_MS)
        seconds.append(time.perf_counter() - (started if run else began))
    view.close()
    return seconds[0], seconds[1:]


def by_command(photograph: Path, checkpoint: str) -> tuple[float, float]:
    """Seconds of `retinashift upscale` for one photograph, and for each further one."""
    with tempfile.TemporaryDirectory() as temporary:
        folder, spent = Path(temporary) / "in", []
        for count in (1, MORE):
            folder.mkdir(exist_ok=True)
            for number in range(count):
                shutil.copy(photograph, folder / f"{number}{photograph.suffix}")
            command = [sys.executable, "-m", "retinashift", "upscale", str(folder), "-o", f"{temporary}/{count}"]
            began = time.perf_counter()
            subprocess.run([*command, "-c", checkpoint, "--quiet"], check=True)
            spent.append(time.perf_counter() - began)
    return spent[0], (spent[1] - spent[0]) / (MORE - 1)


def first_page() -> float:
    """Seconds from the start of `retinashift app` until it has answered with its page."""
    began = time.perf_counter()
    with page() as host, urllib.request.urlopen(f"http://{host}/") as answer:
        answer.read()
        return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("site", type=Path, help="what make web wrote")
    parser.add_argument("photograph", type=Path, help="PNG, JPEG or WebP")
    parser.add_argument("--checkpoint", action="append", help="repeatable; default: x4 and x4_small")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--chromium", default=os.environ.get("CHROMIUM", "/usr/bin/chromium"))
    options = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    starts = [first_page() for _ in range(options.runs)]
    print(f"retinashift app: first page after {min(starts):.2f} to {max(starts):.2f} s")
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(options.site))
    handler.func.log_message = lambda *_: None
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}/"
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=options.chromium, args=FLAGS)
        for name in options.checkpoint or ("x4", "x4_small"):
            first, more = in_browser(browser, address, options.photograph, name, options.runs)
            whole, further = by_command(options.photograph, "x4")
            seconds = statistics.median(more)
            print(
                f"{name}: browser {first:.2f} s with loading, then {seconds:.2f} s; command (x4) {whole:.2f} s with "
                f"its start, then {further:.2f} s: {seconds / whole:.2f} and {seconds / further:.1f} times",
                flush=True,
            )
        browser.close()
    server.shutdown()


if __name__ == "__main__":
    main()
