"""Where the photographs and vectors lie that are not part of the repository."""

import os
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parent.parent.parent


def shared_folder() -> Path:
    """$RETINASHIFT_SHARED, or `../shared` beside the project. Absent: a skip; in CI a failure."""
    folder = Path(os.environ.get("RETINASHIFT_SHARED") or PROJECT.parent / "shared")
    if not folder.is_dir():
        reason = f"no shared folder at {folder} (set RETINASHIFT_SHARED to the one with data/ in it)"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    return folder
