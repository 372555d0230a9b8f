"""The model card of a checkpoint that was trained on from another: whose licence holds, and what came before."""

from __future__ import annotations

from pathlib import Path

CARD = """\
{front}# Fine-tuned with RetinaShift

Trained by the settings in `training.yaml`, starting from the checkpoint that is described below. The licence of that
checkpoint goes on to hold. Whatever was measured of it says nothing about this one.

## Where it started

{start}"""


def continued_card(start: Path) -> str | None:
    """The card of what was trained on from the checkpoint in `start`, with that one's metadata and text.

    None if `start` has no card.
    """
    try:
        text = (start / "README.md").read_text(encoding="utf-8")
    except OSError:
        return None
    front = ""
    if text.startswith("---\n"):  # YAML for model hubs, the licence among it
        inside, end, rest = text[4:].partition("\n---\n")
        if end:
            front, text = f"---\n{inside}{end}\n", rest.lstrip("\n")
    below = [f"##{line}" if line.startswith("#") else line for line in text.splitlines()]  # under our own heading
    return CARD.format(front=front, start="\n".join(below) + "\n")
