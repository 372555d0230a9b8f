"""ResShiftScheduler on diffusers' contract: oracles, determinism, configuration round trip, errors."""

import pytest
import torch

from retinashift.diffusion.process import q_sample
from retinashift.diffusion.scheduler import ResShiftScheduler

KINDS = ("x0", "residual", "noise", "scaled_noise")


def normal(seed: int, *shape: int, dtype=torch.float64) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def run_with_oracle(scheduler: ResShiftScheduler, count: int, x0: torch.Tensor, y0: torch.Tensor) -> torch.Tensor:
    """The whole loop with a denoiser that knows x0 and answers in the scheduler's own prediction type."""
    generator = torch.Generator().manual_seed(5)
    scheduler.set_timesteps(count)
    kappa, kind = scheduler.config.kappa, scheduler.config.prediction_type
    x_t = scheduler.init_noise(y0, generator)
    for t in scheduler.timesteps:
        eta_t = scheduler.eta[t]
        noise = (x_t - x0 - eta_t * (y0 - x0)) / (kappa * eta_t.sqrt())  # what turns x0 into this x_t
        answer = {"x0": x0, "residual": y0 - x0, "noise": noise, "scaled_noise": kappa * eta_t.sqrt() * noise}[kind]
        x_t = scheduler.step(answer, t, x_t, y0, generator).prev_sample
    return x_t


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("transition", ["ancestral", "deterministic"])
@pytest.mark.parametrize(("steps", "count"), [(2, 1), (4, 1), (4, 2), (4, 4), (15, 5), (15, 15)])
@pytest.mark.parametrize("spacing", ["trailing", "leading"])
def test_an_oracle_gives_x0_back(kind, transition, steps, count, spacing):
    scheduler = ResShiftScheduler(steps, kappa=0.5, prediction_type=kind, transition=transition, spacing=spacing)
    x0, y0 = normal(1, 2, 3, 4, 5), normal(2, 2, 3, 4, 5)
    assert (run_with_oracle(scheduler, count, x0, y0) - x0).abs().max() < 1e-6


def test_timesteps_run_downwards_from_the_last_step():
    scheduler = ResShiftScheduler(15)
    scheduler.set_timesteps(5)
    assert scheduler.timesteps.tolist() == [14, 11, 8, 5, 2]
    assert len(scheduler) == 15


def test_same_generator_seed_gives_the_same_chain_and_another_seed_another():
    scheduler = ResShiftScheduler(4)
    y0, output = normal(1, 1, 3, 4, 4), normal(2, 1, 3, 4, 4)

    def step(seed):
        generator = torch.Generator().manual_seed(seed)
        x_t = scheduler.init_noise(y0, generator)
        return scheduler.step(output, 3, x_t, y0, generator).prev_sample

    assert torch.equal(step(0), step(0))
    assert not torch.equal(step(0), step(1))


def test_the_last_visited_step_returns_the_estimate_without_noise():
    scheduler = ResShiftScheduler(4, prediction_type="x0")
    x_t, y0, output = (normal(seed, 1, 3, 4, 4) for seed in (1, 2, 3))
    result = scheduler.step(output, 0, x_t, y0, torch.Generator().manual_seed(0))
    assert torch.equal(result.prev_sample, output)
    assert torch.equal(result.pred_original_sample, output)


def test_add_noise_is_the_marginal_of_each_elements_own_step():
    scheduler = ResShiftScheduler(4, kappa=0.5)
    x0, y0, noise = (normal(seed, 3, 2, 4, 4) for seed in (1, 2, 3))
    timesteps = torch.tensor([0, 3, 1])
    together = scheduler.add_noise(x0, noise, timesteps, y0)
    for i, t in enumerate(timesteps):
        assert torch.allclose(together[i], q_sample(x0[i], y0[i], scheduler.eta[t], 0.5, noise[i]))


@pytest.mark.parametrize("scaling", ["latent", "pixel"])
@pytest.mark.parametrize("t", [0, 3])
def test_scaled_input_keeps_its_stated_size(scaling, t):
    """latent: unit variance for unit-variance latents. pixel: [-1, 1] and three sigma of noise stay in [-1, 1]."""
    scheduler = ResShiftScheduler(4, kappa=2.0, input_scaling=scaling)
    sigma = 2.0 * scheduler.sqrt_eta[t].item()
    if scaling == "latent":
        x_t = normal(1, 1, 3, 200, 200) + sigma * normal(2, 1, 3, 200, 200)
        assert scheduler.scale_model_input(x_t, t).std().item() == pytest.approx(1, rel=0.01)
    else:
        extreme = torch.full((1, 3, 2, 2), 1 + 3 * sigma, dtype=torch.float64)
        assert scheduler.scale_model_input(extreme, torch.tensor([t])).max().item() == pytest.approx(1)


def test_clip_x0_bounds_the_estimate_and_is_off_by_default():
    x = torch.full((1, 1, 2, 2), 3.0)
    assert ResShiftScheduler(4).predict_x0(x, 3, x, x).max() == 3
    assert ResShiftScheduler(4, clip_x0=True).predict_x0(x, 3, x, x).max() == 1


