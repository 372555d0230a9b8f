"""The schedule: golden values of the official configurations, shape, and errors."""

import pytest
import torch

from retinashift.diffusion.process import posterior, respaced_timesteps, sqrt_eta_schedule

GOLDEN_15 = [0.02, 0.11717, 0.1763, 0.23363, 0.29157, 0.35101, 0.41236, 0.47586]
GOLDEN_15 += [0.54167, 0.60991, 0.68066, 0.75399, 0.82995, 0.90861, 0.99]
GOLDEN_4 = [0.1, 0.52009637, 0.76138199, 0.99]


@pytest.mark.parametrize(
    ("steps", "min_noise", "golden", "tolerance"), [(15, 0.04, GOLDEN_15, 5e-6), (4, 0.2, GOLDEN_4, 5e-9)]
)
def test_schedule_equals_the_golden_values_of_the_released_configurations(steps, min_noise, golden, tolerance):
    sqrt_eta = sqrt_eta_schedule(steps, kappa=2.0, power=0.3, min_noise=min_noise, end=0.99)
    assert sqrt_eta.tolist() == pytest.approx(golden, abs=tolerance)


@pytest.mark.parametrize("steps", [2, 4, 15, 1000])
@pytest.mark.parametrize("power", [0.3, 1.0, 2.0])
@pytest.mark.parametrize("kappa", [0.06, 1.0, 2.0, 8.0])
def test_schedule_rises_strictly_and_its_ends_are_exact(steps, power, kappa):
    sqrt_eta = sqrt_eta_schedule(steps, kappa=kappa, power=power, min_noise=0.2, end=0.99)
    assert sqrt_eta.dtype == torch.float64
    assert (sqrt_eta.diff() > 0).all()
    assert sqrt_eta[0] == min(0.2 / kappa, 0.2)
    assert sqrt_eta[-1] == 0.99


@pytest.mark.parametrize(
    "wrong", [{"steps": 1}, {"kappa": 0.0}, {"power": -1.0}, {"min_noise": 0.0}, {"end": 1.0}, {"end": 0.05}]
)
def test_a_value_outside_its_range_is_named(wrong):
    arguments = {"steps": 4, "kappa": 2.0, "power": 0.3, "min_noise": 0.2, "end": 0.99} | wrong
    with pytest.raises(ValueError, match=next(iter(wrong))):
        sqrt_eta_schedule(arguments.pop("steps"), **arguments)


def test_trailing_steps_keep_the_last_and_leading_steps_are_the_official_ones():
    assert respaced_timesteps(15, 5, "leading") == [0, 3, 6, 9, 12]
    assert respaced_timesteps(15, 5, "trailing") == [2, 5, 8, 11, 14]
    assert respaced_timesteps(4, 1) == [3]
    assert respaced_timesteps(4, 4) == respaced_timesteps(4, 4, "leading") == [0, 1, 2, 3]
    with pytest.raises(ValueError, match="num_inference_steps is 5"):
        respaced_timesteps(4, 5)


@pytest.mark.shared
def test_schedules_equal_the_reference_vectors(parity):
    """Everything that follows from eta, of nine schedules, in float64."""
    chains = {k.removeprefix("schedule_"): v for k, v in parity.facts().items() if k.startswith("schedule_")}
    assert len(chains) == 9
    for name, chain in chains.items():
        kappa = chain["kappa"]
        sqrt_eta = sqrt_eta_schedule(
            chain["steps"], kappa=kappa, power=chain["power"], min_noise=chain["min_noise_level"], end=chain["etas_end"]
        )
        eta = sqrt_eta**2
        before = torch.cat([torch.zeros(1, dtype=torch.float64), eta[:-1]])
        # mean and variance of the posterior for unit x0 and x_t
        share_of_x0, variance = posterior(torch.zeros_like(eta), torch.ones_like(eta), eta, before, kappa)
        share_of_x_t, _ = posterior(torch.ones_like(eta), torch.zeros_like(eta), eta, before, kappa)
        clipped = torch.cat([variance[1:2], variance[1:]])
        for part, values in {
            "sqrt_etas": sqrt_eta,
            "etas": eta,
            "etas_prev": before,
            "alpha": eta - before,
            "posterior_variance": variance,
            "posterior_variance_clipped": clipped,
            "posterior_log_variance_clipped": clipped.log(),
            "posterior_mean_coef1": share_of_x_t,
            "posterior_mean_coef2": share_of_x0,
        }.items():
            parity.check("schedules", f"{name}.{part}", values, 1e-9)
