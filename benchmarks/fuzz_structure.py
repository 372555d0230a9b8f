"""Mutations of image files: of their bytes, and of the parts of their format, with lengths and checksums made right."""

from __future__ import annotations

import gzip
import re
import struct
import zlib
from collections.abc import Callable
from random import Random

EXTREMES = (0, 1, 2, 7, 8, 127, 128, 255, 256, 32767, 32768, 65535, 65536, 2**31 - 1, 2**31, 2**32 - 1)
INFLATED = 2**20
"""Bytes of compressed data that are looked at; samples have less."""
_CONTAINERS = (b"meta", b"iprp", b"ipco", b"jp2h", b"moov", b"iinf")
_BARE_MARKERS = (0x4F, 0x01, 0x93, *range(0xD0, 0xDA))
_LONG = (b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV")

Part = tuple[bytes, bytes]
"""What names a part of a file, and its body."""


def mutate(data: bytes, kind: str, rng: Random) -> bytes:
    """The file with one change or several, half of the time by its structure; as it is where that cannot be found."""
    for _ in range(rng.choice([1, 1, 1, 2, 4])):
        by_structure = rng.random() < 0.5
        try:
            data = _STRUCTURES[kind](data, rng) if by_structure else change_bytes(data, rng)
        except (struct.error, LookupError, zlib.error, ValueError, EOFError, OSError):  # a former change broke it
            data = change_bytes(data, rng)
    return data


def change_bytes(data: bytes, rng: Random) -> bytes:
    """Bytes replaced, inserted, deleted, doubled, cut off, half of the time in the first 512."""
    changed = bytearray(data)
    if not changed:
        return bytes(rng.randrange(256) for _ in range(rng.choice([0, 1, 8])))
    reach = min(len(changed), 512) if rng.random() < 0.5 else len(changed)
    place, length = rng.randrange(reach), rng.choice([1, 1, 2, 4, 32])
    action = rng.randrange(7)
    if action <= 1:
        changed[place : place + length] = bytes(rng.randrange(256) for _ in range(length))
    elif action == 2:
        changed[place : place + length] = bytes([rng.choice([0, 1, 127, 128, 255])]) * length
    elif action == 3:
        del changed[place : place + length]
    elif action == 4:
        changed[place:place] = changed[place : place + length]
    elif action == 5:
        number = struct.pack(rng.choice("<>") + "Q", rng.choice(EXTREMES))
        width = rng.choice([1, 2, 4])
        changed[place : place + width] = number[:width] if rng.random() < 0.5 else number[-width:]
    else:
        del changed[rng.randrange(len(changed)) :]
    return bytes(changed)


def change_parts(parts: list[Part], rng: Random, inner: Callable[[Part, Random], Part]) -> list[Part]:
    """One part changed inside, doubled, dropped, moved, emptied, or named as another."""
    parts, place = list(parts), rng.randrange(len(parts))
    other = rng.randrange(len(parts))
    action = rng.randrange(10)
    if action <= 4:
        parts[place] = inner(parts[place], rng)
    elif action == 5:
        parts.insert(other, parts[place])
    elif action == 6:
        del parts[place]
    elif action == 7:
        parts.insert(other, parts.pop(place))
    elif action == 8:
        parts[place] = (parts[place][0], b"")
    else:
        parts[place] = (parts[other][0], parts[place][1])
    return parts


def _in_body(part: Part, rng: Random) -> Part:
    return part[0], change_bytes(part[1], rng)


def png(data: bytes, rng: Random) -> bytes:
    """Chunks; those that are compressed are inflated and deflated again, and checksums are right."""
    parts, position = list[Part](), 8
    while position + 12 <= len(data):
        (length,) = struct.unpack_from(">I", data, position)
        parts.append((data[position + 4 : position + 8], data[position + 8 : position + 8 + length]))
        position += 12 + length

    def inner(part: Part, rng: Random) -> Part:
        name, body = part
        head = {b"IDAT": 0, b"iCCP": body.find(b"\0") + 2, b"zTXt": body.find(b"\0") + 2}.get(name)
        if head is None or rng.random() < 0.3:
            return _in_body(part, rng)
        return name, body[:head] + zlib.compress(change_bytes(_inflate(body[head:]), rng))

    whole = data[:8]
    for name, body in change_parts(parts, rng, inner):
        whole += struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
    return whole


def markers(data: bytes, rng: Random) -> bytes:
    """Segments of JPEG, JPEG-LS and JPEG 2000 streams, with the coded data behind them as parts of their own."""
    parts, position = list[Part](), 0
    while position + 2 <= len(data):
        name = data[position : position + 2]
        if name[0] != 0xFF or name[1] < 1:
            end = data.find(b"\xff\xd9", position)
            end = len(data) if end < 0 else end
            parts.append((b"", data[position:end]))
            position = max(end, position + 1)
        elif name[1] in _BARE_MARKERS:
            parts.append((name, b""))
            position += 2
        else:
            (length,) = struct.unpack_from(">H", data, position + 2)
            parts.append((name, data[position + 4 : position + 2 + length]))
            position += 2 + length
    whole = b""
    for name, body in change_parts(parts, rng, _in_body):
        if not name or name[1] in _BARE_MARKERS:
            whole += name + body
        else:
            whole += name + struct.pack(">H", min(65535, len(body) + 2)) + body[:65533]
    return whole


def boxes(data: bytes, rng: Random) -> bytes:
    """Boxes of the ISO base media format and of JPEG 2000 and JPEG XL, also within boxes; lengths are right."""
    parts, position = list[Part](), 0
    while position + 8 <= len(data):
        length, name = struct.unpack_from(">I4s", data, position)
        end = len(data) if length == 0 else position + length
        if length and length < 8:
            raise ValueError("no box")
        parts.append((name, data[position + 8 : end]))
        position = end

    def inner(part: Part, rng: Random) -> Part:
        name, body = part
        if name == b"jp2c":
            return name, markers(body, rng)
        head = {b"meta": 4, b"iinf": 6}.get(name, 0)
        return (name, body[:head] + boxes(body[head:], rng)) if name in _CONTAINERS else _in_body(part, rng)

    changed = change_parts(parts, rng, inner)
    return b"".join(struct.pack(">I", 8 + len(body)) + name + body for name, body in changed)


def riff(data: bytes, rng: Random) -> bytes:
    """Chunks of WebP; lengths are right."""
    parts, position = list[Part](), 12
    while position + 8 <= len(data):
        name, length = struct.unpack_from("<4sI", data, position)
        parts.append((name, data[position + 8 : position + 8 + length]))
        position += 8 + length + length % 2
    whole = b"WEBP"
    for name, body in change_parts(parts, rng, _in_body):
        whole += name + struct.pack("<I", len(body)) + body + b"\0" * (len(body) % 2)
    return b"RIFF" + struct.pack("<I", len(whole)) + whole


def tiff(data: bytes, rng: Random) -> bytes:
    """One field of an entry of the first directory; or a strip inflated, changed, and put behind the end."""
    order = "<" if data[:2] == b"II" else ">"
    (start,) = struct.unpack_from(order + "I", data, 4)
    (count,) = struct.unpack_from(order + "H", data, start)
    entries = {struct.unpack_from(order + "H", data, p)[0]: p for p in range(start + 2, start + 2 + 12 * count, 12)}
    changed = bytearray(data)
    if 273 in entries and rng.random() < 0.3:
        offset, length = (struct.unpack_from(order + "I", data, entries[tag] + 8)[0] for tag in (273, 279))
        strip = data[offset : offset + length]
        compression = struct.unpack_from(order + "H", data, entries[259] + 8)[0]
        deflated = compression in (8, 32946)
        strip = change_bytes(_inflate(strip) if deflated else strip, rng)
        strip = zlib.compress(strip) if deflated else strip
        for tag, value in ((273, len(data)), (279, len(strip))):
            struct.pack_into(order + "HI", changed, entries[tag] + 2, 4, 1)
            struct.pack_into(order + "I", changed, entries[tag] + 8, value)
        return bytes(changed) + strip
    place = rng.choice(list(entries.values()))
    field, kind = rng.choice([(0, "H"), (2, "H"), (4, "I"), (8, "H"), (8, "I"), (8, "I"), (8, "I")])
    value = rng.choice([*EXTREMES, *entries, rng.randrange(len(data))])
    struct.pack_into(order + kind, changed, place + field, value & (0xFFFF if kind == "H" else 0xFFFFFFFF))
    return bytes(changed)


def dicom(data: bytes, rng: Random) -> bytes:
    """Elements of the first level, fragments and their streams among them; a deflated data set is deflated again."""
    start = 132 + 12 + struct.unpack_from("<I", data, 140)[0]  # behind the file meta information
    head, body = data[:start], data[start:]
    deflated = b"1.2.840.10008.1.2.1.99" in head
    if deflated:
        body = zlib.decompressobj(-zlib.MAX_WBITS).decompress(body, INFLATED)
    parts, position = list[Part](), 0
    while position + 8 <= len(body):
        tag, kind = body[position : position + 4], body[position + 4 : position + 6]
        short = kind not in _LONG and tag[:2] != b"\xfe\xff"
        item = tag[:2] == b"\xfe\xff"
        at = position + (4 if item else 6 if short else 8)
        length = struct.unpack_from("<H" if short else "<I", body, at)[0]
        at += 2 if short else 4
        length = 0 if length == 2**32 - 1 else length  # what is inside follows as parts of its own
        parts.append((body[position : position + (4 if item else 6)], body[at : at + length]))
        position = at + length

    def inner(part: Part, rng: Random) -> Part:
        stream = part[0] == b"\xfe\xff\x00\xe0" and part[1][:1] == b"\xff"
        return (part[0], markers(part[1], rng)) if stream else _in_body(part, rng)

    whole = b""
    for name, value in change_parts(parts, rng, inner):
        value += b"\0" * (len(value) % 2)
        if len(name) == 4:
            whole += name + struct.pack("<I", len(value)) + value
        elif name[4:] in _LONG:
            opened = name[4:] in (b"SQ", b"OB") and not value
            whole += name + b"\0\0" + struct.pack("<I", 2**32 - 1 if opened else len(value)) + value
        else:
            whole += name + struct.pack("<H", len(value) & 0xFFFF) + value
    if deflated:
        packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
        whole = packer.compress(whole) + packer.flush()
    return head + whole


def ppm(data: bytes, rng: Random) -> bytes:
    """One number of the header; a gzipped file is packed again."""
    packed = data[:2] == b"\x1f\x8b"
    plain = gzip.decompress(data) if packed else data
    numbers = list(re.finditer(rb"\d+", plain[:40]))
    found = rng.choice(numbers)
    number = str(rng.choice([*EXTREMES, 24, 25, 31, 33])).encode()
    plain = plain[: found.start()] + number + plain[found.end() :]
    return gzip.compress(plain) if packed else plain


def bmp(data: bytes, rng: Random) -> bytes:
    """One number of the header."""
    changed = bytearray(data)
    place, kind = rng.choice([(p, "I") for p in (2, 10, 14, 18, 22, 30, 34, 46, 50)] + [(26, "H"), (28, "H")])
    value = rng.choice([*EXTREMES, 4, 16, 24, 32, 2**32 - 24])
    struct.pack_into("<" + kind, changed, place, value & (0xFFFF if kind == "H" else 0xFFFFFFFF))
    return bytes(changed)


def jpegxl(data: bytes, rng: Random) -> bytes:
    """Bits of the header of a codestream."""
    changed = bytearray(data)
    for _ in range(rng.choice([1, 1, 2, 4])):
        changed[rng.randrange(2, 24)] ^= 1 << rng.randrange(8)
    return bytes(changed)


def _inflate(packed: bytes) -> bytes:
    return zlib.decompressobj().decompress(packed, INFLATED)


_STRUCTURES: dict[str, Callable[[bytes, Random], bytes]] = {
    "png": png, "jpg": markers, "webp": riff, "bmp": bmp, "jp2": boxes, "jxl": jpegxl, "avif": boxes, "heic": boxes,
    **dict.fromkeys(("ppm", "ppm-gz"), ppm),
    **dict.fromkeys(("dcm", "dcm-j2k", "dcm-jls", "dcm-jpg", "dcm-zip"), dicom),
    **dict.fromkeys(("tif", "tif-lzw", "tif-zip", "tif-jpeg"), tiff),
}  # fmt: skip
