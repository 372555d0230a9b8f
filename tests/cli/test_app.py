"""retinashift app: what is asked for reaches the page; what cannot be is one line before anything is opened."""

import socket

import pytest
from typer.testing import CliRunner

pytest.importorskip("fastapi", reason="the page needs the extra [app]")

import retinashift.web.server
from retinashift.cli import app


@pytest.fixture
def served(monkeypatch):
    """What `serve` is called with."""
    given = []
    monkeypatch.setattr(retinashift.web.server, "serve", lambda *arguments: given.append(arguments))
    monkeypatch.delenv("RETINASHIFT_AUTH", raising=False)
    return given


def test_options_reach_the_page_in_its_own_units(served):
    arguments = ["--port", "0", "--max-upload", "3", "--max-pixels", "99", "-c", "folder", "--device", "cpu"]
    assert CliRunner().invoke(app, ["app", *arguments]).exit_code == 0
    settings = served[0][0]
    assert (settings.host, settings.port, settings.credentials) == ("127.0.0.1", 0, "")
    assert (settings.max_upload, settings.max_pixels) == (3 * 2**20, 99)
    assert (settings.checkpoint, settings.device) == ("folder", "cpu")


def test_the_password_comes_from_the_environment_and_an_argument_goes_first(served, monkeypatch):
    monkeypatch.setenv("RETINASHIFT_AUTH", "ward:hidden")
    for arguments in ([], ["--auth", "ward:shown"]):
        assert CliRunner().invoke(app, ["app", "--host", "0.0.0.0", *arguments]).exit_code == 0
    assert [settings.credentials for settings, *_ in served] == ["ward:hidden", "ward:shown"]


def test_a_port_that_is_taken_is_said_with_the_way_out():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        done = CliRunner().invoke(app, ["app", "--port", str(taken.getsockname()[1])])
    assert isinstance(done.exception, OSError)
    assert "choose another --port" in str(done.exception)
