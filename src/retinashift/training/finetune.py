"""Fine-tuning in one step: the settings for a set of photographs, the run, and its outcome.

Photographs of some patients are held out: STARE's test split, or about one patient in five.
"""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from retinashift.data.checks import measured
from retinashift.data.photographs import DataError, Source, find_photographs, list_source, stem
from retinashift.imaging.figures import shown
from retinashift.imaging.files import write_image
from retinashift.inference.memory import spare_memory
from retinashift.inference.pipeline import open_checkpoint
from retinashift.inference.settings import Precision
from retinashift.training.run import Report, no_report, train
from retinashift.training.settings import TrainConfig
from retinashift.training.validation import compare

CROP, SMALLEST_CROP, GRID = 192, 32, 16  # side of a crop in pixels: usual, smallest, and what it is a multiple of
STEPS, LONGEST = 500, 10**6  # of a run without, and at most with, a time to keep to
BYTES = 24  # that a weight in training takes with its gradient, moments and averages
RANK = 16  # of adapters, where all weights take too much
SHOWN = 3  # held-out photographs in the figure


@dataclass(frozen=True)
class Plan:
    """Settings for a set of photographs, and how many of them are trained on and held out."""

    settings: TrainConfig
    training: int
    held_out: int
    tuned: str  # which weights are trained, and why, in words


@dataclass(frozen=True)
class Outcome:
    """Mean PSNR in dB on the held-out photographs (RGB, field of view), and where the results lie."""

    bicubic: float
    start: float
    best: float
    best_step: int
    checkpoint: Path
    figure: Path


def plan_finetune(
    photographs: str, out: str, *, minutes: float = 0.0, checkpoint: str = "", precision: Precision | None = None
) -> Plan:
    """Choose layout, split, crops, length and precision for photographs and this machine.

    Args:
        photographs: folder or zip: STARE in any of its layouts; a folder with hr/ and lr/ in it; or any photographs.
        out: folder of the run.
        minutes: of training; 0 is `STEPS` steps.
        checkpoint: where to start, as `open_checkpoint` takes it.
        precision: None is `auto`: bf16 where this machine has arithmetic for it.

    Raises:
        DataError: too few photographs or patients, or one that is too small. ConfigError: a value out of range.
    """
    source = _layout(photographs)
    training, held_out = (list_source(Source(**source, split=split)) for split in ("train", "test"))
    smallest = min((min(measured(item.hr)), item.hr.name) for item in training)
    size = min(CROP, smallest[0] // GRID * GRID)
    if size < SMALLEST_CROP:
        raise DataError(f"{smallest[1]} is {smallest[0]} pixels a side; at least {SMALLEST_CROP} are needed")
    changes = {"rescale_min": 0.7, "rescale_max": 1.4, "blur_sigma_max": 0.5, "tint_max": 0.1}
    rank, tuned = _tuned(checkpoint)
    settings = {
        "init_from": checkpoint or "shipped",
        "data": source | {"split": "train"},
        "validation": source | {"split": "test"},
        "crop": {"size": size} | (changes if source["layout"] != "pairs" else {}),
        "lora": {"rank": rank},
        "optim": {"batch_size": 8, "learning_rate": 4e-4, "warmup_steps": 50, "clip": 0.2, "ema": 0.995,
                  "last_step_share": 0.5},
        "run": {"out": out, "steps": LONGEST if minutes else STEPS, "minutes": minutes,
                "validate_every": 250 if minutes else 100, "save_every": 50,
                "precision": precision or "auto"},
    }  # fmt: skip
    return Plan(TrainConfig.parse(settings), len(training), len(held_out), tuned)


def _tuned(checkpoint: str) -> tuple[int, str]:
    """Rank of adapters, 0 for all weights, and that in words: adapters where all weights would not fit the memory."""
    weights = sum(parameter.numel() for parameter in open_checkpoint(checkpoint).denoiser.parameters())
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    needed, room = weights * BYTES, spare_memory(device, None)
    if needed <= room:
        return 0, f"all {weights:,} weights"
    return RANK, f"LoRA adapters of rank {RANK}: all {weights:,} weights would need {needed / 2**30:.1f} GiB"


def finetune(plan: Plan, report: Report = no_report) -> Outcome:
    """Train, or go on with the run that the folder holds; draw the figure. Errors as `train`."""
    config = plan.settings
    folder = train(config, report).parent
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    scores = [line for line in lines if line["event"] == "validation"]
    best = max(scores, key=lambda line: line["psnr"])
    figure = folder / "held_out.png"
    write_image(figure, _draw(config, folder / "best"), overwrite=True)
    return Outcome(best["psnr_bicubic"], scores[0]["psnr"], best["psnr"], best["step"], folder / "best", figure)


def _layout(photographs: str) -> dict[str, Any]:
    folder = Path(photographs).expanduser()
    for hr, lr in (("hr", "lr"), ("HR", "LR")):
        if (folder / hr).is_dir() and (folder / lr).is_dir():
            return {"path": str(folder / hr), "layout": "pairs", "lr_path": str(folder / lr)}
    names = [stem(ref.name).lower() for ref in find_photographs(folder)]
    is_stare = all(re.fullmatch(r"im0\d{3}", name) for name in names)
    return {"path": photographs, "layout": "stare" if is_stare else "hr"}


def _draw(config: TrainConfig, tuned: Path) -> np.ndarray:
    """Held-out photographs where fine-tuning changed most, under one another, (H, W, 3) uint8."""
    assert config.validation is not None
    pipelines = {"start": open_checkpoint(config.init_from), "fine-tuned": open_checkpoint(str(tuned))}
    rows = []
    for item in list_source(config.validation)[:SHOWN]:
        lr = None if item.lr is None else shown(item.lr.read())
        found = compare(pipelines, shown(item.hr.read()), lr, config.run.seed)
        rows.append(found.figure(f"{stem(item.hr.name)}, held out. "))
    return np.concatenate(rows)
