"""The chain's mathematics, in numbers: closed forms, Bayes' rule, oracles, and the reference vectors."""

import math

import pytest
import torch

from retinashift.diffusion.process import (
    ancestral_step,
    deterministic_step,
    elbo_weight,
    posterior,
    predict_x0,
    prior_sample,
    q_sample,
    q_step,
    sqrt_eta_schedule,
    training_target,
)

DRAWS = 200_000
KAPPA = 2.0
KINDS = ("x0", "residual", "noise", "scaled_noise")


def normal(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def assert_moments(draws: torch.Tensor, mean: float, variance: float) -> None:
    """Sample mean and variance within four standard errors of the stated ones."""
    count = draws.numel()
    assert abs(draws.mean().item() - mean) < 4 * math.sqrt(variance / count)
    assert abs(draws.var().item() - variance) < 4 * variance * math.sqrt(2 / count)


@pytest.mark.parametrize("t", [0, 3, 7, 14])
def test_q_sample_has_the_mean_and_variance_of_the_marginal(t):
    eta = sqrt_eta_schedule(15, kappa=KAPPA, min_noise=0.04) ** 2
    x0, y0 = torch.tensor(0.3), torch.tensor(-0.5)
    draws = q_sample(x0, y0, eta[t], KAPPA, normal(t, DRAWS))
    assert_moments(draws, 0.3 + eta[t].item() * -0.8, KAPPA**2 * eta[t].item())


@pytest.mark.parametrize("steps", [4, 15])
def test_composed_single_steps_have_the_moments_of_the_marginal(steps):
    eta = sqrt_eta_schedule(steps, kappa=KAPPA) ** 2
    alpha = torch.diff(eta, prepend=torch.zeros(1, dtype=torch.float64))
    x0, y0 = torch.tensor(0.3, dtype=torch.float64), torch.tensor(-0.5, dtype=torch.float64)
    x_t = x0.expand(DRAWS)
    for t in range(steps):
        x_t = q_step(x_t, x0, y0, alpha[t], KAPPA, normal(100 + t, DRAWS))
        assert_moments(x_t, 0.3 + eta[t].item() * -0.8, KAPPA**2 * eta[t].item())


@pytest.mark.parametrize("t", [1, 2, 3])
def test_posterior_equals_bayes_rule_on_a_grid(t):
    eta = sqrt_eta_schedule(4, kappa=KAPPA) ** 2
    x0, y0, x_t = 0.3, -0.5, 1.7
    grid = torch.linspace(-12, 12, 200_001, dtype=torch.float64)  # x_{t-1}
    alpha = (eta[t] - eta[t - 1]).item()

    def log_normal(x, mean, variance):
        return -0.5 * (x - mean) ** 2 / variance

    log_likelihood = log_normal(x_t, grid + alpha * (y0 - x0), KAPPA**2 * alpha)  # q(x_t | x_{t-1})
    log_prior = log_normal(grid, x0 + eta[t - 1] * (y0 - x0), KAPPA**2 * eta[t - 1])  # q(x_{t-1} | x0)
    density = torch.softmax(log_likelihood + log_prior, dim=0)
    mean = (density * grid).sum()
    variance = (density * (grid - mean) ** 2).sum()
    x = torch.tensor(x_t, dtype=torch.float64)
    ours_mean, ours_variance = posterior(x, torch.tensor(x0, dtype=torch.float64), eta[t], eta[t - 1], KAPPA)
    assert ours_mean.item() == pytest.approx(mean.item(), abs=1e-8)
    assert ours_variance.item() == pytest.approx(variance.item(), abs=1e-8)


def test_ancestral_steps_from_the_marginal_stay_on_the_marginal():
    eta = sqrt_eta_schedule(4, kappa=KAPPA) ** 2
    x0, y0 = torch.tensor(0.3, dtype=torch.float64), torch.tensor(-0.5, dtype=torch.float64)
    x_t = q_sample(x0, y0, eta[3], KAPPA, normal(1, DRAWS))
    for t in (3, 2, 1):
        x_t = ancestral_step(x_t, x0, y0, eta[t], eta[t - 1], KAPPA, normal(10 + t, DRAWS))
        assert_moments(x_t, 0.3 + eta[t - 1].item() * -0.8, KAPPA**2 * eta[t - 1].item())


def test_deterministic_step_keeps_the_noise_of_the_state():
    eta = sqrt_eta_schedule(4, kappa=KAPPA) ** 2
    x0, y0, noise = (normal(seed, 2, 3, 4, 4) for seed in (1, 2, 3))
    before = q_sample(x0, y0, eta[3], KAPPA, noise)
    after = deterministic_step(before, x0, y0, eta[3], eta[2])
    assert torch.allclose(after, q_sample(x0, y0, eta[2], KAPPA, noise), atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("t", [0, 1, 2, 3])
def test_predict_x0_inverts_every_training_target(kind, t):
    eta = sqrt_eta_schedule(4, kappa=KAPPA) ** 2
    x0, y0, noise = (normal(seed, 2, 3, 4, 4) for seed in (1, 2, 3))
    x_t = q_sample(x0, y0, eta[t], KAPPA, noise)
    target = training_target(kind, x0, y0, noise, eta[t], KAPPA)
    assert torch.allclose(predict_x0(kind, target, x_t, y0, eta[t], KAPPA), x0, atol=1e-10)


def test_an_unknown_prediction_type_is_named():
    x = torch.zeros(1, 1, 1, 1)
    with pytest.raises(ValueError, match="'velocity'"):
        predict_x0("velocity", x, x, x, 0.5, KAPPA)
    with pytest.raises(ValueError, match="'velocity'"):
        training_target("velocity", x, x, x, 0.5, KAPPA)


@pytest.mark.parametrize("kind", KINDS)
def test_elbo_weight_turns_each_error_into_the_divergence_of_the_posteriors(kind):
    """w_t * |error of the prediction|^2 must equal |mean_q - mean_p|^2 / (2 variance), for any wrong prediction."""
    eta = sqrt_eta_schedule(4, kappa=KAPPA) ** 2
    x0, y0, noise, wrong = (normal(seed, 1, 1, 1, 1) for seed in (1, 2, 3, 4))
    weight = elbo_weight(kind, eta, KAPPA)
    for t in (1, 2, 3):
        x_t = q_sample(x0, y0, eta[t], KAPPA, noise)
        target = training_target(kind, x0, y0, noise, eta[t], KAPPA)
        estimate = predict_x0(kind, target + wrong, x_t, y0, eta[t], KAPPA)
        mean_q, variance = posterior(x_t, x0, eta[t], eta[t - 1], KAPPA)
        mean_p, _ = posterior(x_t, estimate, eta[t], eta[t - 1], KAPPA)
        divergence = (mean_q - mean_p) ** 2 / (2 * variance)
        assert (weight[t] * wrong**2).item() == pytest.approx(divergence.item(), rel=1e-9)


@pytest.mark.shared
@pytest.mark.parametrize(("name", "steps", "min_noise"), [("s4", 4, 0.2), ("s15", 15, 0.04)])
def test_operators_equal_the_reference_vectors(parity, name, steps, min_noise):
    v = parity.vectors("diffusion_ops", f"{name}.")
    table = (sqrt_eta_schedule(steps, kappa=KAPPA, min_noise=min_noise) ** 2).float()
    before = torch.cat([torch.zeros(1), table[:-1]])
    eta, eta_prev = (values[v["t"]].view(-1, 1, 1, 1) for values in (table, before))
    mean, variance = posterior(v["x_t"], v["x_start"], eta, eta_prev, KAPPA)
    clipped = torch.where(eta_prev > 0, variance, variance[eta_prev > 0].min())  # the first step takes the second's
    output, still = v["model_output"], torch.zeros_like(v["noise"])
    q_mean, one_sigma = (q_sample(v["x_start"], v["y"], eta, KAPPA, noise) for noise in (still, still + 1))
    q_variance = (one_sigma - q_mean) ** 2
    for name_of_vector, ours in {
        "q_sample": q_sample(v["x_start"], v["y"], eta, KAPPA, v["noise"]),
        "q_mean": q_mean,
        "q_variance": q_variance,
        "q_log_variance": q_variance.log(),
        "prior_sample": prior_sample(v["y"], table[-1], KAPPA, v["noise"]),
        "posterior_mean": mean,
        "posterior_variance": variance.expand_as(mean),
        "posterior_log_variance": clipped.log().expand_as(mean),
        "xstart_from_residual": predict_x0("residual", output, v["x_t"], v["y"], eta, KAPPA),
        "xstart_from_eps": predict_x0("noise", output, v["x_t"], v["y"], eta, KAPPA),
        "xstart_from_eps_scale": predict_x0("scaled_noise", output, v["x_t"], v["y"], eta, KAPPA),
        "x_t": q_sample(v["x_start"], v["y"], eta, KAPPA, v["eps_from_xstart"]),
    }.items():
        relative = name_of_vector.startswith("xstart_from_eps")  # divides by 1 - eta_t, up to fifty-fold
        parity.check("diffusion_ops", f"{name}.{name_of_vector}", ours, 1e-5, relative=relative)


@pytest.mark.shared
def test_weights_of_the_bound_equal_the_reference_vectors(parity):
    facts = parity.facts()
    for name, chain in ((k.removeprefix("schedule_"), v) for k, v in facts.items() if k.startswith("schedule_")):
        eta = (
            sqrt_eta_schedule(
                chain["steps"], kappa=chain["kappa"], power=chain["power"],
                min_noise=chain["min_noise_level"], end=chain["etas_end"],
            ) ** 2
        )  # fmt: skip
        for kind, key in (("x0", "xstart"), ("scaled_noise", "epsilon")):
            weight = elbo_weight(kind, eta, chain["kappa"])
            if kind == "scaled_noise":
                weight = weight * chain["kappa"] ** 2 * eta  # the official loss of the scaled noise divides by this
            parity.check("schedules", f"{name}.weight_loss_mse_{key}", weight, 1e-9, relative=True)
