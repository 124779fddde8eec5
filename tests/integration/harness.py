"""The chain in one process for tests over real sockets: an engine of raw bytes, the proxy, a client.

The engine sends exactly the bytes that a test gives it, so that it can do what no server library
would; the client reads raw bytes, so that nothing is mended on the way. A test with a ``Puppet``
reads as a transcript: client sends, engine is called, engine sends, client reads.

Whatever a test does, ``chain`` fails it if an exception went unhandled, or if the proxy still
believes a request to be running when all is over.
"""

import asyncio
import json
import socket
import ssl
import struct
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final
from unittest.mock import patch

from tests.integration.messages import DONE, event, get, json_answer, stream_answer

from filature.proxy.app import Proxy
from filature.proxy.settings import DATABASE_FILE, ProxySettings
from filature.relay.engines import Engine
from filature.store.database import Database

WAIT_S: Final = 10.0
"""No test waits longer for anything: reaching it is a failure."""
TLS: Final = Path(__file__).parent.parent / "data" / "tls"


# The engine


@dataclass
class EngineRequest:
    """What reached the engine."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    gone: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the caller closed the connection."""

    @property
    def json(self) -> Any:
        return json.loads(self.body)


Handler = Callable[[EngineRequest, asyncio.StreamWriter], Awaitable[None]]


class RawEngine:
    """An engine whose answers are a test's own bytes.

    ``/v1/models``, ``/health`` and the probe are answered as vLLM would, ``/metrics`` by ``metrics``; all else goes
    to ``handler``. The connection is kept open after the handler returns unless it closed the writer. ``suffix`` is
    put behind its URL: a base path, models named by hand.
    """

    def __init__(
        self, handler: Handler, *, models: tuple[str, ...] = ("m",), suffix: str = ""
    ) -> None:
        self.handler = handler
        self.models = models
        self.suffix = suffix
        self.continuous = False
        self.context_length: int | None = None
        self.context_name = "max_model_len"
        self.parents: dict[str, str] = {}
        self.silent_models: tuple[str, ...] = ()  # those that do not chat
        self.refuses_both = False  # limits of tokens at once, as OpenAI does
        self.health = "200 OK"
        self.health_requests: list[EngineRequest] = []
        self.metrics = _NO_METRICS
        self.metrics_requests: list[EngineRequest] = []
        self.requests: list[EngineRequest] = []
        self.probes: list[EngineRequest] = []
        self.connections = 0
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self, host: str = "127.0.0.1", tls: ssl.SSLContext | None = None) -> None:
        self._server = await asyncio.start_server(self._serve, host, 0, ssl=tls)
        self.port: int = self._server.sockets[0].getsockname()[1]
        name = f"[{host}]" if ":" in host else host
        self.url = f"{'https' if tls else 'http'}://{name}:{self.port}"

    async def close(self) -> None:
        self._server.close()
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.connections += 1
        try:
            while not writer.is_closing():
                request = await self._read(reader)
                if request.path.endswith("/v1/models"):
                    self.probes.append(request)
                    writer.write(json_answer({"data": [self._entry(name) for name in self.models]}))
                elif request.path.endswith("/health"):
                    self.health_requests.append(request)
                    writer.write(json_answer({}, self.health))
                elif request.path.endswith("/metrics"):
                    self.metrics_requests.append(request)
                    await self.metrics(request, writer)
                elif self._is_probe(request):
                    self.probes.append(request)
                    both = "max_completion_tokens" in request.json
                    if request.json["model"] in self.silent_models or (both and self.refuses_both):
                        writer.write(json_answer({"error": "no chat"}, "400 Bad Request"))
                    else:
                        writer.write(stream_answer(self._probe_events()))
                else:
                    self.requests.append(request)
                    watch = asyncio.create_task(self._watch(reader, request))
                    self._tasks.add(watch)
                    await self.handler(request, writer)
                    watch.cancel()
                    await asyncio.gather(watch, return_exceptions=True)
                    self._tasks.discard(watch)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()
            self._tasks.discard(task)

    def _entry(self, name: str) -> dict[str, Any]:
        told: dict[str, Any] = {"parent": self.parents.get(name)}
        if self.context_length is not None and name not in self.parents:
            told[self.context_name] = self.context_length
        return {"id": name, **told}

    @staticmethod
    def _is_probe(request: EngineRequest) -> bool:
        if b'"Hi"' not in request.body or b'"max_tokens":2' not in request.body:
            return False
        return bool(request.json["messages"] == [{"role": "user", "content": "Hi"}])

    def _probe_events(self) -> list[bytes]:
        usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
        first: dict[str, Any] = {"choices": [{"index": 0, "delta": {"content": "a"}}]}
        if self.continuous:
            first["usage"] = usage
        return [event(first), event({"choices": [], "usage": usage}), DONE]

    @staticmethod
    async def _read(reader: asyncio.StreamReader) -> EngineRequest:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        line, *fields = head.split("\r\n")[:-2]
        method, path, _ = line.split(" ")
        headers = {n.lower(): v.strip() for n, _, v in (f.partition(":") for f in fields)}
        body = await reader.readexactly(int(headers.get("content-length", "0")))
        return EngineRequest(method, path, headers, body)

    @staticmethod
    async def _watch(reader: asyncio.StreamReader, request: EngineRequest) -> None:
        with suppress(ConnectionError):
            await reader.read(1)
        request.gone.set()


