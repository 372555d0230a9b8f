"""The page in a real browser."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from builders.page import WAIT, shot
from retinashift.batch.jobs import plan_jobs
from retinashift.batch.upscale import BatchOptions, upscale_files
from retinashift.imaging.figures.uncertainty import decode_map
from retinashift.imaging.files import read_image
from retinashift.inference.pipeline import ResShiftPipeline
from retinashift.inference.settings import Sampling
from retinashift.web.jobs import CALIBRATED, NOT_CALIBRATED


@pytest.fixture
def photograph(tmp_path, retina):
    file = tmp_path / "<img src=x onerror=alert(1)>.png"
    Image.fromarray(retina[:48, :64]).save(file)
    return file


def test_a_person_uploads_runs_looks_and_takes_away_the_bytes_of_the_command_line(page, browser, photograph, tmp_path):
    view, elsewhere, dialogs = browser.new_page(), [], []
    view.on(
        "request", lambda r: elsewhere.append(r.url) if not r.url.startswith((page.address, "data:", "blob:")) else 0
    )
    view.on("dialog", lambda d: (dialogs.append(d.message), d.dismiss()))
    view.goto(page.address)
    view.locator("#photographs input[type=file]").set_input_files(str(photograph))
    view.wait_for_selector("#photographs .file-preview", timeout=WAIT)
    view.locator("#samples input[type=number]").fill("2")
    view.locator("#samples input[type=number]").press("Tab")
    view.locator("#go").click()
    view.wait_for_selector("retina-viewer[data-ready]", timeout=WAIT)
    viewer = view.locator("retina-viewer")
    pixels = "e => { const c = e.shadowRoot.querySelector('canvas'); return c.toDataURL(); }"
    first = viewer.evaluate(pixels)
    shot(view, "small.png")
    box = viewer.locator("canvas").bounding_box()
    middle = box["y"] + box["height"] / 2
    view.mouse.move(box["x"] + box["width"] / 2, middle)
    view.mouse.down()
    view.mouse.move(box["x"] + box["width"] / 2 + 80, middle, steps=3)
    view.mouse.up()
    assert viewer.evaluate("e => e.s.split") > 0.55
    moved = viewer.evaluate(pixels)
    assert moved != first
    assert viewer.locator("#legend").inner_text() == ""
    viewer.locator("#overlay").click()
    shot(view, "uncertainty_1280.png")
    links = viewer.locator(".save").bounding_box()
    assert links["y"] + links["height"] <= 720
    with view.expect_download() as download:
        viewer.get_by_text("Uncertainty (TIFF)").click()
    calibrated = decode_map(download.value.path().read_bytes())[1]["calibrated"]
    assert (CALIBRATED if calibrated else NOT_CALIBRATED) in viewer.locator("#legend").inner_text()
    assert viewer.evaluate(pixels) != moved
    for button in ("difference", "red", "z4"):
        before = viewer.evaluate(pixels)
        viewer.locator(f"#{button}").click()
        assert viewer.evaluate(pixels) != before
    with view.expect_download() as download:
        viewer.get_by_text("Download image").click()
    (job,) = plan_jobs([photograph], tmp_path / "out")
    (outcome,) = upscale_files(
        ResShiftPipeline.from_shipped(), [job], BatchOptions(sampling=Sampling.of_samples(uncertainty=2))
    )
    assert outcome.error == ""
    assert download.value.path().read_bytes() == job.target.read_bytes()
    assert dialogs == []
    assert elsewhere == []
    view.close()


def test_the_sample_is_shown_beside_its_original(page, browser):
    view = browser.new_page()
    view.goto(page.address)
    view.wait_for_selector("#sample")
    shot(view, "empty_1280.png")
    view.locator("#sample").click()
    view.wait_for_selector("retina-viewer[data-ready]", timeout=WAIT)
    text = view.locator("retina-viewer table").inner_text()
    assert "PSNR" in text
    assert "consistency" in text
    for name, size in (("1280", {"width": 1280, "height": 720}), ("tablet", {"width": 820, "height": 1180})):
        view.set_viewport_size(size)
        view.wait_for_timeout(300)
        view.locator("retina-viewer #slider").click()
        shot(view, f"sample_{name}.png")
        view.locator("retina-viewer #error").click()
        shot(view, f"error_{name}.png")
        # what one looks at and takes away lies within the window, and nothing sticks out of it at the side
        assert view.evaluate("document.documentElement.scrollWidth") <= size["width"]
        for part in ("canvas", ".save"):
            box = view.locator(f"retina-viewer {part}").bounding_box()
            assert box["y"] + box["height"] <= size["height"]
            assert box["x"] + box["width"] <= size["width"]
    view.close()


def test_two_people_at_once_get_their_own_results(page, browser, tmp_path, retina):
    views = []
    for level in (40, 200):
        file = tmp_path / f"level{level}.png"
        Image.fromarray(np.full((24, 24, 3), level, np.uint8)).save(file)
        view = browser.new_page()
        view.goto(page.address)
        view.locator("#photographs input[type=file]").set_input_files(str(file))
        view.wait_for_selector("#photographs .file-preview", timeout=WAIT)
        views.append((level, view))
    for _, view in views:
        view.bring_to_front()  # a hidden tab is not drawn, and what is not drawn cannot be clicked
        view.locator("#go").click()
    for level, view in views:
        view.bring_to_front()
        view.wait_for_selector("retina-viewer[data-ready]", timeout=WAIT)
        with view.expect_download() as download:
            view.locator("retina-viewer").get_by_text("Download image").click()
        saved = tmp_path / f"saved{level}.png"
        download.value.save_as(saved)
        assert abs(int(read_image(saved).pixels.mean()) - level) <= 2
        view.close()


def test_a_result_arrives_in_a_tab_that_is_not_looked_at_and_one_that_cannot_be_fetched_is_told(page, browser):
    view = browser.new_page()
    view.add_init_script("HTMLImageElement.prototype.decode = () => new Promise(() => {})")  # as in a hidden tab
    view.goto(page.address)
    view.locator("#sample").click()
    view.wait_for_selector("retina-viewer[data-ready]", timeout=WAIT)
    view.route("**/result/**", lambda route: route.abort())
    view.locator("#sample").click()
    view.get_by_text("its pictures could not be fetched").wait_for(timeout=WAIT)
    view.close()


def test_the_method_tab_draws_the_schedule_and_the_chain_of_the_sample_before_anything_is_dropped(page, browser):
    view = browser.new_page()
    view.goto(page.address)
    view.get_by_role("tab", name="Method").click()
    view.wait_for_selector("img[alt=schedule]", timeout=WAIT)
    view.locator("#chain").click()
    view.wait_for_selector("#strip img", timeout=WAIT)
    for name, size in (("1280", {"width": 1280, "height": 720}), ("tablet", {"width": 820, "height": 1180})):
        view.set_viewport_size(size)
        view.wait_for_timeout(300)
        shot(view, f"method_{name}.png")
    view.close()
