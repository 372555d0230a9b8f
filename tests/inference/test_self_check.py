"""What contradicts the input becomes bicubic, all else stays bit for bit, and the limits hold whatever the weights."""

import logging

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw, ImageFont
from tests.builders.pipelines import light_pipeline

from retinashift.batch.jobs import BatchOptions, Job
from retinashift.batch.upscale import upscale_files
from retinashift.evaluation.similarity import psnr_rgb
from retinashift.imaging.degradation.bicubic import bicubic_pillow, crop_to_multiple, enlarge
from retinashift.imaging.files import find_images, find_provenance, read_image, write_image
from retinashift.imaging.fundus import field_of_view
from retinashift.inference.fidelity import LEVELS, SPAN, back_project_rows, value_limits
from retinashift.inference.pipeline import ResShiftPipeline
from retinashift.inference.self_check import HALO, LEVEL, SURROUND, SelfCheck
from retinashift.inference.settings import Sampling
from retinashift.models.codec import upsample_bicubic

SCALE = 4


def tensor(pixels):
    return torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 127.5 - 1


def checked(estimate, lr, measure="value", threshold=8.0, rows=None):
    check = SelfCheck(lr, SCALE, "pillow", measure, threshold)
    bands = estimate.split(rows * SCALE, -2) if rows else (estimate,)
    return torch.cat(list(check.rows(iter(bands))), -2), check


@pytest.fixture
def lr(retina):
    return tensor(bicubic_pillow(np.concatenate([retina, retina[::-1]]), SCALE))  # (1, 3, 64, 32)


@pytest.fixture
def good(retina):
    return tensor(np.concatenate([retina, retina[::-1]]))


@pytest.fixture
def burst(good):
    """The true picture with black and yellow chequers, two input pixels wide, over the input rows 48 to 56."""
    y, x = np.mgrid[: good.shape[-2], : good.shape[-1]]
    yellow = torch.from_numpy((y // 8 + x // 8) % 2).float()
    chequers = torch.stack([yellow, yellow, 0 * yellow])[None] * 2 - 1
    wrong = good.clone()
    wrong[..., 192:224, 40:72] = chequers[..., 192:224, 40:72]
    return wrong


@pytest.mark.parametrize("measure", ["value", "burst"])
def test_an_estimate_that_gives_its_input_back_stays_bit_for_bit(lr, good, measure):
    result, check = checked(good, lr, measure)
    assert torch.equal(result, good)
    assert check.share() == 0
    assert (check.returned == 0).all()


@pytest.mark.parametrize("measure", ["value", "burst"])
def test_a_burst_becomes_bicubic_and_what_is_far_from_it_stays(lr, good, burst, measure):
    result, check = checked(burst, lr, measure)
    bicubic = upsample_bicubic(lr, SCALE)
    assert torch.equal(result[..., 192:224, 40:72], bicubic[..., 192:224, 40:72])
    far = (HALO + SURROUND // 2) * SCALE
    assert torch.equal(result[..., : 192 - far, :], good[..., : 192 - far, :])
    assert (check.returned[48:56, 10:18] > 0.3).all()
    assert 0 < check.share() < 1


def test_the_check_turned_off_lets_everything_through(lr, burst):
    result, check = checked(burst, lr, "off")
    assert torch.equal(result, burst)
    assert check.share() == 0


@pytest.mark.parametrize("measure", ["value", "burst"])
@pytest.mark.parametrize("rows", [1, 3, 10, 33, 63])
def test_the_result_is_the_same_however_it_is_cut_into_bands(lr, burst, measure, rows):
    whole, one = checked(burst, lr, measure)
    bands, other = checked(burst, lr, measure, rows=rows)
    assert torch.equal(bands, whole)
    assert torch.equal(other.returned, one.returned)


def test_a_difference_counts_from_the_threshold_on(lr):
    """One input pixel is wrong by 20 levels in one colour."""
    wrong = lr.clone()
    wrong[0, 2, 30, 16] += 20 * LEVEL
    estimate = wrong.repeat_interleave(SCALE, -1).repeat_interleave(SCALE, -2)
    reduced = F.interpolate(estimate.clamp(-1, 1), scale_factor=1 / SCALE, mode="bicubic", antialias=True)
    largest = float((reduced - lr).abs().max() / LEVEL)
    assert checked(estimate, lr, threshold=largest + 0.01)[1].share() == 0
    assert checked(estimate, lr, threshold=largest - 0.01)[1].share() > 0


@pytest.mark.parametrize(("row", "level", "stays"), [(30, 12, False), (1, 12, True), (1, 20, False), (4, 12, False)])
def test_along_the_frame_twice_the_threshold_holds(row, level, stays):
    lr = torch.zeros(1, 3, 60, 60)
    wrong = lr.clone()
    wrong[0, 1, row, 25:35] = level * LEVEL
    estimate = wrong.repeat_interleave(SCALE, -1).repeat_interleave(SCALE, -2)
    assert (checked(estimate, lr)[1].share() == 0) is stays


@pytest.mark.parametrize("colour", [(255, 255, 255), (255, 160, 90)])
def test_the_sharp_edge_of_an_aperture_stays_and_what_is_drawn_beside_it_does_not(colour):
    """The estimate of the former differs by 8.5 levels from its input."""
    rows, columns = np.mgrid[:256, :256] - 127.5
    disc = np.where((rows**2 + columns**2 < 96**2)[..., None], colour, 0).astype(np.uint8)
    pipeline, lr = ResShiftPipeline.from_shipped(), bicubic_pillow(disc, SCALE)
    assert pipeline(lr).bicubic_share == [0.0]
    lr[12:50, 30:32] = (0, 255, 0)
    assert pipeline(lr).bicubic_share[0] > 0.01


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), 1e30])
def test_what_is_not_a_number_or_far_too_large_becomes_bicubic(lr, good, value):
    wrong = good.clone()
    wrong[0, 1, 100:140, 60:64] = value
    result, check = checked(wrong, lr)
    assert result.isfinite().all()
    assert torch.equal(result[..., 100:140, 60:64], upsample_bicubic(lr, SCALE)[..., 100:140, 60:64])
    assert check.returned.max() == 1


