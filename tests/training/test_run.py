"""The loop: it learns, resumes to the bit, does not depend on how work is split, and stops cleanly on bad numbers."""

import itertools
import json
import math
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw
from safetensors.torch import load_file

from retinashift.data.photographs import DataError
from retinashift.evaluation.similarity import psnr_rgb
from retinashift.imaging.degradation.bicubic import bicubic_pillow, enlarge
from retinashift.inference.pipeline import ResShiftPipeline
from retinashift.training.run import Trainer, TrainingError, train
from retinashift.training.settings import ConfigError, TrainConfig
from retinashift.training.state import load_state

PROJECT = Path(__file__).resolve().parents[2]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "ACCELERATE_USE_CPU": "true"}


def weights(run: Path) -> dict[str, torch.Tensor]:
    return load_file(run / "checkpoint" / "denoiser" / "diffusion_pytorch_model.safetensors")


def events(run: Path, kind: str = "train") -> list[dict]:
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return [line for line in lines if line["event"] == kind]


def equal(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def command(settings: Path, *more: str) -> list[str]:
    return [sys.executable, "-m", "retinashift", "train", str(settings), *more]


def test_a_killed_run_resumes_to_the_bit_by_the_same_command(smoke_settings, write_settings, held_out, tmp_path):
    """Uninterrupted, against SIGKILL after the first saved state: weights, EMA, optimizer and log are identical."""
    smoke_settings["run"]["steps"] = 40
    smoke_settings["validation"] = {"path": str(held_out)}
    settings = write_settings(smoke_settings)
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    train(TrainConfig.load(settings, [f"run.out={whole}"]))
    process = subprocess.Popen(
        command(settings, "--set", f"run.out={killed}"),
        env=ENVIRONMENT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    while not (killed / "state" / "latest").exists():
        assert process.poll() is None, "the run ended before it could be killed"
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (killed / "state" / "00000040").exists()
    again = subprocess.run(
        command(settings, "--set", f"run.out={killed}"), env=ENVIRONMENT, check=True, capture_output=True, text=True
    )
    assert "resumed at step" in again.stderr
    assert equal(weights(whole), weights(killed))
    first, second = (load_state(run / "state") for run in (whole, killed))
    assert equal(first.model, second.model)
    assert equal(first.ema, second.ema)
    for one, other in zip(
        first.optimizer["optimizer"]["state"].values(), second.optimizer["optimizer"]["state"].values(), strict=True
    ):
        assert equal(one, other)
    losses = [[(event["step"], event["loss"]) for event in events(run)] for run in (whole, killed)]
    assert losses[0] == losses[1]
    assert len(losses[0]) == 40


def test_four_steps_and_four_more_equal_eight(smoke_settings, write_settings, tmp_path):
    whole = train(
        TrainConfig.load(write_settings(smoke_settings), [f"run.out={tmp_path}/whole", "optim.ema=0.5"])
    ).parent

    # the cosine ends at run.steps, so the first half is stopped by an error from its own report, as a kill would
    class Stop(Exception):
        pass

    def stop(event, values):
        if event == "saved" and values["step"] == 4:
            raise Stop

    config = TrainConfig.load(write_settings(smoke_settings), [f"run.out={tmp_path}/half", "optim.ema=0.5"])
    with pytest.raises(Stop):
        train(config, stop)
    assert equal(weights(whole), weights(train(config).parent))


def run_together(words: list[str], count: int, begun: Path) -> None:
    """The command as `count` processes that meet over the loopback, which needs no name of this machine.

    Once `begun` exists they have met, and must end; before that the port may have been taken by somebody else.
    """
    for _ in range(3):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "GLOO_SOCKET_IFNAME": "lo"}
        processes = []
        for rank in range(count):
            place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count}
            environment = ENVIRONMENT | meeting | {name: str(value) for name, value in place.items()}
            del environment["ACCELERATE_USE_CPU"]  # torchrun does not set it
            environment["PYTHONFAULTHANDLER"] = "1"  # a process that is aborted says where it stood
            processes.append(subprocess.Popen(words, env=environment, stderr=subprocess.PIPE, text=True))
        deadline = time.monotonic() + 300  # only processes that never met take so long
        while time.monotonic() < deadline and any(process.poll() is None for process in processes):
            time.sleep(0.1)
        for process in processes:
            if process.poll() is None:
                process.send_signal(signal.SIGABRT)
        said = [process.communicate()[1] for process in processes]
        if all(process.returncode == 0 for process in processes):
            return
        assert not begun.exists(), "\n".join(text[-3000:] for text in said)
    raise AssertionError("\n".join(text[-3000:] for text in said))


