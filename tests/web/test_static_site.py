"""The page without a server: the browser computes, within a level of the command, and asks nobody else for anything."""

from __future__ import annotations

import functools
import http.server
import os
import re
import shutil
import threading
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from build_site import build_site
from builders.page import WAIT, saved, shot
from retinashift.inference.pipeline import ResShiftPipeline

expect = pytest.importorskip("playwright.sync_api").expect
FILES_MIB, FIRST_LOAD_MIB = 40, 20
SIZES = {"laptop": (1280, 720), "tablet": (820, 1180), "telephone": (390, 844)}


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The built folder, served on loopback: (folder, address)."""
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
    assert any("webgpu" in name for name in sizes)
    assert sum(sizes.values()) < FIRST_LOAD_MIB * 2**20  # of a visitor, who needs one of the two runtimes


@pytest.fixture
def small(retina, tmp_path):
    photograph = np.ascontiguousarray(retina[:40, :52])
    Image.fromarray(photograph).save(tmp_path / "глаз.png")
    return photograph


@pytest.mark.parametrize("size", SIZES)
def test_a_person_gets_the_command_s_result_within_two_levels_and_its_uncertainty(view, size, small, tmp_path):
    view.set_viewport_size(dict(zip(("width", "height"), SIZES[size], strict=True)))
    view.locator("#files").set_input_files(str(tmp_path / "глаз.png"))
    view.locator("summary").click()
    view.locator("#uncertainty").check()
    view.locator("#run").click()
    expect(view.locator("#status")).to_have_text("done", timeout=WAIT)
    viewer = view.locator("retina-viewer")
    box = viewer.locator("canvas").first.bounding_box()
    assert box["x"] >= 0 and box["x"] + box["width"] <= SIZES[size][0]  # noqa: PT018
    viewer.locator("#overlay").click()
    expect(viewer.locator("#legend")).to_contain_text("1.645 of it")
    shot(view, f"browser_{size}.png")
    expected = ResShiftPipeline.from_shipped()(small, mode="faithful", precision="fp32", output_uncertainty=True)
    result = np.asarray(Image.open(saved(view, "Download image", tmp_path / "result.png")))
    assert result.shape == (160, 208, 3)
    assert np.abs(result.astype(int) - expected.images[0]).max() <= 2
    assert "research use" in Image.open(tmp_path / "result.png").text["retinashift"]
    drawn = np.asarray(Image.open(saved(view, "Uncertainty (PNG)", tmp_path / "map.png")))[..., 0]
    assert np.allclose(drawn, np.clip(expected.sigma[0] * 255 * 8, 0, 255), rtol=0.03, atol=1)


def test_the_files_of_a_batch_come_in_one_zip(view, small, tmp_path):
    Image.new("RGB", (20, 16), (90, 40, 20)).save(tmp_path / "other.png")
    view.locator("#files").set_input_files([str(tmp_path / name) for name in ("глаз.png", "other.png")])
    view.locator("#run").click()
    expect(view.locator("#status")).to_have_text("done", timeout=WAIT)
    packed = zipfile.ZipFile(saved(view, "All as zip", tmp_path / "all.zip"))
    assert packed.testzip() is None
    assert {"1_глаз_x4.png", "1_глаз_x4.png.json", "1_глаз_x4.png.html", "2_other_x4.png"} < set(packed.namelist())
    assert packed.read("1_глаз_x4.png") == saved(view, "Download image", tmp_path / "one.png").read_bytes()


def test_a_result_is_dimmed_and_named_while_something_else_is_chosen(view, small, tmp_path):
    view.locator("#files").set_input_files(str(tmp_path / "глаз.png"))
    view.locator("#run").click()
    expect(view.locator("#status")).to_have_text("done", timeout=WAIT)
    stale = view.locator("#stale")
    expect(stale).to_be_hidden()
    view.locator("summary").click()
    view.locator("#uncertainty").check()
    expect(stale).to_contain_text("former result of глаз.png")
    expect(view.locator("retina-viewer")).to_have_attribute("stale", "")
    view.locator("#uncertainty").uncheck()
    expect(stale).to_be_hidden()
    Image.new("RGB", (20, 16), (90, 40, 20)).save(tmp_path / "other.png")
    view.locator("#files").set_input_files(str(tmp_path / "other.png"))
    expect(stale).to_contain_text("former result of глаз.png")
    assert (
        view.locator("retina-viewer").get_by_text("Download image", exact=True).get_attribute("download")
        == "глаз_x4.png"
    )


def test_the_small_network_has_its_own_result(view, small, tmp_path):
    view.locator("#checkpoint").select_option("x4_small")
    view.locator("#files").set_input_files(str(tmp_path / "глаз.png"))
    view.locator("#run").click()
    expect(view.locator("#status")).to_have_text("done", timeout=WAIT)
    pipeline = ResShiftPipeline.from_shipped("x4_small")
    assert pipeline.config.detail_curves is None
    result = np.asarray(Image.open(saved(view, "Download image", tmp_path / "result.png"))).astype(int)
    assert np.abs(result - pipeline(small, mode="faithful", precision="fp32").images[0]).max() <= 2


ASK_AT_ONCE = """async names => {
  const { checkpoints } = await (await fetch("models/index.json")).json();
  const worker = new Worker("worker.js", { type: "module" });
  const lr = { data: new Uint8ClampedArray(4 * 20 * 16).fill(90), width: 20, height: 16 }, answers = [];
  const all = new Promise((resolve, reject) => {
    worker.onerror = event => reject(new Error(event.message));
    worker.onmessage = ({ data }) => {
      if (data.progress === undefined) answers.push(data.error ?? data.pixels.length);
      if (answers.length === names.length) resolve(answers);
    };
  });
  for (const name of names) {
    const model = checkpoints.find(one => one.name === name);
    worker.postMessage({ model: checkpoints[0] });
    worker.postMessage({ model, lr });
  }
  return all;
}"""


def test_a_network_that_is_asked_for_while_another_loads_waits_for_it(view):
    assert view.evaluate(ASK_AT_ONCE, ["x4_small", "x4", "x4_small"]) == [4 * 80 * 64] * 3


def test_a_picture_of_several_tiles_has_no_seam(view, retina, tmp_path):
    tall = np.ascontiguousarray(np.tile(retina[:64, :24], (6, 1, 1)))  # soft above, sharp below: one factor for both
    soft = np.asarray(Image.fromarray(tall[:192]).resize((6, 48)).resize((24, 192)))
    tall[:192] = soft
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
