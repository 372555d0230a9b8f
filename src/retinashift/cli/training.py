"""The train command, and what it shows on screen: a bar with speed and time left, a line per validation."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from retinashift.cli.options import quiet_libraries

SHARE = 0.05
"""Share of a run after which a display without a bar prints its next line."""


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
    quiet: Annotated[bool, typer.Option("--quiet", help="Print errors and warnings only.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one line of JSON per report, no bar.")] = False,
) -> None:
    """Train or fine-tune. To resume a run, give the same command again; `accelerate launch -m` distributes it."""
    from retinashift.training.settings import TrainConfig

    overrides = list(settings or [])
    if init_from:
        overrides.append(f"init_from={init_from}")
    given = TrainConfig.load(config, overrides)
    quiet_libraries()
    from retinashift.training.run import train as run

    with TrainingDisplay(quiet=quiet, as_json=as_json) as display:
        run(given, display)


def finetune(
    photographs: Annotated[
        str, typer.Argument(help="Folder or zip: STARE, a folder with hr/ and lr/ in it, or any photographs.")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the run.")] = Path("runs/finetune"),
    minutes: Annotated[float, typer.Option(min=0, help="Minutes to train; 0 is 500 steps.")] = 0,
    checkpoint: Annotated[
        str, typer.Option("--checkpoint", "-c", help="Checkpoint to start from: a folder or a bundled name.")
    ] = "",
    quiet: Annotated[bool, typer.Option("--quiet", help="Print errors, warnings and the outcome only.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one line of JSON per report, no bar.")] = False,
) -> None:
    """Fine-tune on photographs of your own, some patients held out; the same command again resumes."""
    quiet_libraries()
    from retinashift.training.finetune import finetune as run
    from retinashift.training.finetune import plan_finetune

    plan = plan_finetune(photographs, str(out), minutes=minutes, checkpoint=checkpoint)
    if not quiet and not as_json:
        typer.echo(f"Fine-tuning {plan.tuned}", err=True)
    with TrainingDisplay(quiet=quiet, as_json=as_json) as display:
        done = run(plan, display)
    if as_json:
        typer.echo(json.dumps({"event": "outcome", **asdict(done)}, default=str))
        return
    typer.echo(f"PSNR on {plan.held_out} held-out photographs, dB (RGB, field of view), trained on {plan.training}:")
    typer.echo(f"  bicubic     {done.bicubic:6.2f}\n  start       {done.start:6.2f}")
    typer.echo(f"  fine-tuned  {done.best:6.2f}  ({done.best - done.start:+.2f}, step {done.best_step})")
    typer.echo(f"Look at {done.figure}; use it with --checkpoint {done.checkpoint}")


class TrainingDisplay:
    """Shows the trainer's reports: a header, a bar on a terminal or lines in a pipe, validations, and the outcome.

    A context, so that the bar ends with the run.

    Args:
        quiet: show nothing.
        as_json: write each report but single steps as a line of JSON to standard output instead.
    """

    def __init__(self, *, quiet: bool = False, as_json: bool = False) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn

        self.as_json, self.quiet = as_json, quiet or as_json
        self.console = Console(stderr=True, highlight=False, quiet=self.quiet, soft_wrap=True)
        self.bar = self.console.is_terminal and not self.quiet
        self.progress = Progress(
            TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[text]}"), console=self.console,
            disable=not self.bar,
        )  # fmt: skip
        self.task = self.progress.add_task("Training", total=1.0, text="")
        self.loss = ""
        self.shown = 0.0

    def __enter__(self) -> TrainingDisplay:
        self.progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.progress.stop()

    def __call__(self, event: str, values: dict[str, Any]) -> None:
        """Show one report of the trainer: its event ("start", "step", "train", "validation", "end") and values."""
        if self.as_json and event != "step":
            typer.echo(json.dumps({"event": event, **values}))
        if event == "start":
            self._print(_header(values))
        elif event == "step":
            self._step(values)
        elif event == "train":
            self.loss = f"loss {values['loss']:.4f}  rate {values['learning_rate']:.1e}  "
        elif event == "validation":
            gain = f", over the start {values['gain_over_start']:+.2f}" if values.get("gain_over_start") else ""
            self._print(
                f"step {values['step']}: {values['psnr']:.2f} dB (fov), over bicubic {values['gain']:+.2f}{gain}"
            )
        elif event == "end":
            self.progress.update(self.task, completed=1.0)
            self._print(_outcome(values))

    def _step(self, values: dict[str, Any]) -> None:
        left = values["seconds_left"]
        done = values["seconds"] / max(1e-9, values["seconds"] + left)
        clock = f"{left // 3600:.0f}:{left % 3600 // 60:02.0f}:{left % 60:02.0f}"
        text = f"step {values['step']}  {self.loss}{clock} left"
        self.progress.update(self.task, completed=done, text=text)
        if not self.bar and (done >= self.shown + SHARE or values["step"] == values["first"] + 1):
            self.shown = done
            self._print(text)

    def _print(self, line: str) -> None:
        self.console.print(line, markup=False)


def _header(values: dict[str, Any]) -> str:
    held_out = f", {values['validation']} held out" if values["validation"] else ""
    several = values["processes"] > 1
    length = f"{values['minutes']:g} minutes" if values["minutes"] else f"{values['steps']} steps"
    if not values["minutes"] and values["expected_minutes"] is not None:
        minutes = max(1, round(values["expected_minutes"]))
        length += f", about {minutes} minute{'s' if minutes > 1 else ''}"
    resumed = f", resumed at step {values['step']}" if values["step"] else ""
    return (
        f"{values['photographs']} photographs{held_out}; {values['device']}, {values['processes']} "
        f"process{'es' if several else ''}, {values['precision']}; {length}{resumed}; settings and log in "
        f"{values['out']}"
    )


def _outcome(values: dict[str, Any]) -> str:
    use = f"next: retinashift upscale PHOTOGRAPHS -o out/ --checkpoint {values['use']}"
    if "best" not in values:
        return f"{values['step']} steps in {values['seconds'] / 60:.1f} minutes; {use}"
    start = f"start {values['start']:.2f} -> " if "start" in values else ""
    return (
        f"{start}best {values['best']:.2f} dB on {values['validation']} held-out photographs (fov), "
        f"best at step {values['best_step']}; {use}"
    )
