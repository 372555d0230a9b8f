"""Builds the manual of each version into a folder of its own, and tells every one of them which others there are.

The list is a script in each folder, so that the switch works from file://, where pages may not fetch.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

LIST = Path("javascripts") / "versions.js"
OPEN = """\
<!doctype html><meta charset="utf-8"><title>RetinaShift</title>
<meta http-equiv="refresh" content="0; url={0}/index.html"><a href="{0}/index.html">The manual of RetinaShift {0}</a>
"""


def on_config(config: Any) -> Any:
    """Build into a folder named after the version."""
    source = Path(config.config_file_path).parent / "src" / "retinashift" / "__init__.py"
    found = re.search(r'^__version__ = "(.+)"$', source.read_text(encoding="utf-8"), re.MULTILINE)
    assert found, f"no version in {source}"
    config.site_dir = str(Path(config.site_dir) / found[1])
    return config


def on_post_build(config: Any) -> None:
    """Write the list into every version's folder, and a page that opens the newest."""
    root = Path(config.site_dir).parent
    folders = {folder.name: folder for folder in root.iterdir() if (folder / "index.html").is_file()}
    names = sorted(folders, key=_order, reverse=True)
    pages = {
        name: sorted(path.relative_to(folders[name]).as_posix() for path in folders[name].rglob("*.html"))
        for name in names
    }
    for folder in folders.values():
        (folder / LIST).write_text(f"var manualVersions = {json.dumps(pages)};\n", encoding="utf-8")
    (root / "index.html").write_text(OPEN.format(names[0]), encoding="utf-8")


def _order(name: str) -> list[tuple[int, str]]:
    """Numbers by value: 0.10 is newer than 0.9."""
    return [(int(part or 0), rest) for part, rest in re.findall(r"(\d*)(\D*)", name)]
