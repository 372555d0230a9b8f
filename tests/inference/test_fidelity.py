"""Back-projection: the result, reduced again, gives the input back; detail and exact results stay."""

import numpy as np
import pytest
import torch

from retinashift.evaluation.similarity import EQUAL, consistency
from retinashift.imaging.degradation.bicubic import bicubic_pillow, crop_to_multiple, enlarge
from retinashift.imaging.files import find_images, read_image
from retinashift.inference.consistency import compare_with_input
from retinashift.inference.fidelity import CELL, back_project_rows
from retinashift.inference.pipeline import ResShiftPipeline


def tensor(pixels):
    return torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 127.5 - 1


def back_project(sr, lr, scale, iterations, limits=None, cell=None):
    """The whole picture as one band."""
    rows = None if cell is None else lambda top, bottom: cell[..., top:bottom, :]
    [result] = back_project_rows(iter([sr]), lr, scale, iterations, limits, rows)
    return result


def pixels(image):
    return ((image[0].permute(1, 2, 0).numpy() + 1) * 127.5).round().clip(0, 255).astype(np.uint8)


def test_a_drifted_result_becomes_consistent_with_its_input(retina):
    lr = bicubic_pillow(retina, 4)
    drifted = np.clip(enlarge(lr, 4, "bicubic").astype(int) + np.array([4, -3, 2]), 0, 255).astype(np.uint8)
    before = consistency(drifted, lr, 4)
    after = consistency(pixels(back_project(tensor(drifted), tensor(lr), 4, 2)), lr, 4)
    assert before < 40
    assert after > 60


def test_more_iterations_bring_the_input_closer(retina):
    lr = bicubic_pillow(retina, 4)
    start = tensor(enlarge(lr, 4, "bicubic"))
    scores = [consistency(pixels(back_project(start, tensor(lr), 4, count)), lr, 4) for count in (0, 1, 2, 4)]
    assert scores == sorted(scores)


def test_what_lies_beyond_black_and_white_is_not_counted_on(retina):
    """It is cut off when the result is written, and would then be missing from the reduced result."""
    lr = tensor(bicubic_pillow(retina, 4))
    beyond = tensor(retina) * 1.2 - 0.4
    assert beyond.min() < -1.1
    assert torch.equal(back_project(beyond, lr, 4, 1), back_project(beyond.clamp(-1, 1), lr, 4, 1))


def test_no_iteration_changes_nothing(retina):
    image = tensor(retina)
    assert back_project(image, tensor(bicubic_pillow(retina, 4)), 4, 0) is image


def test_the_true_picture_is_left_as_it_is(retina):
    """Its reduction is the input but for rounding, so nothing is added but that."""
    moved = back_project(tensor(retina), tensor(bicubic_pillow(retina, 4)), 4, 2)
    assert np.abs(pixels(moved).astype(int) - retina).max() <= 1


def test_a_pipeline_with_back_projection_is_more_consistent(tiny_pipeline, retina):
    lr = bicubic_pillow(retina, 4)
    pipe = tiny_pipeline()
    plain, faithful = (pipe(lr, back_projections=count).images[0] for count in (0, 2))
    assert consistency(faithful, lr, 4) > consistency(plain, lr, 4) + 5


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("shape", [(21, 17), (21, 17, 3)])
def test_measured_consistency_does_not_depend_on_the_strips_and_is_the_metric(dtype, shape):
    random, top = np.random.default_rng(0), np.iinfo(dtype).max
    sr = random.integers(0, top, (84, 68, *shape[2:]), dtype=dtype)
    lr = random.integers(0, top, shape, dtype=dtype)
    whole, strips = (compare_with_input(sr, lr / np.float32(top), strip)[0] for strip in (64, 5))
    assert strips == pytest.approx(whole, abs=1e-6)
    if dtype == np.uint8:
        assert whole == pytest.approx(consistency(sr, lr, 4), abs=1e-4)


def test_a_result_that_gives_its_input_back_has_no_error(retina):
    decibel, levels = compare_with_input(retina, bicubic_pillow(retina, 4) / np.float32(255))
    assert decibel == np.inf
    assert not levels.any()


def test_every_result_tells_its_consistency(tiny_pipeline, retina):
    pipe, lr = tiny_pipeline(), bicubic_pillow(retina, 4)
    for times in (0, 2):
        result = pipe([lr, lr[:20]], back_projections=times)
        measured = [consistency(image, small, 4) for image, small in zip(result.images, (lr, lr[:20]), strict=True)]
        assert [min(found, EQUAL) for found in result.consistency] == pytest.approx(measured, abs=1e-3)
    assert measured[0] > 60
    for form in ("pil", "pt"):
        assert pipe(lr, back_projections=2, output_type=form).consistency[0] > 50


def cell_of(lr):
    return torch.full((1, 1, *lr.shape[-2:]), CELL * 2 / 255)


