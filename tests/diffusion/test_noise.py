"""Random streams: a pure function of (seed, position), independent of their neighbours."""

import pytest
import torch

from retinashift.diffusion.noise import noise_window, stream_generator


def draw(seed, position, count=20_000):
    return torch.randn(count, generator=stream_generator(seed, position))


def test_a_stream_depends_on_seed_and_position_alone():
    torch.manual_seed(0)
    first = draw(3, 7, 10)
    torch.manual_seed(1)
    assert torch.equal(draw(3, 7, 10), first)
    assert not torch.equal(draw(3, 8, 10), first)
    assert not torch.equal(draw(4, 7, 10), first)


def test_neighbouring_streams_are_uncorrelated():
    streams = torch.stack([draw(0, position) for position in range(8)])
    correlation = torch.corrcoef(streams) - torch.eye(8)
    assert correlation.abs().max() < 5 / 20_000**0.5


def test_a_negative_seed_is_refused():
    with pytest.raises(ValueError, match="negative"):
        stream_generator(-1, 0)


def test_a_window_of_the_noise_field_is_the_same_whatever_is_cut_around_it():
    whole = noise_window(5, 2, 3, range(150), range(140))
    for rows, columns in (
        (range(10), range(130, 140)),
        (range(60, 70), range(63, 129)),
        (range(149, 150), range(1)),
    ):
        part = noise_window(5, 2, 3, rows, columns)
        assert torch.equal(part, whole[..., rows.start : rows.stop, columns.start : columns.stop])


def test_the_noise_field_is_standard_normal_and_its_blocks_and_draws_differ():
    field = noise_window(0, 0, 4, range(256), range(256))
    count = field.numel()
    assert abs(float(field.mean())) < 4 / count**0.5
    assert abs(float(field.var()) - 1) < 4 * (2 / count) ** 0.5
    assert not torch.equal(field[..., :64, :64], field[..., 64:128, :64])
    assert not torch.equal(field, noise_window(0, 1, 4, range(256), range(256)))
    assert not torch.equal(field, noise_window(1, 0, 4, range(256), range(256)))
