"""Formats in boxes or chunks, JPEG 2000, JPEG XL, AVIF, HEIC, WebP: bounded by a header before a decoder allocates."""

import io
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from typing import Any

import imagecodecs
import numpy as np
from PIL import Image
from PIL.AvifImagePlugin import AvifImageFile
from PIL.ExifTags import Base
from PIL.WebPImagePlugin import WebPImageFile

from retinashift.imaging.formats.exif import dump_exif, load_exif, with_metadata_of
from retinashift.imaging.formats.jpeg import codestream, frame_claims
from retinashift.imaging.photograph import ImageError, Photograph, check_size, fill_range

AVIF, HEIC = (b"avif", b"avis"), (b"heic", b"heix", b"heim", b"heis", b"mif1", b"msf1")
"""Brands of files in the container of ISO/IEC 14496-12."""
_JXL = b"\xff\x0a"
_RATIOS = ((1, 1), (12, 10), (4, 3), (3, 2), (16, 9), (5, 4), (2, 1))  # of JPEG XL, width to height
_WIDTHS = (9, 13, 18, 30)  # bits of a length there, by a selector of two bits
Take = Callable[[int], int]
"""The next bits of a codestream."""


def decode_jpeg2000(data: bytes, max_pixels: int, page: int | None = None) -> Photograph:
    """Grey or RGB, with or without alpha; up to 8 bit become 8 bit over the full range, up to 16 bit become 16.

    Source: ISO/IEC 15444-1, A.5.1 and I.5.3.
    """
    coded = codestream(data)
    claims = frame_claims(coded)
    if claims is None:
        raise ImageError("JPEG 2000 without a codestream")
    width, height, components = claims
    check_size(width, height, max_pixels)
    each = coded[42 : 42 + 3 * components]  # of each component its bits less one, 128 more if signed, and two steps
    bits = {1 + value for value in each[::3]}
    if components > 4 or len(bits) != 1 or max(bits) > 16 or {*each[1::3], *each[2::3]} != {1}:
        raise ImageError("JPEG 2000 with more than 4, signed, subsampled or differing components; save it as PNG")
    if not coded.rstrip(b"\0").endswith(b"\xff\xd9"):
        raise ImageError("truncated JPEG 2000: it has no end")
    header = dict(boxes(data)) if data[4:8] == b"jP  " else {}  # a bare stream has none
    if b"pclr" in header:
        raise ImageError("JPEG 2000 with a palette; save it as RGB")
    method, space = header.get(b"colr", b"\1")[0], header.get(b"colr", b"")[3:7]
    if method == 1 and space and int.from_bytes(space, "big") not in (16, 17):  # sRGB, grey
        raise ImageError("JPEG 2000 in other colours than sRGB and grey; save it as PNG or TIFF")
    pixels = fill_range(imagecodecs.jpeg2k_decode(coded, numthreads=1), 2 ** max(bits) - 1)
    icc = header[b"colr"][3:] if method == 2 else None
    return Photograph(pixels, "JPEG 2000", icc, left_out=("XMP or EXIF",) if b"uuid" in header else ())


