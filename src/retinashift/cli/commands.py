"""The command line. Every command imports what it needs when it runs, so that --help answers at once."""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand, TyperOption

from retinashift import __version__
from retinashift.cli.app import app_command
from retinashift.cli.calibration import calibrate, coverage
from retinashift.cli.contact_sheet import degradations
from retinashift.cli.import_official import export_weights, import_weights
from retinashift.cli.inspect import inspect_files
from retinashift.cli.opening import LARGEST_SEED, Failures, open_pipeline, progress_bar, quiet_libraries
from retinashift.cli.schedule import schedule
from retinashift.imaging.failures import DEBUG_VARIABLE, explain
from retinashift.inference.settings import Mode, OutputFormat, Precision, Sampling

if TYPE_CHECKING:
    from rich.table import Table

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Super-resolution of retinal photographs by residual-shifting diffusion. For research use, not for diagnosis.",
)

Checkpoint = Annotated[
    str, typer.Option("--checkpoint", "-c", help="Folder, or a name of `retinashift info`; x4 if not given.")
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1 or mps.")]
Steps = Annotated[
    int,
    typer.Option(min=0, help="Network calls a sample; 0 is the checkpoint's default, 1 the most faithful estimate."),
]
Seed = Annotated[int, typer.Option(min=0, max=LARGEST_SEED, help="Seed of the noise: same seed, same image.")]


def version(show: bool) -> None:
    if show:
        typer.echo(f"retinashift {__version__}")
        raise typer.Exit()


@app.callback()
def options(
    _: Annotated[bool, typer.Option("--version", callback=version, is_eager=True, help="Print the version.")] = False,
) -> None: ...


@app.command()
def upscale(
    inputs: Annotated[list[str], typer.Argument(help="Files, folders (with all below them) or patterns.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the results, or a file name for one input.")],
    mode: Annotated[
        Mode | None,
        typer.Option(
            help="faithful (the default): one step, the best estimate, smoother than the truth. realistic: a sample, "
            "as sharp as photographs are; its finest detail is plausible, not observed."
        ),
    ] = None,
    steps: Steps = 0,
    seed: Seed = 0,
    ensemble: Annotated[int, typer.Option(min=1, help="Samples that are averaged.")] = 1,
    uncertainty: Annotated[
        int, typer.Option(min=0, help="So many samples, averaged: where they disagree is drawn and written, too.")
    ] = 0,
    consistency: Annotated[
        bool, typer.Option(help="Bring the result into line with the input: reduced again, it gives the input back.")
    ] = True,
    memory: Annotated[str, typer.Option(help="Memory to keep to, such as 2G; empty: half of what is free.")] = "",
    precision: Annotated[
        Precision,
        typer.Option(help="bf16: twice as fast where the processor has units for it (AMX), for about one grey level."),
    ] = "fp32",
    file_format: Annotated[OutputFormat, typer.Option("--format", help="File type.")] = "same",
    figure: Annotated[bool, typer.Option("--figure", help="Draw each result beside its input, too.")] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace results that exist, and what lies beside them.")
    ] = False,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume",
            help="Go on with a former run: what the same settings have written is skipped; with --overwrite, all else "
            "is made again.",
        ),
    ] = False,
    sidecar: Annotated[
        bool, typer.Option("--sidecar", help="Write what made each result into a JSON file beside it, too.")
    ] = False,
    log: Annotated[
        Path | None, typer.Option(help="Append one line of JSON for each file: outcome, time, error, provenance.")
    ] = None,
    page: Annotated[
        int, typer.Option(min=0, help="Page (DICOM: frame) of files with several, from 1; 0 refuses such files.")
    ] = 0,
    deidentify: Annotated[
        bool, typer.Option("--deidentify", help="Take the person out of DICOM headers (not out of the pixels).")
    ] = False,
    max_pixels: Annotated[
        int, typer.Option(min=1, help="Refuse pictures of more pixels (width x height) before they are decoded.")
    ] = 100_000_000,
    workers: Annotated[
        int, typer.Option(min=1, max=16, help="Threads that read ahead and write behind; the bytes stay the same.")
    ] = 1,
    device: Device = "auto",
    checkpoint: Checkpoint = "",
) -> None:
    """Enlarge photographs: PNG, JPEG, TIFF, WebP, PPM, DICOM; bit depth, names and sub-folders are kept."""
    from retinashift.batch.jobs import plan_jobs
    from retinashift.cli.outputs import check_log

    jobs = plan_jobs(
        inputs, out, file_format=file_format, overwrite=overwrite, resume=resume, sidecar=sidecar,
        uncertainty=uncertainty > 0, figure=figure,
    )  # fmt: skip
    check_log(log)
    pipeline = open_pipeline(checkpoint, device)
    from retinashift.batch.upscale import BatchOptions
    from retinashift.cli.upscaling import run_batch
    from retinashift.inference.device import parse_bytes

    sampling = Sampling.of_samples(
        mode=mode,
        num_inference_steps=steps or None,
        ensemble=ensemble,
        uncertainty=uncertainty,
        back_projections=None if consistency else 0,
        memory=parse_bytes(memory) if memory else None,
        precision=precision,
    )
    options = BatchOptions(
        sampling=sampling,
        seed=seed,
        page=page or None,
        max_pixels=max_pixels,
        deidentify=deidentify,
        overwrite=overwrite,
        resume=resume,
        figure=figure,
        sidecar=sidecar,
        workers=workers,
    )
    with progress_bar() as progress:
        done = run_batch(pipeline, jobs, options, log, progress)
    done.tell(out)
    if done.exit_code:
        raise typer.Exit(done.exit_code)


