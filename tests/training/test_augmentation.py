"""Each change does to a crop what its name says, to the share of crops asked for, and nothing where it is not."""

import pytest
import torch

from retinashift.data.photographs import Source, list_source
from retinashift.training.batches import (
    NUMBERS_OF_CHANGES,
    SURROUND_MAX,
    PhotographSet,
    as_another_camera,
    bicubic_reduce,
    make_batch,
)
from retinashift.training.settings import CropSettings


@pytest.fixture
def pool(photographs):
    return PhotographSet(list_source(Source(str(photographs))), cache_gib=1)


def test_blur_removes_detail(pool):
    sharp, soft = (
        make_batch(pool, CropSettings(size=32, blur_sigma_max=sigma), 4, 0, range(32)).hr for sigma in (0.0, 4.0)
    )
    assert soft.diff(dim=-1).abs().mean() < 0.9 * sharp.diff(dim=-1).abs().mean()


def test_sharpening_adds_detail_to_half_of_the_samples(pool):
    plain, sharp = (
        make_batch(pool, CropSettings(size=32, flip=False, sharpen_max=most), 4, 0, range(32)).hr for most in (0.0, 2.0)
    )
    detail = sharp.diff(dim=-1).abs().mean((1, 2, 3)) / plain.diff(dim=-1).abs().mean((1, 2, 3))  # (B,)
    assert (detail > 0.999).all()
    assert 0.2 < (detail > 1.05).float().mean() < 0.7


def test_tints_change_half_of_the_samples_each_colour_for_itself_and_never_the_agreement_of_hr_and_lr(pool):
    plain = make_batch(pool, CropSettings(size=32, flip=False), 4, 0, range(32))
    tinted = make_batch(pool, CropSettings(size=32, flip=False, tint_max=0.2), 4, 0, range(32))
    assert torch.equal(bicubic_reduce(tinted.hr, 4), tinted.lr)
    changed = (tinted.hr - plain.hr).abs().amax(dim=(-2, -1)) > 1.5 / 255  # (B, 3)
    assert 8 <= int(changed.any(1).sum()) <= 24
    lowest, highest = (1 - 0.2) * plain.hr**1.2, plain.hr ** (1 / 1.2)
    assert (tinted.hr >= lowest - 1 / 255).all()
    assert (tinted.hr <= highest + 1 / 255).all()


def changed(image: torch.Tensor, settings: CropSettings, count: int = 64) -> torch.Tensor:
    """`count` changes of one image, (count, 3, S, S)."""
    numbers = torch.rand(count, NUMBERS_OF_CHANGES, generator=torch.Generator().manual_seed(0))
    return as_another_camera(image.expand(count, *image.shape), settings, numbers)


def test_nothing_is_changed_where_nothing_is_asked_for():
    image = torch.rand(3, 16, 16, generator=torch.Generator().manual_seed(0))
    assert (changed(image, CropSettings(size=16)) == image).all()


def test_a_change_does_not_decide_what_another_one_does():
    image = torch.full((3, 16, 16), 0.3)
    exposed, both = (changed(image, CropSettings(size=16, expose_max=1.0, blur_sigma_max=s)) for s in (0.0, 1.0))
    assert torch.allclose(exposed, both, atol=1e-5)  # a flat image cannot be blurred


def test_exposure_multiplies_each_colour_and_cuts_off_at_white():
    image = torch.linspace(0.01, 0.8, 256).reshape(1, 16, 16).expand(3, 16, 16)
    results = changed(image, CropSettings(size=16, expose_max=1.0))
    gains = results[..., 0, 0] / image[:, 0, 0]  # (B, 3), from a pixel too dark to be cut off
    assert gains.min() < 0.6
    assert gains.max() > 1.7
    assert ((gains > 0.499) & (gains < 2.001)).all()
    assert ((gains - gains[:, :1]).abs().amax(1) > 0.01).sum() == (gains != 1).any(1).sum()  # each for itself
    assert 20 <= int((gains != 1).any(1).sum()) <= 44
    assert torch.allclose(results, (gains[:, :, None, None] * image).clamp(max=1), atol=1e-5)


def test_an_aperture_leaves_one_side_of_an_edge_alone_and_darkens_the_other():
    image = torch.full((3, 64, 64), 0.7)
    results = changed(image, CropSettings(size=64, aperture_share=0.5))
    cut = results[(results != image).flatten(1).any(1)]
    assert 20 <= len(cut) <= 44
    inside = (cut == image).all(1).flatten(1).float().mean(1)  # (B,)
    dark = (cut <= SURROUND_MAX).all(1).flatten(1).float().mean(1)
    assert (inside > 0.2).all()
    assert (dark > 0).float().mean() > 0.9
    edge = 1 - inside - dark  # a line through the crop, at most four pixels thick
    assert (edge < 0.12).all()
    assert (cut.amax((1, 2, 3)) <= 0.7).all()


def test_the_edge_of_an_aperture_may_be_sharp_or_soft():
    image = torch.full((3, 64, 64), 0.7)
    results = changed(image, CropSettings(size=64, aperture_share=1.0))
    steps = results.diff(dim=-1).abs().amax((1, 2, 3)).maximum(results.diff(dim=-2).abs().amax((1, 2, 3)))  # (B,)
    assert steps.min() < 0.25  # of a whole step of 0.6 to 0.7
    assert steps.max() > 0.55
