"""From settings to parts: fresh weights depend on the seed alone, and a checkpoint must fit the settings."""

from pathlib import Path

import pytest
import torch

from retinashift.training.build import build_pipeline, resolved
from retinashift.training.settings import ConfigError, TrainConfig

PROJECT = Path(__file__).resolve().parents[2]


def build(smoke_settings, write_settings, *overrides):
    return build_pipeline(TrainConfig.load(write_settings(smoke_settings), list(overrides)))


def test_fresh_weights_depend_on_the_seed_alone(smoke_settings, write_settings):
    torch.manual_seed(1)
    first = build(smoke_settings, write_settings).denoiser.state_dict()
    torch.manual_seed(2)
    again = build(smoke_settings, write_settings).denoiser.state_dict()
    other = build(smoke_settings, write_settings, "run.seed=1").denoiser.state_dict()
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)


def test_the_shipped_checkpoint_is_a_starting_point(smoke_settings, write_settings):
    pipeline = build(smoke_settings, write_settings, "init_from=shipped")
    assert pipeline.config.scale == 4
    assert pipeline.denoiser.dtype == torch.float32


def test_a_starting_point_brings_its_chain_and_denoiser_into_the_settings(smoke_settings, write_settings):
    del smoke_settings["model"]
    config = TrainConfig.load(write_settings(smoke_settings), ["init_from=shipped"])
    pipeline = build_pipeline(config)
    settled = resolved(config, pipeline)
    assert settled.chain.kappa == pipeline.scheduler.config.kappa
    assert settled.model.options["width"] == pipeline.denoiser.config.width


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("chain.scale=2", "chain.scale is 2"),
        ("chain.kappa=1", "chain.kappa is 1"),
        ("model.kind=swin", "model.kind is swin"),
    ],
)
def test_settings_that_contradict_the_starting_point_are_named(smoke_settings, write_settings, override, message):
    del smoke_settings["model"]
    config = TrainConfig.load(write_settings(smoke_settings), ["init_from=shipped", override])
    with pytest.raises(ConfigError, match=message):
        resolved(config, build_pipeline(config))


def test_settings_that_agree_with_the_starting_point_are_accepted(smoke_settings, write_settings):
    del smoke_settings["model"]
    pipeline = build_pipeline(TrainConfig.load(write_settings(smoke_settings), ["init_from=shipped"]))
    width = pipeline.denoiser.config.width
    agreeing = [f"model.options.width={width}", f"chain.kappa={pipeline.scheduler.config.kappa}", "init_from=shipped"]
    settled = resolved(TrainConfig.load(write_settings(smoke_settings), agreeing), pipeline)
    assert settled.model.options["width"] == width
    for wrong, said in ((f"width={width + 1}", f"has {width}"), ("colour=3", "has no such option")):
        config = TrainConfig.load(write_settings(smoke_settings), ["init_from=shipped", f"model.options.{wrong}"])
        with pytest.raises(ConfigError, match=said):
            resolved(config, pipeline)


def test_a_greater_depth_adds_blocks_that_depend_on_the_seed_alone(smoke_settings, write_settings):
    start = build_pipeline(TrainConfig.load(write_settings(smoke_settings)))
    start.save_pretrained(write_settings(smoke_settings).parent / "start")
    smoke_settings["init_from"] = str(write_settings(smoke_settings).parent / "start")
    smoke_settings["model"] = {"options": {"depth": 3}}
    config = TrainConfig.load(write_settings(smoke_settings))
    torch.manual_seed(1)
    first = build_pipeline(config).denoiser
    second = build_pipeline(config).denoiser
    assert len(first.blocks) == resolved(config, build_pipeline(config)).model.options["depth"] == 3
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))


def test_what_learns_from_realistic_inputs_is_not_held_to_give_their_noise_back(smoke_settings, write_settings):
    settings = write_settings(smoke_settings)
    for start in ([], ["init_from=shipped", "model={}"]):
        for kind, times in (("bicubic-pillow", 6), ("camera", 0)):
            config = TrainConfig.load(settings, [*start, f"degradation.kind={kind}"])
            assert build_pipeline(config).config.back_projections == times


@pytest.mark.parametrize(
    "recipe", ["x4", "x4_continue", "x4_restore", "x4_one_step", "finetune_stare", "finetune_mine"]
)
def test_the_recipes_can_go_on_from_the_shipped_checkpoint(recipe):
    config = TrainConfig.load(PROJECT / "configs" / f"{recipe}.yaml", ["init_from=shipped"])
    assert resolved(config, build_pipeline(config)).model.kind == "light"


def test_a_wrong_chain_is_named(smoke_settings, write_settings):
    with pytest.raises(ConfigError, match="chain: end is 0.1; sqrt\\(eta\\) must rise from 0.2"):
        build(smoke_settings, write_settings, "chain.end=0.1")


def test_a_network_without_width_depth_or_time_is_refused(smoke_settings, write_settings):
    for name in ("width", "depth", "time_width"):
        for value in (0, -4, 8.5, "true"):
            with pytest.raises(ConfigError, match=rf"^model.options.{name} is {str(value).title()}; a whole number"):
                build(smoke_settings, write_settings, f"model.options.{name}={value}")


def test_a_checkpoint_and_a_denoiser_of_another_size_are_refused_with_the_way_out():
    pairs = PROJECT / "configs" / "train_pairs.yaml"
    config = TrainConfig.load(pairs, ["init_from=shipped"])
    with pytest.raises(ConfigError, match=r"model.options.width is 64, but .* has 96; .* --set 'model={}'$"):
        resolved(config, build_pipeline(config))
    config = TrainConfig.load(pairs, ["init_from=shipped", "model={}"])
    assert resolved(config, build_pipeline(config)).model.options["width"] == 96
