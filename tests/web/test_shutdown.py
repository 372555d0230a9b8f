"""However a page ends, and whatever it was doing: at once, without a complaint, and nothing stays on disk."""

from __future__ import annotations

import http.client
import json
import signal
import threading
import time

import pytest

from builders.page import call, png, start_page, stop_page, upload, wait_until_open


@pytest.mark.parametrize("by", [signal.SIGINT, signal.SIGTERM])
def test_nothing_is_left_when_a_page_ends_while_it_works(tmp_path, by):
    page = start_page(tmp_path)
    wait_until_open(page)
    path = json.loads(upload(page, png(700))[1])[0]
    threading.Thread(target=lambda: _until_it_ends(page, path), daemon=True).start()
    wait = time.monotonic() + 30
    while not list(tmp_path.glob("*/jobs/*")) and time.monotonic() < wait:
        time.sleep(0.05)
    assert list(tmp_path.glob("*/jobs/*"))
    stop_page(page, by)
    assert list(tmp_path.iterdir()) == []
    assert len(page.printed) == 1, "".join(page.printed)


@pytest.mark.parametrize("after", [0.0, 1.5])
def test_nothing_is_left_when_a_page_ends_while_it_starts(tmp_path, after):
    page = start_page(tmp_path)
    time.sleep(after)
    stop_page(page, signal.SIGINT)
    assert list(tmp_path.iterdir()) == []
    assert len(page.printed) == 1, "".join(page.printed)


def _until_it_ends(page, path):
    try:
        call(page, path, steps=4)
    except (OSError, http.client.HTTPException):
        pass
