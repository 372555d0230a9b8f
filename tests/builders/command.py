"""Commands as the tests run them, and what they leave."""

import contextlib
import io
import os
import subprocess
import sys
from dataclasses import dataclass
from unittest import mock

from retinashift import cli


@dataclass
class Done:
    """What a command left: exit code and what it printed."""

    returncode: int
    stdout: str
    stderr: str


def retinashift(*arguments) -> Done:
    """Run the command in this process: starting a fresh one costs seconds of imports each time."""
    stdout, stderr = io.StringIO(), io.StringIO()
    code: int | str | None = 0
    with (
        mock.patch.object(sys, "argv", ["retinashift", *map(str, arguments)]),
        mock.patch.dict(os.environ, {"COLUMNS": "200"}),
        contextlib.redirect_stdout(stdout),
        contextlib.redirect_stderr(stderr),
    ):
        try:
            cli.main()
        except SystemExit as stop:
            code = stop.code
    return Done(int(code or 0), stdout.getvalue(), stderr.getvalue())


def in_a_fresh_process(*arguments, **environment: str) -> subprocess.CompletedProcess:
    """Run the command in a process of its own, as a person does."""
    return subprocess.run(
        [sys.executable, "-m", "retinashift", *map(str, arguments)],
        capture_output=True,
        text=True,
        env={**os.environ, "COLUMNS": "200", **environment},
    )


def one_line_error(result) -> str:
    assert result.returncode != 0
    lines = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, result.stderr
    assert "Traceback" not in result.stderr
    return lines[0]
