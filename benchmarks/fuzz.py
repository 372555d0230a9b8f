"""Mutated files of every format, read and written again in processes with bounded time and memory.

Only our own errors may come out.

    python benchmarks/fuzz.py --count 2000

Each batch of files is one process; a crash, a hang (a batch has 5 minutes) or a need of more than 4 GiB of address
space is a finding, and names the format, seed and numbers that show it.
Mutations: bytes replaced, inserted, deleted, doubled, cut off, half of them
in the first 512 bytes, where headers are. Pixels are limited to 10**6.
"""

from __future__ import annotations

import argparse
import io
import random
import resource
import subprocess
import sys
import time
import warnings
from collections import Counter

FORMATS = (
    "png", "jpg", "tif", "webp", "ppm", "dcm", "dcm-j2k", "dcm-jls", "tif-lzw", "tif-jpeg", "bmp", "jp2", "jxl", "avif",
)  # fmt: skip
MEMORY, SECONDS, BATCH = 4 * 2**30, 300, 250


def sample(kind: str) -> bytes:
    """A small valid file with metadata."""
    import imagecodecs
    import numpy as np
    from PIL import Image

    rng = np.random.default_rng(0)
    slope = np.add.outer(np.arange(24), np.arange(32))[..., None] * [4, 3, 2]
    pixels = np.clip(slope + rng.integers(0, 9, (24, 32, 3)), 0, 255).astype(np.uint8)
    if kind.startswith("dcm"):
        return dicom(pixels, kind, imagecodecs)
    if kind == "jxl":
        return bytes(imagecodecs.jpegxl_encode(pixels, lossless=True))
    exif = Image.Exif()
    exif[271], exif[274] = "Camera", 6
    buffer = io.BytesIO()
    settings = {"compression": {"tif-lzw": "tiff_lzw", "tif-jpeg": "jpeg"}[kind]} if kind.startswith("tif-") else {}
    name = {"jpg": "JPEG", "jp2": "JPEG2000"}.get(kind, "TIFF" if kind.startswith("tif") else kind.upper())
    Image.fromarray(pixels).save(buffer, name, exif=exif, dpi=(72, 72), icc_profile=b"profile" * 9, **settings)
    return buffer.getvalue()


def dicom(pixels, kind: str, imagecodecs) -> bytes:
    import pydicom
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.encaps import encapsulate

    ds = Dataset()
    ds.SOPClassUID, ds.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.77.1.5.1", "1.2.3"
    ds.PatientName, ds.StudyInstanceUID, ds.PixelSpacing = "Doe^Jane", "1.2.4", [0.01, 0.01]
    item = Dataset()
    item.CodeValue = "81745001"
    ds.AnatomicRegionSequence = [item]
    ds.Rows, ds.Columns, ds.SamplesPerPixel, ds.PhotometricInterpretation = *pixels.shape[:2], 3, "RGB"
    ds.PlanarConfiguration, ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 0, 8, 8, 7, 0
    ds.file_meta = FileMetaDataset()
    if kind == "dcm-j2k":
        ds.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.4.90"
        coded = imagecodecs.jpeg2k_encode(pixels, level=0, codecformat="j2k", reversible=True)
    elif kind == "dcm-jls":
        ds.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.4.80"
        coded = imagecodecs.jpegls_encode(pixels)
    else:
        ds.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.1"
        coded = None
    ds.add_new("PixelData", "OB", pixels.tobytes() if coded is None else encapsulate([bytes(coded)]))
    buffer = io.BytesIO()
    pydicom.dcmwrite(buffer, ds, enforce_file_format=True)
    return buffer.getvalue()


def mutate(data: bytes, rng: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.choice([1, 1, 2, 4, 16])):
        if not changed:
            break
        reach = min(len(changed), 512) if rng.random() < 0.5 else len(changed)
        place, length = rng.randrange(reach), rng.choice([1, 1, 2, 4, 32])
        action = rng.randrange(6)
        if action <= 2:
            extreme = rng.choice([0, 1, 127, 128, 255])
            changed[place : place + length] = bytes(rng.randrange(256) if action else extreme for _ in range(length))
        elif action == 3:
            del changed[place : place + length]
        elif action == 4:
            changed[place:place] = changed[place : place + length]
        else:
            del changed[rng.randrange(len(changed)) :]
    return bytes(changed)


def work(kind: str, seed: int, first: int, count: int) -> None:
    """One process: prints how many files were read and refused; anything else is left to kill it."""
    warnings.simplefilter("ignore")
    import logging

    logging.disable(logging.CRITICAL)
    from retinashift.imaging.files import ImageError, decode_image, encode_image, find_provenance

    def rewrite(data: bytes, name: str) -> None:
        photograph = decode_image(data, name, 10**6)
        encode_image("a.png" if photograph.dicom is None else "a.dcm", photograph)

    data, outcomes = sample(kind), Counter()
    decode_image(data, kind, 10**6)  # valid as it is
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    slowest = 0.0
    for number in range(first, first + count):
        bad = mutate(data, random.Random(f"{kind} {seed} {number}"))
        started = time.perf_counter()
        for attempt in (rewrite, find_provenance):
            try:
                attempt(bad, kind)
                outcomes["read"] += 1
            except ImageError as error:
                outcomes["refused" if "\n" not in str(error) else "many lines"] += 1
            except BaseException as error:
                outcomes[f"{type(error).__name__} from number {number}"] += 1
        slowest = max(slowest, time.perf_counter() - started)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    print(f"{outcomes['read']} {outcomes['refused']} {slowest:.3f} {peak} {dict(outcomes)}")


def run(kind: str, count: int, seed: int = 0) -> tuple[str, list[str]]:
    """A line about a format, and its findings."""
    findings, read, refused, slowest, peak = [], 0, 0, 0.0, 0
    for first in range(0, count, BATCH):
        arguments = [kind, str(seed), str(first), str(min(BATCH, count - first))]
        try:
            done = subprocess.run(
                [sys.executable, __file__, "--work", *arguments], capture_output=True, text=True, timeout=SECONDS
            )
        except subprocess.TimeoutExpired:
            findings.append(f"{kind}, seed {seed}, from number {first}: hangs")
            continue
        if done.returncode:
            tail = done.stderr.strip().splitlines()[-1:]
            findings.append(f"{kind}, seed {seed}, from number {first}: exit {done.returncode} {tail}")
            continue
        line = done.stdout.splitlines()[-1].split(" ", 4)
        read, refused = read + int(line[0]), refused + int(line[1])
        slowest, peak = max(slowest, float(line[2])), max(peak, int(line[3]))
        if int(line[0]) + int(line[1]) != 2 * int(arguments[3]):
            findings.append(f"{kind}, seed {seed}: {line[4]}")
    text = f"{kind:8} {count} files: {read} reads, {refused} refusals, slowest {slowest:.2f} s, peak {peak} MiB"
    return text, findings


if __name__ == "__main__":
    if sys.argv[1:2] == ["--work"]:
        work(sys.argv[2], *map(int, sys.argv[3:]))
        sys.exit()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=2000, help="files of each format")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--formats", nargs="+", choices=FORMATS, default=FORMATS)
    options = parser.parse_args()
    found = []
    for kind in options.formats:
        text, findings = run(kind, options.count, options.seed)
        print(text, *findings, sep="\n  ", flush=True)
        found += findings
    sys.exit(bool(found))
