"""Ranges of numeric settings, declared beside the fields and checked in one place."""

from __future__ import annotations

import math
import typing
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar


class ConfigError(ValueError):
    """A setting that cannot be used; the message names it, what is allowed, and how to mend it."""


@dataclass(frozen=True)
class Within:
    """What a number may be; its text completes "... is needed".

    >>> str(Within(0, 1, below=True)), 1 in Within(0, 1, below=True)
    ('0 to below 1', False)
    """

    least: float
    most: float = math.inf
    above: bool = False
    """The least is excluded."""
    below: bool = False
    """The most is excluded."""

    def __contains__(self, value: float) -> bool:
        high_enough = self.least < value if self.above else self.least <= value
        return high_enough and (value < self.most if self.below else value <= self.most)

    def __str__(self) -> str:
        least = f"more than {self.least}" if self.above else f"{self.least}"
        if self.most == math.inf:
            return least if self.above else f"at least {least}"
        most = f"below {self.most}" if self.below else f"{self.most}"
        return f"{least} and {most}" if self.above else f"{least} to {most}"


Count = Annotated[int, Within(1)]
CountOrNone = Annotated[int, Within(0)]
"""0 has a meaning of its own."""
Positive = Annotated[float, Within(0, above=True)]
NotNegative = Annotated[float, Within(0)]
Share = Annotated[float, Within(0, 1)]
ShareBelowOne = Annotated[float, Within(0, 1, below=True)]


class Ranged:
    """A section of the settings whose annotated numbers are checked at construction.

    Raises:
        ConfigError: the first number that is out of its range, by its full name.
    """

    section: ClassVar[str]

    def __init_subclass__(cls, section: str, **more: Any):
        super().__init_subclass__(**more)
        cls.section = section

    def __post_init__(self) -> None:
        for name, hint in typing.get_type_hints(type(self), include_extras=True).items():
            for allowed in getattr(hint, "__metadata__", ()):
                value = getattr(self, name)
                if value not in allowed:
                    raise ConfigError(f"{self.section}.{name} is {value}; {allowed} is needed")