def test_two_processes_equal_one_with_twice_the_accumulation(smoke_settings, write_settings, tmp_path):
    settings = write_settings(smoke_settings)
    one, two = tmp_path / "one", tmp_path / "two"
    train(TrainConfig.load(settings, [f"run.out={one}", "optim.accumulate=2"]))  # one thread, as the two have each
    run_together(command(settings, "--set", f"run.out={two}"), 2, two / "config.yaml")
    first, second = weights(one), weights(two)
    for name in first:
        assert torch.allclose(first[name], second[name], atol=1e-7, rtol=1e-5), name


def test_accumulation_equals_a_batch_of_that_size(smoke_settings, write_settings, tmp_path):
    """Same samples; noise is drawn by micro-batch, so the comparison is made where there is next to none."""
    settings = write_settings(smoke_settings)
    common = ["chain.kappa=1e-9", "chain.min_noise=0.2", "optim.last_step_share=1.0"]
    runs = []
    for name, sizes in (("a", ["optim.batch_size=4"]), ("b", ["optim.batch_size=2", "optim.accumulate=2"])):
        out = tmp_path / name
        train(TrainConfig.load(settings, [f"run.out={out}", *common, *sizes]))
        runs.append(weights(out))
    for name in runs[0]:
        assert torch.allclose(runs[0][name], runs[1][name], atol=1e-5), name


def test_worker_threads_change_nothing(smoke_settings, write_settings, tmp_path):
    settings = write_settings(smoke_settings)
    for workers in (0, 2):
        train(TrainConfig.load(settings, [f"run.out={tmp_path}/{workers}", f"run.workers={workers}"]))
    assert equal(weights(tmp_path / "0"), weights(tmp_path / "2"))


@pytest.mark.skipif(not any(map(shutil.which, ("g++", "c++", "clang++"))), reason="torch compiles by way of C++")
@pytest.mark.parametrize("what", ["blocks", "whole"])
def test_compiling_changes_no_more_than_the_last_bits(what, smoke_settings, write_settings, tmp_path):
    settings = write_settings(smoke_settings)
    for choice in ("no", what):
        train(TrainConfig.load(settings, [f"run.out={tmp_path}/{choice}", f"run.compile={choice}"]))
    plain, compiled = weights(tmp_path / "no"), weights(tmp_path / what)
    assert plain.keys() == compiled.keys()
    for name in plain:
        assert torch.allclose(plain[name], compiled[name], atol=1e-4), name


def test_realistic_cameras_in_other_processes_change_nothing(smoke_settings, write_settings, tmp_path):
    settings = write_settings(smoke_settings | {"degradation": {"kind": "camera"}})
    for workers in (0, 2):
        train(TrainConfig.load(settings, [f"run.out={tmp_path}/{workers}", f"run.workers={workers}", "run.steps=2"]))
    assert equal(weights(tmp_path / "0"), weights(tmp_path / "2"))


@pytest.mark.parametrize("kind", ["light", "swin"])
def test_training_on_a_stare_zip_lowers_the_loss(kind, photographs, smoke_settings, write_settings, tmp_path):
    archive = tmp_path / "stare-dataset.zip"
    with zipfile.ZipFile(archive, "w") as target:
        for number, source in enumerate(sorted(photographs.iterdir()), start=1):
            Image.open(source).save(tmp_path / "one.ppm")
            target.write(tmp_path / "one.ppm", f"im{number:04d}.ppm")
    smoke_settings["data"] = {"path": str(archive), "layout": "stare"}
    swin = {
        "image_size": 8, "model_channels": 32, "channel_mult": [1], "num_res_blocks": [1], "attention_resolutions": [8],
        "num_head_channels": 16, "swin_embed_dim": 32, "window_size": 4, "mlp_ratio": 2, "lq_size": 8,
        "zero_init_output": True,
    }  # fmt: skip
    if kind == "swin":
        smoke_settings["model"] = {"kind": "swin", "options": swin}
    else:
        smoke_settings["model"]["options"] = {"width": 24, "depth": 2, "time_width": 32}
    smoke_settings["run"] |= {"steps": 60, "save_every": 60, "out": str(tmp_path / "run")}
    smoke_settings["optim"]["batch_size"] = 4
    run = train(TrainConfig.load(write_settings(smoke_settings))).parent
    losses = [event["loss"] for event in events(run)]
    assert sum(losses[-15:]) < 0.8 * sum(losses[:15])


