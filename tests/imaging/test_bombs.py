"""Small files that claim to be large are refused before memory is taken for what they claim."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
import zlib

import pytest

from builders.photographs import draw_fundus

pytest.importorskip("resource", reason="the system does not tell how much memory was held")

SMALL = 60 * 2**20  # bytes that refusing may take; what is claimed takes gigabytes
READ = """
import pathlib, resource, sys, warnings
warnings.simplefilter("ignore")
from retinashift.imaging.files import ImageError, read_image
read_image(sys.argv[1])  # a good one: what decoders load once
for path in sys.argv[2:]:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        read_image(path)
        reason = "read"
    except ImageError as error:
        reason = str(error).removeprefix(path)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before, reason)
"""


def png(width: int, height: int) -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(99))) + chunk(b"IEND", b"")
    )


def tiff(entries: dict[int, tuple[int, int]], pages: int = 1) -> bytes:
    """Directories that are one page again and again, each following the other."""
    size = 2 + 12 * len(entries) + 4
    data = struct.pack("<2sHI", b"II", 42, 8)
    for page in range(pages):
        data += struct.pack("<H", len(entries))
        data += b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, (kind, value) in sorted(entries.items()))
        data += struct.pack("<I", 8 + size * (page + 1) if page + 1 < pages else 0)
    return data


SHORT, LONG = 3, 4
PAGE = {
    256: (LONG, 8), 257: (LONG, 8), 258: (SHORT, 8), 259: (SHORT, 1), 262: (SHORT, 1), 273: (LONG, 8),
    277: (SHORT, 1), 278: (LONG, 8), 279: (LONG, 64),
}  # fmt: skip


def test_what_claims_to_be_large_is_refused_within_little_memory(tmp_path):
    good = tmp_path / "good.jpg"
    draw_fundus(0).save(good, quality=90)
    jpeg = bytearray(good.read_bytes())
    place = jpeg.index(b"\xff\xc0")
    jpeg[place + 5 : place + 9] = struct.pack(">HH", 65000, 65000)
    files = {
        "a.png": (png(60_000, 60_000), "above the limit"),
        "b.tif": (tiff(PAGE | {277: (SHORT, 65535)}), "65535 samples"),
        "c.tif": (tiff(PAGE | {256: (LONG, 60_000), 257: (LONG, 60_000)}), "above the limit"),
        "d.tif": (tiff(PAGE, pages=10_000), "several pages"),
        "e.jpg": (bytes(jpeg), "above the limit"),
    }
    for name, (data, _) in files.items():
        (tmp_path / name).write_bytes(data)
    paths = [str(tmp_path / name) for name in ("good.jpg", *files)]
    done = subprocess.run([sys.executable, "-c", READ, *paths], capture_output=True, text=True, check=True)
    unit = 1 if sys.platform == "darwin" else 1024
    lines = done.stdout.splitlines()
    assert len(lines) == len(files)
    for line, (_, reason) in zip(lines, files.values(), strict=True):
        taken, _, said = line.partition(" ")
        assert reason in said
        assert int(taken) * unit < SMALL, line
    assert os.path.getsize(tmp_path / "d.tif") < 2**21
