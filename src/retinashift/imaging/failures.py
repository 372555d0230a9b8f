"""Why one file failed, in one line: a fault of the file, the disk or the memory, or else an error of ours."""

import logging
from collections.abc import Sequence
from typing import NamedTuple

logger = logging.getLogger(__name__)

DEBUG_VARIABLE = "RETINASHIFT_DEBUG"
"""Environment variable that makes the command line print debug messages and tracebacks."""
_OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "not enough memory")
"""What torch says in a RuntimeError, on a GPU and on a CPU."""
_FULL = ("no space left on device", "os error 28", "file too large", "quota exceeded", "failed writing file")
"""What safetensors and torch say of a full disk in errors of their own."""


class Failure(NamedTuple):
    """Why work on one file ended."""

    text: str
    """One line without control characters."""
    internal: bool = False
    """Nothing that a file, a disk or a small memory does explains it: a fault of this program."""


def explain(error: BaseException) -> Failure:
    """The failure that an exception stands for; the traceback of an internal error is logged at debug level.

    >>> explain(ValueError("a.png: truncated"))
    Failure(text='a.png: truncated', internal=False)
    >>> explain(KeyError("x")).text
    "internal error (KeyError: 'x'); please report it with the traceback that RETINASHIFT_DEBUG=1 prints"
    """
    text = one_line(str(error))
    if isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and any(s in text for s in _OUT_OF_MEMORY)):
        return Failure(f"not enough memory{f' ({text})' if text else ''}; close other programs, or give --memory")
    if isinstance(error, (ValueError, OSError)):
        return Failure(text or type(error).__name__)
    if any(sign in text.lower() for sign in _FULL):
        return Failure(f"the disk is full or cannot be written to ({text})")
    logger.debug("internal error: %s", text, exc_info=error)
    named = f"{type(error).__name__}: {text}" if text else type(error).__name__
    return Failure(
        f"internal error ({named}); please report it with the traceback that {DEBUG_VARIABLE}=1 prints", internal=True
    )


def one_line(text: str) -> str:
    r"""The text with single spaces, and with what would steer a terminal written as an escape.

    >>> one_line("a\n  b \x1b[31m")
    'a b \\x1b[31m'
    """
    return printable(" ".join(text.split()))


def printable(text: str) -> str:
    """The text with control characters written as escapes: names and header values may come from a crafted file."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def first_and_more(things: Sequence[object]) -> str:
    """The first of some things, and how many more there are."""
    return f"{things[0]}{f' and {len(things) - 1} more' if len(things) > 1 else ''}"


class LineFormatter(logging.Formatter):
    """One printable line for each message, then any traceback."""

    def format(self, record: logging.LogRecord) -> str:
        text = one_line(record.getMessage())
        return f"{text}\n{self.formatException(record.exc_info)}" if record.exc_info else text
