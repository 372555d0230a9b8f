"""Where files lie: local paths, and addresses such as s3://bucket/folder, which fsspec reads and writes."""

import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote

from retinashift.imaging.failures import one_line
from retinashift.imaging.files import READ_SUFFIXES, WRITE_SUFFIXES, check_bytes, head_suffix, read_bytes, replace_file
from retinashift.imaging.formats.table import HEAD
from retinashift.imaging.photograph import ImageError

SCHEMES = {
    "s3": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "az": "adlfs", "abfs": "adlfs", "http": "aiohttp", "https": "aiohttp",
}  # fmt: skip
"""Schemes of addresses, and the package that each needs beside fsspec."""
_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")
"""How the address of something that is not a local path begins; one letter is a drive of Windows."""
_SECRET = re.compile(r"KEY|SECRET|TOKEN|PASSWORD|CREDENTIAL|SIGNATURE|SAS|CONNECTION_STRING", re.IGNORECASE)
_KEY_ID = re.compile(r"\b(?:AKIA|ASIA)[A-Z0-9]{12,}\b")
_QUERY = re.compile(r"(?<=\S)\?\S*|(?<=://)[^/\s@]*@")
_PAGE = 1000
"""Files whose first bytes are read together."""


@dataclass(frozen=True, slots=True)
class Remote:
    """A file or folder at an address. It has the methods of `pathlib.Path` that `batch` needs.

    `str()` of it never holds a credential: the query of an address, which may be a signature, is left out.
    """

    root: str
    """Address of the folder that was given, without a slash at its end; shared by all files below it."""
    below: str = ""
    """Path below `root`; "" is the folder itself."""
    query: str = field(default="", repr=False)
    """Of an http address, with its question mark."""
    stamp: str = field(default="", compare=False)
    """What changes when the file does: its size, a dash, and its entity tag or time; "" if that is not known."""

    def __str__(self) -> str:
        return f"{self.root}/{self.below}" if self.below else self.root

    def __truediv__(self, other: str | PurePosixPath) -> "Remote":
        return Remote(self.root, f"{self.below}/{other}" if self.below else str(other))

    @property
    def size(self) -> int:
        """Bytes, as the listing says; -1 if it does not."""
        return int(self.stamp.partition("-")[0] or -1)

    @property
    def name(self) -> str:
        name = str(self).rpartition("/")[2]
        return unquote(name).rpartition("/")[2] if self.scheme.startswith("http") else name

    @property
    def suffix(self) -> str:
        return PurePosixPath(self.name).suffix

    @property
    def scheme(self) -> str:
        return self.root.partition("://")[0]

    def with_name(self, name: str) -> "Remote":
        """Another file of the same folder."""
        root, below = (self.root, self.below) if self.below else (self.root.rpartition("/")[0], "")
        return Remote(root, below.rpartition("/")[0]) / name

    def exists(self) -> bool:
        """Whether there is a file at the address: one request."""
        return self.facts() is not None

    def facts(self) -> "Remote | None":
        """The file with its size and stamp; None if there is none."""
        with _clear(self, "looked up"), suppress(FileNotFoundError):
            info = open_system(self.scheme).info(str(self) + self.query)
            return replace(self, stamp=_stamp(info)) if info["type"] == "file" else None
        return None

    def read_bytes(self) -> bytes:
        with _clear(self, "read"):
            return open_system(self.scheme).cat_file(str(self) + self.query)

    def unlink(self) -> None:
        with _clear(self, "removed"):
            open_system(self.scheme).rm_file(str(self))


Place = Path | Remote


def place_of(given: str | Path, allowed: str) -> Place:
    """The local path or address that a text stands for. ImageError, which says what is `allowed`, for any other."""
    scheme, sign, rest = str(given).partition("://")
    scheme = scheme.lower()
    if scheme == "file" and rest.startswith("/") and not isinstance(given, Path):
        return Path(rest)
    if isinstance(given, Path) or not sign or scheme not in SCHEMES or Path(given).exists():
        check_local(given, allowed)
        return Path(given)
    address, mark, query = rest.partition("?") if scheme.startswith("http") else (rest, "", "")
    address = address.rstrip("/")
    if "@" in address.partition("/")[0]:
        raise ImageError(f"{hide(given)}: an address with credentials in it; leave them to the environment")
    if not address:
        raise ImageError(f"{given} names no bucket or host; {allowed}")
    open_system(scheme)
    return Remote(f"{scheme}://{address}", query=mark + query)


