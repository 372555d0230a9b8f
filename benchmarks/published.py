"""The test images that Pillow, pydicom and tifffile publish with their source, through `upscale` in one command.

    python benchmarks/published.py [--folder FOLDER] [--max-pixels 40000]

Without a folder, the sources are downloaded from the package registry; pydicom's larger images are a package of their
own, and tifffile publishes none. A line is printed for each image as soon as it is done. Findings are a traceback, an
internal error, an image without an outcome in the log, and a photograph whose result's mean colour is more than two
levels away from what Pillow or pydicom read themselves, interpolated by Pillow.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
import warnings
import zipfile
from collections import Counter
from pathlib import Path

import numpy as np
import pydicom
from PIL import Image, ImageOps

from retinashift.imaging.figures import shown
from retinashift.imaging.files import READ_SUFFIXES, read_image

SOURCES, WHEELS = ("pillow", "pydicom", "tifffile"), ("pydicom-data",)
LEVELS = 2.0
"""Of 255, by which a mean colour may differ."""
SMALLEST, COLOURS = 32, 64
"""Pixels of the shorter side, and different colours, of what counts as a photograph; anything else is a drawing."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, help="unpacked sources, a folder each")
    parser.add_argument("--max-pixels", type=int, default=40_000, help="of an image; larger ones are refused")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        sources = options.folder or download(Path(name, "sources"))
        images, log = gather(sources, Path(name, "in")), Path(name, "log.jsonl")
        settings = ("--max-pixels", str(options.max_pixels), "--log", str(log), "--quiet")
        command = [sys.executable, "-m", "retinashift", "upscale", str(Path(name, "in")), "-o", str(Path(name, "out"))]
        code, said, lines = follow([*command, *settings], log)
        findings = [line for line in said.splitlines() if "Traceback" in line or "internal error" in line]
        if code not in (0, 1):
            findings.append(f"exit code {code}: {said.strip()[-300:]}")
        findings += [
            f"{path.name}: no outcome" for path in sorted(set(images) - {Path(line["source"]) for line in lines})
        ]
        rows: dict[str, Counter] = {}
        for line in lines:
            path = Path(line["source"])
            row = rows.setdefault(images[path].relative_to(sources).parts[0], Counter())
            row[line["status"]] += 1
            if line["status"] == "written" and (change := change_of_colour(line)):
                by, kind = change
                row[f"{kind}s"] += 1
                row[f"worst {kind}"] = max(row[f"worst {kind}"], by)
                if by > LEVELS and kind == "photograph":
                    findings.append(f"{images[path].relative_to(sources)}: colour off by {by:.1f} levels")
    print("source | written | refused | photographs compared, largest difference of a mean | drawings, the same")
    for name, row in sorted(rows.items()):
        compared = (f"{row[f'{kind}s']}, {row[f'worst {kind}']:.2f}" for kind in ("photograph", "drawing"))
        print(f"{name} | {row['written']} | {row['failed']} | {' | '.join(compared)}")
    reasons = Counter(reason(line) for line in lines if line["status"] == "failed")
    print("refused because:", *(f"{times:4}  {text}" for text, times in reasons.most_common()), sep="\n  ")
    print(f"exit code {code}, {len(findings)} findings", *findings, sep="\n  ")
    return int(bool(findings))


def download(folder: Path) -> Path:
    """The unpacked sources of the packages as they are installed here, a folder each."""
    from importlib.metadata import version

    folder.mkdir(parents=True)
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "-d", str(folder)]
    subprocess.run(
        [*pip, "--no-binary", ":all:", *(f"{package}=={version(package)}" for package in SOURCES)], check=True
    )
    subprocess.run([*pip, *WHEELS], check=True)
    for path in list(folder.iterdir()):
        if path.suffix == ".whl":
            with zipfile.ZipFile(path) as wheel:
                wheel.extractall(folder / path.stem)
        else:
            with tarfile.open(path) as archive:
                archive.extractall(folder, filter="data")
        path.unlink()
    return folder


def gather(sources: Path, folder: Path) -> dict[Path, Path]:
    """The images copied into one folder, numbered: their own names would meet in one result. Copy: original."""
    folder.mkdir()
    images = sorted(path for path in sources.rglob("*") if path.is_file() and path.suffix.lower() in READ_SUFFIXES)
    return {Path(shutil.copy(path, folder / f"{number:04}_{path.name}")): path for number, path in enumerate(images)}


def follow(command: list[str], log: Path) -> tuple[int, str, list[dict]]:
    """Run the command and print each line of its log as it comes: exit code, what it said, lines of the log."""
    lines: list[dict] = []
    with tempfile.TemporaryFile("w+") as said:
        running, begun = subprocess.Popen(command, stdout=said, stderr=said), time.monotonic()
        ended = False
        while not ended:
            ended = running.poll() is not None
            text = log.read_text("utf-8") if log.exists() else ""
            for line in text[: text.rfind("\n") + 1].splitlines()[len(lines) :]:
                lines.append(json.loads(line))
                told = lines[-1].get("error", "").replace(f"{Path(lines[-1]['source']).parent}/", "")
                name, took = Path(lines[-1]["source"]).name, lines[-1]["seconds"]
                print(f"{time.monotonic() - begun:6.1f} s  {took:6.2f} s  {name}  {told or 'written'}", flush=True)
            time.sleep(0 if ended else 0.2)
        said.seek(0)
        return running.returncode, said.read(), lines


def reason(line: dict) -> str:
    """Why an image was refused, without its name and numbers."""
    return re.sub(r"\d+(?:\.\d+)*", "N", line["error"].split(": ", 1)[-1])[:90]


def change_of_colour(line: dict) -> tuple[float, str] | None:
    """The largest difference of mean colours in levels of 255, and of what; None where no other program reads it.

    What the other program reads is interpolated by Pillow first: where a drawing overshoots black and white, both are
    cut off, which moves the mean.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            other = read_elsewhere(Path(line["source"]))
    except Exception:  # whatever another program makes of odd files
        return None
    if other is None:
        return None
    result = shown(read_image(line["target"]).pixels)
    enlarged = Image.fromarray(other.astype(np.uint8)).resize(result.shape[1::-1], Image.Resampling.BICUBIC)
    by = float(np.abs(result.mean((0, 1)) - np.asarray(enlarged).mean((0, 1))).max())
    drawn = len(np.unique(other.reshape(-1, 3), axis=0)) < COLOURS or min(other.shape[:2]) < SMALLEST
    return by, "drawing" if drawn else "photograph"


def read_elsewhere(path: Path) -> np.ndarray | None:
    """8-bit RGB by Pillow or pydicom alone; None for kinds whose conversion to RGB is a matter of taste."""
    if path.suffix == ".dcm":
        dataset = pydicom.dcmread(path)
        if dataset.BitsStored != 8 or dataset.PhotometricInterpretation not in ("RGB", "MONOCHROME2", "YBR_FULL_422"):
            return None
        pixels = dataset.pixel_array  # YBR becomes RGB where a plugin decodes it
        return np.broadcast_to(pixels[..., None], (*pixels.shape, 3)) if pixels.ndim == 2 else pixels
    with Image.open(path) as picture:
        if picture.mode not in ("1", "L", "P", "RGB"):
            return None
        return np.asarray(ImageOps.exif_transpose(picture).convert("RGB"))


if __name__ == "__main__":
    sys.exit(main())
