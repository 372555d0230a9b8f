"""ST-LPIPS gives the distances of the wheel's own class; both distances say what they lack."""

import sys
from functools import partial
from unittest import mock

import numpy as np
import pytest
import torch

from retinashift.evaluation import similarity
from retinashift.evaluation.benchmark import Method, baseline, evaluate
from retinashift.evaluation.metrics import measure
from retinashift.evaluation.scores import Result, Subject
from retinashift.evaluation.similarity import perceptual_distance
from retinashift.imaging.degradation.bicubic import bicubic_pillow, enlarge

st_lpips = partial(perceptual_distance, "st-lpips")


@pytest.fixture
def bicubic(retina):
    return enlarge(bicubic_pillow(retina, 4), 4, "bicubic")


def test_equal_pictures_are_at_no_distance_and_grey_counts_as_three_channels(retina, bicubic):
    pytest.importorskip("stlpips_pytorch", reason="the extra lpips is not installed")
    assert st_lpips(retina, retina).max() == 0
    grey = [np.repeat(pixels[..., :1], 3, 2) for pixels in (bicubic, retina)]
    assert np.array_equal(st_lpips(bicubic[..., 0], retina[..., 0]), st_lpips(*grey))


def test_the_distance_is_the_one_of_the_wheel(retina, bicubic):
    pytest.importorskip("stlpips_pytorch", reason="the extra lpips is not installed")
    assert st_lpips(bicubic, retina).mean() == pytest.approx(0.05336524, abs=1e-4)
    nearest = enlarge(bicubic_pillow(retina, 4), 4, "nearest")
    assert st_lpips(nearest, retina).mean() == pytest.approx(0.03852637, abs=1e-4)


def test_only_the_mask_counts_and_a_shift_hardly_matters(retina, bicubic):
    pytest.importorskip("stlpips_pytorch", reason="the extra lpips is not installed")
    left = np.zeros(retina.shape[:2], bool)
    left[:, :64] = True

    def scores(field):
        subject = Subject("eye", retina, bicubic_pillow(retina, 4), field, 4)
        return measure(Result(subject, "bicubic", bicubic), ["st-lpips"]).scores

    west, east = scores(left), scores(~left)
    whole = west["st_lpips"]
    assert whole == pytest.approx((west["st_lpips_fov"] + east["st_lpips_fov"]) / 2)
    shifted = np.roll(retina, 1, axis=1)
    assert st_lpips(shifted, retina).mean() < 0.5 * whole


@pytest.fixture
def fresh():
    """No network of another test."""
    similarity.network.cache_clear()
    yield
    similarity.network.cache_clear()


@pytest.mark.parametrize(("metric", "package"), [("st-lpips", "stlpips_pytorch"), ("lpips", "torchmetrics")])
def test_without_the_extra_each_metric_says_so_before_the_first_photograph(fresh, metric, package):
    with (
        mock.patch("retinashift.models.perceptual.find_spec", return_value=None),
        pytest.raises(ValueError, match=rf"need {package}: pip install 'retinashift\[lpips\]'"),
    ):
        evaluate([("a", lambda: pytest.fail("was read"))], [baseline("nearest", 4)], scale=4, seeds=[0],
                 metrics=[metric])  # fmt: skip


def test_lpips_works_offline_from_the_cache_of_torch_without_torchvision(fresh, retina, bicubic, tmp_path, monkeypatch):
    """The file that a download leaves; here with random weights."""
    pytest.importorskip("torchmetrics", reason="the extra lpips is not installed")
    convolutions = [(0, 3, 64, 11), (3, 64, 192, 5), (6, 192, 384, 3), (8, 384, 256, 3), (10, 256, 256, 3)]
    generator, state = torch.Generator().manual_seed(0), {}
    for number, before, after, kernel in convolutions:
        spread = (2 / (before * kernel**2)) ** 0.5
        state[f"features.{number}.weight"] = spread * torch.randn(after, before, kernel, kernel, generator=generator)
        state[f"features.{number}.bias"] = torch.zeros(after)
    (tmp_path / "hub" / "checkpoints").mkdir(parents=True)
    torch.save(state, tmp_path / "hub" / "checkpoints" / "alexnet-owt-7be5be79.pth")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setitem(sys.modules, "torchvision", None)
    report = evaluate([("a", retina)], [Method("perfect", lambda lr, seed: retina), baseline("bicubic", 4)],
                      scale=4, seeds=[0], metrics=["lpips"])  # fmt: skip
    found = {name: mean["lpips_alex"] for name, mean in report.means().items()}
    assert found["perfect"] == 0
    assert found["bicubic"] == float(perceptual_distance("lpips", bicubic, retina)) > 0


def test_pictures_too_small_have_no_distance_and_different_ones_are_refused(retina):
    assert st_lpips(retina[:31], retina[:31]) is None
    assert perceptual_distance("lpips", retina[:30], retina[:30]) is None
    with pytest.raises(ValueError, match="must be equal"):
        st_lpips(retina, retina[:-1])
