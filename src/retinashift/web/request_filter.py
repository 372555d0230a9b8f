"""What every request passes before the application sees it: host, origin, password, method and size.

Plain ASGI (asgi.readthedocs.io), so that a refused request costs nothing.
"""

import asyncio
import base64
import hmac
import re

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from retinashift.web.settings import LOOPBACK, PageSettings

WRONG_PASSWORD_SECONDS = 1.0
"""Delay of the answer to a wrong password."""
WRONG_PASSWORDS_AT_ONCE = 32
"""Delayed answers at a time; further ones are refused at once, so that guessing binds no memory."""
BODY_SECONDS = 60.0
"""Longest pause between two pieces of a request's body."""
_HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; worker-src 'self' blob:; "
    "style-src 'self'; img-src 'self' blob:; connect-src 'self' blob:; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "x-frame-options": "DENY",
    "cross-origin-resource-policy": "same-origin",
}


class RequestFilter:
    """ASGI middleware in front of `inside`."""

    def __init__(self, inside: ASGIApp, settings: PageSettings):
        self.inside, self.settings = inside, settings
        self.secret = b"Basic " + base64.b64encode(settings.credentials.encode())
        self.delayed = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":  # the page needs no websocket
            return
        started, total, whole = False, 0, False

        async def sending(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                headers = MutableHeaders(raw=message.setdefault("headers", []))
                headers.setdefault("cache-control", "no-cache")
                for item in _HEADERS.items():
                    headers.append(*item)
            await send(message)

        async def receiving() -> Message:
            """Refuses a body that is too long, or stops coming."""
            nonlocal total, whole
            try:  # what follows a body is the end of the connection, however late
                message = await (receive() if whole else asyncio.wait_for(receive(), BODY_SECONDS))
            except asyncio.TimeoutError:
                raise HTTPException(408, f"no data for {BODY_SECONDS:g} s") from None
            total, whole = total + len(message.get("body", b"")), not message.get("more_body", False)
            self._check_size(total)
            return message

        try:
            await self._check(scope["method"], Headers(scope=scope))
            await self.inside(scope, receiving, sending)
        except HTTPException as error:
            if not started:  # a response has one start
                await PlainTextResponse(error.detail, error.status_code, error.headers)(scope, receive, sending)

    async def _check(self, method: str, headers: Headers) -> None:
        host, origin, length = (headers.get(name) for name in ("host", "origin", "content-length"))
        own = re.sub(r":\d+$", "", host or "").strip("[]") in LOOPBACK
        if self.settings.host in LOOPBACK and not own:  # else a web site could point its name here
            raise HTTPException(421, "this page answers to 127.0.0.1 and localhost only")
        if method not in ("GET", "HEAD", "POST", "DELETE"):
            raise HTTPException(405, "allowed methods are GET, HEAD, POST and DELETE")
        if method in ("POST", "DELETE") and origin is not None and origin.rpartition("://")[2] != host:
            raise HTTPException(403, "requests of other web sites are refused")
        if length is not None:
            self._check_size(int(length) if length.isdigit() else None)
        given = headers.get("authorization", "").encode("latin-1")
        if not self.settings.credentials or hmac.compare_digest(given, self.secret):
            return
        if self.delayed >= WRONG_PASSWORDS_AT_ONCE:
            raise HTTPException(429, "too many wrong passwords at a time; try again later")
        self.delayed += 1
        try:
            await asyncio.sleep(WRONG_PASSWORD_SECONDS)
        finally:
            self.delayed -= 1
        asks = {"www-authenticate": 'Basic realm="RetinaShift", charset="UTF-8"'}
        raise HTTPException(401, "name and password are needed", asks)

    def _check_size(self, length: int | None) -> None:
        if length is None or length > self.settings.max_upload:
            raise HTTPException(413, f"the request is above the limit of {self.settings.max_upload:,} bytes")
