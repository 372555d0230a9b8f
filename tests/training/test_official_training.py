"""Fine-tuning official-style checkpoints: all weights, adapters; published rates."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from accelerate.state import AcceleratorState
from safetensors.torch import load_file

from retinashift.models.perceptual import LPIPS
from retinashift.models.swin_unet import SwinUNet
from retinashift.official.convert import export_official, import_official
from retinashift.training.run import average, train
from retinashift.training.settings import ConfigError, TrainConfig, published_rate

CONFIGS = Path(__file__).parents[2] / "configs"
WEIGHTS = "diffusion_pytorch_model.safetensors"


@pytest.fixture
def settings(smoke_settings, write_settings, swin_checkpoint):
    """Loads the smoke settings for that checkpoint, with overrides."""
    del smoke_settings["model"]
    smoke_settings["loss"] = {"mse": 1.0}

    def load(*overrides: str) -> TrainConfig:
        return TrainConfig.load(write_settings(smoke_settings), [f"init_from={swin_checkpoint}", *overrides])

    return load


@pytest.fixture
def random_lpips(monkeypatch) -> None:
    """LPIPS with random features, for want of the real ones."""

    def make(backbone: str) -> LPIPS:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return LPIPS(backbone).eval()

    monkeypatch.setattr(LPIPS, "pretrained", make)


def state(folder: Path, part: str) -> dict[str, torch.Tensor]:
    return load_file(folder / part / WEIGHTS)


def changed(before: dict[str, torch.Tensor], after: dict[str, torch.Tensor]) -> set[str]:
    assert before.keys() == after.keys()
    return {name for name in before if not torch.equal(before[name], after[name])}


def losses(run: Path) -> list[float]:
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return [line["loss"] for line in lines if line["event"] == "train"]


def test_all_weights_are_fine_tuned_and_the_codec_stays(settings, swin_checkpoint):
    tuned = train(settings())
    assert len(changed(state(swin_checkpoint, "denoiser"), state(tuned, "denoiser"))) > 30
    assert changed(state(swin_checkpoint, "codec"), state(tuned, "codec")) == set()


@pytest.mark.parametrize("net", ["vgg", "alex"])
def test_lpips_of_the_decoded_estimate_trains_through_the_frozen_decoder(settings, random_lpips, swin_checkpoint, net):
    tuned = train(settings("loss.lpips=1", f"loss.lpips_net={net}", "loss.mse=0", "run.steps=3", "crop.size=64"))
    assert len(changed(state(swin_checkpoint, "denoiser"), state(tuned, "denoiser"))) > 30
    assert changed(state(swin_checkpoint, "codec"), state(tuned, "codec")) == set()


@pytest.fixture
def other_precision():
    """Accelerate keeps the first precision of a process, and this one is shared with other tests."""
    AcceleratorState._reset_state(reset_partial_state=True)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.mark.parametrize("lpips", [0, 1])
def test_the_settings_for_official_weights_train_what_import_has_made(
    swin_checkpoint, photographs, random_lpips, other_precision, tmp_path, lpips
):
    pytest.importorskip("peft", reason="LoRA needs the extra lora")
    files = tmp_path / "resshift_realsrx4_s4_v3.pth", tmp_path / "autoencoder_vq_f4.pth"
    export_official(swin_checkpoint, *files)
    start = import_official(*files, None, tmp_path / "start")
    overrides = [
        f"init_from={start}", f"data.path={photographs}", f"run.out={tmp_path / 'run'}", "run.steps=2",
        "crop.size=64", f"loss.lpips={lpips}",
    ]  # fmt: skip
    tuned = train(TrainConfig.load(CONFIGS / "finetune_official.yaml", overrides))
    assert changed(state(start, "codec"), state(tuned, "codec")) == set()
    names = changed(state(start, "denoiser"), state(tuned, "denoiser"))
    assert names
    assert all(name.split(".")[-2] in SwinUNet.lora_targets for name in names)
    assert "S-Lab License 1.0" in (tuned / "README.md").read_text(encoding="utf-8")


# the published training


def test_the_average_is_the_published_one_and_copies_what_is_no_float():
    shadow = {"w": torch.tensor([1.0, 2.0]), "index": torch.tensor([1])}
    current = {"w": torch.tensor([2.0, 4.0]), "index": torch.tensor([7])}
    average(shadow, current, 0.9)
    torch.testing.assert_close(shadow["w"], torch.tensor([1.1, 2.2]))
    assert shadow["index"].item() == 7


def test_without_warm_up_the_average_moves_by_the_same_share_from_the_first_step(settings, swin_checkpoint):
    tuned = train(settings("run.steps=1", "optim.ema=0.999", "optim.ema_warmup=false", "optim.learning_rate=0.01"))
    before, after = state(swin_checkpoint, "denoiser"), state(tuned, "denoiser")
    raw = load_file(tuned.parent / "state" / "00000001" / "model.safetensors")
    for name in before:
        torch.testing.assert_close(after[name], before[name].lerp(raw[name], 0.001))


@pytest.mark.shared
@pytest.mark.parametrize(("name", "steps", "warmup"), [("lr_small", 60, 12), ("lr_journal", 400_000, 5000)])
def test_published_rates_equal_the_reference(parity, name, steps, warmup):
    iterations = parity.vectors("schedules")[f"{name}.iteration"].tolist()
    rates = [published_rate(iteration - 1, 5e-5, 2e-5, steps, warmup) for iteration in iterations]
    parity.check("schedules", f"{name}.lr", torch.tensor(rates, dtype=torch.float64), 1e-15)


def test_a_run_takes_the_published_rate_where_it_is_told_to(settings):
    rates = ["optim.learning_rate=0.001", "optim.learning_rate_end=0.0001", "optim.warmup_steps=3"]
    run = train(settings("optim.schedule=published", *rates)).parent
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    rates = [line["learning_rate"] for line in lines if line["event"] == "train"]
    assert rates == [published_rate(step, 1e-3, 1e-4, 8, 3) for step in range(8)]
    with pytest.raises(ConfigError, match="run.minutes to 0"):
        settings("optim.schedule=published", "run.minutes=1")
