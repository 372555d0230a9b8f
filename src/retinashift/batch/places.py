"""Where files lie: local paths, and addresses such as s3://bucket/folder, which fsspec reads and writes."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import lru_cache
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote

from retinashift.imaging.failures import one_line
from retinashift.imaging.files import READ_SUFFIXES, WRITE_SUFFIXES, ImageError, check_bytes, read_bytes, replace_file
from retinashift.imaging.formats.table import HEAD
from retinashift.imaging.search import suffix_of_bytes

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
"""Keys that S3 lists in one request, and files whose first bytes are read together."""


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

    def __truediv__(self, other: str | PurePosixPath) -> Remote:
        return Remote(self.root, f"{self.below}/{other}" if self.below else str(other))

    @property
    def size(self) -> int:
        """Bytes, as the listing says; -1 if it does not."""
        size = self.stamp.partition("-")[0]
        return int(size) if size else -1

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

    @property
    def parent(self) -> Remote:
        return Remote(self.root, self.below.rpartition("/")[0]) if self.below else Remote(self.root.rpartition("/")[0])

    def with_name(self, name: str) -> Remote:
        """Another file of the same folder."""
        return self.parent / name

    def mkdir(self, parents: bool = False, exist_ok: bool = False) -> None:
        """Nothing: object stores have no folders."""

    def exists(self) -> bool:
        """Whether there is a file at the address: one request."""
        return self.facts() is not None

    def facts(self) -> Remote | None:
        """The file with its size and stamp; None if there is none."""
        with _clear(self, "looked up"):
            try:
                info = self._system().info(str(self) + self.query)
            except FileNotFoundError:
                return None
            if info["type"] != "file":
                return None
            return replace(self, stamp=_stamp(info.get("size"), info))

    def read_bytes(self) -> bytes:
        with _clear(self, "read"):
            return self._system().cat_file(str(self) + self.query)

    def read_head(self, count: int) -> bytes:
        """The first bytes, no more than `count`."""
        with _clear(self, "read"):
            if not self.size:  # a store refuses any range of an empty object
                return b""
            return self._system().cat_file(str(self) + self.query, start=0, end=count)[:count]

    def unlink(self) -> None:
        with _clear(self, "removed"):
            self._system().rm_file(str(self))

    def _system(self) -> Any:
        return open_system(self.scheme)


Place = Path | Remote


def place_of(given: str | Path, allowed: str) -> Place:
    """The local path or the address that a text stands for.

    Raises:
        ImageError: "-", which stands for a stream, or an address that is not supported; it says what is `allowed`.
    """
    text = str(given)
    scheme, sign, rest = text.partition("://")
    scheme = scheme.lower()
    if isinstance(given, Path) or not sign or Path(text).exists():
        check_local(given, allowed)
        return Path(text)
    if scheme == "file" and rest.startswith("/"):
        return Path(rest)
    if scheme not in SCHEMES:
        raise ImageError(f"{hide(text)} is an address of a kind that is not supported; {allowed}")
    address, mark, query = rest.partition("?") if scheme.startswith("http") else (rest, "", "")
    address = address.rstrip("/")
    if "@" in address.partition("/")[0]:
        raise ImageError(f"{hide(text)}: an address with credentials in it; leave them to the environment")
    if not address:
        raise ImageError(f"{text} names no bucket or host; {allowed}")
    open_system(scheme)
    return Remote(f"{scheme}://{address}", query=mark + query)


def check_local(given: str | Path, allowed: str) -> None:
    """Refuse an address such as s3://bucket/x, and "-", which stands for a stream.

    Raises:
        ImageError: it says what is `allowed`.
    """
    text = str(given)
    if text == "-":
        raise ImageError(f"- stands for a stream, which is not supported; {allowed}")
    if _ADDRESS.match(text) and not Path(text).exists():
        raise ImageError(f"{hide(text)} is an address; {allowed}")


def find_remote(given: Remote, others: list[Place]) -> Iterator[tuple[Remote, str, str]]:
    """Images at an address: a file, a folder or a pattern. Which of them are images is decided as for local files.

    Args:
        given: http addresses are files.
        others: files of a folder that are no images are added to it.

    Yields:
        (file, its name below the folder or the part of the pattern without wildcards, suffix that its content calls
        for; "" for names that say it).

    Raises:
        ImageError: nothing there, or a key that cannot be a file name.
        OSError: it cannot be listed.
    """
    if (file := given.facts()) is not None:
        yield file, file.name, "" if _says_format(file.name) else suffix_of_bytes(file.read_head(HEAD))
        return
    if given.scheme.startswith("http"):
        raise ImageError(f"{given}: no such file that may be read; an http address names one file")
    root, matches = given, None
    if any(sign in str(given) for sign in "*?["):
        from fsspec.utils import glob_translate

        parts = str(given).split("/")
        fixed = next(number for number, part in enumerate(parts) if any(sign in part for sign in "*?["))
        root, matches = Remote("/".join(parts[:fixed])), re.compile(glob_translate("/".join(parts[fixed:]))).match
    count, files = 0, listing(root)
    while keys := list(islice(files, _PAGE)):
        page = [file for file in keys if not file.name.startswith(".") and (not matches or matches(file.below))]
        heads = _heads([file for file in page if not _says_format(file.name)])
        for file in page:
            own = suffix_of_bytes(heads.get(file.below, b""))
            if file.name.lower().endswith(READ_SUFFIXES) or (own == ".dcm" and file.name.upper() != "DICOMDIR"):
                count += 1
                yield file, file.below, own
            elif not matches:
                others.append(file)
    if not count:
        raise ImageError(f"{given}: no image found ({', '.join(READ_SUFFIXES)})")


def listing(folder: Remote) -> Iterator[Remote]:
    """Every file below a folder. S3 is listed page by page, so that a million keys are never held with their facts.

    Raises:
        ImageError: a key that cannot be a file name.
        OSError: no such bucket, or it may not be listed.
    """
    root, prefix = str(folder), f"{folder}/"  # one string for all files
    with _clear(folder, "listed"):
        for path, stamp in _entries(folder):
            below = path.removeprefix(prefix)
            if below.endswith("/") or not below:  # the mark of an empty folder
                continue
            if not {"", ".", ".."}.isdisjoint(below.split("/")) or "\0" in below:
                raise ImageError(f"{path}: a key that cannot be the name of a file; rename it")
            yield Remote(root, below, stamp=stamp)


def read_place(place: Place, max_pixels: int) -> bytes:
    """The bytes of a file, no more than that many pixels can take; errors as in `read_image`."""
    if isinstance(place, Path):
        return read_bytes(place, max_pixels)
    check_bytes(str(place), place.size, max_pixels)
    data = place.read_bytes()
    check_bytes(str(place), len(data), max_pixels)
    return data


def write_place(place: Place, data: bytes, *, overwrite: bool = True) -> None:
    """Write a file whole or not at all: `replace_file`, or one upload, which a store shows when it is complete.

    Raises:
        FileExistsError: it exists, and `overwrite` is false.
        OSError: it cannot be written.
    """
    if isinstance(place, Path):
        return replace_file(place, data, overwrite=overwrite)
    if not overwrite and place.exists():
        raise FileExistsError(f"{place} exists already; give --overwrite to replace it")
    with _clear(place, "written"):
        place._system().pipe_file(str(place), data)


def stamp_of(place: Place) -> str:
    """What changes when a file does: size and time, or the entity tag; "" if that is unknown."""
    if isinstance(place, Remote):
        return place.stamp
    try:
        status = place.stat()
    except (OSError, ValueError):
        return ""
    return f"{status.st_size}-{status.st_mtime_ns}"


def hide(text: str) -> str:
    """The text without credentials: values of such variables of the environment, key names, queries of addresses."""
    for name, value in os.environ.items():
        if len(value) > 3 and _SECRET.search(name):
            text = text.replace(value, "***")
    return _QUERY.sub("", _KEY_ID.sub("***", text))


def _says_format(name: str) -> bool:
    """Whether the name decides the suffix of the result."""
    return name.lower().removesuffix(".gz").endswith(WRITE_SUFFIXES)


def _heads(files: Sequence[Remote]) -> dict[str, bytes]:
    """The first bytes of files of one folder, by their path below it, read together."""
    files = [file for file in files if file.size]
    if not files:
        return {}
    with _clear(files[0], "read"):
        found = files[0]._system().cat_ranges([str(file) for file in files], 0, HEAD, on_error="return")
    for file, head in zip(files, found, strict=True):
        if isinstance(head, BaseException):
            raise OSError(f"{file}: cannot be read ({_reason(head)})")
    return {file.below: head for file, head in zip(files, found, strict=True)}


def _entries(folder: Remote) -> Iterator[tuple[str, str]]:
    """Address and stamp of every key below a folder."""
    system, scheme = folder._system(), folder.scheme
    if scheme != "s3":
        for path, info in system.find(str(folder), detail=True).items():
            yield f"{scheme}://{path.partition('://')[2] or path}", _stamp(info.get("size"), info)
        return
    bucket, _, key = str(folder).partition("://")[2].partition("/")
    page: dict[str, Any] = {"IsTruncated": True}
    while page["IsTruncated"]:
        more = {"ContinuationToken": page["NextContinuationToken"]} if "NextContinuationToken" in page else {}
        page = system.call_s3("list_objects_v2", Bucket=bucket, Prefix=f"{key}/" if key else "", **more)
        for item in page.get("Contents", ()):
            yield f"s3://{bucket}/{item['Key']}", _stamp(item["Size"], item)


def _stamp(size: int | None, info: dict[str, Any]) -> str:
    keys = ("ETag", "etag", "mtime", "last_modified", "LastModified")
    tag = next((str(info[key]).strip('"') for key in keys if info.get(key)), "")
    return f"{'' if size is None else size}-{tag}" if tag else ""


@lru_cache
def open_system(scheme: str) -> Any:
    """The file system of a scheme, with credentials from the environment as its library reads them.

    Raises:
        ImageError: its package is missing.
    """
    try:
        import fsspec

        whole = {"max_concurrency": 1} if scheme == "s3" else {}  # one request reads a file
        return fsspec.filesystem(scheme, use_listings_cache=False, **whole)
    except ImportError:
        packages = f"pip install fsspec {SCHEMES[scheme]}"
        if scheme == "s3":
            packages = "pip install -c constraints.txt -e '.[fleet]'"
        raise ImageError(f"{scheme}:// is an address of a store whose package is missing: {packages}") from None


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
    text = one_line(hide(str(error)))
    kind = type(error).__name__
    if isinstance(error, FileNotFoundError):
        return "no such file, folder or bucket"
    if isinstance(error, PermissionError) or kind in ("NoCredentialsError", "PartialCredentialsError"):
        return f"access denied: {text or kind}; check the credentials in the environment"
    return f"{kind}: {text[:300]}" if text else kind