def check_local(given: str | Path, allowed: str) -> None:
    """ImageError, which says what is `allowed`, for an address such as s3://bucket/x, and for "-", a stream."""
    if str(given) == "-":
        raise ImageError(f"- stands for a stream, which is not supported; {allowed}")
    if _ADDRESS.match(str(given)) and not Path(given).exists():
        raise ImageError(f"{hide(given)} is an address; {allowed}")


def find_remote(given: Remote, others: list[Place]) -> Iterator[tuple[Remote, str, Callable[[], str]]]:
    """Images at an address: a file, a folder or a pattern. Which of them are images is decided as for local files.

    Yields each with its name below the folder, or the part of the pattern without wildcards, and a function for the
    suffix that its content calls for. Files of a folder that are no images are added to `others`. ImageError where
    nothing is there or a key cannot be a file name, OSError where it cannot be listed.
    """
    if (file := given.facts()) is not None:
        yield file, file.name, partial(head_suffix, _heads([file])[0])
        return
    if given.scheme.startswith("http"):
        raise ImageError(f"{given}: no such file that may be read; an http address names one file")
    root, matches, address = given, None, str(given)
    if wildcard := re.search(r"[*?[]", address):
        from fsspec.utils import glob_translate

        fixed = address.rindex("/", 0, wildcard.start())
        root, matches = Remote(address[:fixed]), re.compile(glob_translate(address[fixed + 1 :])).match
    found, files = False, listing(root)
    while keys := list(islice(files, _PAGE)):
        page = [file for file in keys if not file.name.startswith(".") and (not matches or matches(file.below))]
        for file, head in zip(page, _heads(page), strict=True):
            own = head_suffix(head)
            if file.name.lower().endswith(READ_SUFFIXES) or (own == ".dcm" and file.name.upper() != "DICOMDIR"):
                found = True
                yield file, file.below, partial(str, own)
            elif not matches:
                others.append(file)
    if not found:
        raise ImageError(f"{given}: no image found ({', '.join(READ_SUFFIXES)})")


def listing(folder: Remote) -> Iterator[Remote]:
    """Every file below a folder; ImageError for a key that cannot be a file name, OSError where it cannot be listed."""
    root = str(folder)  # one string for all files
    with _clear(folder, "listed"):
        for path, info in _entries(folder):
            below = path.removeprefix(f"{root}/")
            if below.endswith("/") or not below:  # the mark of an empty folder
                continue
            if not {"", ".", ".."}.isdisjoint(below.split("/")) or "\0" in below:
                raise ImageError(f"{path}: a key that cannot be the name of a file; rename it")
            yield Remote(root, below, stamp=_stamp(info))


def read_place(place: Place, max_pixels: int) -> bytes:
    """The bytes of a file, no more than that many pixels can take; errors as in `read_image`."""
    if isinstance(place, Path):
        return read_bytes(place, max_pixels)
    check_bytes(str(place), place.size, max_pixels)
    data = place.read_bytes()
    check_bytes(str(place), len(data), max_pixels)  # a listing may not have said the size
    return data


def read_head(place: Place, count: int) -> bytes:
    """The first bytes of a file, no more than `count`."""
    if isinstance(place, Path):
        with place.open("rb") as file:
            return file.read(count)
    with _clear(place, "read"):
        return open_system(place.scheme).cat_file(str(place) + place.query, start=0, end=count)[:count]


def write_place(place: Place, data: bytes, *, overwrite: bool = True) -> None:
    """Write a file whole or not at all: `replace_file`, or one upload, which a store shows when it is complete.

    FileExistsError if it exists and `overwrite` is false, OSError if it cannot be written.
    """
    if isinstance(place, Path):
        place.parent.mkdir(parents=True, exist_ok=True)
        return replace_file(place, data, overwrite=overwrite)
    if not overwrite and place.exists():
        raise FileExistsError(f"{place} exists already; give --overwrite to replace it")
    with _clear(place, "written"):
        open_system(place.scheme).pipe_file(str(place), data)


