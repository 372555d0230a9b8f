"""The commands train and finetune, and what a run shows: a bar, a line per validation, and what to do next."""

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from typer import Argument, Option

from retinashift.cli.shared import Checkpoint, Display, Json, Quiet
from retinashift.inference import quiet_diffusers


def train(
    config: Annotated[Path, Argument(help="Training settings, a YAML file such as configs/finetune_stare.yaml.")],
    settings: Annotated[list[str] | None, Option("--set", help="Setting, such as run.steps=500; repeatable.")] = None,
    init_from: Annotated[str, Option("--init-from", help="Checkpoint to start from. Default: the settings'.")] = "",
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Train or fine-tune. To resume a run, give the same command again; `accelerate launch -m` distributes it."""
    from retinashift.training.settings import TrainConfig

    start = [f"init_from={init_from}"] if init_from else []
    given = TrainConfig.load(config, [*(settings or []), *start])
    quiet_diffusers()
    from retinashift.training.run import train as run

    with Display(quiet or as_json) as display:
        run(given, reporter(display, as_json))


def finetune(
    photographs: Annotated[str, Argument(help="Folder or zip: STARE, one with hr/ and lr/, or any photographs.")],
    out: Annotated[Path, Option("--out", "-o", help="Folder of the run.")] = Path("runs/finetune"),
    minutes: Annotated[float, Option(min=0, help="Minutes to train; 0 is 500 steps.")] = 0,
    checkpoint: Checkpoint = "",
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Fine-tune on photographs of your own, some patients held out; the same command again resumes."""
    quiet_diffusers()
    from retinashift.training import finetune as work

    plan = work.plan_finetune(photographs, str(out), minutes=minutes, checkpoint=checkpoint)
    with Display(quiet or as_json) as display:
        display.say(f"Fine-tuning {plan.tuned}")
        done = work.finetune(plan, reporter(display, as_json))
    if as_json:
        typer.echo(json.dumps({"event": "outcome", **asdict(done)}, default=str))
        return
    typer.echo(f"PSNR on {plan.held_out} held-out photographs, dB (RGB, field of view), trained on {plan.training}:")
    typer.echo(f"  bicubic     {done.bicubic:6.2f}\n  start       {done.start:6.2f}")
    typer.echo(f"  fine-tuned  {done.best:6.2f}  ({done.best - done.start:+.2f}, step {done.best_step})")
    typer.echo(f"Look at {done.figure}; use it with --checkpoint {done.checkpoint}")


def reporter(display: Display, as_json: bool) -> Callable[[str, dict[str, Any]], None]:
    """Shows the trainer's reports; `as_json` writes each but single steps as a line to standard output as well."""
    loss = ""

    def report(event: str, values: dict[str, Any]) -> None:
        nonlocal loss
        if as_json and event != "step":
            typer.echo(json.dumps({"event": event, **values}))
        if event == "start":
            display.say(_header(values))
        elif event == "step":
            spent, left, step = values["seconds"], values["seconds_left"], values["step"]
            first = step == values["first"] + 1
            display.at(spent / max(1e-9, spent + left), f"step {step}  {loss}".rstrip(), left, always=first)
        elif event == "train":
            loss = f"loss {values['loss']:.4f}  rate {values['learning_rate']:.1e}"
        elif event == "validation":
            gain = round(values.get("gain_over_start", 0.0), 2) + 0  # no minus before 0.00
            over = f", over the start {gain:+.2f}" if values["step"] and "gain_over_start" in values else ""
            scores = f"{values['psnr']:.2f} dB (fov), over bicubic {values['gain']:+.2f}{over}"
            display.say(f"step {values['step']}: {scores}")
        elif event == "end":
            display.at(1.0, f"step {values['step']}")
            display.say(_outcome(values))

    return report


def _header(values: dict[str, Any]) -> str:
    held_out = f", {values['validation']} held out" if values["validation"] else ""
    processes = f"{values['processes']} process{'es' if values['processes'] > 1 else ''}"
    minutes = max(1, round(values["expected_minutes"]))
    steps = f"{values['steps']} steps, about {minutes} minute{'s' if minutes > 1 else ''}"
    length = f"{values['minutes']:g} minutes" if values["minutes"] else steps
    resumed = f", resumed at step {values['step']}" if values["step"] else ""
    return (
        f"{values['photographs']} photographs{held_out}; {values['device']}, {processes}, {values['precision']}; "
        f"{length}{resumed}; settings and log in {values['out']}"
    )


def _outcome(values: dict[str, Any]) -> str:
    use = f"next: retinashift upscale PHOTOGRAPHS -o out/ --checkpoint {values['use']}"
    if "best" not in values:
        return f"{values['step']} steps in {values['seconds'] / 60:.1f} minutes; {use}"
    start = f"start {values['start']:.2f} -> " if "start" in values else ""
    best = f"{start}best {values['best']:.2f} dB on {values['validation']} held-out photographs (fov)"
    return f"{best}, best at step {values['best_step']}; {use}"
