"""The admin port: serves the admin application in the proxy's event loop. No answer of an engine passes here."""

import asyncio
import contextlib
import socket
from collections.abc import Callable, Iterator
from typing import Final

import uvicorn

from filature.admin.app import create_app
from filature.admin.workers import Registry
from filature.store.store import Store
from filature.telemetry.metrics import Metrics

CONNECTIONS_MAX: Final = 256
"""Open ones and requests at once; above it 503 is answered."""


class AdminServer:
    """Serves one process's metrics and health to all, and the API over ``store`` for ``token``.

    ``health`` gives more that ``/health`` shows; it answers 200 as long as the process lives. Without a store there
    is no API. ``port`` 0 takes a free one; after ``start`` it is the one taken.
    """

    def __init__(
        self,
        metrics: Metrics,
        host: str,
        port: int,
        *,
        store: Store | None = None,
        token: str | None = None,
        workers: Registry | None = None,
        health: Callable[[], dict[str, object]] = dict,
    ) -> None:
        self.host = host
        self.port = port
        self._application = create_app(
            store, token=token, metrics=metrics, workers=workers, health=health
        )
        self._server: _Server | None = None
        self._serving: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Listen. Raises OSError when the address cannot be had."""
        listener = _listen(self.host, self.port)
        self.port = listener.getsockname()[1]
        config = uvicorn.Config(
            self._application,
            log_config=None,
            access_log=False,
            lifespan="off",
            server_header=False,
            limit_concurrency=CONNECTIONS_MAX,
            timeout_graceful_shutdown=1,
        )
        self._server = _Server(config)
        self._serving = asyncio.create_task(self._server.serve(sockets=[listener]))

    async def stop(self) -> None:
        """Stop listening and end what is open; safe to call at any time."""
        if self._server is None or self._serving is None:
            return
        self._server.should_exit = True
        await self._serving
        self._server = self._serving = None


class _Server(uvicorn.Server):
    """Uvicorn without its signal handlers: signals are the composition root's."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(64)
        listener.setblocking(False)
    except OSError as error:
        listener.close()
        raise OSError(error.errno, f"{host}:{port} for the admin port: {error.strerror}") from None
    return listener
