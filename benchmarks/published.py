"""The test images that Pillow, pydicom and tifffile publish with their source, through `upscale` in one command.

    python benchmarks/published.py [--folder FOLDER] [--max-pixels 200000]

Without a folder, the sources are downloaded from the package registry. Findings are a traceback, an internal error, an
image without an outcome in the log, and a result whose mean colour is more than two levels away from what Pillow or
pydicom read themselves.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tarfile
import tempfile
import warnings
from collections import Counter
from pathlib import Path

import numpy as np
import pydicom
from PIL import Image, ImageOps

from retinashift.imaging.figures.comparison import shown
from retinashift.imaging.files import READ_SUFFIXES, read_image

PACKAGES = ("pillow", "pydicom", "tifffile")
LEVELS = 2.0
"""Of 255, by which a mean colour may differ."""
SMALLEST = 32
"""Pixels of the shorter side of what counts as a photograph."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, help="unpacked sources")
    parser.add_argument("--max-pixels", type=int, default=200_000, help="of an image; larger ones are refused")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = gather(options.folder or download(Path(name, "sources")), Path(name, "in"))
        out, log = Path(name, "out"), Path(name, "log.jsonl")
        settings = ("--max-pixels", str(options.max_pixels), "--log", str(log), "--quiet")
        command = [sys.executable, "-m", "retinashift", "upscale", str(folder), "-o", str(out), *settings]
        done = subprocess.run(command, capture_output=True, text=True)
        lines = [json.loads(line) for line in log.read_text("utf-8").splitlines()] if log.exists() else []
        findings = [line for line in done.stderr.splitlines() if "Traceback" in line or "internal error" in line]
        if done.returncode not in (0, 1) or not lines:
            findings.append(f"exit code {done.returncode}: {done.stderr.strip()[-300:]}")
        changed = {line["source"]: change_of_colour(line) for line in lines if line["status"] == "written"}
    compared = {source: change for source, change in changed.items() if change is not None}
    findings += [f"{name}: colour off by {by:.1f} levels" for name, by in compared.items() if by > LEVELS]
    print(Counter(line["status"] for line in lines), f"exit code {done.returncode}, {len(compared)} colours compared")
    print(f"{len(findings)} findings", *findings, sep="\n  ")
    return int(bool(findings))


def download(folder: Path) -> Path:
    """The unpacked sources of the packages as they are installed here."""
    from importlib.metadata import version

    folder.mkdir(parents=True)
    named = [f"{package}=={version(package)}" for package in PACKAGES]
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", ":all:", "-d", str(folder)]
    subprocess.run([*pip, *named], check=True)
    for path in folder.glob("*.tar.gz"):
        with tarfile.open(path) as archive:
            archive.extractall(folder, filter="data")
        path.unlink()
    return folder


def gather(sources: Path, folder: Path) -> Path:
    """The images in one folder, numbered: their own names would meet in one result."""
    folder.mkdir()
    images = sorted(path for path in sources.rglob("*") if path.is_file() and path.suffix.lower() in READ_SUFFIXES)
    for number, path in enumerate(images):
        shutil.copy(path, folder / f"{number:04}_{path.name}")
    return folder


def change_of_colour(line: dict) -> float | None:
    """The largest difference of mean colours, in levels of 255; None where no other program reads the image."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            other = read_elsewhere(Path(line["source"]))
    except Exception:  # whatever another program makes of odd files
        return None
    if other is None or min(other.shape[:2]) < SMALLEST:
        return None
    result = shown(read_image(line["target"]).pixels)
    return float(np.abs(result.mean((0, 1)) - other.mean((0, 1))).max())


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
        return np.asarray(ImageOps.exif_transpose(picture).convert("RGB"), np.float64)


if __name__ == "__main__":
    sys.exit(main())
