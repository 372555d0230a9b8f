"""The train command, and what it shows on screen: a bar with speed and time left, a line per validation."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from retinashift.cli.options import quiet_libraries


def train(
    config: Annotated[Path, typer.Argument(help="Training settings, a YAML file such as configs/finetune_stare.yaml.")],
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="Change one setting, such as run.steps=500; may be repeated.")
    ] = None,
    init_from: Annotated[
        str,
        typer.Option(
            "--init-from", help="Checkpoint to fine-tune: a folder or a bundled name. Default: the settings'."
        ),
    ] = "",
) -> None:
    """Train or fine-tune. To resume a run, give the same command again; `accelerate launch -m` distributes it."""
    from retinashift.training.settings import TrainConfig

    overrides = list(settings or [])
    if init_from:
        overrides.append(f"init_from={init_from}")
    given = TrainConfig.load(config, overrides)
    quiet_libraries()
    from retinashift.training.run import train as run

    with TrainingDisplay() as display:
        display.finish(run(given, display))


class TrainingDisplay:
    """Prints the trainer's reports; a context, so that the bar ends with the run."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn

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
        """Show one report of the trainer: its event ("start", "train", "validation") and values."""
        if event == "start":
            self.console.print(values["settings"], markup=False)
            again = f", resumed at step {values['step']}" if values["step"] else ""
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
        """Fill the bar and name the checkpoint."""
        self.progress.update(self.task, completed=1.0)
        self.console.print(f"checkpoint in {folder}; the log is {folder.parent}/log.jsonl", markup=False)