def says(*parts: bytes, close: bool = False) -> Handler:
    """A handler that answers every request with the same bytes."""

    async def handler(request: EngineRequest, writer: asyncio.StreamWriter) -> None:
        writer.writelines(parts)
        if close:
            writer.close()

    return handler


_NO_METRICS: Final = says(json_answer({}, "404 Not Found"))


class Call:
    """One request that reached a ``Puppet``, to be answered by the test."""

    def __init__(self, request: EngineRequest, writer: asyncio.StreamWriter) -> None:
        self.request = request
        self.writer = writer
        self.over = asyncio.Event()

    def send(self, *parts: bytes) -> None:
        self.writer.writelines(parts)

    def end(self, *parts: bytes) -> None:
        """Send the last of the answer; the connection is ready for the next request."""
        self.send(*parts)
        self.over.set()

    def close(self, *parts: bytes) -> None:
        """Send what is given and close as TCP does properly."""
        self.send(*parts)
        self.writer.close()
        self.over.set()

    def reset(self) -> None:
        """Cut the connection with a reset."""
        raw: socket.socket = self.writer.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()
        self.over.set()

    async def gone(self) -> None:
        """Wait until the proxy closed the connection."""
        async with asyncio.timeout(WAIT_S):
            await self.request.gone.wait()


class Puppet(RawEngine):
    """A raw engine that the test plays itself: ``call = await puppet.call()``."""

    def __init__(self) -> None:
        super().__init__(self._take)
        self._calls: asyncio.Queue[Call] = asyncio.Queue()

    async def _take(self, request: EngineRequest, writer: asyncio.StreamWriter) -> None:
        call = Call(request, writer)
        self._calls.put_nowait(call)
        await call.over.wait()

    async def call(self) -> Call:
        async with asyncio.timeout(WAIT_S):
            return await self._calls.get()

    @property
    def uncalled(self) -> bool:
        """Whether no request is waiting to be taken."""
        return self._calls.empty()


@dataclass
class Answer:
    """One response as read off the socket. ``chunks`` are those of a chunked body."""

    status: int
    headers: dict[str, str]
    body: bytes
    chunks: list[bytes]
    complete: bool
    """Whether the framing reached its end."""

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def events(self) -> list[bytes]:
        return [part + b"\n\n" for part in self.body.split(b"\n\n") if part]

    @property
    def request_id(self) -> str:
        return self.headers["x-request-id"]


