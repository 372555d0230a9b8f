"""Settings are strict: every wrong one is refused by name, and what was resolved reads back equal."""

import dataclasses
import typing
from pathlib import Path

import pytest

from retinashift.imaging.degradation.pipeline import Camera
from retinashift.training.config import ConfigError, TrainConfig

CONFIGS = Path(__file__).parents[2] / "configs"


def load(tmp_path, text, *overrides):
    path = tmp_path / "settings.yaml"
    path.write_text(text)
    return TrainConfig.load(path, list(overrides))


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda p: p.name)
def test_every_shipped_settings_file_is_valid_and_reads_back_equal(path, tmp_path):
    config = TrainConfig.load(path)
    assert load(tmp_path, config.to_yaml()) == config


def test_overrides_reach_nested_settings_with_their_types(tmp_path):
    config = load(tmp_path, "data: {path: a}", "optim.lr=1e-4", "run.steps=7", "crop.flip=false", "run.precision=no")
    assert (config.optim.lr, config.run.steps, config.crop.flip, config.run.precision) == (1e-4, 7, False, "no")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("data: {path: a}\nspeed: 3", "unknown setting speed"),
        ("data: {path: a}\noptim: {learning: 3}", "unknown setting optim.learning"),
        ("data: {layout: hr}", "data.path is missing"),
        ("run: {steps: 3}", "data is missing"),
        ("data: {path: a}\nrun: {steps: many}", "run.steps is 'many'; int is expected"),
        ("data: {path: a}\nrun: {steps: true}", "run.steps is True"),
        ("data: {path: a}\noptim: {lr: fast}", "optim.lr is 'fast'"),
        ("data: {path: a}\nrun: {precision: fp8}", "allowed are no, bf16, fp16"),
        ("data: {path: a, layout: pairs}", "lr_path"),
        ("data: {path: a, split: test}", "layout stare only"),
        ("data: {path: a}\ncrop: {size: 30}", "multiple of chain.scale 4"),
        ("data: {path: a, layout: pairs, lr_path: b}\ncrop: {blur_sigma_max: 1.0}", "crop.blur_sigma_max: HR would"),
        ("data: {path: a, layout: pairs, lr_path: b}\ncrop: {tint_max: 0.1, sharpen_max: 1}", "crop.tint_max: HR"),
        ("data: {path: a}\noptim: {start_share: 1}", "0 to below 1"),
        ("data: {path: a}\ncrop: {rescale_min: 2.0}", "rescale_min"),
        ("data: {path: a, balance: camera}", "allowed are photograph, set, folder"),
        ("data: {path: a}\ndistill: {teacher: shipped, gain: 0}", "distill.gain is 0.0; more than 0 is needed"),
        ("data: {path: a}\ndistill: {teacher: shipped}\nloss: {lpips: 1}", "distill.teacher goes with"),
        ("data: {path: a}\ndistill: {teacher: shipped}\nrun: {compile: graphs}", "distill.teacher does not go with"),
        ("data: {path: a}\ncrop: {size: 8, rescale_max: 2}", "crop.size is 8 and crop.rescale_max 2.0; their quotient"),
        ("data: {path: a}\nloss: {mse: 0}", "not all 0"),
        ("data: {path: a}\noptim: {lr: .nan}", "optim.lr is nan; a finite number is expected"),
        ("data: {path: a}\nrun: {minutes: .inf}", "run.minutes is inf; a finite number is expected"),
        ("data: {path: a}\ndegradation: {kind: camera, noise: [0.1, .inf]}", "degradation.noise is inf; a finite"),
        (f"data: {{path: a}}\noptim: {{lr: {'9' * 400}}}", "optim.lr is inf; a finite number is expected"),
        ("- a", "holds no settings"),
        ("data: [", "not plain YAML"),
        ("data: !!python/object/apply:os.system [true]", "not plain YAML"),
        ("data: {path: &a x}\nvalidation: {path: *a}", "YAML alias"),
    ],
)
def test_a_wrong_setting_is_refused_by_name(tmp_path, text, message):
    with pytest.raises(ConfigError, match=message) as error:
        load(tmp_path, text)
    assert "\n" not in str(error.value)


def test_growing_aliases_are_refused_at_once(tmp_path):
    lines = ["a0: &a0 [x, x]"] + [f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]" for i in range(1, 60)]
    with pytest.raises(ConfigError, match="alias"):
        load(tmp_path, "\n".join(lines))


def test_a_missing_file_and_a_malformed_override_are_told(tmp_path):
    with pytest.raises(ConfigError, match="no settings file"):
        TrainConfig.load(tmp_path / "none.yaml")
    with pytest.raises(ConfigError, match="key.key=value"):
        load(tmp_path, "data: {path: a}", "run.steps")


