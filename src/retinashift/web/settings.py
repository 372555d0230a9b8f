"""What a page may do, and what one request may choose; checked before anything is opened."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from typing import Annotated

from pydantic import BaseModel, Field

from retinashift.inference.settings import Mode, OutputFormat, Sampling

CREDENTIALS_VARIABLE = "RETINASHIFT_AUTH"
"""Environment variable for NAME:PASSWORD; unlike an argument it does not show in the list of processes."""


@dataclass(frozen=True)
class PageSettings:
    """How the page is served. ValueError for an address other than this machine's own without credentials."""

    host: str = "127.0.0.1"
    port: int = 7860
    """0 takes any free port."""
    credentials: str = ""
    """NAME:PASSWORD, asked for by HTTP basic authentication; "" asks nobody."""
    checkpoint: str = ""
    """Folder or bundled name; "" is the shipped checkpoint."""
    device: str = "auto"
    max_upload: int = 64 * 2**20
    """Bytes of one request, files and all."""
    max_stored: int = 4 * 2**30
    """Bytes of memory that uploads and results together may take."""
    max_pixels: int = 8_000_000
    """Width times height of one photograph as uploaded."""
    max_files: int = 32
    """Photographs in one job."""
    max_waiting: int = 16
    """Jobs that run or wait; more are refused."""

    def __post_init__(self) -> None:
        if not is_loopback(self.host) and not self.credentials:
            raise ValueError(
                f"{self.host} can be reached from other machines; give --auth NAME:PASSWORD (or {CREDENTIALS_VARIABLE})"
                ", or leave --host at 127.0.0.1"
            )
        if self.credentials and not all(self.credentials.partition(":")):
            raise ValueError("--auth must be NAME:PASSWORD, neither of them empty")


class UpscaleOptions(BaseModel, frozen=True, extra="forbid"):
    """What one request may choose; the command's options of the same names."""

    name: Annotated[str, Field(max_length=255, description="File name of a raw body.")] = "photograph"
    checkpoint: Annotated[str, Field(description="A name of /api/checkpoints; empty: the default one.")] = ""
    mode: Mode = "faithful"
    steps: Annotated[int, Field(ge=0, le=1000, description="Network calls a sample; 0 follows from the mode.")] = 0
    seed: Annotated[int, Field(ge=0, lt=2**63, description="Of samples; mode faithful has none.")] = 0
    consistency: Annotated[bool, Field(description="Reduced again, the result reproduces its input.")] = True
    uncertainty: Annotated[bool, Field(description="Also draw a map of the error to expect of each pixel.")] = False
    scale: Annotated[float, Field(ge=0, description="Times larger than the input; 0: the checkpoint's factor.")] = 0
    longest_side: Annotated[int, Field(ge=0, description="Pixels of the result's longer side, instead of scale.")] = 0
    turns: Annotated[int, Field(description="8: the mean over all turns and flips, 8 times as long.")] = 1
    format: Annotated[OutputFormat, Field(description="File type of the result.")] = "same"
    chain: Annotated[bool, Field(description="Draw the chain of the middle, step by step, instead.")] = False

    def sampling(self) -> Sampling:
        """The settings of the pipeline. ValueError where they contradict each other."""
        drawn = self.mode == "faithful" and self.steps > 1  # a plain sample: faithful, the default, is one step
        return Sampling(
            mode=None if drawn else self.mode, output_uncertainty=self.uncertainty,
            num_inference_steps=self.steps or None, back_projections=None if self.consistency else 0,
            scale=self.scale or None, longest_side=self.longest_side or None, turns=self.turns,
        )  # fmt: skip


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach an address; other names than localhost are not looked up.

    >>> is_loopback("127.0.0.1"), is_loopback("::1"), is_loopback("0.0.0.0"), is_loopback("example.org")
    (True, True, False, False)
    """
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