def test_removing_noise_and_relighting_are_no_burst(lr, good):
    noisy = (lr + 0.1 * torch.randn(lr.shape, generator=torch.Generator().manual_seed(0))).clamp(-1, 1)
    relit = good * 0.8 + torch.linspace(-0.3, 0.3, good.shape[-1])
    for estimate in (good, relit):
        assert checked(estimate, noisy, "burst")[1].share() == 0
        assert checked(estimate, noisy, "value")[1].share() > 0.1


@pytest.mark.parametrize("corner", [28, 5, 0])
def test_the_share_is_that_of_the_field_of_view(corner):
    lr = torch.full((1, 3, 60, 60), -1.0)
    lr[..., 10:50, 10:50] = 0.0
    estimate = upsample_bicubic(lr, SCALE) + 0.01
    estimate[..., corner * SCALE : (corner + 2) * SCALE, corner * SCALE : (corner + 2) * SCALE] = 1.0
    result, check = checked(estimate, lr)
    returned = F.max_pool2d((result != estimate).float(), SCALE)[0].amax(0)
    assert returned.sum() > 25
    assert check.share() == pytest.approx(float(returned[10:50, 10:50].mean()), abs=1e-4)


def test_uncertainty_is_at_least_the_difference_where_bicubic_was_returned(lr, burst):
    result, check = checked(burst, lr)
    sigma = check.mark(np.full(burst.shape[-2:], 1e-3, np.float32))
    difference = (upsample_bicubic(lr, SCALE) - burst).abs().amax(1)[0] / 2
    inside = (result != burst).any(1)[0]
    assert (torch.from_numpy(sigma)[inside] >= difference[inside] - 1e-6).all()
    assert (sigma[:SCALE] == np.float32(1e-3)).all()


