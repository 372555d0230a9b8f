"""What a person takes away and how they follow the work: batch, report, reference, cancelling, chain."""

from __future__ import annotations

import base64
import json
import re
import zipfile

import numpy as np
import pytest
from PIL import Image

from builders.page import WAIT, give, saved, shot
from retinashift.evaluation.similarity import psnr_rgb
from retinashift.imaging.degradation.bicubic import bicubic_pillow
from retinashift.imaging.files import find_provenance, read_image
from retinashift.imaging.fundus import field_of_view

# every text and width that the bar has had
_FOLLOW = """() => {
  window.seen = [];
  const bar = document.querySelector('#progress'), what = {childList: true, subtree: true, characterData: true};
  new MutationObserver(() => {
    const b = bar.querySelector('[role=progressbar]');
    if (b) window.seen.push([+b.getAttribute('aria-valuenow'), b.nextSibling.textContent]);
  }).observe(bar, what); }"""


@pytest.fixture
def view(page, browser):
    view = browser.new_page()
    view.goto(page.address)
    view.wait_for_selector("#go", timeout=WAIT)
    yield view
    view.close()


def test_a_batch_is_followed_photograph_by_photograph_and_comes_as_a_zip(view, retina, tmp_path):
    files = []
    for name, side in (("left.png", 32), ("middle.png", 24), ("right.tif", 24)):
        Image.fromarray(retina[:side, :side]).save(tmp_path / name)
        files.append(tmp_path / name)
    view.evaluate(_FOLLOW)
    give(view, "photographs", *files)
    view.locator("#go").click()
    view.wait_for_selector("retina-viewer[data-ready]", timeout=WAIT)
    seen = view.evaluate("window.seen")
    shares = [share for share, _ in seen]
    texts = " | ".join(text for _, text in seen)
    assert shares[shares.index(min(shares)) :] == sorted(shares[shares.index(min(shares)) :])
    assert re.search(r"photograph [123] of 3, ", texts)
    assert seen[-1] == [100, "done"]
    assert view.locator("retina-viewer select").first.locator("option").all_inner_texts() == [f.name for f in files]
    shot(view, "batch_1280.png")
    with zipfile.ZipFile(saved(view, "All as zip", tmp_path / "all.zip")) as archive:
        results = ["1_left_x4.png", "2_middle_x4.png", "3_right_x4.tif"]
        assert archive.namelist() == [name for result in results for name in (result, f"{result}.json")]
        for name in results:
            image, sidecar = archive.read(name), json.loads(archive.read(f"{name}.json"))
            assert find_provenance(image, name).checkpoint == sidecar["provenance"]["checkpoint"]


def test_the_bar_moves_within_one_step_of_a_large_picture_and_cancel_ends_it_there(view, tmp_path, retina):
    tall = np.tile(retina, (22, 2, 1))[:2800, :200]  # far from done when a busy machine comes to cancel it
    Image.fromarray(tall).save(tmp_path / "tall.jpg", quality=80)
    view.evaluate(_FOLLOW)
    give(view, "photographs", tmp_path / "tall.jpg")
    view.locator("#go").click()
    view.wait_for_function("window.seen.filter(([s, t]) => /1 step, [1-9]/.test(t)).length >= 3", timeout=4 * WAIT)
    shot(view, "running_1280.png")
    view.locator("#stop").click()
    view.wait_for_selector("#progress [role=alert]", timeout=WAIT)
    assert view.locator("#progress").inner_text() == "cancelled"
    shares = [share for share, text in view.evaluate("window.seen") if "1 step" in text]
    assert shares == sorted(shares)
    assert len(set(shares)) >= 3
    assert shares[-1] < 95
    assert view.locator("retina-viewer").count() == 0


