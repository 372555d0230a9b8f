"""Files that a command is told to write, refused before its work begins if they could not be written at its end."""

from __future__ import annotations

from pathlib import Path


def check_outputs(*paths: Path | None, overwrite: bool, suffix: str = "") -> None:
    """Refuse what stands in the way of writing these files; None is none.

    Args:
        paths: in the order in which they are looked at.
        overwrite: files that exist may be replaced.
        suffix: that all of them must have, in any case.

    Raises:
        FileExistsError: one exists and may not be replaced.
        FileNotFoundError: the folder of one does not exist.
        ValueError: one is a folder, is given twice, or has another suffix.
    """
    given = [path for path in paths if path is not None]
    for number, path in enumerate(given):
        if path.is_dir():
            raise ValueError(f"{path} is a folder; name a file in it")
        if path.absolute() in (other.absolute() for other in given[:number]):
            raise ValueError(f"{path} is given for two files; give each a name of its own")
        if path.exists() and not overwrite:
            raise FileExistsError(f"{path} exists already; give --overwrite, or another name")
        if not path.absolute().parent.is_dir():
            raise FileNotFoundError(f"the folder {path.absolute().parent} does not exist; make it, or name another")
        if not path.name.lower().endswith(suffix):
            raise ValueError(f"{path} must end in {suffix}; give it another name")


def check_log(path: Path | None) -> None:
    """Refuse a log that lines of JSON cannot be appended to.

    Raises:
        FileNotFoundError: its folder does not exist.
        ValueError: a folder, or a file that holds something else.
    """
    check_outputs(path, overwrite=True)
    if path is None or not path.exists():
        return
    with path.open("rb") as file:
        if file.read(1) not in (b"", b"{"):
            raise ValueError(f"{path} is no log of lines of JSON; name a new file, or one that --log has made")
