"""The commands that score: evaluate, calibrate and coverage."""

import json
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Annotated, Any, Literal, cast

import typer
from typer import Argument, Option
from typer.core import TyperCommand

from retinashift.cli import shared
from retinashift.cli.shared import Checkpoint, Device, Display, Failures, Limit, Overwrite, Seed
from retinashift.inference.settings import Mode, Precision, Sampling

Data = Annotated[str, Argument(help="Folder or zip of high-resolution photographs, 8 bit; labels are left out.")]
SHOWN = 4  # photographs with crops in the page
DegradationName = Annotated[str, Option(help="Degradation of inputs: bicubic-pillow, camera, or a settings file.")]


class EvaluateCommand(TyperCommand):
    """Fills in the help of --metrics from the table of metrics, which is imported only for that."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        from retinashift.evaluation.metrics import DEFAULT_METRICS, METRICS

        option: Any = next(parameter for parameter in self.params if parameter.name == "metrics")
        names = ", ".join(f"{name} ({metric.note})" if metric.note else name for name, metric in METRICS.items())
        option.help = f"Metrics beside PSNR, SSIM and consistency, by commas: {names}; or none. Default: "
        option.help += f"{', '.join(DEFAULT_METRICS)}."
        super().format_help(ctx, formatter)


def evaluate(
    data: Data,
    steps: Annotated[list[int] | None, Option(min=1, help="Score this number of network calls; repeatable.")] = None,
    mode: Annotated[list[str] | None, Option(help="Score the mode faithful or realistic; repeatable.")] = None,
    seeds: Annotated[str, Option(help="Seeds whose scores are averaged, by commas.")] = "0,1,2",
    metrics: Annotated[str, Option(help="Filled in from the table of metrics.")] = "",
    against: Annotated[list[str] | None, Option(help="NAME=FOLDER of another method's results; repeatable.")] = None,
    split: Annotated[Literal["all", "train", "test"] | None, Option(help="Split of STARE. Default: all files.")] = None,
    labels: Annotated[Path | None, Option(help="Folder of vessel labels. Default: as in STARE and DRIVE.")] = None,
    degradation: DegradationName = "bicubic-pillow",
    json_path: Annotated[Path | None, Option("--json", help="JSON file for rows, means and protocol.")] = None,
    csv_path: Annotated[Path | None, Option("--csv", help="CSV file, a line per photograph and method.")] = None,
    html_path: Annotated[Path | None, Option("--html", help="HTML file for tables, plots and crops.")] = None,
    limit: Limit = 0,
    scale: Annotated[int | None, Option(min=1, help="Factor of the inputs. Default: the checkpoint's.")] = None,
    turns: Annotated[int, Option(help="Score the mean of 1 or 8 turns, as in upscale.")] = 1,
    strength: Annotated[float, Option(min=0, max=1, help="Of x4_restore, as in upscale.")] = 1.0,
    precision: Annotated[Precision, Option(help="Precision of the network, as in upscale.")] = "auto",
    overwrite: Overwrite = False,
    device: Device = "auto",
    checkpoint: Annotated[
        list[str] | None, Option("--checkpoint", "-c", help="As in upscale; the first is compared with the others.")
    ] = None,
) -> None:
    """Evaluate checkpoints beside nearest, bicubic and Lanczos (protocol: docs/data-card.md)."""
    import numpy as np

    from retinashift.cli import evaluation as work
    from retinashift.data.photographs import Source, find_photographs, list_source
    from retinashift.evaluation import benchmark
    from retinashift.evaluation.page import Gallery, render_html
    from retinashift.imaging.files import replace_file

    shared.check_outputs(json_path, csv_path, html_path, overwrite=overwrite)
    folders, making = work.parse_against(against or []), work.parse_degradation(degradation)
    chosen, seed_list = work.parse_metrics(metrics), work.parse_seeds(seeds)
    way = Sampling(scale=scale, precision=precision, turns=turns, strength=strength,
        output_uncertainty="coverage" in chosen)  # fmt: skip
    ways = [replace(way, num_inference_steps=number) for number in steps or []]
    ways += [replace(way, mode=cast(Mode, name)) for name in mode or []]  # it refuses others
    names = [name.rstrip("/") for name in checkpoint or [""]]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise ValueError(f"--checkpoint {twice} is given twice; name other checkpoints to compare it with")
    checkpoints, several = {name: shared.open_pipeline(name, device) for name in names}, len(names) > 1
    found = [item.hr for item in list_source(Source(data, "stare", split=split))] if split else find_photographs(data)
    refs = found[: limit or None]
    learned, factor = work.trained_on(refs, checkpoints), scale or work.common_scale(checkpoints)
    baselines = [benchmark.baseline(name, factor) for name in ("nearest", "bicubic", "lanczos")]
    others = [work.method_of_results(name, folder, refs) for name, folder in folders.items()]
    ours = [
        work.method_of(name if several else "retinashift", pipeline, own)
        for name, pipeline in checkpoints.items()
        for own in ways or [way]
    ]
    spread = np.linspace(0, len(refs) - 1, min(SHOWN, len(refs))).astype(int)
    gallery = Gallery(frozenset(refs[number].name for number in spread))
    with Failures() as failures:
        with Display() as display:
            report = benchmark.evaluate(
                display.track(work.readers(refs), "Evaluating"), [*baselines, *others, *ours], scale=factor,
                seeds=seed_list, metrics=chosen, degradation=making, on_result=gallery.add, on_failure=failures.add,
                observed=work.marked_by_experts(data, refs, labels, lesions="lesions" in chosen),
            )  # fmt: skip
        report = replace(report, trained_on=learned, reference=ours[0].name if several else "")
        if json_path is not None:
            report.save(json_path)
        if csv_path is not None:
            report.save_csv(csv_path)
        if html_path is not None:
            page = render_html(report, gallery, f"Super-resolution of {Path(data).absolute().name}")
            replace_file(html_path, page.encode())
        shared.print_table(report.table("fidelity"))
        if len((detail := report.table("detail"))[0]) > 1:
            shared.print_table(detail)
        if several:
            shared.print_table(work.difference_table(report))
            typer.echo("Differences are paired by photograph, with the 95 % bootstrap interval of their mean.")


def calibrate(
    data: Annotated[list[str], Argument(help="Folders of photographs that the checkpoint was not trained on.")],
    checkpoint: Annotated[str, Option("--checkpoint", "-c", help="Checkpoint folder to calibrate.")],
    train: Annotated[list[str] | None, Option(help="First train the head on this folder; repeatable.")] = None,
    steps: Annotated[int, Option(min=1, help="Training steps of the head.")] = 400,
    seed: Seed = 0,
    limit: Limit = 0,
    degradation: DegradationName = "bicubic-pillow",
    overwrite: Annotated[bool, Option("--overwrite", help="Replace the checkpoint's head and calibration.")] = False,
    device: Device = "auto",
) -> None:
    """Train a checkpoint's uncertainty head, calibrate it on photographs, and store both in its folder."""
    from retinashift.data.photographs import Source, find_photographs, list_source
    from retinashift.imaging.files import replace_file

    folder = Path(checkpoint).expanduser()
    index = folder / "model_index.json"
    if not index.is_file():
        raise FileNotFoundError(f"{checkpoint} is no checkpoint folder; give a folder that can be written to")
    pipeline = shared.open_pipeline(checkpoint, device)
    if pipeline.calibration is not None and not overwrite:
        raise FileExistsError(f"{checkpoint} is calibrated already; give --overwrite to replace the calibration")
    if pipeline.uncertainty_head is None and not train:
        raise ValueError(f"{checkpoint} has no uncertainty head yet; give its training photographs with --train FOLDER")
    refs = [ref for one in data for ref in find_photographs(one)][: limit or None]
    items = [item for one in train or [] for item in list_source(Source(one))]
    from retinashift.cli.evaluation import parse_degradation, readers
    from retinashift.evaluation.calibration import calibrate as measure
    from retinashift.training.uncertainty import CAMERA, train_head

    making = parse_degradation(degradation)
    if items:
        with Display() as display:
            track, seen = partial(display.track, what="Training the head"), CAMERA if making.exact else making
            head = train_head(pipeline, items, steps, seed, track, seen)
        pipeline.register_modules(uncertainty_head=head)
    with Failures() as failures:
        with Display() as display:
            photographs = display.track(readers(refs), "Calibrating")
            source = ", ".join(Path(one).absolute().name for one in data)
            found = measure(pipeline, photographs, source=source, on_failure=failures.add, degradation=making)
        settings = json.loads(index.read_text(encoding="utf-8"))
        settings["calibration"] = found.to_config()
        if items:
            pipeline.uncertainty_head.save_pretrained(folder / "uncertainty_head")
            settings["uncertainty_head"] = ["retinashift.models.uncertainty_head", "UncertaintyHead"]
        replace_file(index, (json.dumps(settings, indent=2, sort_keys=True) + "\n").encode())
        typer.echo(f"{found.protocol['photographs']} photographs: sigma is {found.factor:.3f} times the scale")
        typer.echo(f"Written to {index}")


