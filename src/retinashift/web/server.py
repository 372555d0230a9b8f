"""Serving the page: what a connection and a request pass before the application, and nothing left when it ends."""

import asyncio
import base64
import hmac
import math
import re
import signal
import socket
from collections.abc import Callable
from typing import Any

import uvicorn
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from retinashift.web.api import build_page
from retinashift.web.settings import LOOPBACK, PageSettings

MAX_CONNECTIONS = 200  # beyond them the oldest that has sent no request is closed
HEADER_SECONDS, BODY_SECONDS = 10.0, 60.0
"""Time for the first whole header of a connection, and longest pause between two pieces of a request's body."""
WRONG_PASSWORD_SECONDS, WRONG_PASSWORDS_AT_ONCE = 1.0, 32
"""Delay of the answer to a wrong password; answers delayed at a time: more are refused, so guessing binds no memory."""
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
    """Host, origin, password, method and size. Plain ASGI (asgi.readthedocs.io): a refused request costs nothing."""

    def __init__(self, inside: ASGIApp, settings: PageSettings):
        self.inside, self.settings = inside, settings
        self.secret = b"Basic " + base64.b64encode(settings.credentials.encode())
        self.delayed = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        started, total, whole = False, 0, False

        async def sending(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                headers = MutableHeaders(raw=message.setdefault("headers", []))
                headers.setdefault("cache-control", "no-cache")
                for item in _HEADERS.items():  # beside an own policy of the answer
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
                await PlainTextResponse(error.detail, error.status_code, error.headers)(scope, receive, send)

    async def _check(self, method: str, headers: Headers) -> None:
        host, origin, length = headers.get("host"), headers.get("origin"), headers.get("content-length", "0")
        own = re.sub(r":\d+$", "", host or "").strip("[]") in LOOPBACK
        if self.settings.host in LOOPBACK and not own:  # else a web site could point its name here
            raise HTTPException(421, "this page answers to 127.0.0.1 and localhost only")
        if method not in ("GET", "HEAD", "POST", "DELETE"):
            raise HTTPException(405, "allowed methods are GET, HEAD, POST and DELETE")
        if method in ("POST", "DELETE") and origin is not None and origin.rpartition("://")[2] != host:
            raise HTTPException(403, "requests of other web sites are refused")
        self._check_size(int(length) if length.isdecimal() else math.inf)
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

    def _check_size(self, length: float) -> None:
        if length > self.settings.max_upload:
            raise HTTPException(413, f"the request is above the limit of {self.settings.max_upload:,} bytes")


class LimitedProtocol(H11Protocol):
    """Limits the time for a request's header, and the open connections."""

    waiting: "dict[LimitedProtocol, Any]" = {}  # noqa: RUF012 - timers of connections without a request, oldest first

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self.waiting[self] = self.loop.call_later(HEADER_SECONDS, self._expire)
        if len(self.connections) > MAX_CONNECTIONS and self.waiting:
            next(iter(self.waiting))._expire()

    def handle_events(self) -> None:
        super().handle_events()
        if self.cycle is not None:  # a whole header has come
            self._served()

    def connection_lost(self, exc: Exception | None) -> None:
        self._served()
        super().connection_lost(exc)

    def _served(self) -> None:
        if timer := self.waiting.pop(self, None):
            timer.cancel()

    def _expire(self) -> None:
        self._served()
        self.connections.discard(self)
        self.transport.abort()


def serve(settings: PageSettings, on_start: Callable[[str], None]) -> None:
    """Serve until SIGINT, SIGTERM or SIGHUP. The page answers at once; the checkpoint is loaded behind it.

    `on_start` is called with the page's address once it answers there. OSError where the port is taken.
    """
    host, family = settings.host, socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    try:
        listener = socket.create_server((host, settings.port), family=family)
    except OSError as error:
        raise OSError(f"{host}:{settings.port} cannot be opened ({error.strerror}); choose another --port") from None
    with listener:  # which keeps who comes before the server looks
        api, queue = build_page(settings)
        if hasattr(signal, "SIGHUP"):  # a closed terminal ends the page as SIGTERM does
            signal.signal(signal.SIGHUP, lambda *_: signal.raise_signal(signal.SIGTERM))
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        try:
            on_start(f"http://{f'[{host}]' if ':' in host else host}:{listener.getsockname()[1]}/")
            uvicorn.Server(uvicorn.Config(
                RequestFilter(api, settings), http=LimitedProtocol, ws="none", log_level="error", access_log=False,
                lifespan="off", timeout_graceful_shutdown=1, timeout_keep_alive=20, server_header=False,
                limit_concurrency=2 * MAX_CONNECTIONS,
            )).run(sockets=[listener])  # fmt: skip
        except KeyboardInterrupt:  # uvicorn raises the signal that ended it once more
            pass
        finally:
            queue.close()