def test_degradation_ranges_are_read_from_lists_and_given_back(tmp_path):
    path = tmp_path / "s.yaml"
    path.write_text("data: {path: x}\ndegradation: {kind: realistic, noise: [0.001, 1e-2], second_order: 0.5}\n")
    config = TrainConfig.load(path)
    assert config.degradation.noise == (0.001, 0.01)
    path.write_text(config.to_yaml())
    assert TrainConfig.load(path) == config
    for wrong, reason in (
        ("degradation.noise=0.1", "degradation.noise is 0.1; 2 values"),
        ("degradation.noise=[0.2, 0.1]", "0 < least <= most"),
        ("degradation.grain=1", "unknown setting degradation.grain"),
        ("data={path: x, layout: pairs, lr_path: y}", "given LR/HR pairs bring"),
    ):
        with pytest.raises(ConfigError, match=reason):
            TrainConfig.load(path, [wrong])


WRONG = {
    "run.steps": (0, -5),
    "run.minutes": (-1,),
    "run.seed": (-1, 2**32),
    "run.log_every": (0,),
    "run.validate_every": (0,),
    "run.save_every": (0,),
    "run.keep": (0,),
    "run.sample_pool": (-1,),
    "run.workers": (-1,),
    "run.cache_gib": (-1,),
    "chain.scale": (0, -4),
    "chain.steps": (1,),
    "chain.kappa": (0,),
    "chain.power": (0,),
    "chain.min_noise": (0,),
    "chain.end": (0, 1, 2),
    "crop.size": (0, -64, 4),
    "crop.rescale_min": (0,),
    "crop.rescale_max": (-1,),
    "crop.blur_sigma_max": (-1,),
    "crop.tint_max": (-2, 1.5),
    "crop.sharpen_max": (-1,),
    "crop.expose_max": (-1,),
    "crop.aperture_share": (3, -0.1),
    "crop.min_visible": (9, -1),
    "loss.mse": (-1,),
    "loss.log": (-1,),
    "loss.lpips": (-1,),
    "lora.rank": (-1,),
    "lora.alpha": (-1,),
    "distill.steps": (-1,),
    "distill.gain": (0,),
    "distill.truth": (-1,),
    "optim.batch_size": (0,),
    "optim.accumulate": (0,),
    "optim.lr": (-1,),
    "optim.lr_end": (-1,),
    "optim.warmup_steps": (-3,),
    "optim.beta2": (1, 1.5, -0.1),
    "optim.weight_decay": (-1,),
    "optim.clip": (-1,),
    "optim.ema": (1, 2, -1),
    "optim.start_share": (1, -0.1),
    "optim.last_step_share": (5, -1),
    "degradation.clean_share": (-0.1, 2),
    "degradation.optics_probability": (-0.1, 2),
    "degradation.blur_probability": (2,),
    "degradation.noise_probability": (2,),
    "degradation.mosaic_probability": (2,),
    "degradation.jpeg_probability": (2,),
    "degradation.second_order": (2,),
}
"""Of every number among the settings, values outside what it may be."""


def numbers():
    """The names of all settings that are numbers, with the section's class and the annotation as written."""
    for section, cls in (typing.get_type_hints(TrainConfig) | {"degradation": Camera}).items():
        if dataclasses.is_dataclass(cls):
            plain, whole = typing.get_type_hints(cls), typing.get_type_hints(cls, include_extras=True)
            for name, kind in plain.items():
                if kind in (int, float):
                    yield f"{section}.{name}", whole[name]


def test_every_number_among_the_settings_has_a_range():
    assert {name for name, _ in numbers()} == set(WRONG)
    bare = [name for name, hint in numbers() if typing.get_origin(hint) is not typing.Annotated]
    assert all(name.startswith("degradation.") for name in bare), bare  # they are checked where they are used


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in WRONG.items() for value in values])
def test_a_number_out_of_range_is_refused_with_what_is_needed(tmp_path, name, value):
    with pytest.raises(ConfigError, match=rf"^{name} is {value}(\.0)?; .+ is needed$"):
        load(tmp_path, "data: {path: a}\ndegradation: {kind: camera}", f"{name}={value}")


@pytest.mark.parametrize(
    "name", ["run.minutes", "run.sample_pool", "run.workers", "optim.clip", "optim.warmup_steps", "lora.rank",
             "lora.alpha", "distill.steps", "distill.truth", "optim.lr", "loss.lpips", "crop.min_visible"],
)  # fmt: skip
def test_a_nought_that_switches_something_off_stays_allowed(tmp_path, name):
    load(tmp_path, "data: {path: a}", f"{name}=0")
