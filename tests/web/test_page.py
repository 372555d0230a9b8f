"""The page in a real browser, on the local server: three sizes of screen, and what must never be confused."""

from __future__ import annotations

import re
import zipfile

import numpy as np
import pytest
from PIL import Image

from builders.page import WAIT, page_precision, saved, shot
from retinashift.batch.jobs import BatchOptions, Job
from retinashift.batch.upscale import upscale_files
from retinashift.inference.pipeline import ResShiftPipeline
from retinashift.inference.settings import Sampling

expect = pytest.importorskip("playwright.sync_api").expect
SIZES = {"laptop": (1280, 720), "tablet": (820, 1180), "telephone": (390, 844)}
PIXELS = "viewer => viewer.shadowRoot.querySelector('canvas').toDataURL()"


@pytest.fixture
def photograph(tmp_path, retina):
    file = tmp_path / "глаз <img src=x onerror=alert(1)>.png"
    Image.fromarray(retina[:48, :64]).save(file)
    return file


@pytest.fixture
def view(page, browser):
    """An open page; whatever it asks of another address, prints as an error or opens as a dialog fails the test."""
    view, wrong = browser.new_page(), []
    own = (page.address, "blob:", "data:")
    view.on("request", lambda request: wrong.append(request.url) if not request.url.startswith(own) else None)
    view.on("console", lambda message: wrong.append(message.text) if message.type == "error" else None)
    view.on("pageerror", lambda error: wrong.append(str(error)))
    view.on("dialog", lambda dialog: (wrong.append(dialog.message), dialog.dismiss()))
    view.goto(page.address)
    expect(view.locator("html")).to_have_attribute("data-ready", "1", timeout=WAIT)
    yield view
    view.close()
    assert wrong == []


def choose(view, *files):
    view.locator("#files").set_input_files([str(file) for file in files])
    expect(view.locator("#uploads li")).to_have_count(len(files))


def upscaled(view, outcome="done"):
    view.locator("#run").click()
    expect(view.locator("#status")).to_have_text(outcome, timeout=WAIT)


@pytest.mark.parametrize("size", SIZES)
def test_a_person_uploads_looks_and_takes_away_the_bytes_of_the_command_line(view, size, photograph, tmp_path):
    view.set_viewport_size(dict(zip(("width", "height"), SIZES[size], strict=True)))
    choose(view, photograph)
    expect(view.locator("#uploads")).to_contain_text("64 x 48")
    upscaled(view)
    viewer = view.locator("retina-viewer")
    expect(viewer).to_have_attribute("data-shown", photograph.name)
    shot(view, f"server_{size}.png")
    box = viewer.locator("canvas").first.bounding_box()
    assert box["x"] >= 0 and box["x"] + box["width"] <= SIZES[size][0]  # noqa: PT018
    target = saved(view, "Download image", tmp_path / "downloaded.png")
    job = Job(photograph, tmp_path / "out" / photograph.name)
    sampling = Sampling(mode="faithful", precision=page_precision())
    (outcome,) = upscale_files(ResShiftPipeline.from_shipped(), [job], BatchOptions(sampling=sampling))
    assert outcome.error == ""
    assert target.read_bytes() == job.target.read_bytes()


def test_every_view_draws_something_else_and_the_divider_moves_by_mouse_and_key(view, photograph):
    choose(view, photograph)
    upscaled(view)
    viewer = view.locator("retina-viewer")
    seen = [viewer.evaluate(PIXELS)]
    for button in ("side", "difference", "red", "slider", "zoom-4"):
        viewer.locator(f"#{button}").click()
        seen.append(viewer.evaluate(PIXELS))
    canvas = viewer.locator(".stage canvas")
    canvas.press("ArrowRight")
    seen.append(viewer.evaluate(PIXELS))
    box = canvas.bounding_box()
    view.mouse.move(box["x"] + box["width"] * 0.52, box["y"] + box["height"] / 2)
    view.mouse.down()
    view.mouse.move(box["x"] + box["width"] * 0.8, box["y"] + box["height"] / 2, steps=3)
    view.mouse.up()
    seen.append(viewer.evaluate(PIXELS))
    assert len(set(seen)) == len(seen)


def test_a_result_is_dimmed_and_named_while_something_else_is_chosen(view, photograph, tmp_path):
    choose(view, photograph)
    upscaled(view)
    viewer, stale = view.locator("retina-viewer"), view.locator("#stale")
    expect(stale).to_be_hidden()
    view.locator("input[value=realistic]").check()
    expect(stale).to_contain_text(photograph.name)
    expect(stale).to_contain_text("faithful")
    expect(viewer).to_have_attribute("stale", "")
    shot(view, "server_stale.png")
    view.locator("input[value=faithful]").check()
    expect(stale).to_be_hidden()
    other = tmp_path / "other.png"
    Image.new("RGB", (20, 16), (90, 40, 20)).save(other)
    choose(view, other)
    expect(stale).to_contain_text(photograph.name)
    assert "other" not in saved_name(view)
    upscaled(view)
    expect(viewer).to_have_attribute("data-shown", "other.png")
    assert saved_name(view) == "other_x4.png"


