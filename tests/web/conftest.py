"""One page for all tests that do not end it, as a person starts it, and the browser that is there."""

from __future__ import annotations

import json
import os
from pathlib import Path
from urllib.parse import urlsplit

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
    log = tmp_path_factory.mktemp("log") / "net.json"
    flags = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
        "--disable-component-update", "--disable-sync", f"--log-net-log={log}"]  # fmt: skip
    with playwright.sync_playwright() as driver:
        context = driver.chromium.launch_persistent_context(
            str(tmp_path_factory.mktemp("profile")), executable_path=executable, headless=True, args=flags,
            viewport={"width": 1280, "height": 720}, accept_downloads=True,
        )  # fmt: skip
        context.set_default_timeout(WAIT)
        yield context
        context.close()
    asked = requests_of_pages(log)
    assert asked
    assert [url for url in asked if urlsplit(url).hostname not in ("127.0.0.1", None)] == []


def requests_of_pages(log: Path) -> list[str]:
    """Addresses that the pages and their workers asked for, by the browser's own log of the network."""
    content = json.loads(log.read_text(encoding="utf-8"))
    kind = content["constants"]["logEventTypes"]["URL_REQUEST_START_JOB"]
    started = [event["params"] for event in content["events"] if event["type"] == kind and "params" in event]
    return [one["url"] for one in started if one.get("initiator", "").startswith("http")]
