"""The chain in one process for tests over real sockets: an engine of raw bytes, the proxy, a client.

The engine sends exactly the bytes that a test gives it, so that it can do what no server library
would; the client reads raw bytes, so that nothing is mended on the way.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final

from filature.proxy.app import Proxy
from filature.proxy.settings import ProxySettings

WAIT_S: Final = 10.0
"""No test waits longer for anything: reaching it is a failure."""


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

    ``/v1/models`` and the probe are answered as vLLM would; all else goes to ``handler``. The
    connection is kept open after the handler returns unless it closed the writer.
    """

    def __init__(self, handler: Handler, *, models: tuple[str, ...] = ("m",)) -> None:
        self.handler = handler
        self.models = models
        self.continuous = False
        self.requests: list[EngineRequest] = []
        self.connections = 0
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port: int = self._server.sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"

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
                if request.path == "/v1/models":
                    writer.write(json_answer({"data": [{"id": name} for name in self.models]}))
                elif request.body and request.json.get("max_tokens") == 2 and self._is_probe(request):
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

    @staticmethod
    def _is_probe(request: EngineRequest) -> bool:
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
        try:
            await reader.read(1)
        except ConnectionError:
            pass
        request.gone.set()


DONE: Final = b"data: [DONE]\n\n"


def event(payload: Any) -> bytes:
    return b"data: " + json.dumps(payload, separators=(",", ":")).encode() + b"\n\n"


def delta(text: str, *, finish: str | None = None, usage: dict[str, int] | None = None) -> bytes:
    """One chat event in vLLM's form."""
    payload: dict[str, Any] = {
        "id": "c1",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": "m",
        "choices": [{"index": 0, "delta": {"content": text}, "finish_reason": finish}],
    }
    if usage is not None:
        payload["usage"] = usage
    return event(payload)


def usage_event(prompt: int, completion: int) -> bytes:
    usage = {
        "prompt_tokens": prompt,
        "total_tokens": prompt + completion,
        "completion_tokens": completion,
    }
    return event(
        {
            "id": "c1",
            "object": "chat.completion.chunk",
            "created": 1,
            "model": "m",
            "choices": [],
            "usage": usage,
        }
    )


def chunked(payload: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(payload), payload)


STREAM_HEAD: Final = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\n"
    b"transfer-encoding: chunked\r\n\r\n"
)
LAST_CHUNK: Final = b"0\r\n\r\n"


def stream_answer(events: list[bytes]) -> bytes:
    return STREAM_HEAD + b"".join(map(chunked, events)) + LAST_CHUNK


def json_answer(payload: Any, status: str = "200 OK", headers: str = "") -> bytes:
    body = json.dumps(payload).encode()
    head = f"HTTP/1.1 {status}\r\ncontent-type: application/json\r\n{headers}"
    return f"{head}content-length: {len(body)}\r\n\r\n".encode() + body


CHAT: Final = {"model": "m", "messages": [{"role": "user", "content": "hello"}]}


def post(
    payload: Any,
    path: str = "/v1/chat/completions",
    *,
    headers: str = "",
    version: str = "1.1",
) -> bytes:
    """A POST request as bytes; ``payload`` bytes are the body, anything else becomes JSON."""
    body = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
    head = f"POST {path} HTTP/{version}\r\nHost: test\r\nContent-Type: application/json\r\n{headers}"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


def get(path: str, *, method: str = "GET", headers: str = "") -> bytes:
    return f"{method} {path} HTTP/1.1\r\nHost: test\r\n{headers}\r\n".encode()


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

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    async def answer(self, *, head_only: bool = False) -> Answer:
        """Read one whole response; a cut one comes back with ``complete`` False."""
        async with asyncio.timeout(WAIT_S):
            head = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            line, *fields = head.split("\r\n")[:-2]
            headers = {n.lower(): v.strip() for n, _, v in (f.partition(":") for f in fields)}
            answer = Answer(int(line.split(" ")[1]), headers, b"", [], True)
            if head_only or answer.status in (204, 304):
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
        async with asyncio.timeout(WAIT_S):
            return await self.reader.readuntil(b"\r\n\r\n")

    async def chunk(self) -> bytes:
        """The next chunk of a chunked body; empty at its end."""
        async with asyncio.timeout(WAIT_S):
            size = int(await self.reader.readuntil(b"\r\n"), 16)
            data = await self.reader.readexactly(size + 2)
            return data[:-2]

    async def eof(self) -> bytes:
        """What comes until the proxy closes."""
        async with asyncio.timeout(WAIT_S):
            try:
                return await self.reader.read()
            except ConnectionResetError:
                return b""

    def leave(self) -> None:
        self.writer.transport.abort()


class Chain:
    """The proxy before one or several engines."""

    def __init__(self, proxy: Proxy) -> None:
        self.proxy = proxy
        self._clients: list[Client] = []

    async def connect(self) -> Client:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.proxy.port)
        client = Client(reader, writer)
        self._clients.append(client)
        return client

    async def ask(self, request: bytes) -> Answer:
        """One request on a connection of its own."""
        client = await self.connect()
        client.send(request)
        return await client.answer()

    async def usage(self, request_id: str) -> dict[str, Any]:
        """The request's usage record, once it is there."""
        async with asyncio.timeout(WAIT_S):
            while True:
                answer = await self.ask(get(f"/v1/usage/{request_id}"))
                if answer.status == 200:
                    record: dict[str, Any] = answer.json
                    return record
                await asyncio.sleep(0.01)

    async def close(self) -> None:
        for client in self._clients:
            client.leave()
        await self.proxy.drain()
        await self.proxy.close()


@asynccontextmanager
async def chain(
    *engines: RawEngine | Handler, urls: tuple[str, ...] = (), **settings: Any
) -> AsyncIterator[Chain]:
    """A started proxy before the given engines (or handlers of raw ones), all models known."""
    raw = [engine if isinstance(engine, RawEngine) else RawEngine(engine) for engine in engines]
    for engine in raw:
        await engine.start()
    given = dict(host="127.0.0.1", port=0, admin_port=0, drain_s=0.2, log_level="error") | settings
    proxy = Proxy(ProxySettings(engines=[*(engine.url for engine in raw), *urls], **given))
    await proxy.start()
    running = Chain(proxy)
    try:
        async with asyncio.timeout(WAIT_S):
            while any(not engine.models for engine in proxy.engines.engines):
                await asyncio.sleep(0.005)
        yield running
    finally:
        await running.close()
        for engine in raw:
            await engine.close()
