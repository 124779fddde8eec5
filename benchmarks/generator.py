"""The load: many HTTP/1.1 clients in a closed loop, which count events, answers, failures and delays.

Counting is a byte search per read, so that the generator is not what is measured; the first answers are kept whole and
decoded afterwards, so that a relay that loses, repeats or alters text is found out. Run as
``python -m benchmarks.generator LOAD``; prints one JSON line.
"""

import argparse
import asyncio
import json
import socket
import ssl
import sys
import time
from array import array
from collections import deque
from dataclasses import asdict, dataclass, field
from typing import cast

import uvloop

from benchmarks import delays, payload
from benchmarks.machine import (
    core_busy_share,
    core_times,
    cpu_ns,
    freeze_garbage,
    memory,
    pin,
    raise_open_files,
)

_KEPT_ANSWERS_MAX = 4
_CONNECT_BATCH = 50
_STATUS_OK = b"HTTP/1.1 200 "
_SHOWN_BYTES = 300
_TICK_S = 0.001
_ANSWER_S_MAX = 1.2
"""A run longer than this has seen whole answers, or something is wrong."""


@dataclass(frozen=True, slots=True)
class Load:
    """What to send where, and whose CPU time to take meanwhile.

    ``relay_pids`` are the processes measured; ``own_pids`` engine and others that share the generator's core.
    Clients send again as soon as an answer is whole, or with ``per_s`` so many requests a second in all.
    With ``tls`` they speak it. Their first requests are spread over ``spread_s``. ``vary`` gives requests prompts of
    different lengths. ``idle`` waits for ``warm_s`` and takes memory instead.
    """

    host: str
    port: int
    connections: int
    stream: bool
    tls: bool = False
    include_usage: bool = False
    vary: bool = False
    stamped: bool = False
    idle: bool = False
    per_s: float | None = None
    spread_s: float = 0.0
    warm_s: float = 1.0
    seconds: float = 3.0
    events_per_answer: int = 50
    relay_pids: tuple[int, ...] = ()
    own_pids: tuple[int, ...] = ()
    relay_core: int | None = None


@dataclass(slots=True)
class Measured:
    """What one run gave. CPU times are of the measured window alone; ``failures`` and ``faults`` of the whole run.

    ``foreign_share`` is the share of the relay's core that neither the relay nor idleness took.
    """

    seconds: float = 0.0
    events: int = 0
    answers: int = 0
    failures: int = 0
    faults: list[str] = field(default_factory=list)
    relay_cpu_ns: int = 0
    own_cpu_ns: int = 0
    generator_cpu_ns: int = 0
    latency_ns: dict[str, int] = field(default_factory=dict)
    foreign_share: float = 0.0
    relay_rss_bytes: int = 0
    relay_pss_bytes: int = 0


