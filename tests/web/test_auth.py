"""A page for other machines: only with a name and a password, and to nobody without them."""

from __future__ import annotations

import base64
import os
import subprocess
import sys

from builders.page import ask, start_page, stop_page, wait_until_open


def basic(credentials: str) -> str:
    return "Basic " + base64.b64encode(credentials.encode()).decode()


def test_another_address_without_auth_is_one_line_and_opens_nothing(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "retinashift", "app", "--host", "0.0.0.0", "--port", "0"],
        capture_output=True, text=True, timeout=60,
        env={k: v for k, v in os.environ.items() if k != "RETINASHIFT_AUTH"} | {"TMPDIR": str(tmp_path)},
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert "give --auth NAME:PASSWORD" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_name_and_password_are_asked_for_at_every_path_and_the_right_ones_let_in(tmp_path):
    page = start_page(tmp_path, "--host", "0.0.0.0", RETINASHIFT_AUTH="ward:se:cret")
    try:
        right = basic("ward:se:cret")
        for wrong in ("", basic("ward:"), basic("ward:secret"), basic("Ward:se:cret"), "Bearer x", right[:-1]):
            headers = {"Authorization": wrong} if wrong else {}
            for path in ("/", "/config", "/page/viewer.js", "/gradio_api/info", "/nothing"):
                assert ask(page, "GET", path, **headers)[0] == 401
            assert ask(page, "POST", "/gradio_api/upload", b"x", **headers)[0] == 401
        assert ask(page, "GET", "/", Authorization=right)[0] == 200  # while it starts
        wait_until_open(page, Authorization=right)
        assert ask(page, "GET", "/config", Authorization=right)[0] == 200
        assert ask(page, "GET", "/config")[0] == 401
    finally:
        stop_page(page)
    assert "se:cret" not in "".join(page.printed)