def test_the_smoke_settings_learn_one_photograph_by_heart(tmp_path):
    """Lines of many directions and widths, a crop wide: 27.8 dB by bicubic, about 33 dB by what was learnt."""
    random, large = np.random.default_rng(0), Image.new("RGB", (512, 512), (150, 70, 40))
    for _ in range(8):
        ends, width = random.integers(0, 512, 4).tolist(), int(random.integers(8, 28))
        ImageDraw.Draw(large).line(ends, fill=(90, 20, 15), width=width)
    (tmp_path / "photographs").mkdir()
    photograph = large.resize((64, 64), Image.Resampling.LANCZOS)
    photograph.save(tmp_path / "photographs" / "one.png")
    changed = [f"data.path={tmp_path / 'photographs'}", f"run.out={tmp_path / 'run'}", "run.steps=600"]
    changed += ["optim.learning_rate=1e-2", "optim.ema=0.9", "run.save_every=600"]
    run = train(TrainConfig.load(PROJECT / "configs" / "smoke.yaml", changed)).parent
    hr = np.asarray(photograph)
    lr = bicubic_pillow(hr, 4)
    result = ResShiftPipeline.from_pretrained(run / "checkpoint")(lr).images[0]
    assert psnr_rgb(result, hr) > psnr_rgb(enlarge(lr, 4, "bicubic"), hr) + 3


def test_validation_is_logged_beside_bicubic_and_the_best_is_kept(smoke_settings, write_settings, held_out):
    smoke_settings["validation"] = {"path": str(held_out)}
    run = train(TrainConfig.load(write_settings(smoke_settings))).parent
    scores = events(run, "validation")
    assert [event["step"] for event in scores] == [0, 4, 8]
    assert [event["gain_over_start"] for event in scores] == [event["psnr"] - scores[0]["psnr"] for event in scores]
    assert all(event["gain"] == pytest.approx(event["psnr"] - event["psnr_bicubic"]) for event in scores)
    assert ResShiftPipeline.from_pretrained(run / "best").config.scale == 4
    assert any((run / "tensorboard").iterdir())


def test_fine_tuning_starts_from_the_given_weights(smoke_settings, write_settings, tmp_path):
    start = train(TrainConfig.load(write_settings(smoke_settings), [f"run.out={tmp_path}/first"]))
    del smoke_settings["model"]
    settings = write_settings(smoke_settings)
    frozen = ["optim.learning_rate=0", "optim.learning_rate_end=0"]
    tuned = train(TrainConfig.load(settings, [f"run.out={tmp_path}/tuned", f"init_from={start}", *frozen]))
    assert equal(weights(start.parent), weights(tuned.parent))


def test_a_run_by_the_clock_is_saved_every_minute(smoke_settings, write_settings, monkeypatch):
    seconds, saved = itertools.count(0.0, 15.0), []
    monkeypatch.setattr("retinashift.training.run.time", SimpleNamespace(monotonic=lambda: next(seconds)))
    never = [f"run.{name}=1000000" for name in ("steps", "save_every", "validate_every")]
    config = TrainConfig.load(write_settings(smoke_settings), ["run.minutes=3", *never])
    train(config, lambda event, values: saved.append(values["step"]) if event == "saved" else None)
    assert len(saved) == 3


def test_the_bound_weights_steps_to_mean_one_and_changes_the_result(smoke_settings, write_settings, tmp_path):
    settings = write_settings(smoke_settings)
    for weighting in ("plain", "bound"):
        train(TrainConfig.load(settings, [f"run.out={tmp_path}/{weighting}", f"optim.weighting={weighting}"]))
    assert not equal(weights(tmp_path / "plain"), weights(tmp_path / "bound"))


def test_bf16_trains_to_finite_weights(smoke_settings, write_settings, tmp_path):
    run = command(write_settings(smoke_settings), "--set", f"run.out={tmp_path}/b", "--set", "run.precision=bf16")
    subprocess.run(run, env=ENVIRONMENT, check=True, capture_output=True)  # accelerate has one precision a process
    assert all(value.isfinite().all() and value.dtype == torch.float32 for value in weights(tmp_path / "b").values())


