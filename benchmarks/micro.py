"""What single steps of the hot path cost, in ns, in memory: parsing heads, reading and rewriting a request.

``python -m benchmarks.micro``. Best of several rounds: on a busy machine the least time is the one that is the code's.
"""

import asyncio
import socket
import time
import timeit
from collections.abc import Callable
from typing import Any

import httptools
import orjson
import uvloop

from benchmarks import payload
from filature.request.limits import RequestLimits
from filature.request.parse import parse_request
from filature.request.rewrite import body_for_engine
from filature.wire.dialect import Dialect

_ROUNDS = 7
_ROUND_S = 0.05


def ns_per_call(call: Callable[[], object]) -> float:
    """The least mean time of one call over several rounds, in ns."""
    timer = timeit.Timer(call)
    number, taken = 1, 0.0
    while taken < _ROUND_S / 4:
        number *= 4
        taken = timer.timeit(number)
    number = max(1, round(number * _ROUND_S / taken))
    return min(timer.repeat(_ROUNDS, number)) / number * 1e9


class _NoCallbacks:
    """Lets the parser check the syntax and report nothing."""


class _HeadCallbacks:
    def __init__(self) -> None:
        self.headers: list[tuple[bytes, bytes]] = []

    def on_url(self, url: bytes) -> None:
        self.url = url

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        pass

    def on_body(self, body: bytes) -> None:
        self.body = body

    def on_message_complete(self) -> None:
        pass


def library_steps() -> dict[str, Callable[[], object]]:
    """Steps that are a library's or the interpreter's: what a design can count on."""
    body = payload.request_body(stream=True, include_usage=True)
    request = payload.request("127.0.0.1:10080", body)
    head = request[: request.index(b"\r\n\r\n") + 4]
    event = payload.content_event(3, text=b" silk", last=False, usage=False)
    with_usage = payload.content_event(3, text=b" silk", last=False, usage=True)
    event_body, with_usage_body = event[6:-2], with_usage[6:-2]
    document = payload.unary_document()
    memo = {head: 1}
    steps: dict[str, Callable[[], object]] = {
        f"orjson.loads, chat request of {len(body)} bytes": lambda: orjson.loads(body),
        "orjson.loads, event": lambda: orjson.loads(event_body),
        "orjson.loads, event with usage": lambda: orjson.loads(with_usage_body),
        "orjson.loads + dumps, event": lambda: orjson.dumps(orjson.loads(event_body)),
        "orjson.loads, unary document of 400 bytes": lambda: orjson.loads(document),
        "event.find(b'\"usage\"'), absent": lambda: event.find(b'"usage"'),
        "b'\"usage\"' in event, absent": lambda: b'"usage"' in event,
        "event.rfind, present": lambda: with_usage.rfind(b',"usage":{'),
        "event.startswith + endswith": lambda: (
            event.startswith(b'data: {"id"') and event.endswith(b"}\n\n")
        ),
        "event.count(LF LF)": lambda: event.count(b"\n\n"),
        "slice of an event": lambda: event[10:-10],
        "concatenation of two slices": lambda: with_usage[:220] + with_usage[-4:],
        "int(size line, 16)": lambda: int(b"f1", 16),
        "hash and look-up of a fresh head": lambda: memo.get(bytes(memoryview(head))),
        "head.split into lines": lambda: head.split(b"\r\n"),
        "httptools, request head, no callbacks": lambda: httptools.HttpRequestParser(
            _NoCallbacks()
        ).feed_data(head),
        "httptools, request, all callbacks": lambda: httptools.HttpRequestParser(
            _HeadCallbacks()
        ).feed_data(request),
        "httptools, answer head, no callbacks": lambda: httptools.HttpResponseParser(
            _NoCallbacks()
        ).feed_data(payload.STREAM_HEAD),
        "httptools, answer head, all callbacks": lambda: httptools.HttpResponseParser(
            _HeadCallbacks()
        ).feed_data(payload.STREAM_HEAD),
        "time.monotonic()": time.monotonic,
    }
    reused = httptools.HttpRequestParser(_HeadCallbacks())
    steps["httptools, request, all callbacks, parser reused"] = lambda: reused.feed_data(request)
    framed = payload.chunk(event)
    response = httptools.HttpResponseParser(_HeadCallbacks())
    response.feed_data(payload.STREAM_HEAD)
    steps["httptools, one chunk of an answer"] = lambda: response.feed_data(framed)
    return steps


def request_steps() -> dict[str, Callable[[], object]]:
    """Our own work for one request: validation and rewriting."""
    limits = RequestLimits()
    streamed = payload.request_body(stream=True)
    with_usage = payload.request_body(stream=True, include_usage=True)
    unary = payload.request_body(stream=False)

    def through(body: bytes, model: str) -> Callable[[], object]:
        return lambda: body_for_engine(
            parse_request(Dialect.CHAT, body, limits),
            model=model,
            include_usage=True,
            continuous_usage=True,
        )

    return {
        "parse_request, unary": lambda: parse_request(Dialect.CHAT, unary, limits),
        "parse_request, stream": lambda: parse_request(Dialect.CHAT, streamed, limits),
        "parse_request + body_for_engine, unary, same model": through(unary, payload.MODEL),
        "parse_request + body_for_engine, unary, model renamed": through(unary, "upstream/name"),
        "parse_request + body_for_engine, stream, stream_options added": through(
            streamed, payload.MODEL
        ),
        "parse_request + body_for_engine, stream, stream_options extended": through(
            with_usage, payload.MODEL
        ),
    }


async def transport_steps(rounds: int = 20_000) -> dict[str, float]:
    """CPU time of uvloop's write and read over a socket pair, in ns per event, the system calls included."""
    loop = asyncio.get_running_loop()
    left, right = socket.socketpair()
    done = loop.create_future()
    event = payload.chunk(payload.content_event(3, text=b" silk", last=False, usage=False))

    class Reader(asyncio.Protocol):
        count = 0

        def data_received(self, data: bytes) -> None:
            self.count += 1
            if self.count < rounds:
                loop.call_soon(write, event)
            else:
                done.set_result(None)

    sender, _ = await loop.create_connection(asyncio.Protocol, sock=left)
    receiver, _ = await loop.create_connection(Reader, sock=right)
    write: Callable[[bytes], Any] = sender.write
    started = time.process_time_ns()
    write(event)
    await done
    round_trip = (time.process_time_ns() - started) / rounds
    plain, other = socket.socketpair()
    started = time.process_time_ns()
    for _ in range(rounds):
        plain.send(event)
        other.recv(65536)
    system_calls = (time.process_time_ns() - started) / rounds
    for each in (sender, receiver):
        each.close()
    plain.close()
    other.close()
    return {
        "uvloop: write, wake up, read (socket pair)": round_trip,
        "the same with bare send and recv (system calls alone)": system_calls,
    }


def main() -> None:
    for steps in (request_steps(), library_steps()):
        for name, call in steps.items():
            print(f"{ns_per_call(call):9.0f} ns  {name}")
    for name, ns in uvloop.run(transport_steps()).items():
        print(f"{ns:9.0f} ns  {name}")


if __name__ == "__main__":
    main()