app.command("inspect")(inspect_files)
app.command()(calibrate)
app.command()(coverage)


@app.command()
def train(
    config: Annotated[Path, typer.Argument(help="Settings, a YAML file such as configs/finetune_stare.yaml.")],
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="Change one setting: --set run.steps=500. May be repeated.")
    ] = None,
    init_from: Annotated[
        str, typer.Option("--init-from", help='Checkpoint to fine-tune: a folder, or a name of `retinashift info`.')
    ] = "",
) -> None:
    """Train or fine-tune. The same command again goes on where a run stopped; `accelerate launch -m` spreads it."""
    from retinashift.cli.display import TrainingDisplay
    from retinashift.training.settings import TrainConfig

    overrides = list(settings or [])
    if init_from:
        overrides.append(f"init_from={init_from}")
    given = TrainConfig.load(config, overrides)
    quiet_libraries()
    from retinashift.training.trainer import train as run

    with TrainingDisplay() as display:
        display.finish(run(given, display))


class EvaluateCommand(TyperCommand):
    """Takes the help of --metrics from the table of metrics, which is imported when help is asked for."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        from retinashift.evaluation.metrics import describe_metrics

        for parameter in self.params:
            if isinstance(parameter, TyperOption) and parameter.name == "metrics":
                parameter.help = f"Metrics beside PSNR, SSIM and consistency, by commas: {describe_metrics()}"
        super().format_help(ctx, formatter)


@app.command(cls=EvaluateCommand)
def evaluate(
    data: Annotated[
        str, typer.Argument(help="Folder (or STARE zip) of HR photographs; labels and masks are left out.")
    ],
    steps: Annotated[
        list[int] | None,
        typer.Option(min=1, help="Network calls to score; may be repeated. Default: the checkpoint's."),
    ] = None,
    mode: Annotated[
        list[str] | None,
        typer.Option(help="faithful or realistic, as of upscale, instead of --steps; may be repeated."),
    ] = None,
    seeds: Annotated[str, typer.Option(help="Seeds of the samples that are averaged, by commas.")] = "0,1,2",
    metrics: Annotated[
        str,
        typer.Option(help="Filled in from the table of metrics."),
    ] = "",
    samples: Annotated[int, typer.Option(min=2, help="Samples of each photograph for the metric coverage.")] = 4,
    against: Annotated[
        list[str] | None,
        typer.Option(help="NAME=FOLDER: results of another method, named like the photographs; may be repeated."),
    ] = None,
    labels: Annotated[
        Path | None,
        typer.Option(help="Folder of manual vessel labels; without it, looked for as STARE and DRIVE have them."),
    ] = None,
    degradation: Annotated[
        str,
        typer.Option(
            help="How inputs are made: bicubic-pillow, camera, or a file of training settings with a degradation."
        ),
    ] = "bicubic-pillow",
    json_path: Annotated[Path | None, typer.Option("--json", help="Write rows, means and protocol here.")] = None,
    csv_path: Annotated[Path | None, typer.Option("--csv", help="Write one line for each photograph here.")] = None,
    html_path: Annotated[
        Path | None, typer.Option("--html", help="Write one page with tables, plots and crops here.")
    ] = None,
    limit: Annotated[int, typer.Option(min=0, help="Score the first so many photographs only; 0 is all.")] = 0,
    precision: Annotated[Precision, typer.Option(help="As of upscale.")] = "fp32",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace files that exist.")] = False,
    device: Device = "auto",
    checkpoint: Checkpoint = "",
) -> None:
    """Score a checkpoint beside nearest, bicubic and Lanczos (protocol: docs/data-card.md)."""
    from rich.console import Console

    from retinashift.cli.evaluation import (
        Outputs,
        TestSet,
        parse_against,
        parse_degradation,
        parse_metrics,
        parse_modes,
        run_evaluation,
    )

    outputs = Outputs(json_path, csv_path, html_path)
    outputs.check(overwrite)
    test_set = TestSet(data, limit, labels, parse_against(against or []), parse_degradation(degradation))
    chosen = parse_metrics(metrics)
    if not all(seed.strip().isdecimal() for seed in seeds.split(",")):
        raise ValueError(f"--seeds is {seeds!r}; whole numbers from 0 by commas are expected, such as 0,1,2")
    seed_list = [int(seed) for seed in seeds.split(",")]
    pipeline = open_pipeline(checkpoint, device)
    ways = [*(steps or []), *parse_modes(mode or [])] or [pipeline.config.default_steps]
    with Failures() as failures:
        with progress_bar() as progress:
            report = run_evaluation(
                pipeline, test_set, ways, seed_list, chosen, samples, outputs, progress, failures, precision
            )
        console = Console(width=None if sys.stdout.isatty() else 140)  # a file has no edge to wrap at
        for table in (report.table("fidelity"), report.table("detail")):
            if len(table[0]) > 1:
                console.print(_table(table))


@app.command()
def info(checkpoint: Checkpoint = "") -> None:
    """Show a checkpoint: denoiser, schedule, parameters; and the devices of this machine."""
    import torch
    from rich.console import Console

    from retinashift.inference.checkpoints import DEFAULT, shipped_names
    from retinashift.inference.fingerprint import checkpoint_hash

    pipeline = open_pipeline(checkpoint, "cpu")
    scheduler, denoiser = pipeline.scheduler, pipeline.denoiser
    parameters = sum(p.numel() for p in denoiser.parameters())
    chain = scheduler.config
    sqrt_eta = ", ".join(f"{value:.4f}" for value in scheduler.sqrt_eta.tolist())
    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    gpus += ["Apple MPS"] if torch.backends.mps.is_available() else []
    rows = [
        ["what", "value"],
        ["checkpoint", checkpoint or DEFAULT],
        ["sha256", checkpoint_hash(pipeline)],
        ["scale", f"x{pipeline.config.scale}"],
        ["denoiser", f"{type(denoiser).__name__}, {parameters:,} parameters, {denoiser.dtype}"],
        ["codec", type(pipeline.codec).__name__ if pipeline.codec else "PixelCodec (lossless, no weights)"],
        ["steps", f"{chain.num_train_timesteps} trained, {pipeline.config.default_steps} by default"],
        ["chain", f"kappa {chain.kappa}, power {chain.power}, predicts {chain.prediction_type}"],
        ["sqrt(eta)", sqrt_eta],
        ["come along", ", ".join(shipped_names())],
        ["devices", ", ".join([*gpus, f"CPU ({torch.get_num_threads()} threads)"])],
        ["versions", f"retinashift {__version__}, torch {torch.__version__}, Python {sys.version.split()[0]}"],
    ]
    Console().print(_table(rows))


@app.command()
def demo(
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the pictures.")] = Path("demo"),
    steps: Steps = 0,
    seed: Seed = 0,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the pictures of an earlier demo.")] = False,
    device: Device = "auto",
) -> None:
    """Upscale the public-domain retina of scikit-image and draw a labelled figure of the result."""
    from rich.console import Console

    from retinashift.cli.demo import run_demo

    pipeline = open_pipeline("", device)
    report = run_demo(pipeline, out, steps=steps or None, seed=seed, overwrite=overwrite)
    console = Console(soft_wrap=True)
    console.print(_table(report.rows))
    console.print(report.note, markup=False)
    console.print(f"Look at {report.figure}", markup=False)


app.command("import")(import_weights)
app.command("degradations")(degradations)
app.command("app")(app_command)
app.command()(schedule)
app.command("export")(export_weights)


def _table(rows: list[list[str]]) -> Table:
    """Rows, the first of which is the heading, as a rich table."""
    from rich.table import Table

    table = Table(*rows[0])
    for row in rows[1:]:
        table.add_row(*row)
    return table


def main() -> None:
    """Entry point: an error is one line on standard error and exit code 1; RETINASHIFT_DEBUG=1 adds the traceback."""
    debug = bool(os.environ.get(DEBUG_VARIABLE))
    if debug:
        logging.basicConfig(level=logging.INFO)
        logging.getLogger("retinashift").setLevel(logging.DEBUG)
    try:
        app()
    except Exception as error:
        if debug:
            raise
        print(f"error: {explain(error).text}", file=sys.stderr)
        sys.exit(1)
