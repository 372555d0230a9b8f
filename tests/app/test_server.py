"""Probes of a running page: what must be refused, and that it stays up and leaves nothing behind."""

from __future__ import annotations

import http.client
import io
import json
import signal
import struct
import threading
import zlib
from urllib.parse import urlparse

import numpy as np
import pytest
from PIL import Image


def ask(page, method: str, path: str, body: bytes | None = None, **headers: str) -> tuple[int, bytes]:
    """Status and body; the path goes out as it is, not normalised."""
    connection = http.client.HTTPConnection(urlparse(page.address).netloc, timeout=60)
    connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
    response = connection.getresponse()
    return response.status, response.read()


def upload(page, data: bytes, name: str = "eye.png") -> tuple[int, bytes]:
    head = f'--xx\r\nContent-Disposition: form-data; name="files"; filename="{name}"\r\n\r\n'.encode()
    kind = "multipart/form-data; boundary=xx"
    return ask(page, "POST", "/gradio_api/upload", head + data + b"\r\n--xx--\r\n", Content_Type=kind)


def png(side: int) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.full((side, side, 3), 90, np.uint8)).save(file, "PNG")
    return file.getvalue()


def call(page, path: str, steps: int = 1) -> tuple[int, bytes]:
    """The documented endpoint: an event, then its stream to the end."""
    data = [{"path": path, "meta": {"_type": "gradio.FileData"}}, steps, 0, True, "same"]
    status, body = ask(page, "POST", "/gradio_api/call/upscale", json.dumps({"data": data}).encode(),
        Content_Type="application/json")  # fmt: skip
    return (
        ask(page, "GET", f"/gradio_api/call/upscale/{json.loads(body)['event_id']}")
        if status == 200
        else (status, body)
    )


@pytest.mark.parametrize(
    "path",
    ["/file=/etc/passwd", "/gradio_api/file=/etc/passwd", "/gradio_api/file=../../../../etc/passwd",
     "/gradio_api/file=..%2f..%2fetc%2fpasswd", "/gradio_api/file=%252fetc%252fpasswd",
     "/gradio_api/file=..\\..\\etc\\passwd",
     "/gradio_api/file=//etc/passwd", "/gradio_api/file=file:///etc/passwd", "/gradio_api/file=http://127.0.0.1:1/",
     "/gradio_api/file/etc/passwd", "/gradio_api/proxy=http://127.0.0.1:1/", "/static/../../../etc/passwd",
     "/assets/..%2f..%2fetc%2fpasswd", "/result/aaaaaaaaaaaaaaaaaaaaaaaa/..%2f..%2fetc%2fpasswd",
     "/monitoring", "/docs"],
)  # fmt: skip
def test_no_file_of_the_machine_is_served(page, path):
    status, body = ask(page, "GET", path)
    assert status in (403, 404)
    assert b"root:" not in body


def test_a_request_that_names_another_file_is_refused(page):
    for path in ("/etc/passwd", "http://127.0.0.1:1/eye.png", "../../etc/passwd"):
        assert call(page, path)[0] == 403


def test_uploads_above_the_limit_bombs_and_other_files_are_refused_and_not_kept(page):
    header = struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", 13) + b"IHDR" + header + struct.pack(">I", zlib.crc32(b"IHDR" + header))
    assert upload(page, bytes(3 * 2**20))[0] == 413
    status, message = upload(page, b"\x89PNG\r\n\x1a\n" + chunk + png(8)[33:])
    assert status == 415
    assert b"above the limit of 1,000,000 pixels" in message
    assert str(page.temporary).encode() not in message
    assert upload(page, b"<script>alert(1)</script>", "page.html")[0] == 415
    assert not [p for p in page.temporary.rglob("page.html") if p.is_file()]


def test_requests_of_other_sites_and_other_host_names_are_refused(page):
    assert ask(page, "GET", "/", Host="evil.example")[0] == 421
    assert ask(page, "POST", "/gradio_api/cancel", b"{}", Origin="http://evil.example")[0] == 403


def test_the_endpoint_answers_and_errors_carry_no_traceback(page):
    path = json.loads(upload(page, png(12))[1])[0]
    status, body = call(page, path)
    assert status == 200
    assert b"event: complete" in body
    assert b"result_sha256" in body
    _, body = call(page, path, steps=99)
    assert b"event: error" in body
    assert b"greater than maximum value 4" in body
    assert b"Traceback" not in body


def test_twenty_parallel_requests_are_finished_or_refused_and_nothing_is_left_after_the_end(page):
    path = json.loads(upload(page, png(16))[1])[0]
    answers: list[bytes] = []
    threads = [threading.Thread(target=lambda: answers.append(call(page, path)[1])) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(100)
    finished = sum(b"event: complete" in a for a in answers)
    assert len(answers) == 20
    assert finished >= 1
    assert all(b"event: complete" in a or b"event: error" in a for a in answers)
    assert ask(page, "GET", "/")[0] == 200
    page.process.send_signal(signal.SIGTERM)
    page.process.wait(20)
    assert list(page.temporary.iterdir()) == []
