"""The advice follows what was done to a photograph, and tells an eye from another picture."""

import io

import numpy as np
import pytest
import skimage.data
from PIL import Image

from retinashift.imaging.degradation.bicubic import bicubic_pillow
from retinashift.imaging.degradation.pipeline import blur, gaussian_kernel, jpeg
from retinashift.inference.advice import Condition, measure_condition, quality_of_jpeg


@pytest.fixture(scope="module")
def eye():
    """(352, 352, 3): the public-domain retina of scikit-image, reduced by four."""
    return bicubic_pillow(skimage.data.retina()[:1408, :1408], 4)


def test_a_clean_photograph_needs_nothing_and_its_field_is_found(eye):
    found = measure_condition(eye)
    assert (found.advised, found.faults, found.fundus) == ("x4", [], True)
    assert found.warning(restores=False) == ""
    assert "-c x4," in found.warning(restores=True)
    assert found.diameter == pytest.approx(345, abs=10)
    assert 0.7 < found.field < 0.85


@pytest.mark.parametrize(
    ("what", "change"),
    [
        ("noise", lambda image: image + np.random.default_rng(0).normal(0, 4 / 255, image.shape)),
        ("soft", lambda image: blur(image, gaussian_kernel(1.5))),
        ("JPEG blocks", lambda image: jpeg(image.astype(np.float32), 30, "4:4:4")),
    ],
)
def test_each_fault_is_named_and_x4_restore_advised(eye, what, change):
    changed = np.rint(np.clip(change(eye.astype(np.float32) / 255), 0, 1) * 255).astype(np.uint8)
    found = measure_condition(changed)
    assert found.advised == "x4_restore"
    assert any(fault.startswith(what) for fault in found.faults)
    assert what in found.warning(restores=False)
    assert found.warning(restores=True) == ""


def test_depth_grey_and_a_size_beyond_the_limit_change_little(eye, monkeypatch):
    plain = measure_condition(eye)
    assert measure_condition(eye.astype(np.uint16) * 257) == plain
    grey = measure_condition(eye[..., 1].copy())
    assert (grey.fundus, grey.noise, grey.sharpness) == (True, plain.noise, pytest.approx(plain.sharpness, abs=0.02))
    monkeypatch.setattr("retinashift.inference.advice.MOST", 200)
    large = measure_condition(eye)
    assert large.diameter == pytest.approx(plain.diameter, abs=4)
    assert large.advised == "x4"


@pytest.mark.parametrize("name", ["astronaut", "coffee", "rocket"])
def test_another_picture_does_not_look_like_an_eye(name):
    found = measure_condition(getattr(skimage.data, name)())
    assert not found.fundus
    assert "does not look like a fundus photograph" in found.warning(restores=False)


@pytest.mark.parametrize("shape", [(1, 1), (1, 5, 3), (3, 2, 4), (2, 2, 2)])
def test_any_size_and_form_is_measured(shape):
    assert isinstance(measure_condition(np.full(shape, 90, np.uint8)), Condition)


@pytest.mark.parametrize("quality", [30, 50, 75, 92])
def test_the_quality_of_a_jpeg_is_read_from_its_table(eye, quality):
    buffer = io.BytesIO()
    Image.fromarray(eye).save(buffer, "JPEG", quality=quality)
    assert quality_of_jpeg(buffer.getvalue()) == pytest.approx(quality, abs=1)
    assert quality_of_jpeg(b"\xff\xd8 no picture") is None
    assert quality_of_jpeg(b"\x89PNG") is None