def coverage(
    data: Data,
    limit: Limit = 0,
    plot: Annotated[Path | None, Option("--plot", help="Draw the curve into this PNG file.")] = None,
    figure: Annotated[Path | None, Option(help="Draw result, map and errors at the median rank correlation.")] = None,
    json_path: Annotated[Path | None, Option("--json", help="Write the shares into this JSON file.")] = None,
    degradation: DegradationName = "bicubic-pillow",
    overwrite: Overwrite = False,
    device: Device = "auto",
    checkpoint: Checkpoint = "",
) -> None:
    """Measure how often the truth lies within the stated uncertainty (RGB, field of view)."""
    from retinashift.data.photographs import find_photographs
    from retinashift.imaging.files import replace_file, write_image

    shared.check_outputs(plot, figure, json_path, overwrite=overwrite)
    shared.check_outputs(plot, figure, overwrite=overwrite, suffix=".png")
    pipeline = shared.open_pipeline(checkpoint, device)
    refs = find_photographs(data)[: limit or None]
    from retinashift.cli.evaluation import parse_degradation, readers
    from retinashift.evaluation.calibration import compare, measure_coverage
    from retinashift.evaluation.similarity import absolute_errors
    from retinashift.imaging.figures import draw_against, map_and_error

    making = parse_degradation(degradation)
    with Failures() as failures:
        with Display() as display:
            results = compare(pipeline, display.track(readers(refs), "Comparing"), failures.add, making)
            found = measure_coverage(results, pipeline.calibration)
        for level, share in zip(found.stated, found.covered, strict=True):
            typer.echo(f"stated {level:4.0%}  covered {share:6.1%}")
        lowest = min(found.images, key=lambda name: found.images[name])
        ranks = sorted((rank, name) for name, rank in found.rank_correlations.items())
        typer.echo(f"At 90 %, by photograph: lowest {found.images[lowest]:.1%} ({lowest}), of {len(found.images)}")
        mean, (least, where) = fmean(rank for rank, _ in ranks), ranks[0]
        typer.echo(f"Rank correlation of map and error, 5x5 means: {mean:.3f}, lowest {least:.3f} ({where})")
        if json_path is not None:
            values = asdict(found) | {"data": Path(data).absolute().name}
            replace_file(json_path, (json.dumps(values, indent=2) + "\n").encode())
        if plot is not None:
            curve = {"uncertainty map": found.covered}
            picture = draw_against(found.stated, curve, across="stated", up="share of values inside")
            write_image(plot, picture, overwrite=overwrite)
            typer.echo(f"Look at {plot}")
        if figure is not None:
            middle = ranks[len(ranks) // 2][1]
            number = [ref.name for ref in refs].index(middle)
            shown = next(compare(pipeline, readers([refs[number]]), degradation=making, first=number))
            assert shown.sigma is not None
            picture = map_and_error(shown.sr, shown.sigma * 255, absolute_errors(shown))
            write_image(figure, picture, overwrite=overwrite)
            typer.echo(f"Look at {figure} ({middle})")
