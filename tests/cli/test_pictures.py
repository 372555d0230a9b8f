"""The contact sheet shows every step, is the same for the same seed, and replaces nothing unasked."""

import numpy as np
import pytest
import skimage.data
from PIL import Image

from builders.command import one_line_error, retinashift
from retinashift.imaging.degradation.pipeline import STEPS, Camera
from retinashift.imaging.figures import CELL, SHEET_ROWS, draw_sheet, strength_caption


def test_every_step_has_a_row_and_the_sheet_follows_the_seed():
    hr = skimage.data.retina()[400:800, 400:800]
    first, again, other = (draw_sheet(hr, Camera(), seed) for seed in (0, 0, 1))
    assert set(SHEET_ROWS) == set(STEPS)
    assert (strength_caption("noise", 0.002), strength_caption("jpeg", 60.0)) == (
        "deviation 0.2 % of white",
        "quality 40",
    )
    assert (strength_caption("defocus", 4.0), strength_caption("mosaic", 0.0)) == ("radius 4 px", "RGGB, bilinear")
    assert first.shape[0] > (len(STEPS) + 2) * CELL
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    with pytest.raises(ValueError, match="at least 200"):
        draw_sheet(hr[:100], Camera(), 0)


def test_the_command_writes_a_png_and_replaces_none(tmp_path):
    settings = tmp_path / "s.yaml"
    settings.write_text("data: {path: x}\ndegradation: {kind: realistic, noise: [0.1, 0.2], second_order: 0.5}\n")
    run = ("degradations", "-o", tmp_path / "sheet.png", "--config", settings)
    assert retinashift(*run).returncode == 0
    assert Image.open(tmp_path / "sheet.png").size[0] > 4 * CELL
    assert "exists already" in one_line_error(retinashift(*run))
