"""The report names everything that made the result, and no name of a file can write into it."""

import pytest

from retinashift.imaging.files import write_image
from retinashift.imaging.provenance import Provenance
from retinashift.web.report import report_page, report_rows


@pytest.fixture
def photo(tmp_path, retina):
    for layer in ("input", "result", "uncertainty"):
        write_image(tmp_path / f"{layer}.png", retina[:8, :8])
    made = Provenance(4, "c" * 64, 3, 11, "1" * 64, 1, 2, {"detail_gain": 1.25}, "cpu", {"torch": "2.10"}, 71.25, True)
    return {
        "name": "<script>alert(1)</script>.png", "saved": "eye_x4.png", "number": 0, "scale": 4, "seconds": 1.5,
        "input": "2 x 2, 8 bit, PNG", "output": "8 x 8, 8 bit, PNG", "provenance": vars(made),
        "maps": [], "meaning": "spread of <i>",
        "layers": ["input", "result", "uncertainty"], "quality": {"result": {"psnr": 40.5, "ssim": 0.97}},
    }  # fmt: skip


def test_every_fact_is_in_it(photo, tmp_path):
    page = report_page(tmp_path, photo)
    for text in ("c" * 64, "1" * 64, "71.25 dB", "PSNR 40.5 dB", "SSIM 0.97", "3 a sample", "11", "torch 2.10", "1.5",
                 "estimated, not observed", "the input was a result of super-resolution itself",
                 "detail multiplied by 1.25", "spread of &lt;i&gt;"):  # fmt: skip
        assert text in page


def test_names_are_text_and_pictures_are_within(photo, tmp_path):
    page = report_page(tmp_path, photo)
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    assert page.count('src="data:image/png;base64,') == page.count("src=") == 3


def test_equality_and_a_reference_of_another_size_are_said_in_words(photo):
    photo["provenance"]["consistency_db"], photo["quality"] = None, {"error": "the reference is 1x1"}
    rows = dict(report_rows(photo))
    assert rows["consistency"].startswith("equal")
    assert rows["reference"] == "the reference is 1x1"
