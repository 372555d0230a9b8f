"""Settings are strict: every wrong one is refused by name, and what was resolved reads back equal."""

import inspect
from pathlib import Path

import pytest

from retinashift.diffusion.scheduler import ResShiftScheduler
from retinashift.training.settings import ChainSettings, ConfigError, TrainConfig, flattened

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
    config = load(tmp_path, "data: {path: a}", "optim.learning_rate=1e-4", "run.steps=7", "crop.flip=false",
                  "run.compile=no", "chain.kappa=2", "run.seed=010")  # fmt: skip
    assert (config.optim.learning_rate, config.run.steps, config.crop.flip) == (1e-4, 7, False)
    assert (config.run.compile, config.chain.kappa, config.run.seed) == ("no", 2.0, 10)


@pytest.mark.parametrize("text", ["1e5", "x #1", "[OD]", "{a: b}", "no", "~", "010", "a: b", "'quoted'", "&a", "12:30"])
def test_a_setting_that_is_text_takes_it_as_typed(tmp_path, text):
    config = load(tmp_path, "data: {path: a}", f"data.path={text}", f"run.out={text}", f"validation.path={text}")
    assert (config.data.path, config.run.out, config.validation.path) == (text, text, text)
    assert load(tmp_path, config.to_yaml()) == config


def test_a_file_has_text_and_numbers_as_they_look(tmp_path):
    optim = "optim: {learning_rate: 1e-3}"
    config = load(tmp_path, f"data: {{path: 0123}}\nrun: {{out: no, steps: 0100, minutes: 1_0}}\n{optim}")
    assert (config.data.path, config.run.out, config.run.steps, config.run.minutes) == ("0123", "no", 100, 10)
    assert config.optim.learning_rate == 1e-3


def test_settings_cannot_be_changed(tmp_path):
    config = load(tmp_path, "data: {path: a}")
    for part, name in ((config, "data"), (config.data, "path"), (config.run, "steps"), (config.degradation, "kind")):
        with pytest.raises((AttributeError, ValueError), match=r"frozen|cannot assign"):
            setattr(part, name, getattr(part, name))


