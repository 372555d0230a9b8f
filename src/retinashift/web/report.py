"""One page about one result, whole in itself: pictures, figures, settings, and what it is not."""

from __future__ import annotations

import base64
import html
from pathlib import Path
from typing import Any

from retinashift.imaging.provenance import NOTE

CAPTIONS = {
    "input": "input, pixels repeated",
    "bicubic": "bicubic",
    "result": "RetinaShift",
    "uncertainty": "uncertainty, 8 levels of the picture to a grey level",
    "reference": "reference",
    "error": "error against the reference, 8 levels of the picture to a grey level",
}
_STYLE = (
    "body{background:#14171a;color:#d7dade;font:14px/1.45 system-ui,sans-serif;max-width:1100px;margin:20px auto;"
    "padding:0 16px}h1{font-size:20px;margin:0}p{margin:4px 0 12px;color:#aab0b6}"
    "main{display:grid;grid-template-columns:repeat(3,1fr);gap:10px}figure{margin:0}"
    "img{width:100%;aspect-ratio:1;object-fit:contain;background:#000}img[alt=input]{image-rendering:pixelated}"
    "figcaption{color:#aab0b6;font-size:12px}table{border-collapse:collapse;margin-top:12px}"
    "th{text-align:left;font-weight:500;color:#aab0b6;padding:2px 16px 2px 0;white-space:nowrap;vertical-align:top}"
    "td{overflow-wrap:anywhere}@media print{@page{size:A4;margin:12mm}body{background:#fff;color:#000;margin:0;"
    "font-size:11px}p,th,figcaption{color:#333}}"
)


def report_page(folder: Path, photo: dict[str, Any]) -> str:
    """HTML with the lossless PNG views of `write_views` embedded; it fits one sheet of A4.

    Args:
        folder: of the views.
        photo: manifest of one photograph, see `run_job`.
    """
    pictures = "".join(
        f'<figure><img alt="{layer}" src="data:image/png;base64,'
        f'{base64.b64encode((folder / f"{layer}.png").read_bytes()).decode()}">'
        f"<figcaption>{CAPTIONS[layer]}</figcaption></figure>"
        for layer in photo["layers"]
    )
    table = "".join(f"<tr><th>{html.escape(k)}<td>{html.escape(v)}" for k, v in report_rows(photo))
    name = html.escape(photo["name"])
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{name}</title><style>{_STYLE}</style>'
        f"<h1>{name}</h1><p>{html.escape(NOTE)}</p><main>{pictures}</main><table>{table}</table></html>"
    )


def report_rows(photo: dict[str, Any]) -> list[tuple[str, str]]:
    """Name and value, of all that is known about a result."""
    made, quality = photo["provenance"], photo["quality"] or {}
    figure = "equal" if made["consistency_db"] is None else f"{made['consistency_db']} dB"
    rows = [
        ("input", photo["input"]),
        ("result", f"{photo['output']}, {photo['saved']}"),
        ("seconds", f"{photo['seconds']}"),
        ("consistency", f"{figure} (the result reduced again, against the input)"),
    ]
    if "error" in quality:
        rows.append(("reference", quality["error"]))
    else:
        for method, scores in quality.items():
            label = "RetinaShift" if method == "result" else method
            rows.append((label, f"PSNR {scores['psnr']} dB (RGB), SSIM {scores['ssim']} (luma); field of view, 8 bit"))
    if photo["meaning"]:
        rows.append(("uncertainty", photo["meaning"]))
    if "detail_gain" in made["options"]:
        rows.append(("mode", f"realistic: a sample, its detail multiplied by {made['options']['detail_gain']:g}"))
    rows += [
        ("network calls", f"{made['steps']} a sample, {made['ensemble']} averaged"),
        ("seed", f"{made['seed']}"),
        ("back-projections", f"{made['back_projections']}"),
        ("checkpoint", f"sha256 {made['checkpoint']}"),
        ("input file", f"sha256 {made['input']}"),
        ("device", made["device"]),
        ("versions", ", ".join(f"{name} {version}" for name, version in made["versions"].items())),
    ]
    if made["input_was_super_resolved"]:
        rows.append(("mind", "the input was a result of super-resolution itself"))
    return rows
