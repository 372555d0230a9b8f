"""JPEG-LS, decoded in a process of its own: on some damaged streams the decoder (CharLS 2.4) counts for minutes."""

from __future__ import annotations

import io
import subprocess
import sys

import numpy as np

from retinashift.imaging.photograph import ImageError

# numpy asks a file for its position, which a pipe does not have: hence the buffer between them.
_CHILD = (
    "import io, sys, imagecodecs, numpy; "
    "out = io.BytesIO(); "
    "numpy.save(out, imagecodecs.jpegls_decode(sys.stdin.buffer.read()), allow_pickle=False); "
    "sys.stdout.buffer.write(out.getvalue())"
)
_SECONDS, _PIXELS_A_SECOND = 10.0, 10**6  # to start the process; a tenth of what an intact stream needs


def decode_jpegls(coded: bytes, pixels: int) -> np.ndarray:
    """(H, W) or (H, W, C), or (C, H, W) if the stream is not interleaved; uint8 or uint16.

    Args:
        coded: the stream, whose size has been checked.
        pixels: width x height, from which the time allowed follows.

    Raises:
        ImageError: damaged, or not decoded in that time.
    """
    seconds = _SECONDS + pixels / _PIXELS_A_SECOND
    try:
        done = subprocess.run([sys.executable, "-c", _CHILD], input=coded, capture_output=True, timeout=seconds)
    except subprocess.TimeoutExpired:
        raise ImageError(f"damaged JPEG-LS: not decoded in {seconds:.0f} s") from None
    if done.returncode:
        raise ImageError("damaged JPEG-LS")
    return np.load(io.BytesIO(done.stdout), allow_pickle=False)
