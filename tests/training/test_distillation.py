"""A student: its target is its teacher's sample, its mean the truth, and a run of it makes a one-step checkpoint."""

from dataclasses import replace

import pytest
import torch

from retinashift.inference.pipeline import ResShiftPipeline
from retinashift.inference.settings import Sampling
from retinashift.training.build import build_pipeline
from retinashift.training.losses import distillation_error, open_teacher
from retinashift.training.run import train
from retinashift.training.settings import ConfigError, DistillSettings, TrainConfig


@pytest.fixture
def start(smoke_settings, write_settings, tmp_path):
    """A checkpoint with an opinion, and the settings of a student of it."""
    pipeline = build_pipeline(TrainConfig.load(write_settings(smoke_settings)))
    generator = torch.Generator().manual_seed(0)
    for parameter in pipeline.denoiser.parameters():
        torch.nn.init.normal_(parameter, std=0.1, generator=generator)
    pipeline.register_to_config(detail_gain=1.5)
    pipeline.save_pretrained(tmp_path / "teacher")
    smoke_settings["init_from"] = str(tmp_path / "teacher")
    smoke_settings["distill"] = {"teacher": str(tmp_path / "teacher"), "gain": 2.0}
    del smoke_settings["model"]
    return tmp_path / "teacher"


@pytest.fixture
def teacher(start):
    return open_teacher(
        DistillSettings(teacher=str(start), gain=2.0), ResShiftPipeline.from_pretrained(start), torch.device("cpu")
    )


def images(seed: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    y0, residual, noise = (torch.randn(2, 48, 8, 8, generator=generator) for _ in range(3))
    return {"x0": y0 + 0.1 * residual, "y0": y0, "noise": noise, "lq": torch.randn(2, 3, 8, 8, generator=generator)}


def test_the_teacher_is_deterministic_and_its_gain_pulls_its_sample_from_its_first_estimate(teacher):
    given = images()
    x_T = teacher.scheduler.init_noise(given["y0"], noise=given["noise"])
    place = given["noise"], given["y0"], given["lq"]
    sample, plain, mean = (replace(teacher, gain=gain).sample(*place) for gain in (2, 1, 0))
    assert torch.equal(sample, teacher.sample(*place))
    assert torch.allclose(sample, mean + 2 * (plain - mean), atol=1e-5)
    first = teacher.denoiser(x_T, 3, lq=given["lq"]).sample
    assert torch.allclose(mean, given["y0"] - first, atol=1e-5)
    assert not torch.allclose(plain, mean, atol=1e-3)


def test_the_error_is_nothing_for_a_student_that_is_the_teacher_and_right_on_average(teacher):
    given = images()
    scheduler = teacher.scheduler

    def perfect(x_T, timesteps, lq):
        assert timesteps.tolist() == [3, 3]
        noise = (x_T - given["y0"]) / scheduler.init_noise_sigma
        return given["y0"] - teacher.sample(noise, given["y0"], lq)

    assert distillation_error(teacher, perfect, **given, truth=0.0).max() < 1e-9
    opposite = (teacher.sample(sign * given["noise"], given["y0"], given["lq"]) for sign in (1, -1))
    given["x0"] = sum(opposite) / 2
    assert distillation_error(teacher, perfect, **given, truth=3.0).max() < 1e-9
    given["x0"] = given["x0"] + 0.5
    assert torch.allclose(distillation_error(teacher, perfect, **given, truth=3.0), torch.tensor(0.75), atol=1e-4)


def test_the_error_of_a_student_reaches_its_weights_and_not_the_teachers(teacher, start):
    student = ResShiftPipeline.from_pretrained(start).denoiser.train()
    given = images()
    distillation_error(teacher, lambda x, t, lq: student(x, t, lq=lq).sample, **given, truth=1.0).mean().backward()
    assert student.write.weight.grad.abs().max() > 0
    assert all(parameter.grad is None for parameter in teacher.denoiser.parameters())


def test_a_run_lowers_the_error_and_its_checkpoint_is_distilled(start, smoke_settings, write_settings):
    smoke_settings["run"] |= {"steps": 60, "save_every": 60, "validate_every": 60}
    smoke_settings["distill"] |= {"truth": 0.0}
    smoke_settings["optim"] |= {"learning_rate": 1e-2}
    losses = []
    folder = train(
        TrainConfig.load(write_settings(smoke_settings)), lambda event, values: losses.append(values.get("loss"))
    )
    losses = [loss for loss in losses if loss is not None]
    assert sum(losses[-10:]) < 0.8 * sum(losses[:10])
    pipeline = ResShiftPipeline.from_pretrained(folder)
    realistic, default = pipeline.plan(Sampling(mode="realistic")), pipeline.plan(Sampling())
    assert (pipeline.config.distilled, pipeline.config.detail_gain, realistic.steps) == (True, 1, 1)
    often = ResShiftPipeline.from_pretrained(start).plan(Sampling(mode="realistic")).back_projections
    assert default.back_projections == realistic.back_projections == often > 1


def test_one_call_of_the_teacher_is_its_posterior_mean_and_the_student_gives_it_without_noise(start):
    student = ResShiftPipeline.from_pretrained(start)
    teacher = open_teacher(DistillSettings(teacher=str(start), steps=1), student, torch.device("cpu"))
    given, seen = images(), []

    def exact(x, timesteps, lq):
        seen.append(x)
        return teacher.denoiser(x, timesteps, lq=lq).sample

    assert distillation_error(teacher, exact, **given, truth=0.0).max() < 1e-9
    assert torch.equal(seen[0], given["y0"])
    plan = student.plan(Sampling(mode="faithful"))
    assert (teacher.gives_mean, teacher.back_projections) == (True, plan.back_projections)


def test_a_teacher_of_another_chain_and_a_missing_one_are_named(start):
    student = ResShiftPipeline.from_pretrained(start)
    with pytest.raises(ConfigError, match=r"distill.teacher: no checkpoint folder"):
        open_teacher(DistillSettings(teacher=str(start / "none")), student, torch.device("cpu"))
    with pytest.raises(ConfigError, match=r"distill.steps"):
        open_teacher(DistillSettings(teacher=str(start), steps=9), student, torch.device("cpu"))
    student.scheduler = type(student.scheduler).from_config(student.scheduler.config, kappa=1.0)
    with pytest.raises(ConfigError, match="another chain"):
        open_teacher(DistillSettings(teacher=str(start)), student, torch.device("cpu"))
