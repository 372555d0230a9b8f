"""The checkpoint folder that a run writes: the pipeline, its settings, its model card and its adapters."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from retinashift.data.leaks import read_trained_on, write_trained_on
from retinashift.inference.pipeline import ResShiftPipeline
from retinashift.models.adapters import merged, save_adapter
from retinashift.training.settings import TrainConfig

CARD = """\
{front}# Fine-tuned with RetinaShift

Trained with the settings in `training.yaml`, starting from the checkpoint that is described below. The licence of that
checkpoint still holds. Its scores say nothing about this one.

## The starting checkpoint

{start}"""


def write_checkpoint(folder: Path, pipeline: ResShiftPipeline, config: TrainConfig, photographs: Iterable[str]) -> None:
    """Fill an existing folder; adapters are merged into the denoiser, and also lie alone in `adapter/`.

    Args:
        folder: empty.
        pipeline: with the weights to write; its `name_or_path` is where it started.
        config: settings of the run.
        photographs: hashes of what it was trained on; those of where it started are added.
    """
    start = Path(pipeline.name_or_path) if config.init_from else None
    with merged_adapters(pipeline, config):
        pipeline.save_pretrained(folder, safe_serialization=True)
    if config.lora.rank:
        save_adapter(pipeline.denoiser, folder / "adapter")
    (folder / "training.yaml").write_text(config.to_yaml(), encoding="utf-8")
    write_trained_on(folder, [*photographs, *(read_trained_on(start) if start else ())])
    card = continued_card(start) if start else None
    if card is not None:
        (folder / "README.md").write_text(card, encoding="utf-8")


@contextmanager
def merged_adapters(pipeline: ResShiftPipeline, config: TrainConfig) -> Iterator[None]:
    """Within it the pipeline has the plain denoiser of a checkpoint, with adapters merged into its layers."""
    adapted = pipeline.denoiser
    if config.lora.rank:
        pipeline.register_modules(denoiser=merged(adapted))
    try:
        yield
    finally:
        pipeline.register_modules(denoiser=adapted)


def continued_card(start: Path) -> str | None:
    """The card of a checkpoint trained from the one in `start`, with that one's metadata and text.

    None if `start` has no card.
    """
    try:
        text = (start / "README.md").read_text(encoding="utf-8")
    except OSError:
        return None
    front = re.match(r"---\n.*?\n---\n", text, re.DOTALL)  # YAML for model hubs, with the licence
    if front:
        text = text[front.end() :].lstrip("\n")
    below = [f"##{line}" if line.startswith("#") else line for line in text.splitlines()]  # under our own heading
    return CARD.format(front=front[0] + "\n" if front else "", start="\n".join(below) + "\n")
