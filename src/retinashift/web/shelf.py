"""The private folder of one run of the page: uploads, results under names that cannot be guessed, and their end."""

from __future__ import annotations

import io
import re
import secrets
import shutil
import threading
import time
import zipfile
from pathlib import Path
from typing import Any

from retinashift.web.report import report_page

MAX_JOBS = 32
"""Finished jobs that are kept; the oldest give way."""


class Shelf:
    """Results by token. `root` is a folder that only this user can read."""

    def __init__(self, root: Path):
        self.root, self.uploads, self.jobs = root, root / "uploads", root / "jobs"
        self.uploads.mkdir()
        self.jobs.mkdir()
        self._lock = threading.Lock()
        self._finished: dict[str, list[dict[str, Any]]] = {}
        self._session: dict[str, str] = {}

    def new(self, session: str) -> tuple[str, Path]:
        """A token and the folder of a new job."""
        token = secrets.token_urlsafe(24)
        folder = self.jobs / token
        folder.mkdir()
        with self._lock:
            self._session[token] = session
        return token, folder

    def drop_session(self, session: str) -> None:
        """Delete what a page has made, when it is closed."""
        for token in [t for t, owner in self._session.copy().items() if owner == session]:
            self.drop(token)

    def finish(self, token: str, photos: list[dict[str, Any]]) -> None:
        with self._lock:
            self._finished[token] = photos
            oldest = list(self._finished)[:-MAX_JOBS]
        for old in oldest:
            self.drop(old)

    def drop(self, token: str) -> None:
        with self._lock:
            self._finished.pop(token, None)
            self._session.pop(token, None)
        shutil.rmtree(self.jobs / token, ignore_errors=True)

    def for_gradio(self, file: Path) -> Path:
        """A result moved to where gradio may serve it from, under a folder name that cannot be guessed."""
        folder = self.uploads / secrets.token_urlsafe(24)
        folder.mkdir()
        return Path(shutil.move(file, folder / file.name))

    def close(self) -> None:
        """Delete everything. A thread that still writes is outrun: the folder goes as soon as it cannot be refilled."""
        for _ in range(20):
            shutil.rmtree(self.root, ignore_errors=True)
            if not self.root.exists():
                return
            time.sleep(0.1)

    def stored(self) -> int:
        """Bytes on disk."""
        total = 0
        for path in self.root.rglob("*"):
            try:
                total += path.stat().st_size
            except OSError:  # deleted meanwhile
                continue
        return total

    def photo(self, token: str, number: str) -> dict[str, Any] | None:
        """The manifest of one photograph of a finished job, or None."""
        for photo in self._finished.get(token, ()):
            if "error" not in photo and str(photo["number"]) == number:
                return photo
        return None

    def find(self, token: str, name: str) -> bytes | None:
        """A result's bytes: "all.zip", or NUMBER-FILE with a file that the job is known to have; else None."""
        if name == "all.zip":
            return self._zip(token) if token in self._finished else None
        number, _, file = name.partition("-")
        photo = self.photo(token, number)
        if photo is None:
            return None
        folder = self.jobs / token / number
        if file == "report.html":
            return report_page(folder, photo).encode()
        known = {*_taken_away(photo), *(f"{layer}.png" for layer in photo["layers"])}
        return (folder / file).read_bytes() if file in known and re.fullmatch(r"[\w.-]+", file) else None

    def _zip(self, token: str) -> bytes:
        """Results, sidecars and maps; several begin with their number, because two can have one name."""
        good = [photo for photo in self._finished.get(token, ()) if "error" not in photo]
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w") as archive:  # pictures are compressed already
            for photo in good:
                for file in _taken_away(photo):
                    name = file if len(good) == 1 else f"{photo['number'] + 1}_{file}"
                    archive.write(self.jobs / token / str(photo["number"]) / file, name)
        return packed.getvalue()


def _taken_away(photo: dict[str, Any]) -> list[str]:
    """The files that the command line would have written."""
    return [photo["saved"], f"{photo['saved']}.json", *photo["maps"]]