def test_samples_add_up(lr, good, burst):
    check = SelfCheck(lr, SCALE, "pillow", "value", 12)
    list(check.rows(iter([burst])))
    before = check.returned.clone()
    list(check.rows(iter([good])))
    assert torch.equal(check.returned, before)


def test_a_network_that_bursts_everywhere_gives_bicubic_and_says_so(retina, tmp_path, caplog):
    small = bicubic_pillow(retina, SCALE)
    pipeline = light_pipeline(depth=2, std=0.3, checked=True)
    result = pipeline(small, back_projections=0)
    assert result.bicubic_share == [1.0]
    assert np.abs(result.images[0].astype(int) - enlarge(small, SCALE, "bicubic")).max() <= 1
    write_image(tmp_path / "a.png", small)
    job = Job(tmp_path / "a.png", tmp_path / "out" / "a.png")
    samples = Sampling(ensemble_size=2, num_inference_steps=4)
    with caplog.at_level(logging.WARNING):
        outcome = next(upscale_files(pipeline, [job], BatchOptions(sampling=samples)))
    assert outcome.error == ""
    assert find_provenance(job.target.read_bytes(), "a").bicubic_share == 1
    assert "100.0 % of the field returned to bicubic" in caplog.text
    again = next(upscale_files(pipeline, [job], BatchOptions(sampling=samples, resume=True)))
    assert again.skipped


def test_the_uncertainty_of_a_pipeline_tells_what_was_returned(retina):
    small = bicubic_pillow(retina, SCALE)
    network = light_pipeline(depth=2, std=0.3)(small, back_projections=0, output_type="pt").images[0]
    bicubic = torch.from_numpy(enlarge(small, SCALE, "bicubic")).permute(2, 0, 1) / 255
    result = light_pipeline(depth=2, std=0.3, checked=True, head=True)(small, output_uncertainty=True)
    assert (result.sigma[0] >= (network - bicubic).abs().amax(0).numpy() - 0.01).all()


@pytest.mark.parametrize(("setting", "value"), [("check_measure", "x"), ("check_threshold", 0)])
def test_settings_that_cannot_be_are_refused(setting, value):
    pipeline = light_pipeline()
    with pytest.raises(ValueError, match=f"{setting} is"):
        ResShiftPipeline(pipeline.denoiser, pipeline.scheduler, **{setting: value})


# The limits


def limits_in_levels(small):
    """Independent of the code under test: loops over windows, in float64. (h, w, C) each, in levels of 255."""
    deep = small.astype(np.float64) / (257 if small.dtype == np.uint16 else 1)
    deep = deep if deep.ndim == 3 else deep[..., None]
    least, most = np.empty_like(deep), np.empty_like(deep)
    for row in range(deep.shape[0]):
        for column in range(deep.shape[1]):
            window = deep[max(0, row - 2) : row + 3, max(0, column - 2) : column + 3]
            least[row, column], most[row, column] = window.min((0, 1)), window.max((0, 1))
    span = most - least
    return least - SPAN * span - LEVELS, most + SPAN * span + LEVELS


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**16),
    std=st.sampled_from([0.02, 0.1, 0.5, 5.0]),
    size=st.tuples(st.integers(1, 14), st.integers(1, 14)),
    span=st.sampled_from([0, 3, 40, 255]),
    deep=st.booleans(),
    grey=st.booleans(),
    measure=st.sampled_from(["off", "value", "burst"]),
    steps_and_members=st.sampled_from([(1, 1), (3, 1), (3, 2)]),
    times=st.integers(0, 3),
)
def test_every_value_lies_near_its_input_whatever_the_weights_are(
    seed, std, size, span, deep, grey, measure, steps_and_members, times
):
    (steps, members), rng = steps_and_members, np.random.default_rng(seed)
    small = rng.integers(0, 256 - span, 1) + rng.integers(0, span + 1, size if grey else (*size, 3))
    small = (small * 257).astype(np.uint16) if deep else small.astype(np.uint8)
    pipeline = light_pipeline(std=std, seed=seed, checked=True)
    pipeline.register_to_config(check_measure=measure, detail_gain=2.0)
    result = pipeline(small, steps, ensemble_size=members, back_projections=times).images[0]
    found = result.astype(np.float64) / (257 if deep else 1)
    found = found if found.ndim == 3 else found[..., None]
    least, most = (np.kron(limit, np.ones((SCALE, SCALE, 1))) for limit in limits_in_levels(small))
    assert (found >= least).all()
    assert (found <= most).all()


