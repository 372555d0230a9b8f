"""One page about one result, whole in itself: pictures, figures, settings, and what it is not."""

from __future__ import annotations

import base64
import html
from pathlib import Path
from typing import Any

_STYLE = (
    "body{background:#14171a;color:#d7dade;font:15px/1.5 system-ui,sans-serif;"
    "max-width:1100px;margin:24px auto;padding:0 16px}"
    "figure{display:inline-block;width:48%;margin:0 1% 12px 0;vertical-align:top}"
    "img{width:100%}th{text-align:left;padding-right:16px}"
    "td{overflow-wrap:anywhere}"
)


def report_page(folder: Path, photo: dict[str, Any]) -> str:
    """HTML with the lossless PNG views of `write_views` embedded."""
    account = photo["account"]
    pictures = "".join(
        f'<figure><img alt="{layer}" src="data:image/png;base64,'
        f'{base64.b64encode((folder / f"{layer}.png").read_bytes()).decode()}">'
        f"<figcaption>{layer}</figcaption></figure>"
        for layer in photo["layers"]
    )
    rows = {**account["settings"], **account["figures"], "quality": photo["quality"]}
    rows |= {"checkpoint": account["checkpoint_sha256"], "input sha256": account["source"]["sha256"]}
    rows |= {"result sha256": account["result"]["sha256"], "RetinaShift": account["retinashift"]}
    table = "".join(f"<tr><th>{html.escape(str(k))}<td>{html.escape(str(v))}" for k, v in rows.items())
    name = html.escape(photo["name"])
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{name}</title><style>{_STYLE}</style>'
        f"<h1>{name}</h1><p>{html.escape(account['note'])}</p>{pictures}<table>{table}</table></html>"
    )
