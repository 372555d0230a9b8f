"""Before gradio is there: the port answers at once, behind the same door, and opens into the page."""

from __future__ import annotations

import http.client
import re
import time
from urllib.parse import urlparse

from builders.page import ask, png, start_page, stop_page, upload, wait_until_open
from retinashift.web.starting import STAGES, Starting


def test_the_port_answers_within_five_seconds_then_becomes_the_page(tmp_path):
    began = time.perf_counter()
    page = start_page(tmp_path)
    try:
        connection = http.client.HTTPConnection(urlparse(page.address).netloc, timeout=30)
        connection.request("GET", "/")
        response = connection.getresponse()
        body = response.read()
        assert time.perf_counter() - began < 5
        assert response.status == 200
        assert b"RetinaShift" in body
        assert b'http-equiv="refresh"' in body  # this page, not yet gradio's
        assert "frame-ancestors 'none'" in response.headers["content-security-policy"]
        assert ask(page, "GET", "/", Host="evil.example")[0] == 421
        assert ask(page, "GET", "/gradio_api/file=/etc/passwd")[0] == 403
        assert upload(page, png(8))[0] == 503
        wait_until_open(page)
        assert b"gradio" in ask(page, "GET", "/")[1]
    finally:
        stop_page(page)
    assert list(tmp_path.iterdir()) == []


def test_each_stage_moves_the_bar_and_is_named():
    starting, widths = Starting(), []
    for stage, text in enumerate(STAGES):
        starting.stage = stage
        page = starting.page()
        assert text in page
        widths.append(int(re.search(r'aria-valuenow="(\d+)"', page)[1]))
    assert widths == sorted(set(widths))
    assert 0 < widths[0] < widths[-1] < 100