def test_a_run_folder_with_other_settings_is_not_overwritten(smoke_settings, write_settings):
    settings = write_settings(smoke_settings)
    train(TrainConfig.load(settings))
    for name, value in (("optim.learning_rate", "1"), ("model.options.depth", "2")):
        with pytest.raises(ConfigError, match=rf"other settings \({name}\)"):
            train(TrainConfig.load(settings, [f"{name}={value}"]))
    with pytest.raises(ConfigError, match=r"other settings \(degradation.kind, degradation.clean_share, "):
        train(TrainConfig.load(settings, ["degradation.kind=camera"]))


def test_an_exploding_loss_stops_the_run_and_saves_nothing_over_the_good_state(
    smoke_settings, write_settings, tmp_path
):
    smoke_settings["optim"] |= {"learning_rate": 1e30, "clip": 0.0, "warmup_steps": 0}
    with pytest.raises(TrainingError, match="the loss is"):
        train(TrainConfig.load(write_settings(smoke_settings)))
    assert not (tmp_path / "run" / "checkpoint").exists()


@pytest.mark.parametrize("end", ["run.save_every=2", "run.validate_every=2", "run.minutes=0.002"])
def test_weights_that_are_no_numbers_are_not_saved_before_the_loss_is_reported(
    end, smoke_settings, write_settings, tmp_path, held_out
):
    smoke_settings["run"] |= {"steps": 10**6, "log_every": 10**6, "save_every": 10**6, "validate_every": 10**6}
    settings = write_settings(smoke_settings | {"validation": {"path": str(held_out)}})
    trainer = Trainer(TrainConfig.load(settings, [end]))
    next(iter(trainer.trained.parameters())).data.fill_(math.nan)
    with pytest.raises(TrainingError, match=r"the loss is nan at step \d+; nothing was saved: lower optim.learning"):
        trainer.run()
    assert not any((tmp_path / "run" / name).exists() for name in ("checkpoint", "state"))
    assert ResShiftPipeline.from_pretrained(tmp_path / "run" / "best").config.scale == 4  # the start


def test_a_run_that_goes_wrong_after_a_good_state_keeps_it_and_says_which(smoke_settings, write_settings, tmp_path):
    def spoil(event, values):
        if event == "saved":
            next(iter(trainer.trained.parameters())).data.fill_(math.nan)

    trainer = Trainer(TrainConfig.load(write_settings(smoke_settings), ["run.log_every=100"]), spoil)
    with pytest.raises(TrainingError, match="loss is nan at step 8; what was saved at step 4 is good: .*init_from"):
        trainer.run()
    assert load_state(tmp_path / "run" / "state").position.step == 4
    assert all(value.isfinite().all() for value in weights(tmp_path / "run").values())


def test_a_last_step_that_spoils_the_weights_is_not_saved(smoke_settings, write_settings, tmp_path):
    """The loss of a step describes the weights before it, and is still a number."""
    smoke_settings["optim"] |= {"learning_rate": 1e37, "weight_decay": 1e10, "clip": 0.0, "warmup_steps": 0}
    smoke_settings["run"] |= {"steps": 1, "log_every": 100}
    with pytest.raises(TrainingError, match="the weights are no numbers at step 1; nothing was saved"):
        train(TrainConfig.load(write_settings(smoke_settings)))
    assert not (tmp_path / "run" / "checkpoint").exists()


def left_without_its_state(run):
    shutil.rmtree(run / "state")
    return {path: path.read_bytes() for path in sorted(run.rglob("*")) if path.is_file()}


def test_checkpoints_without_a_state_are_not_replaced(smoke_settings, write_settings, held_out):
    """Not even by a run with the same settings."""
    settings = write_settings(smoke_settings | {"validation": {"path": str(held_out)}})
    run = train(TrainConfig.load(settings, ["run.steps=4"])).parent
    files = left_without_its_state(run)
    with pytest.raises(ConfigError, match=r"run holds checkpoint/ and best/, but no state to go on from; .*run.out"):
        train(TrainConfig.load(settings, ["run.steps=4"]))
    assert {path: path.read_bytes() for path in sorted(run.rglob("*")) if path.is_file()} == files