def test_the_chain_has_the_names_of_the_scheduler():
    names = inspect.signature(ResShiftScheduler.__init__).parameters
    assert {name for name in ChainSettings.model_fields if name not in names} == {"scale", "upsampling"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("data: {path: a}\nspeed: 3", "unknown setting speed"),
        ("data: {path: a}\noptim: {learning: 3}", "unknown setting optim.learning"),
        ("data: {layout: hr}", "data.path is missing"),
        ("run: {steps: 3}", "data is missing"),
        ("data: {path: a}\nrun: {steps: many}", "run.steps is 'many'; it should be a valid integer"),
        ("data: {path: a}\nrun: {steps: true}", "run.steps is 'true'"),
        ("data: {path: a}\noptim: {learning_rate: fast}", "optim.learning_rate is 'fast'; it should be a valid number"),
        ("data: {path: a}\ncrop: {flip: maybe}", "crop.flip is 'maybe'; it should be a valid boolean"),
        ("data: {path: a}\nrun: {section: run}", "unknown setting run.section; allowed are out, steps, minutes"),
        ("data: {path: [a]}", r"data.path is \['a'\]; it should be a valid string"),
        ("data: {path: a}\nrun: {steps: 1, seed: 2, steps: 3}", r"^run.steps stands twice \(line 2\); keep one"),
        ("data: {path: a}\ndata: {path: b}", r"^data stands twice"),
        ("data: {path: a}\nmodel: {options: {width: 8, width: 9}}", "^model.options.width stands twice"),
        ("data: {path: a}\nrun: fast", "^run is 'fast'; it should be a valid dictionary"),
        ("data: {path: a, lr_path: b}", "^data: lr_path goes with layout pairs"),
        (
            "data: {path: a}\nrun: {precision: fp8}",
            "run.precision is 'fp8'; it should be 'auto', 'fp32', 'bf16' or 'fp16'",
        ),
        ("data: {path: a, layout: pairs}", "lr_path"),
        ("data: {path: a}\ncrop: {size: 30}", "multiple of chain.scale 4"),
        ("data: {path: a, layout: pairs, lr_path: b}\ncrop: {blur_sigma_max: 1.0}", "crop.blur_sigma_max: HR would"),
        ("data: {path: a, layout: pairs, lr_path: b}\ncrop: {tint_max: 1, sharpen_max: 1}", "crop.sharpen_max: HR"),
        ("data: {path: a}\noptim: {ema: 1}", "optim.ema is '1'; it should be less than 1"),
        ("data: {path: a}\ncrop: {rescale_min: 2.0}", "rescale_min"),
        ("data: {path: a, balance: camera}", "it should be 'photograph', 'set' or 'folder'"),
        ("data: {path: a}\ndistill: {teacher: shipped, gain: 0}", "distill.gain is '0'; it should be greater than 0"),
        ("data: {path: a}\ndistill: {teacher: shipped}\nloss: {lpips: 1}", "distill.teacher goes with"),
        ("data: {path: a}\ndistill: {teacher: shipped}\nrun: {compile: graphs}", "distill.teacher does not go with"),
        ("data: {path: a}\ncrop: {size: 8, rescale_max: 2}", "crop.size is 8 and crop.rescale_max 2.0; their quotient"),
        ("data: {path: a}\nloss: {mse: 0}", "not all 0"),
        ("data: {path: a}\noptim: {learning_rate: .nan}", "optim.learning_rate is '.nan'; it should be a valid number"),
        ("data: {path: a}\nrun: {minutes: inf}", "run.minutes is 'inf'; it should be a finite number"),
        (
            "data: {path: a}\ndegradation: {kind: camera, noise: [0.1, inf]}",
            "degradation.noise is 'inf'; it should be a finite",
        ),
        (
            f"data: {{path: a}}\noptim: {{learning_rate: {'9' * 400}}}",
            "learning_rate is '9{59}...; it should be a finite number",
        ),
        ("- a", "holds no settings"),
        ("data: [", "not plain YAML"),
        ("data: !!python/object/apply:os.system [true]", "^data is not plain YAML"),
        ("data: {path: !!python/name:os.system x}", "^data.path is not plain YAML"),
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


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("".join(f"key{n}: 1\n" for n in range(200_000)), "larger than 64 KiB"),
        ("[" * 60_000, "nested too deeply"),
        ("{a: " * 10_000, "nested too deeply"),
        ("data: {path: a}\nmodel: {options: " + "[" * 5000 + "]" * 5000 + "}", "nested too deeply"),
    ],
    ids=["keys", "lists", "mappings", "options"],
)
def test_a_monstrous_file_is_refused(tmp_path, content, message):
    with pytest.raises(ConfigError, match=message) as error:
        load(tmp_path, content)
    assert len(str(error.value)) < 300


@pytest.mark.parametrize(("coding", "said"), [("utf-16", "UTF-16"), ("latin-1", "not UTF-8")])
def test_a_file_in_another_coding_is_named(tmp_path, coding, said):
    (tmp_path / "s.yaml").write_bytes("data: {path: Möller}".encode(coding))
    with pytest.raises(ConfigError, match=rf"s.yaml is {said}; save it as UTF-8$"):
        TrainConfig.load(tmp_path / "s.yaml")
    (tmp_path / "s.yaml").write_bytes("data: {path: Möller}".encode("utf-8-sig"))
    assert TrainConfig.load(tmp_path / "s.yaml").data.path == "Möller"


