"""An httpx transport that calls an ASGI application in the same event loop and passes bodies on piece by piece.

httpx has one of its own, which keeps a whole body in memory before it gives any of it: not for an
export of a whole ledger.
"""

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import Any, Final

import httpx
from starlette.types import ASGIApp

PIECES_WAITING_MAX: Final = 4
"""Of a body; the application waits when nobody takes them."""

log = logging.getLogger(__name__)


class InProcess(httpx.AsyncBaseTransport):
    """Calls ``app`` for every request."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        sent = await request.aread()
        exchange = _Exchange(sent)
        call = asyncio.create_task(self._call(_scope(request), exchange))
        try:
            start = await exchange.messages.get()
        except asyncio.CancelledError:
            call.cancel()
            raise
        if start is None:
            raise httpx.ReadError("the application failed")
        return httpx.Response(
            start["status"], headers=start["headers"], stream=_Body(exchange, call)
        )

    async def _call(self, scope: dict[str, Any], exchange: "_Exchange") -> None:
        try:
            await self._app(scope, exchange.receive, exchange.send)
        except Exception:
            log.exception("the admin application failed")
        finally:
            await exchange.messages.put(None)


class _Exchange:
    """The messages of one request and its answer; None is the end."""

    def __init__(self, body: bytes) -> None:
        self._body: bytes | None = body
        self._gone = asyncio.Event()
        self.messages: asyncio.Queue[Any] = asyncio.Queue(PIECES_WAITING_MAX)

    async def receive(self) -> dict[str, Any]:
        body, self._body = self._body, None
        if body is None:
            await self._gone.wait()  # a disconnection, which does not come
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(self, message: Any) -> None:
        await self.messages.put(message)


class _Body(httpx.AsyncByteStream):
    def __init__(self, exchange: _Exchange, call: "asyncio.Task[None]") -> None:
        self._messages = exchange.messages
        self._call = call

    async def __aiter__(self) -> AsyncIterator[bytes]:
        more = True
        while more:
            message = await self._messages.get()
            if message is None:
                raise httpx.ReadError("the answer ended too early")
            more = message.get("more_body", False)
            yield message.get("body", b"")

    async def aclose(self) -> None:
        if not self._call.done():
            self._call.cancel()
        await asyncio.gather(self._call, return_exceptions=True)


def _scope(request: httpx.Request) -> dict[str, Any]:
    return {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": request.method,
        "scheme": request.url.scheme,
        "path": request.url.path,
        "raw_path": request.url.raw_path.partition(b"?")[0],
        "query_string": request.url.query,
        "root_path": "",
        "headers": [(name.lower(), value) for name, value in request.headers.raw],
        "client": None,
        "server": (request.url.host, request.url.port),
    }
