"""The door: every request passes it before gradio sees it.

It asks for the password, lets in only what the page needs, bounds what is sent, and lets no request name a file that
was not uploaded. Everything here is plain ASGI (asgi.readthedocs.io), so that the page can answer before gradio is
loaded.
"""

from __future__ import annotations

import base64
import hmac
import json
import re
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from retinashift.web.settings import PageSettings, is_loopback

Scope = dict[str, Any]
Message = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

MAX_CALL = 64 * 2**10
"""Bytes of a request that is no upload: names and numbers."""

_OPEN = re.compile(
    r"/(?:|config/?|info/?|theme\.css|favicon\.ico|robots\.txt|manifest\.json"
    r"|(?:assets|static|svelte)/[\w./@-]+"
    r"|page/[\w.-]+|result/[\w-]{20,}/[\w.-]+"
    r"|gradio_api/(?:info/?|app_id/?|startup-events|upload|upload_progress|queue/(?:join|data)|cancel|reset/?"
    r"|heartbeat/[\w-]+|call/(?:v2/)?[a-z_]+(?:/[\w-]+)?|file=.+))"
)
"""Paths of the page and of the documented interface; all others do not exist, gradio's further services included."""

# unsafe-inline and unsafe-eval: gradio's page is written that way. What matters is that nothing comes from elsewhere.
_POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; font-src 'self' data:; worker-src 'self' blob:; connect-src 'self' data: blob:; "
    "object-src 'none'; base-uri 'self'; form-action 'self'; frame-ancestors 'none'"
)
_HEADERS = [
    (b"content-security-policy", _POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-frame-options", b"DENY"),
    (b"cross-origin-resource-policy", b"same-origin"),
]


class Door:
    """ASGI middleware in front of `inside`.

    Args:
        inside: the application.
        settings: limits and credentials.
        uploads: the folder that uploads go to; no request may name a file outside it.
        check: reads an uploaded file and raises a ValueError, whose message is one line, if it is no photograph.
        stored: bytes that uploads and results take now.
    """

    def __init__(
        self,
        inside: Application,
        settings: PageSettings,
        uploads: Path,
        check: Callable[[Path], Awaitable[None]],
        stored: Callable[[], int],
    ):
        self.inside, self.settings, self.uploads = inside, settings, uploads.resolve()
        self.check, self.stored = check, stored
        self.local = is_loopback(settings.host)
        self.secret = b"Basic " + base64.b64encode(settings.credentials.encode())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.inside(scope, receive, send)
            return
        if scope["type"] != "http":  # no websocket is needed
            return
        headers = dict(scope["headers"])
        path = scope["path"]
        refusal = self._refusal(scope["method"], path, headers)
        if refusal is not None:
            await answer(send, *refusal)
            return
        body_limit = self.settings.max_upload if path == "/gradio_api/upload" else MAX_CALL
        receive = _bounded(receive, body_limit)
        try:
            if scope["method"] == "POST" and path == "/gradio_api/upload":
                await self._upload(scope, receive, send)
            elif scope["method"] == "POST":
                await self._call(scope, receive, send)
            else:
                await self.inside(scope, receive, _with_headers(send))
        except _TooLong:
            await answer(send, 413, f"the request is above the limit of {body_limit:,} bytes")

    def _refusal(self, method: str, path: str, headers: dict[bytes, bytes]) -> tuple[int, str] | None:
        """Status and reason, or None for a request that may come in."""
        if self.local and _host_name(headers.get(b"host", b"")) not in ("127.0.0.1", "localhost", "[::1]"):
            return 421, "this page answers to 127.0.0.1 and localhost only"  # else a web site could point its name here
        origin = headers.get(b"origin")
        if method == "POST" and origin is not None and origin.split(b"://")[-1] != headers.get(b"host"):
            return 403, "requests of other web sites are not answered"
        if self.settings.credentials and not hmac.compare_digest(headers.get(b"authorization", b""), self.secret):
            return 401, "name and password are needed"
        if method not in ("GET", "HEAD", "POST"):
            return 405, "GET, HEAD and POST are answered"
        if not _OPEN.fullmatch(path):
            return 404, "there is nothing here"
        if path.startswith("/gradio_api/file=") and not self._is_ours(unquote(path.removeprefix("/gradio_api/file="))):
            return 403, "this file is not to be had"
        length = headers.get(b"content-length", b"0")
        limit = self.settings.max_upload if path == "/gradio_api/upload" else MAX_CALL
        if not length.isdigit() or int(length) > limit:
            return 413, f"the request is above the limit of {limit:,} bytes"
        if path == "/gradio_api/upload" and self.stored() > self.settings.max_stored:
            return 507, "the page's folder is full; close pages that are no longer needed, or start it again"
        return None

    def _is_ours(self, name: str) -> bool:
        """Whether a file lies in the folder of uploads, links followed."""
        try:
            return not any(c in name for c in "\0\\%") and Path(name).resolve().is_relative_to(self.uploads)
        except (OSError, ValueError):
            return False

    async def _upload(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let gradio store the files, then keep them only if all of them are photographs within the limits."""
        status, body, start = 500, b"", {}

        async def hold(message: Message) -> None:
            nonlocal status, body, start
            if message["type"] == "http.response.start":
                status, start = message["status"], message
            else:
                body += message.get("body", b"")

        await self.inside(scope, receive, hold)
        if status == 200:
            files = [Path(name) for name in json.loads(body)]
            try:
                for file in files:
                    await self.check(file)
            except ValueError as error:
                for file in files:
                    file.unlink(missing_ok=True)
                await answer(send, 415, str(error))
                return
        if status >= 400:
            await answer(send, status, body.decode("utf-8", "replace")[:200] or "the upload failed")
            return
        onwards = _with_headers(send)
        await onwards(start)
        await onwards({"type": "http.response.body", "body": body})

    async def _call(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Read the whole request, refuse it if it names a file that was not uploaded, then pass it on."""
        body = b""
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        try:
            content = json.loads(body) if body else None
        except (ValueError, RecursionError):
            await answer(send, 400, "the request is not JSON")
            return
        try:
            named = list(_named_files(content))
        except RecursionError:
            await answer(send, 400, "the request is nested too deeply")
            return
        if not all(isinstance(name, str) and self._is_ours(name) for name in named):
            await answer(send, 403, "only files that were uploaded can be named")
            return
        sent = False

        async def replay() -> Message:
            nonlocal sent
            if sent:
                return await receive()
            sent = True
            return {"type": "http.request", "body": body}

        await self.inside(scope, replay, _with_headers(send))


class _TooLong(Exception):
    """More was sent than is allowed."""


def _bounded(receive: Receive, limit: int) -> Receive:
    total = 0

    async def bounded() -> Message:
        nonlocal total
        message = await receive()
        total += len(message.get("body", b""))
        if total > limit:
            raise _TooLong
        return message

    return bounded


def _named_files(content: Any) -> Any:
    """Every value under a key "path" or "url", at any depth; the two keys by which gradio is told of a file."""
    if isinstance(content, dict):
        for key, value in content.items():
            if key == "path":
                yield value
            elif key == "url" and value:  # the page itself sends back the address that it was given
                yield unquote(str(value).partition("/gradio_api/file=")[2]) or "/"
            else:
                yield from _named_files(value)
    elif isinstance(content, list):
        for value in content:
            yield from _named_files(value)


def _host_name(host: bytes) -> str:
    return re.sub(r":\d+$", "", host.decode("latin-1"))


def _with_headers(send: Send) -> Send:
    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            message = message | {"headers": [*message.get("headers", []), *_HEADERS]}
        await send(message)

    return sending


async def answer(send: Send, status: int, text: str, kind: str = "text/plain", *extra: tuple[bytes, bytes]) -> None:
    """A short response of our own."""
    body = text.encode()
    headers = [
        (b"content-type", f"{kind}; charset=utf-8".encode()),
        (b"content-length", str(len(body)).encode()),
        (b"cache-control", b"no-store"),
        *extra,
        *_HEADERS,
    ]
    if status == 401:
        headers.append((b"www-authenticate", b'Basic realm="RetinaShift", charset="UTF-8"'))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