def trusting() -> ssl.SSLContext:
    """A client's context that takes any certificate: whom it reaches was started here."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


class Fleet:
    """All clients of one run and what they counted."""

    def __init__(self, load: Load) -> None:
        self.load = load
        self.events = 0
        self.answers = 0
        self.failures = 0
        self.faults: list[str] = []
        self.kept: list[bytes] = []
        self.delays_ns: array[int] | None = None
        self.stopping = False
        host = f"{load.host}:{load.port}"
        lengths = range(40, 200, 5) if load.vary else (120,)
        self._requests = [
            payload.request(
                host,
                payload.request_body(
                    stream=load.stream, include_usage=load.include_usage, prompt_bytes=length
                ),
            )
            for length in lengths
        ]
        self._turn = 0
        self.waiting: deque[Client] = deque()
        self.tls = trusting() if load.tls else None
        self._due, self._ticked = 0.0, asyncio.get_running_loop().time()

    def tick(self) -> None:
        """Sends as many requests as are due, on the connections that wait the longest."""
        if self.stopping or not self.load.per_s:
            return
        loop = asyncio.get_running_loop()
        now = loop.time()
        self._due += (now - self._ticked) * self.load.per_s
        self._ticked = now
        while self._due >= 1 and self.waiting:
            self._due -= 1
            self.waiting.popleft().send()
        self._due = min(self._due, 1.0)  # what found no connection is left out
        loop.call_later(_TICK_S, self.tick)

    def next_request(self) -> bytes:
        self._turn = (self._turn + 1) % len(self._requests)
        return self._requests[self._turn]

    def fail(self, what: str) -> None:
        self.failures += 1
        if len(self.faults) < _KEPT_ANSWERS_MAX:
            self.faults.append(what)


class Client(asyncio.Protocol):
    """One keep-alive connection: sends a request whenever the answer before is whole."""

    __slots__ = ("_fleet", "_head", "_kept", "_tail", "_transport", "_unfinished")

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._head: bytes | None = b""
        self._kept: list[bytes] | None = None
        self._tail = b""
        self._transport: asyncio.Transport | delays.StampedSocket | None = None
        self._unfinished = False

    def disconnect(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(
            "asyncio.Transport", transport
        )  # uvloop's do not inherit from asyncio's

    def connection_lost(self, exc: Exception | None) -> None:
        if self._unfinished and not self._fleet.stopping:
            self._fleet.fail(f"connection lost inside an answer: {exc}")
        self._transport = None

    def send(self) -> None:
        """Begins the next exchange."""
        fleet = self._fleet
        if self._transport is None:
            fleet.fail("the relay closed a keep-alive connection")
            return
        self._head = self._tail = b""
        self._unfinished = True
        self._kept = [] if len(fleet.kept) < _KEPT_ANSWERS_MAX else None
        self._transport.write(fleet.next_request())

    def _check_status(self, data: bytes) -> None:
        """Looks at the first bytes of an answer, until there are enough of them."""
        head = (self._head or b"") + data[:_SHOWN_BYTES]
        self._head = head if len(head) < len(_STATUS_OK) else None
        if self._head is None and not head.startswith(_STATUS_OK):
            self._fleet.fail(head.decode("latin-1"))

    def _keep(self, data: bytes) -> None:
        if self._kept is not None:
            self._kept.append(data)

    def _done(self) -> None:
        fleet = self._fleet
        fleet.answers += 1
        self._unfinished = False
        if self._kept is not None:
            fleet.kept.append(b"".join(self._kept))
        if fleet.stopping:
            return
        if fleet.load.per_s:
            fleet.waiting.append(self)
        else:
            self.send()


class StreamClient(Client):
    """Reads chunked event streams."""

    __slots__ = ()

    def data_received(self, data: bytes) -> None:
        fleet = self._fleet
        fleet.events += data.count(payload.MARK)
        if self._kept is not None:
            self._keep(data)
        if self._head is not None:
            self._check_status(data)
        if data.endswith(b"\n\n\r\n") and not self._tail:
            return  # a whole chunk that ends with a whole event: the usual read
        whole = self._tail + data
        if whole.endswith(b"\r\n" + payload.TERMINATOR) or whole == payload.TERMINATOR:
            self._done()
        else:
            self._tail = whole[-(len(payload.TERMINATOR) + 1) :]
            if self._tail.endswith(b"\n\n\r\n"):
                self._tail = b""


class StampedClient(StreamClient):
    """Reads event streams whose events carry their time of sending."""

    __slots__ = ()

    def attach(self, sock: delays.StampedSocket) -> None:
        self._transport = sock

    def stamped_received(self, data: bytes, arrived_ns: int) -> None:
        delays_ns = self._fleet.delays_ns
        if not data:
            self.connection_lost(None)
            return
        if delays_ns is not None:
            delays.take(data, arrived_ns, delays_ns)
        self.data_received(data)


class UnaryClient(Client):
    """Reads length-delimited JSON answers."""

    __slots__ = ()

    def data_received(self, data: bytes) -> None:
        whole = self._tail + data if self._tail else data
        end = whole.find(b"\r\n\r\n")
        if end < 0:
            self._tail = whole
            return
        if not whole.startswith(_STATUS_OK):
            self._fleet.fail(whole[:_SHOWN_BYTES].decode("latin-1"))
        if len(whole) < end + 4 + payload.content_length(whole, end):
            self._tail = whole
            return
        self._keep(whole)
        self._done()


def dechunk(body: bytes) -> bytes:
    """What chunked framing carries; raises ValueError where it is wrong."""
    out, at = [], 0
    while True:
        end = body.index(b"\r\n", at)
        size = int(body[at:end], 16)
        out.append(body[end + 2 : end + 2 + size])
        at = end + 2 + size
        if body[at : at + 2] != b"\r\n":
            msg = f"no line end after the chunk at {at}"
            raise ValueError(msg)
        at += 2
        if size == 0:
            return b"".join(out)


def answer_text(answer: bytes, *, stream: bool) -> str:
    """The text that a client would show for one whole HTTP answer."""
    _head, _, body = answer.partition(b"\r\n\r\n")
    if not stream:
        return str(json.loads(body)["choices"][0]["message"]["content"])
    texts = []
    for event in dechunk(body).split(b"\n\n"):
        if event.startswith(b"data: {"):
            choices = json.loads(event[6:])["choices"]
            texts += [choice["delta"].get("content") or "" for choice in choices]
    return "".join(texts)


def _check(fleet: Fleet) -> None:
    """Compares the answers that were kept with what the engine sent."""
    load = fleet.load
    if load.idle:
        return
    if load.stream:
        expected = payload.stream_answer(
            events=load.events_per_answer, usage_on_every_event=False, stamped=load.stamped
        ).text
    else:
        expected = answer_text(payload.unary_answer(), stream=False)
    for answer in fleet.kept:
        try:
            text = answer_text(answer, stream=load.stream)
        except (ValueError, LookupError, TypeError) as wrong:
            fleet.fail(f"an answer cannot be read ({wrong!r}): {answer[:_SHOWN_BYTES]!r}")
            continue
        if load.stamped:
            same = len(text) == len(expected) and text.count("~") == load.events_per_answer
        else:
            same = text == expected
        if not same:
            fleet.fail(f"an answer's text differs: {text[:80]!r}")


async def _connect_one(fleet: Fleet) -> Client:
    loop = asyncio.get_running_loop()
    load = fleet.load
    if load.stamped:
        sock = socket.socket()
        sock.setblocking(False)
        await loop.sock_connect(sock, (load.host, load.port))
        stamped = StampedClient(fleet)
        stamped.attach(delays.StampedSocket(loop, sock, stamped.stamped_received))
        return stamped
    kind = StreamClient if load.stream else UnaryClient
    _transport, client = await loop.create_connection(
        lambda: kind(fleet), load.host, load.port, ssl=fleet.tls
    )
    return client


async def _connect(fleet: Fleet) -> list[Client]:
    load = fleet.load
    clients: list[Client] = []
    while len(clients) < load.connections:
        batch = min(_CONNECT_BATCH, load.connections - len(clients))
        clients += await asyncio.gather(*(_connect_one(fleet) for _ in range(batch)))
    return clients


async def _begin(fleet: Fleet, clients: list[Client]) -> None:
    """Starts the clients evenly over ``spread_s``: else their answers would all end together, too."""
    load = fleet.load
    if load.per_s:
        fleet.waiting.extend(clients)
        fleet.tick()
        return
    started = time.monotonic()
    for number, client in enumerate(clients):
        early_s = started + load.spread_s * number / len(clients) - time.monotonic()
        if early_s > 0:
            await asyncio.sleep(early_s)
        client.send()


def _quantiles(delays: "array[int]") -> dict[str, int]:
    values = sorted(delays)
    if not values:
        return {}
    return {
        name: values[min(len(values) - 1, int(len(values) * share))] for name, share in _QUANTILES
    }


_QUANTILES = (("p50", 0.50), ("p90", 0.90), ("p99", 0.99))


async def run(load: Load) -> Measured:
    """Connects, warms up, measures for ``load.seconds``, disconnects."""
    fleet = Fleet(load)
    freeze_garbage()
    clients = await _connect(fleet)
    await _begin(fleet, clients)
    await asyncio.sleep(load.warm_s)
    measured = Measured()
    if load.stamped:
        fleet.delays_ns = array("q")
    events, answers = fleet.events, fleet.answers
    relay = sum(map(cpu_ns, load.relay_pids))
    own = sum(map(cpu_ns, load.own_pids))
    core = core_times(load.relay_core)
    generator, started = time.process_time_ns(), time.monotonic()
    await asyncio.sleep(load.seconds)
    measured.seconds = time.monotonic() - started
    measured.relay_cpu_ns = sum(map(cpu_ns, load.relay_pids)) - relay
    measured.own_cpu_ns = sum(map(cpu_ns, load.own_pids)) - own
    measured.generator_cpu_ns = time.process_time_ns() - generator
    busy = core_busy_share(core, core_times(load.relay_core))
    measured.foreign_share = max(0.0, busy - measured.relay_cpu_ns / 1e9 / measured.seconds)
    measured.events, measured.answers = fleet.events - events, fleet.answers - answers
    if fleet.delays_ns is not None:
        measured.latency_ns = _quantiles(fleet.delays_ns)
        fleet.delays_ns = None
    for pid in load.relay_pids:
        used = memory(pid)
        measured.relay_rss_bytes += used.rss_bytes
        measured.relay_pss_bytes += used.pss_bytes
    fleet.stopping = True
    for client in clients:
        client.disconnect()
    await asyncio.sleep(0.05)
    _check(fleet)
    if not fleet.answers and load.seconds + load.warm_s > _ANSWER_S_MAX and not load.idle:
        fleet.fail("no answer came whole")
    measured.failures, measured.faults = fleet.failures, fleet.faults
    return measured


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("load", help="Load as a JSON object")
    parser.add_argument("--core", type=int, default=None)
    arguments = parser.parse_args()
    pin(arguments.core)
    raise_open_files()
    measured = uvloop.run(run(Load(**json.loads(arguments.load))))
    json.dump(asdict(measured), sys.stdout)
    print(flush=True)


if __name__ == "__main__":
    main()