def test_a_wrong_override_names_its_setting(tmp_path):
    for override, message in (
        ("run.steps=[", "^run.steps: the value is not plain YAML"),
        ("run.steps=", "^run.steps is None; it should be a valid integer"),
        ("model.options={width: 8, width: 9}", "^model.options: width stands twice"),
        (f"run.steps={'9' * 5000}", r"^run.steps is '9{59}\.\.\.; unable to parse input string as an integer"),
        ("run.steps.x=3", r"^run.steps is {'x': '3'}; it should be a valid integer"),
        ("run..steps=3", "the form is section.name=value"),
        ("=3", "the form is section.name=value"),
        (
            "chain.num_train_timesteps=1000000000000",
            "num_train_timesteps is '1000000000000'; it should be less than or equal to 10000",
        ),
    ):
        with pytest.raises(ConfigError, match=message):
            load(tmp_path, "data: {path: a}", override)


def test_a_missing_file_and_a_malformed_override_are_told(tmp_path):
    with pytest.raises(ConfigError, match="no settings file"):
        TrainConfig.load(tmp_path / "none.yaml")
    with pytest.raises(ConfigError, match="section.name=value"):
        load(tmp_path, "data: {path: a}", "run.steps")


def test_degradation_ranges_are_read_from_lists_and_given_back(tmp_path):
    path = tmp_path / "s.yaml"
    path.write_text("data: {path: x}\ndegradation: {kind: realistic, noise: [0.001, 1e-2], second_order: 0.5}\n")
    config = TrainConfig.load(path)
    assert config.degradation.noise == (0.001, 0.01)
    path.write_text(config.to_yaml())
    assert TrainConfig.load(path) == config
    for wrong, reason in (
        ("degradation.noise=0.1", "degradation.noise is '0.1'; it should be a valid tuple"),
        ("degradation.noise=[0.2, 0.1]", "0 < least <= most"),
        ("degradation.grain=1", "unknown setting degradation.grain"),
        ("data={path: x, layout: pairs, lr_path: y}", "given LR/HR pairs bring"),
    ):
        with pytest.raises(ConfigError, match=reason):
            TrainConfig.load(path, [wrong])


WRONG = {
    "run.steps": (0, -5, 10**12),
    "run.minutes": (-1,),
    "run.seed": (-1, 2**32),
    "run.log_every": (0,),
    "run.validate_every": (0,),
    "run.save_every": (0,),
    "run.keep": (0,),
    "run.workers": (-1,),
    "run.cache_gib": (-1,),
    "chain.scale": (0, -4),
    "chain.num_train_timesteps": (1, 10**12),
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
    "crop.marks_share": (3, -0.1),
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
    "optim.learning_rate": (-1,),
    "optim.learning_rate_end": (-1,),
    "optim.warmup_steps": (-3,),
    "optim.beta2": (1, 1.5, -0.1),
    "optim.weight_decay": (-1,),
    "optim.clip": (-1,),
    "optim.ema": (1, 2, -1),
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


def test_every_number_among_the_settings_has_a_range():
    config = TrainConfig.parse({"data": {"path": "a"}, "degradation": {"kind": "camera"}})
    numbers = [name for name, value in flattened(config.model_dump()).items() if type(value) in (int, float)]
    assert set(numbers) == set(WRONG)


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in WRONG.items() for value in values])
def test_a_number_out_of_range_is_refused_with_what_is_needed(tmp_path, name, value):
    with pytest.raises(ConfigError, match=rf"^{name} is '?{value}(\.0)?'?; (.+ is needed|it should be .+)$"):
        load(tmp_path, "data: {path: a}\ndegradation: {kind: camera}", f"{name}={value}")


@pytest.mark.parametrize(
    "name", ["run.minutes", "run.workers", "optim.clip", "optim.warmup_steps", "lora.rank",
             "lora.alpha", "distill.steps", "distill.truth", "optim.learning_rate", "loss.lpips", "crop.min_visible"],
)  # fmt: skip
def test_a_nought_that_switches_something_off_stays_allowed(tmp_path, name):
    load(tmp_path, "data: {path: a}", f"{name}=0")