def test_the_best_of_a_run_stopped_before_its_first_state_is_replaced_by_that_run_alone(
    smoke_settings, write_settings, held_out
):
    settings = write_settings(smoke_settings | {"validation": {"path": str(held_out)}})
    run = train(TrainConfig.load(settings)).parent
    left_without_its_state(run)
    shutil.rmtree(run / "checkpoint")
    with pytest.raises(ConfigError, match=r"run holds best/, but no state to go on from"):
        train(TrainConfig.load(settings, ["optim.learning_rate=0.1"]))
    assert train(TrainConfig.load(settings)).is_dir()


def test_unknown_model_options_and_a_missing_start_are_named(smoke_settings, write_settings):
    settings = write_settings(smoke_settings)
    with pytest.raises(ConfigError, match=r"unknown setting model.options.layers"):
        train(TrainConfig.load(settings, ["model.options.layers=3"]))
    with pytest.raises(ConfigError, match="init_from: no checkpoint folder"):
        train(TrainConfig.load(settings, ["init_from=/nowhere/at/all"]))


def test_learning_rate_warms_up_then_falls_along_a_cosine(smoke_settings, write_settings):
    rates = ["optim.warmup_steps=10", "optim.learning_rate=1", "optim.learning_rate_end=0.1"]
    optim = TrainConfig.load(write_settings(smoke_settings), rates).optim
    assert optim.rate(4, 0.0, 100) == pytest.approx(0.5)
    assert optim.rate(50, 0.5, 100) == pytest.approx(0.55)
    assert optim.rate(99, 1.0, 100) == pytest.approx(0.1)


def test_a_run_that_ends_by_the_clock_finishes_its_cosine(smoke_settings, write_settings, tmp_path):
    config = TrainConfig.load(
        write_settings(smoke_settings),
        ["run.minutes=0.03", "run.steps=1000000", "run.save_every=1000000", "run.log_every=5"],
    )
    run = train(config).parent
    last = events(run)[-1]
    assert last["learning_rate"] < 0.2 * config.optim.learning_rate
    assert (run / "checkpoint" / "model_index.json").is_file()


def test_a_flawed_photograph_is_named_before_anything_starts(smoke_settings, write_settings, photographs, tmp_path):
    for flaw, reason in (("small", "odd.png is 20x20, smaller than crop.size 32"), ("cut", "odd.png: truncated")):
        folder = tmp_path / flaw
        shutil.copytree(photographs, folder)
        if flaw == "small":
            Image.new("RGB", (20, 20)).save(folder / "odd.png")
        else:
            (folder / "odd.png").write_bytes((photographs / "eye0.png").read_bytes()[:-200])
        for place in ("data.path", "validation.path")[: 1 if flaw == "small" else 2]:
            with pytest.raises(DataError, match=reason):
                train(TrainConfig.load(write_settings(smoke_settings), [f"{place}={folder}"]))
    assert not (tmp_path / "run").exists()


def test_a_validation_set_that_is_trained_on_is_refused(smoke_settings, write_settings, photographs, tmp_path):
    with pytest.raises(DataError, match="eye0.png is trained on, like 5 more"):
        train(TrainConfig.load(write_settings(smoke_settings), [f"validation.path={photographs}"]))
    assert not (tmp_path / "run").exists()


CONFIGS = Path(__file__).parents[2] / "configs"
SHORT = ["run.steps=1", "run.precision=fp32", "optim.batch_size=1", "crop.size=32"]


def test_the_settings_for_photographs_of_ones_own_start_with_two_folders(photographs, held_out, tmp_path):
    places = [f"data.path={photographs}", f"validation.path={held_out}", f"run.out={tmp_path}/run"]
    run = train(TrainConfig.load(CONFIGS / "finetune_mine.yaml", [*places, *SHORT])).parent
    assert [event["psnr"] > event["psnr_bicubic"] for event in events(run, "validation")] == [True, True]
    assert ResShiftPipeline.from_pretrained(run / "best").config.scale == 4


def test_the_settings_for_pairs_start_from_a_checkpoint(photographs, tmp_path):
    small = tmp_path / "lr"
    small.mkdir()
    for path in photographs.iterdir():
        Image.open(path).resize((24, 24), Image.Resampling.BICUBIC).save(small / path.name)
    places = [f"data.path={photographs}", f"data.lr_path={small}", f"run.out={tmp_path}/run"]
    start = ["init_from=shipped", "model={}"]
    assert train(TrainConfig.load(CONFIGS / "train_pairs.yaml", [*places, *start, *SHORT])).is_dir()
