"""Random streams: a pure function of (seed, position), independent of their neighbours."""

import pytest
import torch

from retinashift.diffusion.sampling import stream_generator


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
