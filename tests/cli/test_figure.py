"""upscale --figure: input, bicubic and result side by side, from any kind of file."""

import numpy as np
import pytest

from retinashift.cli.figure import BAR, GAP, SIDE, figure_path, write_figure
from retinashift.imaging.degradation import enlarge
from retinashift.imaging.files import ImageError, read_image, write_image


@pytest.mark.parametrize("kind", ["rgb", "grey", "deep", "alpha"])
def test_the_last_column_shows_the_result_and_its_middle_pixel_by_pixel(tmp_path, retina, kind):
    lr = {
        "rgb": retina,
        "grey": retina[..., 1],
        "deep": retina.astype(np.uint16) * 257,
        "alpha": np.dstack([retina, np.full(retina.shape[:2], 255, np.uint8)]),
    }[kind]
    source, target = tmp_path / "eye.png", tmp_path / "out.png"
    sr = np.dstack([enlarge(lr[..., i], 4, "nearest") for i in range(lr.shape[-1])]) if lr.ndim == 3 else enlarge(
        lr, 4, "nearest"
    )  # fmt: skip
    write_image(source, np.ascontiguousarray(lr))
    write_image(target, np.ascontiguousarray(sr))
    figure = read_image(write_figure(source, target, 4, overwrite=False)).pixels
    assert figure.shape == (BAR + 2 * (SIDE + GAP), GAP + 3 * (SIDE + GAP), 3)
    left, top = GAP + 2 * (SIDE + GAP), BAR + SIDE + GAP
    detail = figure[top : top + SIDE : 4, left : left + SIDE : 4]  # four screen pixels to one of the result
    shown = sr if sr.ndim == 2 else sr[..., :3]
    shown = np.rint(shown / 257).astype(np.uint8) if kind == "deep" else shown
    middle = shown[196:316, 196:316]
    assert np.array_equal(detail, np.broadcast_to(middle[..., None] if middle.ndim == 2 else middle, (120, 120, 3)))


def test_a_figure_is_never_written_over_another_silently(tmp_path, retina):
    write_image(tmp_path / "eye.png", retina[:8, :8])
    write_image(tmp_path / "out.png", retina[:32, :32])
    write_figure(tmp_path / "eye.png", tmp_path / "out.png", 4, overwrite=False)
    assert figure_path(tmp_path / "out.png") == tmp_path / "out_figure.png"
    with pytest.raises(ImageError, match="exists"):
        write_figure(tmp_path / "eye.png", tmp_path / "out.png", 4, overwrite=False)
    write_figure(tmp_path / "eye.png", tmp_path / "out.png", 4, overwrite=True)
