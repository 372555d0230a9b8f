"""Mutated files of every format, read and written again in processes with bounded time and memory.

    python benchmarks/fuzz.py --count 2000

Only our own errors may come out, and what is written must read as the same pixels. A crash, a file that takes more than
20 CPU seconds or 1 GiB, and any other exception is a finding; it names the format, seed and number that show it.

Half of the mutations know the structure of the format (fuzz_structure.py): chunks, segments, boxes, elements,
directory entries are changed, doubled, dropped and moved, compressed data are inflated and deflated again, and lengths
and checksums are made right. The others change, insert, double, delete and cut bytes. Pixels are limited to 10**6.
"""

from __future__ import annotations

import argparse
import gzip
import io
import os
import random
import re
import resource
import subprocess
import sys
import warnings
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
from fuzz_structure import mutate  # beside this file

FORMATS = (
    "png", "jpg", "tif", "webp", "ppm", "ppm-gz", "dcm", "dcm-j2k", "dcm-jls", "dcm-jpg", "dcm-zip", "tif-lzw",
    "tif-zip", "tif-jpeg", "bmp", "jp2", "jxl", "avif", "heic",
)  # fmt: skip
ADDRESSES, RESIDENT = 4 * 2**30, 2**30
"""Bytes of address space, within which Python and the codecs are loaded, and of memory that a batch may take."""
SECONDS, BATCH, HANG = 20.0, 250, 1800
"""CPU seconds of one file, files a process, and seconds after which a process hangs on the busiest machine."""


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
    if kind == "heic":  # which nothing here encodes
        return (Path(__file__).resolve().parents[1] / "tests/imaging/formats/retina.heic").read_bytes()
    exif = Image.Exif()
    exif[271], exif[274] = "Camera", 6
    buffer = io.BytesIO()
    coding = {"tif-lzw": "tiff_lzw", "tif-zip": "tiff_adobe_deflate", "tif-jpeg": "jpeg"}
    settings = {"compression": coding[kind]} if kind in coding else {}
    name = {"jpg": "JPEG", "jp2": "JPEG2000"}.get(kind, kind.partition("-")[0].upper().replace("TIF", "TIFF"))
    Image.fromarray(pixels).save(buffer, name, exif=exif, dpi=(72, 72), icc_profile=b"profile" * 9, **settings)
    return gzip.compress(buffer.getvalue()) if kind.endswith("-gz") else buffer.getvalue()


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
    number, encode = {
        "dcm-j2k": ("4.90", lambda p: imagecodecs.jpeg2k_encode(p, level=0, codecformat="j2k", reversible=True)),
        "dcm-jls": ("4.80", imagecodecs.jpegls_encode),
        "dcm-jpg": ("4.50", lambda p: imagecodecs.jpeg8_encode(p, level=95)),
        "dcm-zip": ("1.99", None),
    }.get(kind, ("1", None))
    ds.file_meta.TransferSyntaxUID = f"1.2.840.10008.1.2.{number}"
    coded = encode(pixels) if encode else None
    ds.add_new("PixelData", "OB", pixels.tobytes() if coded is None else encapsulate([bytes(coded)]))
    buffer = io.BytesIO()
    pydicom.dcmwrite(buffer, ds, enforce_file_format=True)
    return buffer.getvalue()


def work(kind: str, seed: int, first: int, count: int) -> None:
    """One process: prints how many files were read and refused; anything else is left to kill it."""
    warnings.simplefilter("ignore")
    import logging

    import numpy as np

    logging.disable(logging.CRITICAL)
    from retinashift.imaging.files import ImageError, decode_image, encode_image, find_provenance

    def rewrite(data: bytes, name: str) -> None:
        photograph = decode_image(data, name, 10**6)
        target = "a.png" if photograph.dicom is None else "a.dcm"
        again = decode_image(encode_image(target, photograph), target, 10**6)
        if not np.array_equal(again.pixels, photograph.pixels):
            raise AssertionError("written again, the pixels are others")

    data, outcomes = sample(kind), Counter()
    decode_image(data, kind, 10**6)  # valid as it is
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESSES, ADDRESSES))
    slowest = 0.0
    for number in range(first, first + count):
        bad = mutate(data, kind, random.Random(f"{kind} {seed} {number}"))
        started = cpu_seconds()
        for attempt in (rewrite, find_provenance):
            try:
                attempt(bad, kind)
                outcomes["read"] += 1
            except ImageError as error:
                outcomes["refused" if "\n" not in str(error) else f"many lines from number {number}"] += 1
            except BaseException as error:
                outcomes[f"{type(error).__name__} from number {number}"] += 1
        took = cpu_seconds() - started
        if took > SECONDS:
            outcomes[f"{took:.0f} s from number {number}"] += 1
        slowest = max(slowest, took)
    peak = max(own_peak(), resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss << 10)
    if peak > RESIDENT:
        outcomes[f"{peak >> 20} MiB"] += 1
    others = {name: times for name, times in outcomes.items() if name not in ("read", "refused")}
    print(f"{outcomes['read']} {outcomes['refused']} {slowest:.3f} {peak >> 20} {others or ''}")


def own_peak() -> int:
    """Bytes that this program held at most. Linux counts in ru_maxrss what the process held that started it."""
    status = Path("/proc/self/status")
    if status.exists():
        found = re.search(r"^VmHWM:\s+(\d+) kB", status.read_text(), re.MULTILINE)
        if found:
            return int(found[1]) << 10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


def cpu_seconds() -> float:
    """Of this process and of those that it has started."""
    spent = os.times()
    return spent.user + spent.system + spent.children_user + spent.children_system


def run(kind: str, count: int, seed: int = 0, start: int = 0) -> tuple[str, list[str]]:
    """A line about a format, and its findings."""
    findings, read, refused, slowest, peak = [], 0, 0, 0.0, 0
    for first in range(start, start + count, BATCH):
        arguments = [kind, str(seed), str(first), str(min(BATCH, start + count - first))]
        try:
            done = subprocess.run(
                [sys.executable, __file__, "--work", *arguments], capture_output=True, text=True, timeout=HANG
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
        if line[4].strip():
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
    parser.add_argument("--first", type=int, default=0, help="number of the first file, to run the count in parts")
    parser.add_argument("--formats", nargs="+", choices=FORMATS, default=FORMATS)
    options = parser.parse_args()
    found = []
    for kind in options.formats:
        text, findings = run(kind, options.count, options.seed, options.first)
        print(text, *findings, sep="\n  ", flush=True)
        found += findings
    sys.exit(bool(found))
