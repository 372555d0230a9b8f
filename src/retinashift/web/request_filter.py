"""What every request passes before the application sees it: host, origin, password, method and size.

Plain ASGI (asgi.readthedocs.io), so that a refused request costs nothing.
"""

from __future__ import annotations

import asyncio
import base64
import hmac
import re
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from retinashift.web.settings import PageSettings, is_loopback

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

WRONG_PASSWORD_SECONDS = 1.0
"""Delay of the answer to a wrong password."""
WRONG_PASSWORDS_AT_ONCE = 32
"""Delayed answers at a time; further ones are refused at once, so that guessing binds no memory."""
BODY_SECONDS = 60.0
"""Longest pause between two pieces of a request's body."""

_HEADERS = [
    (b"content-security-policy", b"default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; worker-src 'self' blob:; "
     b"style-src 'self'; img-src 'self' blob:; connect-src 'self' blob:; base-uri 'none'; form-action 'none'; "
     b"frame-ancestors 'none'"),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-frame-options", b"DENY"),
    (b"cross-origin-resource-policy", b"same-origin"),
]  # fmt: skip


class RequestFilter:
    """ASGI middleware in front of `inside`."""

    def __init__(self, inside: Application, settings: PageSettings):
        self.inside, self.settings = inside, settings
        self.local = is_loopback(settings.host)
        self.secret = b"Basic " + base64.b64encode(settings.credentials.encode())
        self.delayed = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.inside(scope, receive, send)
            return
        if scope["type"] != "http":  # the page needs no websocket
            return
        headers = dict(scope["headers"])
        refusal = self._refusal(scope["method"], headers)
        if refusal is None and self._wrong_password(headers):
            refusal = await self._delayed_refusal()
        if refusal is not None:
            await _answer(send, *refusal)
            return
        started = False

        async def sending(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                message["headers"] = [*message.get("headers", []), *_HEADERS]
            await send(message)

        try:
            await self.inside(scope, _bounded(receive, self.settings.max_upload), sending)
        except _BodyError as error:
            if not started:  # a response has one start
                await _answer(send, error.status, error.reason)

    def _refusal(self, method: str, headers: dict[bytes, bytes]) -> tuple[int, str] | None:
        """Status and reason, or None for a request that may pass."""
        host = headers.get(b"host", b"")
        if self.local and _host_name(host) not in ("127.0.0.1", "localhost", "[::1]"):
            return 421, "this page answers to 127.0.0.1 and localhost only"  # else a web site could point its name here
        origin = headers.get(b"origin")
        if method not in ("GET", "HEAD") and origin is not None and origin.split(b"://")[-1] != host:
            return 403, "requests of other web sites are refused"
        if method not in ("GET", "HEAD", "POST", "DELETE"):
            return 405, "allowed methods are GET, HEAD, POST and DELETE"
        length = headers.get(b"content-length", b"0")
        if not length.isdigit() or int(length) > self.settings.max_upload:
            return 413, f"the request is above the limit of {self.settings.max_upload:,} bytes"
        return None

    def _wrong_password(self, headers: dict[bytes, bytes]) -> bool:
        given = headers.get(b"authorization", b"")
        return bool(self.settings.credentials) and not hmac.compare_digest(given, self.secret)

    async def _delayed_refusal(self) -> tuple[int, str]:
        if self.delayed >= WRONG_PASSWORDS_AT_ONCE:
            return 429, "too many wrong passwords at a time; try again later"
        self.delayed += 1
        try:
            await asyncio.sleep(WRONG_PASSWORD_SECONDS)
        finally:
            self.delayed -= 1
        return 401, "name and password are needed"


class _BodyError(Exception):
    """A body that is too long, or stopped coming."""

    def __init__(self, status: int, reason: str):
        super().__init__(reason)
        self.status, self.reason = status, reason


def _bounded(receive: Receive, limit: int) -> Receive:
    total, whole = 0, False

    async def bounded() -> Message:
        nonlocal total, whole
        if whole:  # what follows a body is the end of the connection, however late
            return await receive()
        try:
            message = await asyncio.wait_for(receive(), BODY_SECONDS)
        except asyncio.TimeoutError:
            raise _BodyError(408, f"no data for {BODY_SECONDS:g} s") from None
        total += len(message.get("body", b""))
        whole = not message.get("more_body", False)
        if total > limit:
            raise _BodyError(413, f"the request is above the limit of {limit:,} bytes")
        return message

    return bounded


def _host_name(host: bytes) -> str:
    return re.sub(r":\d+$", "", host.decode("latin-1"))


async def _answer(send: Send, status: int, reason: str) -> None:
    body = reason.encode()
    headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", str(len(body)).encode()),
               (b"cache-control", b"no-store"), *_HEADERS]  # fmt: skip
    if status == 401:
        headers.append((b"www-authenticate", b'Basic realm="RetinaShift", charset="UTF-8"'))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
