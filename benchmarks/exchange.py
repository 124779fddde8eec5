"""One exchange in memory: everything between two sockets but the sockets. µs per request and ns per event.

``python -m benchmarks.exchange`` (``--sample 4`` tells where it goes). What it shows is Python's share alone, free of
the kernel's, and so it is quiet enough to compare two versions of the code.
"""

import argparse
import asyncio
import collections
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any, BinaryIO, cast

from benchmarks import payload
from filature.proxy.app import Proxy
from filature.proxy.settings import ProxySettings
from filature.relay.engines import ServedModel
from filature.relay.upstream import UpstreamConnection
from filature.telemetry.log import RequestLog

_ROUNDS = 9
_EVENTS = 50
_SHOWN = 45


def _nowhere() -> BinaryIO:
    return Path(os.devnull).open("wb")


class _NoTransport:
    """Takes what is written; keeps the last of it."""

    written = b""

    def write(self, data: bytes) -> None:
        self.written = data

    def is_closing(self) -> bool:
        return False

    def close(self) -> None:
        raise AssertionError("nothing here should be closed")

    abort = close

    def get_extra_info(self, name: str, default: object = None) -> object:
        return default

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass


class _Pair:
    """A client's connection and an engine's, wired by the proxy's own code."""

    def __init__(self, *, usage_on_every_event: bool) -> None:
        proxy = Proxy(ProxySettings(engines=["http://127.0.0.1:9"]))
        proxy._request_log = RequestLog(_nowhere())  # noqa: SLF001 - the terminal is not measured
        engine = proxy.engines.engines[0]
        engine.reachable = True
        engine.models = {payload.MODEL: ServedModel(payload.MODEL)}
        self.client, self.engine = _NoTransport(), _NoTransport()
        self.downstream = proxy._downstream()  # noqa: SLF001 - what a listening socket would call
        self.downstream.connection_made(cast(Any, self.client))
        self.upstream = UpstreamConnection(engine.pool)
        self.upstream.connection_made(cast(Any, self.engine))
        engine.pool.keep(self.upstream)
        self.answer = payload.stream_answer(
            events=_EVENTS, usage_on_every_event=usage_on_every_event
        )

    def unary(self, request: bytes, answer: bytes) -> None:
        self.downstream.data_received(request)
        self.upstream.data_received(answer)
        assert self.client.written.endswith(b"}")

    def stream(self, request: bytes) -> None:
        self.downstream.data_received(request)
        receive = self.upstream.data_received
        receive(self.answer.opening)
        for event in self.answer.events[:-1]:
            receive(event)
        receive(self.answer.events[-1] + self.answer.closing)
        assert self.client.written.endswith(payload.TERMINATOR)


def calls() -> dict[str, Callable[[], None]]:
    """One whole exchange each."""
    plain, continuous = _Pair(usage_on_every_event=False), _Pair(usage_on_every_event=True)
    unary = payload.request("127.0.0.1", payload.request_body(stream=False))
    with_usage = payload.request("127.0.0.1", payload.request_body(stream=True, include_usage=True))
    without = payload.request("127.0.0.1", payload.request_body(stream=True))
    answer = payload.unary_answer()
    return {
        "unary": lambda: plain.unary(unary, answer),
        "stream of 50, usage at the end": lambda: plain.stream(with_usage),
        "stream of 50, usage on every event, stripped": lambda: continuous.stream(without),
    }


def us_per_call(call: Callable[[], None], seconds: float = 0.15) -> float:
    """The least mean CPU time over several rounds, in µs."""
    number, taken = 1, 0.0
    while taken < seconds / 4:
        number *= 2
        started = time.process_time()
        for _ in range(number):
            call()
        taken = time.process_time() - started
    best = taken / number
    for _ in range(_ROUNDS):
        started = time.process_time()
        for _ in range(number):
            call()
        best = min(best, (time.process_time() - started) / number)
    return best * 1e6


Counts = collections.Counter[str]


def sample(call: Callable[[], None], seconds: float) -> tuple[Counts, Counts]:
    """(lines, functions) of Filature's, sampled by a CPU timer.

    A line counts where it is the innermost one, a function wherever it is on the stack.
    """
    lines: Counts = collections.Counter()
    functions: Counts = collections.Counter()

    def take(_signal: int, frame: FrameType | None) -> None:
        innermost = True
        while frame is not None:
            code = frame.f_code
            if "filature/" in code.co_filename:
                name = code.co_filename.rpartition("filature/")[2]
                if innermost:
                    lines[f"{name}:{frame.f_lineno} {code.co_name}"] += 1
                    innermost = False
                functions[f"{name} {code.co_qualname}"] += 1
            frame = frame.f_back

    before = signal.signal(signal.SIGPROF, take)
    signal.setitimer(signal.ITIMER_PROF, 0.0005, 0.0005)
    end = time.process_time() + seconds
    try:
        while time.process_time() < end:
            call()
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)
    return lines, functions


async def _main(seconds: float) -> None:
    for name, call in calls().items():
        taken_us = us_per_call(call)
        print(f"{taken_us:8.2f} µs  {name}")
        if seconds:
            by_line, by_function = sample(call, seconds)
            for title, counts in (
                ("by line", by_line),
                ("by function, with what it calls", by_function),
            ):
                print(f"    {title}")
                for what, count in counts.most_common(_SHOWN):
                    print(f"    {count / by_line.total() * taken_us:6.2f} µs  {what}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--sample", type=float, default=0, metavar="SECONDS", help="also tell where it goes"
    )
    asyncio.run(_main(parser.parse_args().sample))


if __name__ == "__main__":
    main()
