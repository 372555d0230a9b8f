"""Every message about a file is one printable line that names it."""

import logging
import warnings
from dataclasses import replace

import pytest

from builders.command import retinashift
from retinashift.imaging.failures import Failure, LineFormatter, explain
from retinashift.imaging.files import write_image
from retinashift.imaging.formats.png import decode_png
from retinashift.imaging.formats.table import FORMATS


class SafetensorError(Exception):
    """As safetensors raises it: no OSError."""


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"), "disk is full"),
        (
            RuntimeError("[enforce fail at inline_container.cc:595] . PytorchStreamWriter failed writing file data/0"),
            "disk",
        ),
        (RuntimeError("CUDA out of memory. Tried to allocate 2 GiB"), "not enough memory"),
        (MemoryError(), "not enough memory"),
        (OSError(28, "No space left on device", "out/a.png"), "out/a.png"),
        (ValueError("a.png:\ttruncated\nat 7"), "a.png: truncated at 7"),
    ],
)
def test_what_a_file_a_disk_or_a_memory_does_is_no_error_of_ours(error, words):
    failure = explain(error)
    assert words in failure.text
    assert not failure.internal
    assert "\n" not in failure.text


def test_any_other_error_is_ours_and_leaves_its_traceback_at_debug_level(caplog):
    with caplog.at_level("DEBUG", "retinashift"):
        try:
            {}["x"]
        except KeyError as error:
            failure = explain(error)
    assert failure.internal
    assert "KeyError" in failure.text
    assert caplog.records[0].levelname == "DEBUG"
    assert caplog.records[0].exc_info[2] is not None
    assert Failure("x") == Failure("x", False)


def test_a_message_is_one_printable_line():
    record = logging.LogRecord("retinashift", 30, "", 0, "%s: bad\nvalue", ("a\x1b[2J.dcm",), None)
    assert LineFormatter().format(record) == "a\\x1b[2J.dcm: bad value"


def test_the_command_line_prints_warnings_of_libraries_as_one_line_with_the_files_name(tmp_path, retina, monkeypatch):
    def odd(*arguments):
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            warnings.warn("value\n out of \x1b[31mrange", UserWarning, stacklevel=1)
        return decode_png(*arguments)

    write_image(tmp_path / "eye.png", retina)
    monkeypatch.setitem(FORMATS, "PNG", replace(FORMATS["PNG"], decode=odd))
    shown = warnings.showwarning
    done = retinashift("inspect", tmp_path / "eye.png")
    (line,) = done.stderr.splitlines()
    assert "eye.png: " in line
    assert "\x1b" not in line
    assert warnings.showwarning is shown