class Client:
    """A raw connection to the proxy."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.wait_s = WAIT_S

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    async def answer(self, *, head_only: bool = False) -> Answer:
        """Read one whole response; a cut one comes back with ``complete`` False."""
        async with asyncio.timeout(self.wait_s):
            head = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            line, *fields = head.split("\r\n")[:-2]
            headers: dict[str, str] = {}
            for name, _, value in (f.partition(":") for f in fields):
                assert name not in headers, f"{name} twice in {head}"
                headers[name.lower()] = value.strip()
            answer = Answer(int(line.split(" ")[1]), headers, b"", [], True)
            if head_only or answer.status in (100, 204, 304):
                return answer
            try:
                await self._body(answer)
            except (asyncio.IncompleteReadError, ConnectionError) as error:
                answer.complete = False
                answer.body += getattr(error, "partial", b"")
            return answer

    async def _body(self, answer: Answer) -> None:
        if answer.headers.get("transfer-encoding") == "chunked":
            while chunk := await self.chunk():
                answer.chunks.append(chunk)
                answer.body += chunk
        elif "content-length" in answer.headers:
            answer.body = await self.reader.readexactly(int(answer.headers["content-length"]))
        else:
            answer.body = await self.reader.read()

    async def head(self) -> bytes:
        async with asyncio.timeout(self.wait_s):
            return await self.reader.readuntil(b"\r\n\r\n")

    async def chunk(self) -> bytes:
        """The next chunk of a chunked body; empty at its end."""
        async with asyncio.timeout(self.wait_s):
            size = int(await self.reader.readuntil(b"\r\n"), 16)
            data = await self.reader.readexactly(size + 2)
            return data[:-2]

    async def eof(self) -> bytes:
        """What comes until the proxy closes."""
        async with asyncio.timeout(self.wait_s):
            try:
                return await self.reader.read()
            except ConnectionResetError:
                return b""

    async def silence(self, for_s: float = 0.05) -> bool:
        """Whether nothing comes for a while."""
        try:
            async with asyncio.timeout(for_s):
                await self.reader.read(1)
        except TimeoutError:
            return True
        return False

    def leave(self) -> None:
        self.writer.transport.abort()


# The chain


class _NoAdmin:
    """Stands for the admin port, which has tests of its own and takes its time to stop."""

    def __init__(self, *_: Any, **__: Any) -> None:
        self.port = 0

    async def start(self) -> None: ...
    async def stop(self) -> None: ...


class Chain:
    """The proxy before one or several engines."""

    def __init__(self, proxy: Proxy) -> None:
        self.proxy = proxy
        self.unhandled: list[str] = []
        """Descriptions of exceptions that nothing handled."""
        self._clients: list[Client] = []

    def on_unhandled(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        trace = "" if error is None else "".join(traceback.format_exception(error))
        self.unhandled.append(f"{context['message']}\n{trace}")

    async def connect(
        self, *, host: str = "127.0.0.1", tls: ssl.SSLContext | None = None, limit: int = 1 << 20
    ) -> Client:
        reader, writer = await asyncio.open_connection(host, self.proxy.port, ssl=tls, limit=limit)
        client = Client(reader, writer)
        self._clients.append(client)
        return client

    async def looked(self) -> None:
        """Until the engines whose models are named by hand were looked at, whatever came of it."""
        async with asyncio.timeout(WAIT_S):
            while not all(engine.models for engine in self.proxy.engines.engines):
                await asyncio.sleep(0.001)

    async def ask(self, request: bytes) -> Answer:
        """One request on a connection of its own."""
        client = await self.connect()
        client.send(request)
        answer = await client.answer()
        client.leave()
        return answer

    async def usage(self, request_id: str) -> dict[str, Any]:
        """The request's usage record, once it is there."""
        async with asyncio.timeout(WAIT_S):
            while True:
                answer = await self.ask(get(f"/v1/usage/{request_id}"))
                if answer.status == 200:
                    record: dict[str, Any] = answer.json
                    return record
                await asyncio.sleep(0.01)

    async def only_usage(self) -> dict[str, Any]:
        """The usage record of the one request that was made and has ended."""
        async with asyncio.timeout(WAIT_S):
            while not len(self.proxy.usage):
                await asyncio.sleep(0.01)
        (record,) = self.proxy.usage._records.values()
        return record.as_dict()

    @property
    def running(self) -> int:
        """Requests that the proxy believes to be running, over all engines."""
        return sum(engine.running for engine in self.proxy.engines.engines)

    async def close(self) -> None:
        for client in self._clients:
            client.leave()
        try:
            async with asyncio.timeout(WAIT_S):
                while self.proxy.downstream.connections:
                    await asyncio.sleep(0.001)
            store = self.proxy.store
            assert store is not None
            assert not store.ledger.state.holds, "money is still held"
        finally:
            await self.proxy.close()
        assert not self.unhandled, "\n".join(self.unhandled)
        assert self.running == 0, "a request is believed to be running"
        assert self.proxy._open.streams == 0, "a stream is believed to be open"


@cache
def _new_database() -> bytes:
    """An SQLite file with the schema and nothing in it: making one takes longer than most tests."""
    with TemporaryDirectory() as directory:
        database = Database(f"sqlite:///{directory}/new.db")
        database.upgrade()
        database.close()
        return database.path.read_bytes()


@asynccontextmanager
async def chain(
    *engines: RawEngine | Handler, urls: tuple[str, ...] = (), wait: bool = True, **settings: Any
) -> AsyncIterator[Chain]:
    """A started proxy before the given engines (or handlers of raw ones), all models known.

    An engine that a test has started already, by TLS or at another address, is taken as it is.
    """
    raw = [engine if isinstance(engine, RawEngine) else RawEngine(engine) for engine in engines]
    async with AsyncExitStack() as stack:
        for engine in raw:
            if not hasattr(engine, "url"):
                await engine.start()
            stack.push_async_callback(engine.close)
        addresses = [*(engine.url + engine.suffix for engine in raw), *urls]
        data_dir = Path(stack.enter_context(TemporaryDirectory(prefix="filature-")))
        (data_dir / DATABASE_FILE).write_bytes(_new_database())
        given: dict[str, Any] = {
            "data_dir": data_dir,
            "host": "127.0.0.1",
            "port": 0,
            "admin_port": 0,
            "drain_s": 0.2,
            "log_level": "error",
            **settings,
        }
        proxy = Proxy(ProxySettings(engines=addresses, **given))
        running = Chain(proxy)
        stack.push_async_callback(running.close)
        asyncio.get_running_loop().set_exception_handler(running.on_unhandled)
        with patch("filature.proxy.app.AdminServer", _NoAdmin):
            await proxy.start()
        async with asyncio.timeout(WAIT_S):
            while wait and not all(engine.reachable for engine in proxy.engines.engines):
                await asyncio.sleep(0.001)
            while wait and not all(map(_was_asked, raw, proxy.engines.engines)):
                await asyncio.sleep(0.001)
        yield running


def _was_asked(raw: RawEngine, engine: Engine) -> bool:
    """For all that is asked at the start; what it was asked by is free for a test's requests."""
    if raw.metrics is not _NO_METRICS:
        return True
    return bool(raw.metrics_requests) and len(engine.pool._idle) == engine.pool.open_connections