def test_an_eight_bit_input_is_met_to_the_bit(retina):
    lr = bicubic_pillow(retina, 4)
    noise = torch.randn(1, *retina.shape, generator=torch.Generator().manual_seed(0)).permute(0, 3, 1, 2)
    estimate, lr_tensor = tensor(retina) + 0.01 * noise, tensor(lr)
    found = bicubic_pillow(pixels(back_project(estimate, lr_tensor, 4, 3, None, cell_of(lr_tensor))), 4)
    assert (found == lr).mean() > 0.997
    assert np.abs(found.astype(int) - lr).max() <= 1


def test_an_estimate_within_the_rounding_of_its_input_stays_as_it_is():
    lr, estimate = (torch.full((1, 3, side, side), level / 127.5 - 1) for side, level in ((8, 128.0), (32, 128.2)))
    assert torch.equal(back_project(estimate, lr, 4, 2, None, cell_of(lr)), estimate)
    assert not torch.equal(back_project(estimate, lr, 4, 2), estimate)


def test_where_the_cell_is_closed_the_value_itself_is_met(retina):
    """Bicubic is softer than the input, so the cell alone would leave it softer."""
    lr = tensor(bicubic_pillow(retina, 4))
    start, closed = tensor(enlarge(bicubic_pillow(retina, 4), 4, "bicubic")), cell_of(lr)
    closed[..., :8, :] = 0
    left = (lr - torch.nn.functional.interpolate(back_project(start, lr, 4, 6, None, closed), lr.shape[-2:],
                                                 mode="bicubic", antialias=True)).abs()  # fmt: skip
    assert left[..., :6, :].mean() < 0.8 * left[..., 10:, :].mean()


@pytest.mark.parametrize("rows", [1, 3, 31])
def test_corrections_into_the_cell_do_not_depend_on_the_bands(retina, rows):
    lr, image = tensor(bicubic_pillow(retina, 4)), tensor(retina) * 0.9
    cell = cell_of(lr)
    whole = back_project(image, lr, 4, 2, None, cell)
    bands = back_project_rows(
        iter(image.split(rows * 4, -2)), lr, 4, 2, None, lambda top, bottom: cell[..., top:bottom, :]
    )
    assert torch.equal(torch.cat(list(bands), -2), whole)


def test_grey_eight_bit_photographs_come_back_to_the_bit(tiny_pipeline, retina):
    lr = bicubic_pillow(retina, 4)[..., 1]
    result = tiny_pipeline()(lr, back_projections=3).images[0]
    assert (bicubic_pillow(result, 4) == lr).mean() > 0.98


@pytest.mark.shared
def test_photographs_of_the_test_sets_come_back_at_60_db_or_more(shared):
    """Every third one; the benchmark states the consistency of all."""
    pipeline, found = ResShiftPipeline.from_shipped(), {}
    for folder in ("drive/images", "stare"):
        paths = [path for path, relative in find_images([shared / "data" / folder]) if len(relative.parts) == 1]
        assert len(paths) == 20
        for path in paths[::3]:
            lr = bicubic_pillow(crop_to_multiple(read_image(path).pixels, 4), 4)
            result = pipeline(lr)
            assert result.bicubic_share == [0.0], path
            difference = np.abs(bicubic_pillow(result.images[0], 4).astype(int) - lr)
            assert (difference == 0).mean() > 0.998, path
            assert difference.max() <= 1, path
            found[path.name] = result.consistency[0]
    assert min(found.values()) >= 60, min(found, key=lambda name: found[name])


@pytest.mark.shared
@pytest.mark.parametrize("name", ["im0082", "im0163"])
def test_the_noisiest_photographs_of_stare_enlarged_as_they_are_come_back_at_60_db_or_more(shared, name):
    photograph = read_image(shared / "data" / "stare" / f"{name}.ppm").pixels[:304, 200:504]  # surround and eye
    assert ResShiftPipeline.from_shipped()(photograph).consistency[0] >= 60


@pytest.mark.parametrize(
    "colour", [(0, 0, 0), (20, 10, 5), (150, 60, 30), (200, 90, 60), (128, 128, 128), (255, 255, 255), (255, 0, 0)]
)
def test_a_constant_picture_stays_constant(colour):
    """A sample has grain, most of it in the outermost pixels, beyond which the network sees zeros."""
    x4, flat = ResShiftPipeline.from_shipped("x4"), np.full((24, 20, 3), colour, np.uint8)

    def deviation(mode, seed):
        generator = torch.Generator().manual_seed(seed)
        return x4(flat, mode=mode, precision="fp32", generator=generator).images[0].astype(int) - colour

    estimate = np.abs(deviation("faithful", 0))
    assert estimate.max() <= (2 if {0, 255} & set(colour) else 1)
    assert estimate[1:-1, 1:-1].max() <= 1
    for seed in (0, 1):
        sample = deviation("realistic", seed)
        assert np.abs(sample).max() <= 3
        assert np.abs(sample[1:-1, 1:-1]).max() <= 2
        assert np.abs(sample.mean((0, 1))).max() < 0.2
