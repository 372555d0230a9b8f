"""One page for all tests that do not end it, as a person starts it, and the browser that is there."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

pytest.importorskip("fastapi", reason="the page needs the extra [app]")

from builders.page import WAIT, start_page, stop_page


@pytest.fixture(scope="session")
def page(tmp_path_factory):
    running = start_page(tmp_path_factory.mktemp("page"), "--max-upload", "2", "--max-pixels", "1000000")
    yield running
    stop_page(running)
    assert list(running.temporary.iterdir()) == []


@pytest.fixture(scope="session")
def browser(tmp_path_factory):
    executable = os.environ.get("CHROMIUM", "/usr/bin/chromium")
    if not Path(executable).exists():
        pytest.skip(f"no Chromium at {executable} (set CHROMIUM to one)")
    playwright = pytest.importorskip("playwright.sync_api")
    flags = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
        "--disable-component-update", "--disable-sync"]  # fmt: skip
    with playwright.sync_playwright() as driver:
        context = driver.chromium.launch_persistent_context(
            str(tmp_path_factory.mktemp("profile")), executable_path=executable, headless=True, args=flags,
            viewport={"width": 1280, "height": 720}, accept_downloads=True,
        )  # fmt: skip
        context.set_default_timeout(WAIT)
        yield context
        context.close()