def test_limits_do_not_depend_on_the_bands(lr, burst):
    limits = value_limits(lr)
    whole = next(back_project_rows(iter([burst]), lr, SCALE, 2, limits))
    bands = back_project_rows(iter(burst.split(5 * SCALE, -2)), lr, SCALE, 2, limits)
    assert torch.allclose(torch.cat(list(bands), -2), whole, atol=1e-6)


def test_bicubic_always_lies_within_the_limits():
    lr = torch.rand(1, 3, 40, 40, generator=torch.Generator().manual_seed(0)).round() * 2 - 1
    bicubic = upsample_bicubic(lr, SCALE)
    limited = next(back_project_rows(iter([bicubic]), lr, SCALE, 0, value_limits(lr)))
    assert torch.equal(limited, bicubic.clamp(-1, 1))


# Photographs

COLOURS = [(r, g, b) for r in (0, 255) for g in (0, 255) for b in (0, 255)]


def drawn(photograph, colour):
    """A ring, a square and text in one colour."""
    image = Image.fromarray(photograph)
    canvas, side = ImageDraw.Draw(image), min(photograph.shape[:2])
    canvas.ellipse([side * 0.2, side * 0.2, side * 0.5, side * 0.5], outline=colour, width=3)
    canvas.rectangle([side * 0.55, side * 0.25, side * 0.8, side * 0.45], outline=colour, width=3)
    canvas.text((side * 0.3, side * 0.6), "OD 12.5 mm", fill=colour, font=ImageFont.load_default(side // 20))
    return np.asarray(image)


def assert_no_burst(pipeline, hr):
    hr = crop_to_multiple(hr, SCALE)
    small = bicubic_pillow(hr, SCALE)
    result, bicubic = pipeline(small, mode="faithful"), enlarge(small, SCALE, "bicubic")
    sr, field = result.images[0], field_of_view(hr)
    assert psnr_rgb(sr, hr, field) > psnr_rgb(bicubic, hr, field)
    errors = [np.abs(image.astype(int) - hr).max(-1) for image in (sr, bicubic)]
    assert (errors[0] - errors[1] >= 40).mean() <= 0.0002
    return result.bicubic_share[0]


@pytest.mark.shared
@pytest.mark.parametrize("name", ["09", "12", "26", "33", "39", "43"])
def test_an_outline_on_a_photograph_does_not_burst(shared, name):
    hr = read_image(shared / "data" / "marks" / f"idrid_IDRiD_{name}.jpg").pixels
    assert 0 < assert_no_burst(ResShiftPipeline.from_shipped(), hr) < 0.15


@pytest.mark.shared
@pytest.mark.parametrize("colour", COLOURS)
def test_what_is_drawn_on_a_photograph_does_not_burst(shared, colour):
    photograph = read_image(shared / "data" / "val" / "idrid_IDRiD_076.jpg").pixels
    assert_no_burst(ResShiftPipeline.from_shipped(), drawn(photograph, colour))


@pytest.mark.shared
def test_photographs_without_marks_are_not_touched(shared):
    """Those of DRIVE and STARE: see test_fidelity."""
    pipeline = ResShiftPipeline.from_shipped()
    for path, _ in find_images([shared / "data" / "val"]):
        lr = bicubic_pillow(crop_to_multiple(read_image(path).pixels, SCALE), SCALE)
        assert pipeline(lr, mode="faithful").bicubic_share == [0.0], path