def saved_name(view) -> str:
    return view.locator("retina-viewer").get_by_text("Download image", exact=True).get_attribute("download")


def test_the_longest_side_decides_the_size_instead_of_the_factor(view, photograph):
    choose(view, photograph)
    view.locator("summary").click()
    view.locator("#longest-side").fill("100")
    expect(view.locator("#scale")).to_be_disabled()
    upscaled(view)
    expect(view.locator("retina-viewer").locator("table")).to_contain_text("64 x 48 to 100 x 75")
    assert saved_name(view).endswith("_100px.png")


def test_a_cancelled_job_leaves_the_former_result_dimmed(view, photograph, tmp_path):
    choose(view, photograph)
    upscaled(view)
    large = tmp_path / "large.png"
    Image.fromarray(np.tile(np.asarray(Image.open(photograph)), (16, 12, 1))).save(large)
    choose(view, large)
    view.locator("#run").click()
    view.locator("#cancel").click()
    expect(view.locator("#status")).to_have_text("cancelled", timeout=WAIT)
    expect(view.locator("#stale")).to_contain_text(f"former result of {photograph.name}")
    expect(view.locator("#run")).to_be_enabled()


def test_uncertainty_has_a_legend_and_its_map_can_be_taken_away(view, photograph, tmp_path):
    choose(view, photograph)
    view.locator("summary").click()
    view.locator("#uncertainty").check()
    upscaled(view)
    viewer = view.locator("retina-viewer")
    before = viewer.evaluate(PIXELS)
    viewer.locator("#overlay").click()
    assert viewer.evaluate(PIXELS) != before
    expect(viewer.locator("#legend")).to_contain_text("grey levels of 255")
    shot(view, "server_uncertainty.png")
    assert saved(view, "Uncertainty (TIFF)", tmp_path / "map.tif").read_bytes()[:2] in (b"II", b"MM")


def test_the_sample_is_scored_against_its_original_and_the_report_stands_alone(view, tmp_path):
    view.locator("#sample").click()
    upscaled(view)
    viewer = view.locator("retina-viewer")
    expect(viewer.locator("table")).to_contain_text("PSNR")
    viewer.locator("#error").click()
    expect(viewer.locator("#legend")).to_contain_text("error against the reference")
    shot(view, "server_sample.png")
    report = saved(view, "Report", tmp_path / "report.html").read_text(encoding="utf-8")
    assert "sample.png" in report
    assert re.search(r'(src|href)="(?!data:)', report) is None
    assert "not for diagnosis" in report


def test_controls_follow_the_checkpoint(view):
    view.locator("#checkpoint").select_option("x4_one_step")
    expect(view.locator("input[name=mode]")).to_have_count(1)
    expect(view.locator("[data-option=uncertainty]")).to_be_hidden()
    view.locator("summary").click()
    strength = view.locator("#strength")
    expect(strength).to_be_hidden()
    view.locator("#checkpoint").select_option("x4_restore")
    expect(strength).to_be_visible()
    expect(view.locator("#consistency")).to_be_hidden()
    view.locator("#checkpoint").select_option("x4")
    expect(view.locator("input[name=mode]")).to_have_count(2)


def test_a_file_above_the_limits_is_named_before_it_is_sent(view, tmp_path):
    large = tmp_path / "large.png"
    Image.new("RGB", (1200, 1000)).save(large)
    choose(view, large)
    expect(view.locator("#status")).to_contain_text("large.png is 1200 x 1000, above the limit")
    expect(view.locator("#run")).to_be_disabled()


def test_a_batch_lists_every_outcome_and_shows_each_photograph_under_its_own_name(view, tmp_path):
    names = ["one.png", "two.png"]
    for name, side in zip(names, (16, 20), strict=True):
        Image.new("RGB", (side, side), (120, 50, 20)).save(tmp_path / name)
    (tmp_path / "bad.png").write_bytes(b"no picture")
    choose(view, *(tmp_path / name for name in (*names, "bad.png")))
    upscaled(view, "1 of 3 failed")
    expect(view.locator("#outcomes li")).to_have_count(3)
    expect(view.locator("#outcomes .bad")).to_contain_text("bad.png")
    packed = zipfile.ZipFile(saved(view, "All as zip", tmp_path / "all.zip"))
    assert {"1_one_x4.png", "2_two_x4.png"} < set(packed.namelist())
    view.locator("#outcomes").get_by_text("two.png", exact=True).click()
    expect(view.locator("retina-viewer")).to_have_attribute("data-shown", "two.png")
    shot(view, "server_batch.png")


def test_the_method_tab_draws_the_schedule_and_the_chain(view, photograph):
    choose(view, photograph)
    view.locator("#tab-method").click()
    curves = "canvas => canvas.toDataURL()"
    first = view.locator("#schedule").evaluate(curves)
    view.locator("#power").fill("1.5")
    assert view.locator("#schedule").evaluate(curves) != first
    view.locator("#draw-chain").click()
    expect(view.locator("#strip figure")).to_have_count(9, timeout=WAIT)
    shot(view, "server_method.png")
