"""What the page says of uncertainty is what the file of the command line says: its numbers, and whether they hold."""

from __future__ import annotations

import json
import shutil
import threading
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from builders.page import WAIT, give, saved, shot, start_page, stop_page, wait_until_open
from retinashift.imaging.figures.uncertainty import decode_map
from retinashift.imaging.files import read_image
from retinashift.inference.uncertainty import Calibration
from retinashift.web.jobs import CALIBRATED, NOT_CALIBRATED, JobSettings, run_job
from retinashift.web.model import Model
from retinashift.web.views import LEVELS_PER_GREY

CURVES = {2: ((0.0, 0.1), (0.002, 0.302))}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A copy of the shipped checkpoint, with the calibration that is asked for."""

    def copy(calibration: Calibration | None) -> Path:
        folder = tmp_path_factory.mktemp("checkpoint") / "x4"
        shutil.copytree(str(files("retinashift") / "weights" / "x4"), folder)
        index = folder / "model_index.json"
        settings = json.loads(index.read_text())
        settings["calibration"] = None if calibration is None else calibration.to_config()
        index.write_text(json.dumps(settings))
        return folder

    return copy


@pytest.fixture
def eye(tmp_path, retina):
    file = tmp_path / "eye.png"
    Image.fromarray(retina[:24, :32]).save(file)
    return file


def test_the_overlay_has_the_numbers_of_the_map_and_the_words_of_its_account(checkpoint, eye, tmp_path):
    sigmas = []
    for calibration, meaning in ((None, NOT_CALIBRATED), (Calibration(4, CURVES, {}), CALIBRATED)):
        model, folder = Model(str(checkpoint(calibration)), "cpu", 4), tmp_path / str(len(sigmas))
        model._load()
        folder.mkdir()
        settings = JobSettings(samples=2)
        (photo,) = run_job(model, [eye], settings, folder, lambda share, text: None, threading.Event())
        assert photo["meaning"] == meaning
        sigma, account = decode_map((folder / "0" / photo["maps"][0]).read_bytes())
        assert account["calibrated"] == (meaning == CALIBRATED)
        drawn = read_image(folder / "0" / "uncertainty.png").pixels / LEVELS_PER_GREY
        assert np.abs(drawn - (255 * sigma).clip(0, 31.875)).max() <= 0.5 / LEVELS_PER_GREY + 1e-5
        sigmas.append(sigma)
    spread, calibrated = sigmas
    inside = spread > 0
    assert calibrated[inside] == pytest.approx(0.002 + 3 * spread[inside], abs=5 / 65535)  # seen through the curve


def test_the_legend_of_a_calibrated_checkpoint_says_so_and_other_steps_are_not_calibrated(
    checkpoint, browser, eye, tmp_path
):
    temporary = tmp_path / "page"
    temporary.mkdir()
    page = start_page(temporary, "-c", str(checkpoint(Calibration(4, CURVES, {}))))
    try:
        wait_until_open(page)
        view = browser.new_page()
        view.goto(page.address)
        view.wait_for_selector("#go", timeout=WAIT)
        give(view, "photographs", eye)
        for field, value in (("samples", "2"), ("steps", "0")):
            view.locator(f"#{field} input[type=number]").fill(value)
            view.locator(f"#{field} input[type=number]").press("Tab")
        view.locator("#go").click()
        view.wait_for_selector("retina-viewer[data-ready]", timeout=WAIT)
        viewer = view.locator("retina-viewer")
        viewer.locator("#overlay").click()
        assert CALIBRATED in viewer.locator("#legend").inner_text()
        shot(view, "calibrated_1280.png")
        box = viewer.locator(".save").bounding_box()
        assert box["y"] + box["height"] <= 720
        sigma, account = decode_map(saved(view, "Uncertainty (TIFF)", tmp_path / "map.tif").read_bytes())
        assert account["calibrated"]
        shown = viewer.evaluate("""e => { const i = e.images.uncertainty, c = new OffscreenCanvas(i.width, i.height),
            g = c.getContext('2d'); g.drawImage(i, 0, 0);
            return [...g.getImageData(0, 0, i.width, i.height).data].filter((_, n) => n % 4 === 0); }""")
        assert np.array_equal(shown, np.rint(255 * LEVELS_PER_GREY * sigma).clip(0, 255).ravel())
        picture = read_image(saved(view, "Uncertainty (PNG)", tmp_path / "map.png")).pixels
        assert picture.shape[0] > sigma.shape[0]
        view.locator("#steps input[type=number]").fill("2")
        view.locator("#steps input[type=number]").press("Tab")
        view.locator("#go").click()
        view.wait_for_function(  # the next job takes the place of the one that is looked at
            "document.querySelector('retina-viewer[data-ready]')?.photo.provenance.steps === 2", timeout=WAIT
        )
        assert viewer.locator("#legend").inner_text() == ""
        viewer.locator("#overlay").click()
        assert NOT_CALIBRATED in viewer.locator("#legend").inner_text()
        view.close()
    finally:
        stop_page(page)