def boxes(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Type and body of each box, and of those in a header box, up to a codestream of JPEG 2000."""
    position = 0
    while position + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, position)
        if kind == b"jp2c" or 1 < length < 8:
            return
        start, end = position + 8, position + length if length > 1 else len(data)
        if kind != b"jp2h":
            yield kind, data[start:end]
        position = start if kind == b"jp2h" else end  # the boxes of a header follow


def decode_jpegxl(data: bytes, max_pixels: int, page: int | None = None) -> Photograph:
    """Grey or RGB, with or without alpha, upright; 8 bit, or 16 bit. Source: ISO/IEC 18181-2, 9 (container)."""
    parts = () if data.startswith(_JXL) else boxes(data)
    inside = (body[0 if kind == b"jxlc" else 4 :] for kind, body in parts if kind in (b"jxlc", b"jxlp"))
    start = next(inside, data)  # a part begins with its number
    if not start.startswith(_JXL):
        raise ImageError("JPEG XL without a header")
    take = _bits_of(start[2:34])
    width, height = _read_size(take)
    check_size(width, height, max_pixels)
    top = 2 ** _read_depth(take) - 1
    pixels = imagecodecs.jpegxl_decode(data, index=0, numthreads=1)
    if pixels.dtype.kind != "u" or pixels.itemsize > 2 or {*pixels.shape[:2]} != {width, height}:
        raise ImageError("JPEG XL whose pixels are not as its header says")
    pixels = fill_range(pixels, top)
    return Photograph(pixels, "JPEG XL", left_out=("EXIF, XMP and colour profile, if the JPEG XL has any",))


def _read_depth(take: Take) -> int:
    """Bits a sample. Source: ISO/IEC 18181-1, D.3."""
    if take(1):  # everything by default
        return 8
    if take(1):
        take(3)  # the orientation, which the decoder applies
        if take(1):
            _read_size(take)  # as it is to be shown
        if take(1):
            raise ImageError("JPEG XL with a preview; save it as PNG or TIFF")
        if take(1):
            raise ImageError("animated JPEG XL; save the picture you want as a file of its own")
    floating, selector = take(1), take(2)
    depth = (8, 10, 12)[selector] if selector < 3 else 1 + take(6)
    if floating or depth > 16:
        raise ImageError("JPEG XL with floating-point or more than 16-bit values; save it as PNG or TIFF")
    return depth


def _read_size(take: Take) -> tuple[int, int]:
    """Width and height of a size header. Source: ISO/IEC 18181-1, D.2."""
    small = take(1)

    def length() -> int:
        return 8 * (1 + take(5)) if small else 1 + take(_WIDTHS[take(2)])

    height = length()
    ratio = take(3)
    if ratio == 0:
        return length(), height
    across, down = _RATIOS[ratio - 1]
    return height * across // down, height


def _bits_of(data: bytes) -> Take:
    """Bits of a codestream, the lowest of a byte first; zeros behind its end."""
    bits = (byte >> place & 1 for byte in data for place in range(8))
    return lambda count: sum(next(bits, 0) << place for place in range(count))


def has_brand(head: bytes, brands: tuple[bytes, ...]) -> bool:
    """Whether a file names one of these brands. Source: ISO/IEC 14496-12, 4.3."""
    if head[4:8] != b"ftyp" or len(head) < 16:
        return False
    (length,) = struct.unpack_from(">I", head)
    return any(head[start : start + 4] in brands for start in (8, *range(16, min(length, len(head)), 4)))


def decode_webp(data: bytes, max_pixels: int, page: int | None = None) -> Photograph:
    """8-bit RGB, with or without alpha; the format has no grey and no 16 bit."""
    check_size(*_webp_size(data), max_pixels)
    with WebPImageFile(io.BytesIO(data)) as picture:
        check_size(*picture.size, max_pixels)
        return with_metadata_of(picture.info, np.array(picture), "WebP")


def encode_webp(photograph: Photograph) -> bytes:
    """Lossless. Resolution and provenance are EXIF tags, for the format has no other place for them."""
    tags = load_exif(photograph.exif)
    if photograph.provenance:
        tags[Base.ProcessingSoftware] = photograph.provenance
    exif, icc, buffer = dump_exif(tags, photograph.dpi) or b"", photograph.icc or b"", io.BytesIO()
    picture = Image.fromarray(photograph.pixels)  # exact: colours under full transparency too
    picture.save(buffer, "WEBP", lossless=True, exact=True, exif=exif, icc_profile=icc)
    return buffer.getvalue()


def _webp_size(data: bytes) -> tuple[int, int]:
    """From the first chunk, for opening the file allocates the canvas. Source: RFC 9649, sections 2.5 to 2.7."""
    kind, body = data[12:16], data[20:30]
    if kind == b"VP8X" and len(body) == 10:
        if body[0] & 2:  # the flag of animations
            raise ImageError("animated WebP; save the picture you want as a file of its own")
        return 1 + int.from_bytes(body[4:7], "little"), 1 + int.from_bytes(body[7:10], "little")
    if kind == b"VP8L" and len(body) >= 5 and body[0] == 0x2F:
        bits = int.from_bytes(body[1:5], "little")
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    if kind == b"VP8 " and body[3:6] == b"\x9d\x01\x2a" and len(body) == 10:
        width, height = struct.unpack("<HH", body[6:10])
        return width & 0x3FFF, height & 0x3FFF
    raise ImageError("WebP without a valid header")


def decode_avif(data: bytes, max_pixels: int, page: int | None = None) -> Photograph:
    """Grey or RGB, with or without alpha; 8 bit, or 16 bit for 10 and 12. Rotations in the container are applied."""
    with AvifImageFile(io.BytesIO(data)) as picture:
        check_size(*picture.size, max_pixels)
        if getattr(picture, "n_frames", 1) > 1:
            raise ImageError("animated AVIF; save the picture you want as a file of its own")
        info, size = picture.info, picture.size
    pixels = imagecodecs.avif_decode(data, numthreads=1)  # Pillow reduces 10 and 12 bit to 8
    if pixels.shape[1::-1] != size:
        raise ImageError("AVIF whose pictures differ in size; save the picture you want as a file of its own")
    if pixels.itemsize == 2:
        configuration = data.find(b"av1C")
        twelve = configuration >= 0 and data[configuration + 6] & 0x20  # Source: AV1-ISOBMFF, 2.3.3
        pixels = fill_range(pixels, 4095 if twelve else 1023)
    return with_metadata_of(info, pixels, "AVIF")


def decode_heic(data: bytes, max_pixels: int, page: int | None = None) -> Photograph:
    """Grey or RGB, with or without alpha; 8 bit, or 16 bit for more. Rotations in the container are applied."""
    if find_spec("pi_heif") is None:
        raise ImageError("HEIC needs pi-heif: pip install 'retinashift[heic]', or convert it to PNG")
    found = decode_apart("HEIC", "pi_heif", _HEIC, data, 20, max_pixels)
    count, width, height, bits = (int(value) for value in found["facts"])
    if count > 1:
        raise ImageError(f"HEIC with {count} pictures; save the picture you want as a file of its own")
    check_size(width, height, max_pixels)
    info = {name: found[name].tobytes() for name in ("exif", "xmp", "icc_profile")}
    pixels = fill_range(found["pixels"], 2**bits - 1)
    return with_metadata_of(info, pixels, "HEIC", turned=True)


# On some damaged files libheif 1.23 ends the process that it runs in.
_HEIC = """
file = pi_heif.open_heif(io.BytesIO(data), convert_hdr_to_8bit=False, hdr_to_16bit=False)
few = file.size[0] * file.size[1] <= int(sys.argv[2]) and len(file) == 1
found = {name: numpy.frombuffer(file.info.get(name) or b"", numpy.uint8) for name in ("exif", "xmp", "icc_profile")}
found["facts"] = [len(file), *file.size, file.info["bit_depth"]]
found["pixels"] = numpy.asarray(file) if few else numpy.zeros(0, numpy.uint8)
"""
# numpy asks a file for its position, which a pipe does not have: hence the buffer between them. The timer counts the
# child's own processor time and ends it, however busy the machine is.
_CHILD = """
import io, signal, sys, numpy, {module}
if hasattr(signal, "setitimer"):
    signal.setitimer(signal.ITIMER_PROF, float(sys.argv[1]))
data, out = sys.stdin.buffer.read(), io.BytesIO()
{code}
numpy.savez(out, **found)
sys.stdout.buffer.write(out.getvalue())
"""


def decode_apart(name: str, module: str, code: str, data: bytes, seconds: float, argument: object = "") -> Any:
    """The arrays by name that a decoder makes of `data` in a process of its own, which damaged files may end.

    `code` makes the dictionary `found` of `data` and of the argument, sys.argv[2], in that processor time.
    """
    command = [sys.executable, "-c", _CHILD.format(module=module, code=code), str(seconds), str(argument)]
    try:
        done = subprocess.run(command, input=data, capture_output=True, timeout=60 + 10 * seconds)
    except subprocess.TimeoutExpired:
        raise ImageError(f"damaged {name}: not decoded in time") from None
    if done.returncode:
        raise ImageError(f"damaged {name}")
    return np.load(io.BytesIO(done.stdout), allow_pickle=False)