def test_a_reference_gives_figures_and_an_error_map_and_the_report_has_all_of_it(view, retina, tmp_path):
    hr = retina[:128, :128]
    Image.fromarray(hr).save(tmp_path / "hr.png")
    Image.fromarray(bicubic_pillow(hr, 4)).save(tmp_path / "eye.png")
    give(view, "photographs", tmp_path / "eye.png")
    give(view, "reference", tmp_path / "hr.png")
    view.locator("#samples input[type=number]").fill("2")
    view.locator("#samples input[type=number]").press("Tab")
    view.locator("#go").click()
    view.wait_for_selector("retina-viewer[data-ready]", timeout=WAIT)
    viewer = view.locator("retina-viewer")
    table = viewer.locator("table").inner_text()
    scores = {name: float(db) for name, db in re.findall(r"(bicubic|RetinaShift)\s+PSNR ([\d.]+) dB", table)}
    sr = read_image(saved(view, "Download image", tmp_path / "sr.png")).pixels
    assert scores["RetinaShift"] > scores["bicubic"]
    assert scores["RetinaShift"] == round(psnr_rgb(sr, hr, field_of_view(hr)), 2)
    plain = viewer.evaluate("e => e.shadowRoot.querySelector('canvas').toDataURL()")
    viewer.locator("#error").click()
    assert viewer.evaluate("e => e.shadowRoot.querySelector('canvas').toDataURL()") != plain
    assert "error" in viewer.locator("#legend").inner_text()
    report = saved(view, "Report", tmp_path / "report.html").read_text(encoding="utf-8")
    assert "<script" not in report
    assert not re.search(r"(?:src|href)=.?(?!data:|\W*data:)https?:", report)
    pictures = re.findall(r'<img alt="(\w+)" src="data:image/png;base64,([^"]+)"', report)
    assert [name for name, _ in pictures] == ["input", "bicubic", "result", "uncertainty", "reference", "error"]
    (tmp_path / "shown.png").write_bytes(base64.b64decode(dict(pictures)["result"]))
    assert np.array_equal(read_image(tmp_path / "shown.png").pixels, sr)
    for text in ("estimated, not observed", f"PSNR {scores['RetinaShift']} dB", "sha256", "consistency"):
        assert text in report
    sheet = view.context.new_page()
    sheet.goto((tmp_path / "report.html").as_uri())
    shot(sheet, "report.png")
    sheet.pdf(path=str(tmp_path / "report.pdf"), prefer_css_page_size=True)
    assert len(re.findall(rb"/Type\s*/Page\b", (tmp_path / "report.pdf").read_bytes())) == 1
    sheet.close()


def test_the_mode_and_its_steps_are_told_and_contradictions_are_refused_in_one_line(view, retina, tmp_path):
    Image.fromarray(retina[:16, :16]).save(tmp_path / "eye.png")
    give(view, "photographs", tmp_path / "eye.png")
    view.locator("#mode").get_by_text("realistic", exact=True).click()
    view.locator("#go").click()
    view.wait_for_selector("retina-viewer[data-ready]", timeout=WAIT)
    assert re.search(r"3 steps, realistic \(detail times [\d.]+\)", view.locator("retina-viewer table").inner_text())
    made = json.loads(saved(view, "Sidecar (JSON)", tmp_path / "sidecar.json").read_text())["provenance"]
    assert (made["steps"], "detail_gain" in made["options"]) == (3, True)
    view.locator("#samples input[type=number]").fill("4")
    view.locator("#samples input[type=number]").press("Tab")
    view.locator("#go").click()
    view.wait_for_selector("#progress [role=alert]", timeout=WAIT)
    assert "mode is realistic, and 4 samples are asked for" in view.locator("#progress").inner_text()


def test_one_reference_for_several_photographs_is_refused_in_one_line(view, retina, tmp_path):
    for name, side in (("a.png", 16), ("b.png", 16), ("hr.png", 60)):
        Image.fromarray(retina[:side, :side]).save(tmp_path / name)
    give(view, "reference", tmp_path / "hr.png")
    give(view, "photographs", tmp_path / "a.png", tmp_path / "b.png")
    view.locator("#go").click()
    view.wait_for_selector("#progress [role=alert]", timeout=WAIT)
    assert "one reference was given for 2 photographs" in view.locator("#progress").inner_text()


def test_the_chain_is_of_the_photograph_in_the_viewer_from_its_noisy_start_to_x0(view, tmp_path):
    Image.fromarray(np.full((16, 16, 3), (10, 200, 30), np.uint8)).save(tmp_path / "green.png")
    give(view, "photographs", tmp_path / "green.png")
    view.locator("#go").click()
    view.wait_for_selector("retina-viewer[data-ready]", timeout=WAIT)
    view.get_by_role("tab", name="Method").click()
    view.wait_for_selector("img[alt=schedule]", timeout=WAIT)
    assert view.locator("input[type=file]:visible").count() == 0
    view.locator("#chain").click()
    view.wait_for_selector("#strip img", timeout=WAIT)
    names = view.locator("#strip figcaption").all_inner_texts()
    assert names[:2] == ["x4, the noisy start", "y0, enlarged bicubically"]
    assert names[2:] == [
        "estimate of x0 at step 4", "x3", "estimate of x0 at step 3", "x2", "estimate of x0 at step 2", "x1",
        "x0, the result",
    ]  # fmt: skip
    colour = """e => { const c = new OffscreenCanvas(64, 64).getContext('2d'); c.drawImage(e, 0, 0);
        const d = c.getImageData(32, 32, 1, 1).data; return [d[0], d[1], d[2]]; }"""
    middle = view.locator("#strip img").last.evaluate(colour)
    assert np.abs(np.array(middle) - (10, 200, 30)).max() < 12
    assert "green.png" in view.locator("#strip >> xpath=..").inner_text()
