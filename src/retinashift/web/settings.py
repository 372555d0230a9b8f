"""What a page may do, and what one request may choose; checked before anything is opened."""

import json
import re
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, Field

from retinashift.inference.settings import Mode, OutputFormat, Sampling

LOOPBACK = ("127.0.0.1", "localhost", "::1")  # only this machine can reach them
Upload = tuple[str, bytes]  # name and content of a file


@dataclass(frozen=True)
class PageSettings:
    """How the page is served. ValueError for an address other than this machine's own without credentials."""

    host: str = "127.0.0.1"
    port: int = 7860  # 0 takes any free port
    credentials: str = ""  # NAME:PASSWORD, asked for by HTTP basic authentication; "" asks nobody
    checkpoint: str = ""  # folder or bundled name; "" is the shipped checkpoint
    device: str = "auto"
    max_upload: int = 64 * 2**20  # bytes of one request, files and all
    max_pixels: int = 8_000_000  # width times height of one photograph as uploaded

    def __post_init__(self) -> None:
        if self.host not in LOOPBACK and not self.credentials:
            asked = "give --auth NAME:PASSWORD (or RETINASHIFT_AUTH), or leave --host at 127.0.0.1"
            raise ValueError(f"--host {self.host} needs a password: {asked}")
        if self.credentials and not all(self.credentials.partition(":")):
            raise ValueError("--auth must be NAME:PASSWORD, neither of them empty")

    @property
    def folders(self) -> dict[str, Path]:
        """The checkpoints by name: the page's own first; then the bundled ones, of which x4 sorts first."""
        own = Path(self.checkpoint)
        bundled = {one.name: one for one in sorted(Path(str(files("retinashift") / "weights")).iterdir())}
        first = {own.name or self.checkpoint: bundled.get(self.checkpoint, own)} if self.checkpoint else {}
        return first | {name: folder for name, folder in bundled.items() if name not in first}

    def folder(self, name: str) -> str:
        """The folder of a checkpoint; "" is the default one. ValueError for a name that the page does not offer."""
        folders = self.folders
        if name and name not in folders:
            raise ValueError(f"checkpoint is {name!r}; allowed are {', '.join(folders)}")
        return str(folders[name or next(iter(folders))])

    def described(self) -> list[dict[str, Any]]:
        """Name, note, scale, modes and options of each checkpoint, the default one first; loads no torch."""
        found = []
        for name, folder in self.folders.items():
            index, card = (folder / file for file in ("model_index.json", "README.md"))
            config = json.loads(index.read_text(encoding="utf-8")) if index.is_file() else {}  # an adapter has none
            text = card.read_text(encoding="utf-8") if card.is_file() else ""
            note = re.search(r"^# .*\n\n(.*?)\s*\*\*For research", text, re.MULTILINE | re.DOTALL)
            modes = {True: ["realistic"], "mean": ["faithful"]}.get(config.get("distilled"), ["faithful", "realistic"])
            own = {
                "consistency": config.get("back_projections", 1),
                "uncertainty": any(config.get("uncertainty_head") or ()),
                "strength": config.get("check_measure") == "burst",
            }
            options = ["seed", "scale", "turns", "format", "reference", *(option for option in own if own[option])]
            facts = {"name": name, "scale": config.get("scale", 4), "modes": modes, "options": options}
            found.append(facts | {"note": " ".join(note[1].split()) if note else ""})
        return found


class UpscaleOptions(BaseModel, frozen=True, extra="forbid"):
    """What one request may choose; the command's options of the same names."""

    name: Annotated[str, Field(max_length=255, description="File name of a raw body.")] = "photograph"
    checkpoint: Annotated[str, Field(description="A name of /api/checkpoints; empty: the default one.")] = ""
    mode: Mode = "faithful"
    steps: Annotated[int, Field(ge=0, le=1000, description="Network calls a sample; 0 follows from the mode.")] = 0
    seed: Annotated[int, Field(ge=0, lt=2**63, description="Of samples; mode faithful has none.")] = 0
    consistency: Annotated[bool, Field(description="Reduced again, the result reproduces its input.")] = True
    uncertainty: Annotated[bool, Field(description="Also draw a map of the error to expect of each pixel.")] = False
    strength: Annotated[float, Field(ge=0, le=1, description="Of x4_restore; 0 is the result of x4.")] = 1
    scale: Annotated[float, Field(ge=0, description="Times larger than the input; 0: the checkpoint's factor.")] = 0
    longest_side: Annotated[int, Field(ge=0, description="Pixels of the result's longer side, instead of scale.")] = 0
    turns: Annotated[int, Field(description="8: the mean over all turns and flips, 8 times as long.")] = 1
    format: Annotated[OutputFormat, Field(description="File type of the result.")] = "same"
    chain: Annotated[bool, Field(description="Draw the chain of the middle, step by step, instead.")] = False

    def sampling(self) -> Sampling:
        """The settings of the pipeline. ValueError where they contradict each other."""
        return Sampling(  # several steps of faithful, the default, which has one, are a plain sample
            mode=None if self.mode == "faithful" and self.steps > 1 else self.mode, output_uncertainty=self.uncertainty,
            num_inference_steps=self.steps or None, back_projections=None if self.consistency else 0,
            scale=self.scale or None, longest_side=self.longest_side or None, turns=self.turns,
            strength=self.strength,
        )  # fmt: skip
