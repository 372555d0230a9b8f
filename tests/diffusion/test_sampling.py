"""The loop is the paper's algorithm: an oracle network leads from any noise to the truth."""

from __future__ import annotations

import pytest
import torch

from retinashift.diffusion.process import ancestral_step, deterministic_step, prior_sample
from retinashift.diffusion.sampling import boost_detail, normal_rows, sample
from retinashift.diffusion.scheduler import ResShiftScheduler


def pictures() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    x0, y0 = torch.randn(2, 1, 3, 4, 5, generator=generator)
    return x0, y0


def noise_of(seed: int, member: int, like: torch.Tensor):
    """The draws of one sample of a picture."""
    _, channels, height, width = like.shape
    return lambda number: normal_rows(seed, (member, number), 0, height, channels, width)


@pytest.mark.parametrize("transition", ["ancestral", "deterministic"])
@pytest.mark.parametrize("steps", [1, 2, 4])
def test_every_state_is_the_papers_step_from_the_state_before(transition, steps):
    x0, y0 = pictures()
    scheduler = ResShiftScheduler(4, input_scaling="none")
    scheduler.set_timesteps(steps, transition=transition)
    draw, kappa, seen, drawn = noise_of(1, 0, y0), 2.0, [], []

    def predict(x, t):
        seen.append((x, t))
        return x0 + 0.1 * t

    def watched(number):
        drawn.append(number)
        return draw(number)

    states = list(sample(scheduler, predict, y0, watched))
    visited = scheduler.timesteps.tolist()
    assert [t for _, t in seen] == visited
    assert drawn == list(range(steps + 1))
    x_t = prior_sample(y0, float(scheduler.eta[visited[0]]), kappa, draw(0))
    for number, t in enumerate(visited):
        assert torch.equal(seen[number][0], x_t)
        eta_t = float(scheduler.eta[t])
        eta_prev = float(scheduler.eta[visited[number + 1]]) if number + 1 < steps else 0.0
        estimate = x0 + 0.1 * t
        if transition == "ancestral":
            expected = ancestral_step(x_t, estimate, y0, eta_t, eta_prev, kappa, draw(number + 1))
        else:
            expected = deterministic_step(x_t, estimate, y0, eta_t, eta_prev)
        assert torch.allclose(states[number][0], expected, atol=1e-6)
        assert torch.equal(states[number][1], estimate)
        x_t = states[number][0]


def test_the_chain_ends_at_the_networks_last_estimate():
    x0, y0 = pictures()
    scheduler = ResShiftScheduler(4)
    *_, (last, estimate) = sample(scheduler, lambda x, t: x0, y0, noise_of(1, 0, y0))
    assert torch.equal(last, x0)
    assert torch.equal(estimate, x0)


def test_the_noise_of_a_sample_is_that_of_its_rows_and_differs_between_draws_and_members():
    like = torch.zeros(1, 3, 4, 5)
    draw = noise_of(7, 2, like)
    assert torch.equal(draw(1)[:, :, 1:3], normal_rows(7, (2, 1), 1, 3, 3, 5))
    assert not torch.equal(draw(1), draw(2))
    assert not torch.equal(draw(1), noise_of(7, 3, like)(1))


def test_boosting_scales_the_difference_from_the_mean():
    sample_, mean = pictures()
    assert torch.allclose(boost_detail(sample_, mean, 2.0) - mean, 2 * (sample_ - mean), atol=1e-6)
