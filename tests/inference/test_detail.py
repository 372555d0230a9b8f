"""The strength of detail follows the finest octave of the input."""

import numpy as np
import pytest
import torch
from PIL import Image

from retinashift.imaging.degradation.bicubic import bicubic_pillow
from retinashift.inference.detail import EDGE, check_curves, factor_at, inner_field, scale_detail
from retinashift.inference.detail import finest_energy as energy_inside
from retinashift.inference.pictures import turn
from retinashift.models.codec import upsample_bicubic


def tensor(pixels):
    return torch.from_numpy(np.ascontiguousarray(pixels)).permute(2, 0, 1)[None].float() / 127.5 - 1


def finest_energy(lr):
    return energy_inside(lr, inner_field(lr))


def test_the_fastest_ripple_has_the_energy_of_its_square():
    rows, columns = np.indices((40, 48))
    ripple = np.where((rows + columns) % 2, 118, 138).astype(np.uint8)  # 10 levels above and below 128
    assert finest_energy(tensor(np.dstack([ripple] * 3))) == pytest.approx(np.log(100), abs=0.2)  # edges are repeated


def test_a_softer_photograph_has_less_and_the_dark_surround_counts_for_nothing(retina):
    sharp = Image.fromarray(retina)
    soft = np.asarray(sharp.resize((256, 256), Image.Resampling.LANCZOS))
    assert finest_energy(tensor(soft)) < finest_energy(tensor(retina)) - 1
    framed = np.pad(retina, ((60, 60), (60, 60), (0, 0)))
    assert finest_energy(tensor(framed)) == pytest.approx(finest_energy(tensor(retina)), abs=0.2)


def test_turned_and_tall_photographs_have_the_same_energy(retina):
    tall = np.concatenate([retina] * 3)
    energies = [finest_energy(turn(tensor(tall), way)) for way in range(4)]
    assert energies == pytest.approx([energies[0]] * 4, abs=1e-4)


def test_a_frame_without_a_field_counts_as_sharp():
    black = torch.full((1, 3, 20, 24), -1.0)
    assert factor_at([[-4, 0.5], [0, 1.0]], finest_energy(black)) == 1


def test_factors_lie_on_the_curve_and_level_beyond_it():
    curve = [[-4.0, 0.5], [-2.0, 1.0], [0.0, 1.5]]
    assert [factor_at(curve, energy) for energy in (-9, -4, -3, -1, 5)] == [0.5, 0.5, 0.75, 1.25, 1.5]


@pytest.mark.parametrize("curve", [[], [1, 2], [[-2, 1], [-3, 1]], [[-2, 0]], [[-2, "x"]], [[float("nan"), 1]]])
def test_a_bad_curve_is_refused(curve):
    with pytest.raises(ValueError, match=r"detail_curves has mean: .* pairs"):
        check_curves({"mean": curve})


def test_a_curve_of_an_unknown_use_is_refused():
    with pytest.raises(ValueError, match="mean and sample are allowed"):
        check_curves({"other": [[-2, 1.0]]})


def test_detail_is_scaled_inside_the_field_however_it_is_cut(retina):
    lr, sr = tensor(bicubic_pillow(retina, 4)), tensor(retina)
    smooth, field = upsample_bicubic(lr, 4), torch.zeros(1, 1, *lr.shape[-2:])
    field[..., 5:-7, 3:] = 1
    inside = field.repeat_interleave(4, -1).repeat_interleave(4, -2)
    whole = torch.cat(list(scale_detail(iter([sr]), lr, 4, "pillow", 0.8, field)), -2)
    assert torch.allclose(whole, torch.where(inside > 0, smooth + 0.8 * (sr - smooth), sr), atol=1e-6)
    bands = torch.cat(list(scale_detail(iter(sr.split(12, -2)), lr, 4, "pillow", 0.8, field)), -2)
    assert torch.allclose(bands, whole, atol=1e-6)


def test_the_edge_of_the_aperture_and_the_surround_lie_outside():
    framed = np.pad(np.full((40, 60, 3), 120, np.uint8), ((20, 20), (20, 20), (0, 0)))
    expected = np.pad(np.ones((40 - 2 * EDGE, 60 - 2 * EDGE)), 20 + EDGE)
    assert np.array_equal(inner_field(tensor(framed))[0, 0].numpy(), expected)


def test_a_soft_photograph_gets_less_detail_and_says_so(tiny_pipeline, retina):
    pipe = tiny_pipeline()
    pipe.register_to_config(detail_curves={"mean": [[-50, 0.5], [50, 0.5]]})
    lr = bicubic_pillow(retina, 4)
    result, plain = (each(lr, back_projections=0, output_type="pt") for each in (pipe, tiny_pipeline()))
    assert (result.detail_factor, plain.detail_factor) == ([0.5], [1.0])
    assert not torch.equal(result.images[0], plain.images[0])