def stamp_of(place: Place) -> str:
    """What changes when a file does: size and time, or the entity tag; "" if that is unknown."""
    if isinstance(place, Remote):
        return place.stamp
    with suppress(OSError, ValueError):
        status = place.stat()
        return f"{status.st_size}-{status.st_mtime_ns}"
    return ""


def hide(text: object) -> str:
    """The text without credentials: values of such variables of the environment, key names, queries of addresses."""
    text = str(text)
    for name, value in os.environ.items():
        if len(value) > 3 and _SECRET.search(name):
            text = text.replace(value, "***")
    return _QUERY.sub("", _KEY_ID.sub("***", text))


def _heads(files: list[Remote]) -> list[bytes]:
    """The first bytes of those files whose names do not decide the suffix of the result, read together; else b""."""
    named = [file.name.lower().removesuffix(".gz").endswith(WRITE_SUFFIXES) for file in files]
    unknown = [file for file, known in zip(files, named, strict=True) if file.size and not known]
    if not unknown:  # a store refuses any range of an empty object
        return [b""] * len(files)
    system, addresses = open_system(unknown[0].scheme), [str(file) + file.query for file in unknown]
    with _clear(unknown[0], "read"):
        found = dict(zip(unknown, system.cat_ranges(addresses, 0, HEAD, on_error="return"), strict=True))
    for file, head in found.items():
        if isinstance(head, BaseException):
            raise OSError(f"{file}: cannot be read ({_reason(head)})")
    return [found.get(file, b"")[:HEAD] for file in files]


def _entries(folder: Remote) -> Iterator[tuple[str, dict[str, Any]]]:
    """Address and facts of every key below a folder; facts of S3 are held for one page only, to save memory."""
    scheme, _, path = str(folder).partition("://")
    system = open_system(scheme)
    if scheme != "s3":
        found = system.find(str(folder), detail=True)
        yield from ((f"{scheme}://{name.partition('://')[2] or name}", info) for name, info in found.items())
        return
    bucket, _, key = path.partition("/")
    page: dict[str, Any] = {}
    while page.get("IsTruncated", True):
        more = {"ContinuationToken": page["NextContinuationToken"]} if page else {}
        page = system.call_s3("list_objects_v2", Bucket=bucket, Prefix=f"{key}/" if key else "", **more)
        yield from ((f"s3://{bucket}/{item['Key']}", item) for item in page.get("Contents", ()))


def _stamp(info: dict[str, Any]) -> str:
    size = next((str(info[key]) for key in ("Size", "size") if info.get(key) is not None), "")
    tags = ("ETag", "etag", "mtime", "last_modified", "LastModified")
    tag = next((str(info[key]).strip('"') for key in tags if info.get(key)), "")
    return f"{size}-{tag}" if tag else ""


@lru_cache
def open_system(scheme: str) -> Any:
    """The file system of a scheme, with credentials from the environment. ImageError if its package is missing."""
    try:
        import fsspec

        whole = {"max_concurrency": 1} if scheme == "s3" else {}  # one request reads a file
        return fsspec.filesystem(scheme, use_listings_cache=False, **whole)
    except ImportError:
        needed = "-c constraints.txt -e '.[fleet]'" if scheme == "s3" else f"fsspec {SCHEMES[scheme]}"
        text = f"{scheme}:// is an address of a store whose package is missing: pip install {needed}"
        raise ImageError(text) from None


@contextmanager
def _clear(place: Remote, verb: str) -> Iterator[None]:
    """Whatever a store's library raises becomes an OSError of one line, without credentials."""
    try:
        yield
    except (ImageError, MemoryError):
        raise
    except Exception as error:
        raise OSError(f"{place}: cannot be {verb} ({_reason(error)})") from None


def _reason(error: BaseException) -> str:
    text, kind = one_line(hide(error)), type(error).__name__
    if isinstance(error, FileNotFoundError):
        return "no such file, folder or bucket"
    if isinstance(error, PermissionError) or kind in ("NoCredentialsError", "PartialCredentialsError"):
        return f"access denied: {text or kind}; check the credentials in the environment"
    return f"{kind}: {text[:300]}" if text else kind
