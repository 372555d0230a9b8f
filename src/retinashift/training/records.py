"""The record of a run: `log.jsonl`, one object a line, and TensorBoard curves and pictures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from torch.utils.tensorboard import SummaryWriter


class RunRecord:
    """Appends to a run's logs; made on the main process only."""

    def __init__(self, folder: Path, resume_step: int = 0):
        folder.mkdir(parents=True, exist_ok=True)
        self._path = folder / "log.jsonl"
        _cut_after(self._path, resume_step)
        self._board = SummaryWriter(str(folder / "tensorboard"), purge_step=resume_step + 1 if resume_step else None)

    def write(self, kind: str, step: int, values: dict[str, Any]) -> None:
        """One line; numbers also become TensorBoard curves under `kind/`."""
        with self._path.open("a", encoding="utf-8") as log:
            log.write(json.dumps({"event": kind, "step": step, **values}) + "\n")
        for name, value in values.items():
            if isinstance(value, (int, float)) and not isinstance(value, bool):
                self._board.add_scalar(f"{kind}/{name}", value, step)

    def picture(self, name: str, step: int, rgb: np.ndarray) -> None:
        """`rgb` (H, W, 3) uint8."""
        self._board.add_image(name, rgb, step, dataformats="HWC")

    def close(self) -> None:
        self._board.close()


def _cut_after(path: Path, step: int) -> None:
    """Drop lines beyond the state that is resumed from, because those steps are repeated; at 0, all of them."""
    if not path.is_file() or step == 0:
        path.unlink(missing_ok=True)
        return
    kept = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            if json.loads(line).get("step", 0) <= step:
                kept.append(line)
        except ValueError:
            continue  # a line cut short by a kill
    path.write_text("".join(line + "\n" for line in kept), encoding="utf-8")
