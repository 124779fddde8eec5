"""The engine that is relayed: precomputed answers, paced by one coarse scheduler; it validates and generates nothing.

Run as ``python -m benchmarks.engine``; prints one JSON line with its port, serves until its standard input ends.
"""

import argparse
import asyncio
import contextlib
import json
import os
import ssl
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import uvloop

from benchmarks import payload
from benchmarks.machine import freeze_garbage, pin

_TICK_S = 0.001
_REQUEST_BYTES_MAX = 1 << 20


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """How the engine answers. ``interval_s`` 0 sends a stream's events back to back."""

    events: int = 50
    interval_s: float = 0.020
    usage_on_every_event: bool = False
    stamped: bool = False
    answer_bytes: int = 400


class Answers:
    """What the engine sends, by what it is asked for."""

    def __init__(self, options: EngineOptions) -> None:
        self.paced = options.interval_s > 0
        self.stamped = options.stamped
        self.stream = payload.stream_answer(
            events=options.events,
            usage_on_every_event=options.usage_on_every_event,
            stamped=options.stamped,
        )
        self.burst = self.stream.whole
        self.probed = payload.stream_answer(
            events=2, usage_on_every_event=options.usage_on_every_event
        ).whole
        self.unary = payload.unary_answer(options.answer_bytes)


class Pacer:
    """Calls every paced stream once per interval, spread over slots of one tick each."""

    def __init__(self, loop: asyncio.AbstractEventLoop, interval_s: float) -> None:
        self._loop = loop
        self._slots: list[dict[EngineConnection, None]] = [
            {} for _ in range(max(1, round(interval_s / _TICK_S)))
        ]
        self._newest = 0
        self._started = loop.time()
        self._done = 0

    def start(self) -> None:
        self._loop.call_later(_TICK_S, self._tick)

    def add(self, stream: "EngineConnection") -> dict["EngineConnection", None]:
        """Puts ``stream`` into the slot that is next in turn and returns it, for the stream to leave by."""
        self._newest = (self._newest + 1) % len(self._slots)
        slot = self._slots[self._newest]
        slot[stream] = None
        return slot

    def _tick(self) -> None:
        due = int((self._loop.time() - self._started) / _TICK_S)
        # after a stall of the machine, times that were missed are left out: events never bunch
        first = max(self._done + 1, due - len(self._slots) + 1)
        for number in range(first, due + 1):
            for stream in list(self._slots[number % len(self._slots)]):
                stream.step()
        self._done = due
        self._loop.call_later(_TICK_S, self._tick)


class EngineConnection(asyncio.Protocol):
    """One connection from the relay: requests in, precomputed answers out."""

    __slots__ = (
        "_answer",
        "_answers",
        "_buffer",
        "_fd",
        "_index",
        "_pacer",
        "_slot",
        "_write",
    )

    def __init__(self, answers: "Answers", pacer: Pacer) -> None:
        self._answers = answers
        self._answer = answers.stream
        self._pacer = pacer
        self._buffer = b""
        self._fd = -1
        self._index = 0
        self._slot: dict[EngineConnection, None] | None = None
        self._write: Callable[[bytes], None] = _closed

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._fd = transport.get_extra_info("socket").fileno()
        self._write = cast(
            "asyncio.Transport", transport
        ).write  # uvloop's transports do not inherit from asyncio's

    def connection_lost(self, exc: Exception | None) -> None:
        self._write = _closed
        if self._slot is not None:
            del self._slot[self]
            self._slot = None

    def data_received(self, data: bytes) -> None:
        if self._buffer:
            data = self._buffer + data
            self._buffer = b""
        end = data.find(b"\r\n\r\n")
        if end < 0:
            self._buffer = _bounded(data)
            return
        size = payload.content_length(data, end)
        if len(data) < end + 4 + size:
            self._buffer = _bounded(data)
            return
        if data.startswith(b"POST"):
            self._respond(data, end)
        else:
            self._write(_GET_ANSWERS.get(data[: data.find(b" ", 4)], _NOT_FOUND))

    def step(self) -> None:
        """Sends the next event, or the last ones."""
        index = self._index
        event = self._answer.events[index]
        self._index = index = index + 1
        if index == len(self._answer.events):
            self._leave()
            event += self._answer.closing
        if self._answers.stamped:  # past uvloop, which would write at the end of its turn
            with contextlib.suppress(ConnectionError):  # a client may leave between two events
                os.write(self._fd, event.replace(payload.STAMP_ZERO, b"%d" % time.time_ns(), 1))
        else:
            self._write(event)

    def _respond(self, data: bytes, end: int) -> None:
        if data.find(b'"stream":true', end) < 0:
            self._write(self._answers.unary)
        elif data.find(_PROBE, end) >= 0:
            self._write(self._answers.probed)
        elif self._answers.paced:
            self._index = 0
            self._write(self._answer.opening)
            self._slot = self._pacer.add(self)
        else:
            self._write(self._answers.burst)

    def _leave(self) -> None:
        assert self._slot is not None
        del self._slot[self]
        self._slot = None


def _closed(_data: bytes) -> None:
    """Takes what is written to a connection that is gone."""


def _bounded(data: bytes) -> bytes:
    if len(data) > _REQUEST_BYTES_MAX:
        msg = "request too large for the benchmark's engine"
        raise ValueError(msg)
    return data


def _json_answer(status: bytes, body: bytes) -> bytes:
    return b"HTTP/1.1 %s\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s" % (
        status,
        len(body),
        body,
    )


_MODELS = _json_answer(
    b"200 OK",
    b'{"object":"list","data":[{"id":"%s","object":"model","created":1795425626,"owned_by":"bench"}]}'
    % payload.MODEL.encode(),
)
_GET_ANSWERS = {
    b"GET /v1/models": _MODELS,
    b"GET /health": _json_answer(b"200 OK", b"{}"),
    b"GET /get_model_info": _json_answer(
        b"200 OK", b'{"model_path":"%s"}' % payload.MODEL.encode()
    ),
    b"GET /get_server_info": _json_answer(
        b"200 OK", b'{"model_path":"%s"}' % payload.MODEL.encode()
    ),
    b"GET /server_info": _json_answer(b"200 OK", b'{"model_path":"%s"}' % payload.MODEL.encode()),
}
"""What routers ask an engine before they use it."""

_PROBE = b'"max_tokens":2,'
"""In a request that asks for two tokens: whoever sends it wants to see the format, and now."""

_NOT_FOUND = _json_answer(b"404 Not Found", b'{"detail":"Not Found"}')


async def start(
    options: EngineOptions, host: str = "127.0.0.1", tls: ssl.SSLContext | None = None
) -> tuple[asyncio.Server, int]:
    """Listens on a free port; the caller closes the server."""
    loop = asyncio.get_running_loop()
    pacer = Pacer(loop, options.interval_s)
    pacer.start()
    answers = Answers(options)
    server = await loop.create_server(
        lambda: EngineConnection(answers, pacer), host, 0, backlog=4096, ssl=tls
    )
    return server, int(server.sockets[0].getsockname()[1])


async def _serve(options: EngineOptions) -> None:
    server, port = await start(options)
    print(json.dumps({"port": port}), flush=True)
    freeze_garbage()
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    server.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--options", default="{}", help="EngineOptions as a JSON object")
    parser.add_argument("--core", type=int, default=None)
    arguments = parser.parse_args()
    pin(arguments.core)
    uvloop.run(_serve(EngineOptions(**json.loads(arguments.options))))


if __name__ == "__main__":
    main()
