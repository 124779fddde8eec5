"""The postprocessor alone, in memory: ns per event and per unary document; no sockets.

``python -m benchmarks.postprocessor``. Beside it: what parsing and dumping every event with orjson costs.
"""

import statistics
import time
from collections.abc import Callable, Iterator, Sequence

import orjson

from benchmarks import payload
from benchmarks.report import Row
from benchmarks.shapes import POSTPROCESSOR_NS_MAX
from filature.answer.policy import AnswerPolicy
from filature.answer.postprocessor import AnswerPostprocessor
from filature.answer.pricing import Tariff
from filature.wire.dialect import Dialect

_EVENTS = 1000
_ROUNDS = 15


def _policy(*, stream: bool) -> AnswerPolicy:
    return AnswerPolicy(
        strip=stream,
        include_usage=stream,
        continuous_usage=False,
        when_unrequested="comment",
        hold_until_content=stream,
        tariff=Tariff(
            prompt=200_000_000,
            cached=20_000_000,
            completion=800_000_000,
            reasoning=800_000_000,
            request=0,
        ),
    )


def _events(*, usage_on_every_event: bool) -> list[bytes]:
    """A whole answer of ``_EVENTS`` content events, without HTTP, event by event."""
    answer = payload.stream_answer(events=_EVENTS, usage_on_every_event=usage_on_every_event)
    framed = answer.opening[len(payload.STREAM_HEAD) :] + b"".join(answer.events) + answer.closing
    events: list[bytes] = []
    at = 0
    while True:
        end = framed.index(b"\r\n", at)
        size = int(framed[at:end], 16)
        if size == 0:
            return events
        events.append(framed[end + 2 : end + 2 + size])
        at = end + 2 + size + 2


def _pieces(data: bytes, size: int) -> list[bytes]:
    return [data[at : at + size] for at in range(0, len(data), size)]


def _streamed(pieces: Sequence[bytes], *, continuous: bool) -> Callable[[], None]:
    policy = _policy(stream=True)

    def once() -> None:
        post = AnswerPostprocessor(Dialect.CHAT, policy, continuous=continuous)
        feed = post.feed
        for piece in pieces:
            feed(piece)
        post.finish(clean=True)
        assert post.usage.completion == _EVENTS

    return once


def _parsed_and_dumped(events: Sequence[bytes]) -> Callable[[], None]:
    bodies = [event[6:-2] for event in events if event.startswith(b"data: {")]

    def once() -> None:
        for body in bodies:
            b"data: " + orjson.dumps(orjson.loads(body)) + b"\n\n"

    return once


def _unary(documents: int) -> Callable[[], None]:
    policy = _policy(stream=False)
    document = payload.unary_document()

    def once() -> None:
        for _ in range(documents):
            post = AnswerPostprocessor(Dialect.CHAT, policy)
            post.feed(document)
            post.finish(clean=True)
            assert post.usage.completion == 50

    return once


def _ns(once: Callable[[], None], units: int, rounds: int) -> tuple[float, float, float]:
    """(median, least, greatest) CPU time per unit in ns."""
    once()
    each = []
    for _ in range(rounds):
        started = time.process_time_ns()
        once()
        each.append((time.process_time_ns() - started) / units)
    return statistics.median(each), min(each), max(each)


def cases() -> Iterator[tuple[str, Callable[[], None], int, float | None]]:
    """(what, call, units per call, target in ns or None)."""
    plain, continuous = _events(usage_on_every_event=False), _events(usage_on_every_event=True)
    for name, events, on_every in (
        ("plain", plain, False),
        ("usage on every event, stripped", continuous, True),
    ):
        whole = b"".join(events)
        fifty = [b"".join(events[at : at + 50]) for at in range(0, len(events), 50)]
        yield (
            f"{name}, one event at a time",
            _streamed(events, continuous=on_every),
            _EVENTS,
            POSTPROCESSOR_NS_MAX,
        )
        yield f"{name}, 50 events at a time", _streamed(fifty, continuous=on_every), _EVENTS, None
        yield f"{name}, whole", _streamed([whole], continuous=on_every), _EVENTS, None
        yield (
            f"{name}, 50 bytes at a time",
            _streamed(_pieces(whole, 50), continuous=on_every),
            _EVENTS,
            None,
        )
        yield f"{name}, orjson parse and dump of each", _parsed_and_dumped(events), _EVENTS, None
    yield "unary document of 400 bytes, with cost", _unary(200), 200, None


def rows(rounds: int = _ROUNDS) -> list[Row]:
    """The postprocessor's lines of the table."""
    out = []
    for name, once, units, target in cases():
        median, least, greatest = _ns(once, units, rounds)
        beside = f"{8000 / median:.1f} × as fast as 8 µs (nlohmann)" if target else ""
        limit = f"≤ {target / 1000:g} µs" if target else "–"
        measured = f"{median / 1000:.2f} µs [{least / 1000:.2f}–{greatest / 1000:.2f}]"
        out.append(
            Row(
                f"postprocessor/{name}",
                f"postprocessor: {name}",
                limit,
                measured,
                beside,
                median,
                target,
            )
        )
    return out


if __name__ == "__main__":
    for row in rows():
        print(f"{row.measured:24} {row.figure}  {row.beside}")
