"""What a training run shows on screen: one bar with speed and time left, one line per validation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn


class TrainingDisplay:
    """Receives the trainer's reports; a context, so that the bar ends with the run."""

    def __init__(self) -> None:
        self.console = Console(stderr=True, highlight=False)
        self.progress = Progress(
            TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[text]}"), console=self.console
        )
        self.task = self.progress.add_task("Training", total=1.0, text="")

    def __enter__(self) -> TrainingDisplay:
        self.progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.progress.stop()

    def __call__(self, event: str, values: dict[str, Any]) -> None:
        if event == "start":
            self.console.print(values["settings"], markup=False)
            again = f", going on from step {values['step']}" if values["step"] else ""
            self.console.print(f"{values['samples']} photographs{again}", markup=False)
        elif event == "train":
            left = values["seconds_left"]
            done = values["seconds"] / max(1e-9, values["seconds"] + left)
            text = (
                f"step {values['step']}  loss {values['loss']:.4f}  {values['images_per_second']:.1f} images/s  "
                f"{left // 3600:.0f}:{left % 3600 // 60:02.0f}:{left % 60:02.0f} left"
            )
            self.progress.update(self.task, completed=done, text=text)
        elif event == "validation":
            self.console.print(
                f"step {values['step']}: PSNR {values['psnr']:.2f} dB in the field of view, "
                f"bicubic {values['psnr_bicubic']:.2f}, gain {values['gain']:+.2f}",
                markup=False,
            )

    def finish(self, folder: Path) -> None:
        self.progress.update(self.task, completed=1.0)
        self.console.print(f"checkpoint in {folder}; the log is {folder.parent}/log.jsonl", markup=False)
