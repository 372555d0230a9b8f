"""The page without a server: the browser computes, within a level of the command, and asks nobody else for anything."""

from __future__ import annotations

import functools
import http.server
import os
import re
import shutil
import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from build_site import build_site
from builders.page import WAIT, saved, shot
from retinashift.inference.pipeline import ResShiftPipeline

expect = pytest.importorskip("playwright.sync_api").expect
FILES_MIB, FIRST_LOAD_MIB = 40, 20


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The built folder, served on loopback; (folder, address, bytes sent)."""
    runtime = os.environ.get("ONNXRUNTIME_WEB")
    if not runtime and shutil.which("npm") is None:
        pytest.skip("no npm to fetch onnxruntime-web with (or set ONNXRUNTIME_WEB to its package)")
    folder = build_site(tmp_path_factory.mktemp("site") / "web", Path(runtime) if runtime else None)

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *arguments):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield folder, f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()


@pytest.fixture
def view(site, browser):
    view, wrong = browser.new_page(), []
    view.on("request", lambda r: wrong.append(r.url) if not r.url.startswith((site[1], "blob:", "data:")) else None)
    view.on("console", lambda message: wrong.append(message.text) if message.type == "error" else None)
    view.on("pageerror", lambda error: wrong.append(str(error)))
    view.goto(site[1])
    expect(view.locator("html")).to_have_attribute("data-ready", "1", timeout=WAIT)
    yield view
    view.close()
    assert wrong == []


def test_the_folder_is_small(site):
    folder = site[0]
    sizes = {path.relative_to(folder).as_posix(): path.stat().st_size for path in folder.rglob("*") if path.is_file()}
    assert sum(sizes.values()) < FILES_MIB * 2**20
    first = sum(size for name, size in sizes.items() if name.endswith("x4.onnx.gz") or not name.endswith(".onnx.gz"))
    assert first < FIRST_LOAD_MIB * 2**20


def test_the_browser_s_result_is_the_command_s_within_two_levels(view, retina, tmp_path):
    small = np.ascontiguousarray(retina[:40, :52])
    Image.fromarray(small).save(tmp_path / "глаз.png")
    view.locator("#files").set_input_files(str(tmp_path / "глаз.png"))
    view.locator("#run").click()
    expect(view.locator("#status")).to_have_text("done", timeout=WAIT)
    shot(view, "browser.png")
    result = np.asarray(Image.open(saved(view, "Download image", tmp_path / "result.png")))
    expected = ResShiftPipeline.from_shipped()(small, mode="faithful", precision="fp32").images[0]
    assert result.shape == (160, 208, 3)
    assert np.abs(result.astype(int) - expected).max() <= 2
    assert "research use" in Image.open(tmp_path / "result.png").text["retinashift"]


def test_a_picture_of_several_tiles_has_no_seam(view, retina, tmp_path):
    tall = np.ascontiguousarray(np.tile(retina[:64, :24], (5, 1, 1))[:300])
    Image.fromarray(tall).save(tmp_path / "tall.png")
    view.locator("#files").set_input_files(str(tmp_path / "tall.png"))
    view.locator("#run").click()
    expect(view.locator("#status")).to_have_text("done", timeout=WAIT)
    result = np.asarray(Image.open(saved(view, "Download image", tmp_path / "result.png")))
    expected = ResShiftPipeline.from_shipped()(tall, mode="faithful", precision="fp32").images[0]
    assert np.abs(result.astype(int) - expected).max() <= 2


@pytest.mark.parametrize(("kind", "reason"), [("16 bit", "16 bit"), ("alpha", "alpha channel"), ("text", "not a PNG")])
def test_what_a_browser_would_change_silently_is_refused(view, tmp_path, kind, reason):
    file = tmp_path / "eye.png"
    if kind == "16 bit":
        Image.fromarray(np.full((12, 12), 30000, np.uint16)).save(file)
    elif kind == "alpha":
        Image.new("RGBA", (12, 12), (90, 40, 20, 128)).save(file)
    else:
        file.write_bytes(b"no picture")
    view.locator("#files").set_input_files(str(file))
    view.locator("#run").click()
    expect(view.locator("#status")).to_have_text("1 of 1 failed", timeout=WAIT)
    expect(view.locator("#outcomes")).to_contain_text(re.compile(reason))


def test_a_run_can_be_cancelled(view, tmp_path):
    Image.new("RGB", (600, 600), (120, 50, 20)).save(tmp_path / "large.png")
    view.locator("#files").set_input_files(str(tmp_path / "large.png"))
    view.locator("#run").click()
    expect(view.locator("#status")).to_contain_text("large.png", timeout=WAIT)
    view.locator("#cancel").click()
    expect(view.locator("#status")).to_have_text("cancelled", timeout=WAIT)
    expect(view.locator("#run")).to_be_enabled()
