"""Serving the page: a socket, uvicorn with limits on connections, and nothing left when it ends."""

import signal
import socket
from collections.abc import Callable
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from retinashift.web.api import build_page
from retinashift.web.settings import PageSettings

MAX_CONNECTIONS = 200
"""Open connections; beyond them the oldest that has sent no request is closed."""
HEADER_SECONDS = 10.0
"""Time that a connection has for its first whole request header."""


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

    Args:
        on_start: called with the page's address once it answers there.

    Raises:
        OSError: the port is taken.
    """
    host, family = settings.host, socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    try:
        listener = socket.create_server((host, settings.port), family=family)
    except OSError as error:
        raise OSError(f"{host}:{settings.port} cannot be opened ({error.strerror}); choose another --port") from None
    with listener:  # which keeps who comes before the server looks
        application, queue = build_page(settings)
        if hasattr(signal, "SIGHUP"):  # a closed terminal ends the page as SIGTERM does
            signal.signal(signal.SIGHUP, lambda *_: signal.raise_signal(signal.SIGTERM))
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        try:
            on_start(f"http://{f'[{host}]' if ':' in host else host}:{listener.getsockname()[1]}/")
            uvicorn.Server(uvicorn.Config(
                application, http=LimitedProtocol, ws="none", log_level="error", access_log=False, lifespan="off",
                timeout_graceful_shutdown=1, timeout_keep_alive=20, limit_concurrency=2 * MAX_CONNECTIONS,
                server_header=False,
            )).run(sockets=[listener])  # fmt: skip
        except KeyboardInterrupt:  # uvicorn raises the signal that ended it once more
            pass
        finally:
            queue.close()
