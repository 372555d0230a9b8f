"""What is refused before the application sees it; the application here only counts."""

from __future__ import annotations

import asyncio
import base64
from concurrent.futures import ThreadPoolExecutor

import pytest

from retinashift.web import server
from retinashift.web.server import RequestFilter
from retinashift.web.settings import PageSettings


class Counting:
    """An application that reads the body and answers 200."""

    def __init__(self):
        self.calls = 0

    async def __call__(self, scope, receive, send):
        self.calls += 1
        while (await receive()).get("more_body"):
            pass
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})


def run(request):
    """In a thread of its own: that of the tests may have the browser's event loop."""
    with ThreadPoolExecutor(1) as pool:
        pool.submit(asyncio.run, request).result()


def sent(settings, method="GET", body=(b"",), **headers):
    """Status, headers and body of the answer, and how often the application was called."""
    inside, answers, pieces = Counting(), [], list(body)

    async def receive():
        piece = pieces.pop(0)
        return {"type": "http.request", "body": piece, "more_body": bool(pieces)}

    async def send(message):
        answers.append(message)

    names = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    scope = {"type": "http", "method": method, "path": "/", "headers": names}
    run(RequestFilter(inside, settings)(scope, receive, send))
    return answers[0]["status"], dict(answers[0]["headers"]), answers[1]["body"], inside.calls


def test_a_request_to_this_machine_passes_and_gets_the_security_headers():
    status, headers, _, calls = sent(PageSettings(), host="127.0.0.1:7860")
    assert (status, calls) == (200, 1)
    assert headers[b"x-content-type-options"] == b"nosniff"
    assert b"connect-src 'self'" in headers[b"content-security-policy"]


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example:7860", ""])
def test_another_host_name_is_refused_on_this_machine(host):
    assert sent(PageSettings(), host=host)[::3] == (421, 0)


@pytest.mark.parametrize("method", ["POST", "DELETE"])
def test_a_request_that_another_site_makes_is_refused(method):
    assert sent(PageSettings(), method, host="localhost:1", origin="http://evil.example")[::3] == (403, 0)
    assert sent(PageSettings(), method, host="localhost:1", origin="http://localhost:1")[::3] == (200, 1)


def test_other_methods_are_refused():
    assert sent(PageSettings(), "PUT", host="localhost")[::3] == (405, 0)


def test_a_body_above_the_limit_is_refused_whether_it_is_announced_or_not():
    settings = PageSettings(max_upload=10)
    assert sent(settings, "POST", host="localhost", content_length="11")[::3] == (413, 0)
    assert sent(settings, "POST", host="localhost", content_length="ten")[::3] == (413, 0)
    status, _, body, _ = sent(settings, "POST", [b"123456", b"123456"], host="localhost")
    assert status == 413
    assert b"above the limit of 10 bytes" in body


def test_a_response_that_began_before_its_body_was_refused_has_one_start():
    class Early(Counting):
        async def __call__(self, scope, receive, send):
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await super().__call__(scope, receive, send)

    answers, pieces = [], [b"123456", b"123456"]

    async def receive():
        return {"type": "http.request", "body": pieces.pop(0), "more_body": True}

    async def send(message):
        answers.append(message["type"])

    scope = {"type": "http", "method": "POST", "path": "/", "headers": [(b"host", b"localhost")]}
    run(RequestFilter(Early(), PageSettings(max_upload=10))(scope, receive, send))
    assert answers == ["http.response.start"]


def test_a_wrong_password_is_answered_late_and_the_right_one_at_once(monkeypatch):
    waits = []

    async def sleep(seconds):
        waits.append(seconds)

    monkeypatch.setattr(server.asyncio, "sleep", sleep)
    settings = PageSettings(host="0.0.0.0", credentials="eye:secret")
    wrong = "Basic " + base64.b64encode(b"eye:guess").decode()
    right = "Basic " + base64.b64encode(b"eye:secret").decode()
    status, headers, _, calls = sent(settings, host="eye.example", authorization=wrong)
    assert (status, calls, waits) == (401, 0, [server.WRONG_PASSWORD_SECONDS])
    assert headers[b"www-authenticate"].startswith(b"Basic")
    assert sent(settings, host="eye.example")[0] == 401
    assert sent(settings, host="eye.example", authorization=right)[::3] == (200, 1)
    assert len(waits) == 2


def test_more_wrong_passwords_at_a_time_than_are_delayed_are_refused_at_once():
    settings = PageSettings(host="0.0.0.0", credentials="eye:secret")
    door = RequestFilter(Counting(), settings)
    door.delayed = server.WRONG_PASSWORDS_AT_ONCE
    answers = []

    async def send(message):
        answers.append(message)

    run(door({"type": "http", "method": "GET", "path": "/", "headers": [(b"host", b"x")]}, None, send))
    assert answers[0]["status"] == 429
