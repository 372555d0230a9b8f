"""Serving the page: a socket, uvicorn with limits on connections, and nothing left when it ends."""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

from retinashift.web.settings import PageSettings

MAX_CONNECTIONS = 200
"""Open connections; beyond them the oldest that has sent no request is closed."""
HEADER_SECONDS = 10.0
"""Time that a connection has for its first whole request header."""


def serve(settings: PageSettings, on_start: Callable[[str], None]) -> None:
    """Serve until SIGINT, SIGTERM or SIGHUP. The page answers at once; the checkpoint is loaded behind it.

    Args:
        settings: address and limits.
        on_start: called with the page's address once it answers there.

    Raises:
        ValueError: the packages of the extra are not installed. OSError: the port is taken.
    """
    if find_spec("fastapi") is None or find_spec("uvicorn") is None:
        raise ValueError("the page needs FastAPI and uvicorn: pip install 'retinashift[app]'")
    from retinashift.web.jobs import JobQueue
    from retinashift.web.work import Worker

    listener = _listen(settings)
    queue = JobQueue(settings.max_waiting, settings.max_stored)
    worker = Worker(settings)
    former = {signal.SIGTERM: signal.signal(signal.SIGTERM, signal.default_int_handler)}
    if hasattr(signal, "SIGHUP"):  # a closed terminal ends the page as SIGTERM does
        former[signal.SIGHUP] = signal.signal(signal.SIGHUP, lambda *_: signal.raise_signal(signal.SIGTERM))
    try:
        asyncio.run(_serve(listener, queue, worker, settings, on_start))
    except KeyboardInterrupt:
        pass
    finally:
        listener.close()
        queue.close()
        for number, handler in former.items():
            signal.signal(number, handler)


async def _serve(
    listener: socket.socket, queue: Any, worker: Any, settings: PageSettings, on_start: Callable[[str], None]
) -> None:
    import uvicorn

    from retinashift.web.api import build_api
    from retinashift.web.request_filter import RequestFilter

    application = RequestFilter(build_api(settings, queue, worker), settings)
    config = uvicorn.Config(
        application, http=_limited_protocol(), ws="none", log_level="error", access_log=False, lifespan="off",
        timeout_graceful_shutdown=1, timeout_keep_alive=20, server_header=False,
    )  # fmt: skip
    server = uvicorn.Server(config)
    serving = asyncio.ensure_future(server.serve(sockets=[listener]))
    while not server.started and not serving.done():
        await asyncio.sleep(0.01)
    if server.started:
        host, port = listener.getsockname()[:2]
        on_start(f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/")
        worker.start()
    await serving


def _limited_protocol() -> Any:
    """uvicorn's HTTP protocol with a time limit on headers and a cap on open connections."""
    from uvicorn.protocols.http.h11_impl import H11Protocol

    class LimitedProtocol(H11Protocol):
        waiting: dict[LimitedProtocol, None] = {}  # noqa: RUF012 - connections without a request yet, oldest first
        opened: set[LimitedProtocol] = set()  # noqa: RUF012

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self.opened.add(self)
            self.waiting[self] = None
            self.timer = self.loop.call_later(HEADER_SECONDS, self._expire)
            if len(self.opened) > MAX_CONNECTIONS and self.waiting:
                next(iter(self.waiting))._expire()

        def handle_events(self) -> None:
            super().handle_events()
            if self.cycle is not None:  # a whole header has come
                self._served()

        def connection_lost(self, exc: Exception | None) -> None:
            self._served()
            self.opened.discard(self)
            super().connection_lost(exc)

        def _served(self) -> None:
            self.waiting.pop(self, None)
            self.timer.cancel()

        def _expire(self) -> None:
            self._served()
            self.opened.discard(self)
            self.transport.abort()

    return LimitedProtocol


def _listen(settings: PageSettings) -> socket.socket:
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((settings.host, settings.port))
    except OSError as error:
        listener.close()
        raise OSError(
            f"{settings.host}:{settings.port} cannot be opened ({error.strerror}); choose another --port"
        ) from None
    return listener
