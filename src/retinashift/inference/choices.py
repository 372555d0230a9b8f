"""What can be chosen by name: the same words for the pipeline, the command line and the page. Loads no torch."""

from __future__ import annotations

from typing import Literal

Mode = Literal["faithful", "realistic"]
Precision = Literal["fp32", "bf16", "fp16"]
OutputFormat = Literal["same", "png", "tiff"]
"""The type of the results' files; "same" is that of the input."""