def test_configuration_survives_saving(tmp_path):
    scheduler = ResShiftScheduler(15, kappa=0.7, min_noise=0.04, prediction_type="residual", transition="deterministic")
    scheduler.save_pretrained(tmp_path)
    again = ResShiftScheduler.from_pretrained(tmp_path)
    settings = {name: value for name, value in scheduler.config.items() if not name.startswith("_")}
    assert {name: again.config[name] for name in settings} == settings
    assert torch.equal(again.sqrt_eta, scheduler.sqrt_eta)


@pytest.mark.parametrize("name", ["prediction_type", "input_scaling", "spacing", "transition"])
def test_an_unknown_choice_is_refused_by_name(name):
    with pytest.raises(ValueError, match=f"{name} is 'else'"):
        ResShiftScheduler(4, **{name: "else"})


def test_a_step_that_is_not_visited_is_refused():
    scheduler = ResShiftScheduler(4)
    scheduler.set_timesteps(1)
    x = torch.zeros(1, 1, 2, 2)
    with pytest.raises(ValueError, match="timestep 2 is not visited"):
        scheduler.step(x, 2, x, x)


def test_float32_drifts_little_from_float64_over_the_whole_chain():
    x0, y0 = normal(1, 1, 3, 16, 16), normal(2, 1, 3, 16, 16)
    noises = normal(3, 16, 1, 3, 16, 16)
    ends = []
    for dtype in (torch.float32, torch.float64):
        scheduler = ResShiftScheduler(15, min_noise=0.04)
        x_t = scheduler.init_noise(y0.to(dtype), noise=noises[0].to(dtype))
        for i, t in enumerate(scheduler.timesteps):
            answer = 0.9 * x0.to(dtype) + 0.1 * scheduler.scale_model_input(x_t, t)  # an imperfect, smooth denoiser
            x_t = scheduler.step(answer, t, x_t, y0.to(dtype), noise=noises[i + 1].to(dtype)).prev_sample
        ends.append(x_t.double())
    assert (ends[0] - ends[1]).abs().max() < 1e-5


@pytest.mark.shared
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("clip", [False, True])
@pytest.mark.parametrize(("name", "steps", "min_noise"), [("s4", 4, 0.2), ("s15", 15, 0.04)])
def test_steps_equal_the_reference_vectors(parity, kind, clip, name, steps, min_noise):
    v = parity.vectors("diffusion_ops", f"{name}.")
    official = {"x0": "xstart", "residual": "residual", "noise": "epsilon", "scaled_noise": "epsilon_scale"}[kind]
    scheduler = ResShiftScheduler(steps, kappa=2.0, min_noise=min_noise, prediction_type=kind, clip_x0=clip)
    prefix, found = f"{name}.p_sample_{official}_clip{int(clip)}", {"sample": [], "pred_xstart": [], "mean": []}
    for i, t in enumerate(v["t"].tolist()):
        one = {key: v[key][i : i + 1] for key in ("model_output", "x_t", "y", "noise")}
        step = scheduler.step(one["model_output"], t, one["x_t"], one["y"], noise=one["noise"])
        still = scheduler.step(one["model_output"], t, one["x_t"], one["y"], noise=0 * one["noise"])
        found["sample"].append(step.prev_sample)
        found["pred_xstart"].append(step.pred_original_sample)
        found["mean"].append(still.prev_sample)
    for part, values in found.items():
        relative = "noise" in kind and not clip  # divides by 1 - eta_t, up to fifty-fold
        parity.check("diffusion_ops", f"{prefix}.{part}", torch.cat(values), 1e-5, relative=relative)


@pytest.mark.shared
@pytest.mark.parametrize(("name", "steps", "min_noise"), [("s4", 4, 0.2), ("s15", 15, 0.04)])
@pytest.mark.parametrize(("scaling", "case"), [("latent", "11"), ("pixel", "01"), ("none", "10")])
def test_input_scaling_equals_the_reference_vectors(parity, name, steps, min_noise, scaling, case):
    v = parity.vectors("diffusion_ops", f"{name}.")
    scheduler = ResShiftScheduler(steps, kappa=2.0, min_noise=min_noise, input_scaling=scaling)
    scaled = scheduler.scale_model_input(v["x_t"], v["t"])
    parity.check("diffusion_ops", f"{name}.scale_input_latent{case[0]}_norm{case[1]}", scaled, 1e-5)
    one_by_one = [scheduler.scale_model_input(v["x_t"][i], t) for i, t in enumerate(v["t"].tolist())]
    assert torch.equal(torch.stack(one_by_one), scaled)


@pytest.mark.shared
@pytest.mark.parametrize(("steps", "count"), [(15, 5), (15, 4), (15, 7), (15, 15), (1000, 15)])
def test_respacing_equals_the_reference_vectors(parity, steps, count):
    scheduler = ResShiftScheduler(steps, kappa=2.0, min_noise=0.04, spacing="leading")
    scheduler.set_timesteps(count)
    kept = scheduler.timesteps.flip(0)
    eta = scheduler.eta[kept]
    before = torch.cat([torch.zeros(1), eta[:-1]])
    variance = 4 * before / eta * (eta - before)
    name = f"respace_{steps}to{count}"
    parity.check("schedules", f"{name}.timestep_map", kept, 0)
    parity.check("schedules", f"{name}.sqrt_etas", scheduler.sqrt_eta[kept], 1e-12)
    parity.check("schedules", f"{name}.posterior_variance", variance, 1e-12)
