"""The admin port: ``/metrics`` and ``/health``, in the proxy's event loop. No answer passes here."""

import asyncio
import contextlib
import socket
from collections.abc import Callable, Iterator

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from filature.telemetry.metrics import CONTENT_TYPE, Metrics


class AdminServer:
    """Serves one process's metrics.

    ``health`` gives more that ``/health`` shows; it answers 200 as long as the process lives.
    ``port`` 0 takes a free one; after ``start`` it is the one taken.
    """

    def __init__(
        self,
        metrics: Metrics,
        host: str,
        port: int,
        *,
        health: Callable[[], dict[str, object]] = dict,
    ) -> None:
        self.host = host
        self.port = port
        self._metrics = metrics
        self._registry = metrics.registry()
        self._health = health
        self._server: _Server | None = None
        self._serving: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Listen. Raises OSError when the address cannot be had."""
        listener = _listen(self.host, self.port)
        self.port = listener.getsockname()[1]
        config = uvicorn.Config(
            self.application(),
            log_config=None,
            access_log=False,
            lifespan="off",
            server_header=False,
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

    def application(self) -> Starlette:
        return Starlette(
            routes=[Route("/metrics", self._show_metrics), Route("/health", self._show_health)],
            exception_handlers={404: _not_found},
        )

    async def _show_metrics(self, request: Request) -> Response:
        body = self._metrics.exposition(self._registry)
        return Response(body, headers={"content-type": CONTENT_TYPE})

    async def _show_health(self, request: Request) -> Response:
        return JSONResponse({"status": "ok"} | self._health())


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


async def _not_found(request: Request, error: Exception) -> Response:
    return PlainTextResponse("not found; here are /metrics and /health\n", status_code=404)
