"""Samples drawn, counted in a thread, judged; marks stored, restored and forgiven. No sockets."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from typing import Any, Final

import pytest
from tests.unit.proxy.audit.build import MODEL, chat, request

from filature.answer.bounds import Belief
from filature.answer.usage import Usage
from filature.proxy.audit.auditor import (
    MODELS_MAX,
    PENDING_MAX,
    REPEATED_S,
    SAMPLE_S,
    SAMPLES_MAX,
    SLOW_SAMPLES_MAX,
    Auditor,
    WorkerWatch,
)
from filature.proxy.audit.claims import JUDGED_MIN, Kind
from filature.proxy.audit.standing import CONTRADICTIONS_MAX, SUSPENDED_AFTER
from filature.relay.clock import CoarseClock
from filature.relay.outcome import Outcome
from filature.relay.watch import Sample
from filature.store.marks import SUSPENDED, Mark
from filature.store.schema import worker_marks
from filature.store.store import Store
from filature.telemetry.metrics import Metrics
from filature.telemetry.record import UsageRecord
from filature.units import RequestId
from filature.wire.control import Report
from filature.wire.dialect import Dialect

NOW_MS: Final = 1_782_907_200_000
TEXT: Final = "Silk is what the worm spins. "


class Bench:
    """An auditor beside a store, and what was asked of it. Every answer is sampled."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.metrics = Metrics()
        self.suspended: list[str] = []
        self.clock = CoarseClock(lambda: NOW_MS / 1000)
        self.auditor = self.begin()

    def begin(self) -> Auditor:
        """As a process that starts now."""
        return Auditor(
            self.store.marks,
            self.store.disabled_workers,
            self.metrics,
            self.clock,
            lambda: NOW_MS,
            lambda: 0.0,
            self.suspended.append,
        )

    def take(self, worker: str, claimed: int, text: str = TEXT) -> Belief | None:
        watch = self.auditor.watch(worker)
        belief, sample = watch.begin(request(), MODEL, 0)
        assert sample is not None
        sample.keep(chat(text))
        sample.claimed = Usage(30, 0, claimed)
        watch.take(sample)
        return belief

    async def answered(self, worker: str, claimed: int, times: int = 1) -> None:
        for _ in range(times):
            self.take(worker, claimed)
            await self.auditor.settled()


@pytest.fixture
async def bench(tmp_path: Any) -> AsyncIterator[Bench]:
    store = await Store.open(f"sqlite:///{tmp_path}/f.db")
    bench = Bench(store)
    try:
        for worker in ("abe", "zoe"):
            await bench.answered(worker, 8, 8)
        yield bench
    finally:
        await bench.auditor.close()
        await store.close()


def kinds(store: Store, worker: str) -> list[tuple[str, str]]:
    return [(mark.model, mark.kind) for mark in store.marks.of(worker)]


async def test_honest_workers_are_left_alone(bench: Bench) -> None:
    await bench.answered("ida", 9, 50)
    assert bench.store.marks.all() == []
    assert not bench.auditor.watch("ida").is_marked
    figures = bench.auditor.figures("ida")
    assert {each.kind for each in figures} == {"prompt", "completion"}
    assert not any(each.marked for each in figures)
    assert bench.auditor.figures("nobody") == []


async def test_marked_not_believed_and_suspended(bench: Bench) -> None:
    await bench.answered("liar", 80, JUDGED_MIN)
    assert kinds(bench.store, "liar") == [(MODEL, "completion")]
    (figures,) = (each for each in bench.auditor.figures("liar") if each.kind == "completion")
    assert (figures.marked, figures.samples, figures.claimed) == (True, JUDGED_MIN, 80 * JUDGED_MIN)
    belief, _ = bench.auditor.watch("liar").begin(request(), MODEL, 0)
    assert belief is not None
    assert belief.of(Usage(30, 0, 80), len(TEXT)).completion == 8
    await bench.answered("liar", 80, SUSPENDED_AFTER)
    assert bench.suspended == ["liar"]
    assert bench.store.disabled_workers.names() == {"liar"}
    assert kinds(bench.store, "liar") == [(MODEL, "completion"), ("", SUSPENDED)]
    await bench.answered("liar", 80, 3)
    assert bench.suspended == ["liar"]  # once


async def test_one_that_is_enabled_again_has_as_many_claims_left_as_before(bench: Bench) -> None:
    await bench.answered("liar", 80, JUDGED_MIN + SUSPENDED_AFTER)
    assert bench.suspended == ["liar"]
    bench.auditor.reinstate("nobody")
    bench.auditor.reinstate("liar")
    watch = bench.auditor.watch("liar")
    assert not watch.is_suspended
    assert watch.is_marked
    await bench.answered("liar", 80, SUSPENDED_AFTER - 1)
    assert bench.suspended == ["liar"]
    await bench.answered("liar", 80)
    assert bench.suspended == ["liar", "liar"]


async def test_marks_and_beliefs_survive_a_restart(bench: Bench) -> None:
    await bench.answered("liar", 80, JUDGED_MIN)
    await bench.auditor.close()
    before, _ = bench.auditor.watch("liar").begin(request(), MODEL, 0)
    bench.auditor = bench.begin()
    watch = bench.auditor.watch("liar")
    assert watch.is_marked
    assert not watch.is_suspended
    belief, sample = watch.begin(request(), MODEL, 0)
    assert before is not None
    assert belief is not None
    assert (belief.prompt, belief.per_byte) == (before.prompt, before.per_byte)
    assert sample is not None
    await bench.store.marks.put(Mark("liar", "", SUSPENDED, NOW_MS, "{}"))
    assert bench.begin().watch("liar").is_suspended


async def test_forgiven(bench: Bench) -> None:
    await bench.answered("liar", 80, JUDGED_MIN)
    bench.auditor.forgive("liar")
    watch = bench.auditor.watch("liar")
    assert not watch.is_marked
    assert watch.begin(request(), MODEL, 0)[0] is None
    assert bench.auditor.figures("liar") == []


async def test_what_was_under_way_is_forgiven_too(bench: Bench) -> None:
    for _ in range(2 * JUDGED_MIN):
        bench.take("liar", 80)
    bench.auditor.forgive("liar")
    await bench.auditor.settled()
    assert bench.store.marks.all() == []
    assert not bench.auditor.watch("liar").is_marked


async def test_of_one_worker_so_many_are_kept_at_once(bench: Bench) -> None:
    watch = bench.auditor.watch("busy")
    kept = [watch.begin(request(), MODEL, 0)[1] for _ in range(SAMPLES_MAX)]
    assert None not in kept
    assert watch.begin(request(), MODEL, 0) == (None, None)
    assert bench.auditor.watch("another").begin(request(), MODEL, 0)[1] is not None
    kept.pop()  # it ended some other way
    assert watch.begin(request(), MODEL, 0)[1] is not None


async def test_slow_samples_do_not_hide_others(bench: Bench) -> None:
    watch = bench.auditor.watch("slow")
    kept: list[Sample] = []

    def begin() -> Sample | None:
        sample = watch.begin(request(), MODEL, 0)[1]
        if sample is not None:
            sample.keep(chat(TEXT))
            kept.append(sample)
        return sample

    for _ in range(SAMPLES_MAX):
        assert begin() is not None
        bench.clock.now += 1
    kept[0].claimed = Usage(30, 0, 8)  # it ended, and is going to be counted
    bench.clock.now = SAMPLE_S + SLOW_SAMPLES_MAX
    assert begin() is None, "the oldest of those under way keep their places"
    bench.clock.now += 1
    assert begin() is not None
    assert begin() is None, "the others are not that old"
    bench.clock.now += SAMPLE_S
    while begin() is not None:
        pass
    given_up = [number for number, sample in enumerate(kept) if not sample.answer]
    first = SLOW_SAMPLES_MAX + 1
    assert given_up == list(range(first, SAMPLES_MAX + 1))
    slow = kept[first]
    slow.keep(chat(TEXT))
    assert not slow.answer
    slow.claimed = Usage(30, 0, 8)
    watch.take(slow)
    await bench.auditor.settled()
    assert [(each.kind, each.samples) for each in bench.auditor.figures("slow")] == [("prompt", 1)]
    exposed = bench.metrics.exposition(bench.metrics.registry()).decode()
    assert 'limit="audit_samples_max"}' in exposed


async def test_nothing_waits_without_end(bench: Bench) -> None:
    workers = [f"w{number}" for number in range(PENDING_MAX // 10 + 1)]
    for worker in workers:
        for _ in range(10):
            bench.take(worker, 8)
    await bench.auditor.settled()
    found = [each for name in workers for each in bench.auditor.figures(name)]
    assert sum(each.samples for each in found if each.kind == "completion") == PENDING_MAX


async def test_what_cannot_be_counted_is_told_and_does_no_harm(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    watch = bench.auditor.watch("ida")
    _, sample = watch.begin(request(), MODEL, 0)
    assert sample is not None
    with caplog.at_level(logging.ERROR):
        watch.take(sample)  # which nothing was claimed for
        await bench.answered("ida", 8)
    assert "could not be counted" in caplog.text
    (figures,) = (each for each in bench.auditor.figures("ida") if each.kind == "completion")
    assert figures.samples == 1


async def test_what_waits_is_counted_at_the_next_tick(bench: Bench) -> None:
    bench.clock.start(asyncio.get_running_loop())
    try:
        bench.take("ida", 8)
        async with asyncio.timeout(10):
            while not bench.auditor.figures("ida"):
                await asyncio.sleep(0.01)
    finally:
        bench.clock.stop()


async def test_a_mark_that_cannot_be_stored_is_held_all_the_same(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    await bench.store.writer.call(worker_marks.drop)
    await bench.answered("liar", 80, JUDGED_MIN)
    assert "could not be stored" in caplog.text
    assert bench.auditor.watch("liar").is_marked


async def test_closed(bench: Bench) -> None:
    """What ends then is neither counted nor a fault."""
    for _ in range(2 * JUDGED_MIN):
        bench.take("liar", 80)
    await bench.auditor.close()
    bench.take("liar", 80)
    for _ in range(CONTRADICTIONS_MAX):
        bench.auditor.watch("liar").exceeded(request(), MODEL)
    await bench.auditor.settled()
    assert bench.store.marks.all() == []


def test_is_repeated(bench: Bench) -> None:
    def sampled(watch: WorkerWatch, prefix: int) -> bool:
        sample = watch.begin(request(), MODEL, prefix)[1]
        assert isinstance(sample, Sample)
        return sample.is_repeated

    watch = bench.auditor.watch("ida")
    assert [sampled(watch, prefix) for prefix in (5, 5, 6, 5, 0, 0)] == [
        False,
        True,
        False,
        True,
        False,
        False,
    ]
    assert not sampled(bench.auditor.watch("another"), 5)
    bench.clock.now += REPEATED_S + 1
    assert not sampled(watch, 5)


def test_what_has_no_usage_is_not_looked_at(bench: Bench) -> None:
    asked = request(Dialect.COUNT_TOKENS)
    assert bench.auditor.watch("ida").begin(asked, MODEL, 5) == (None, None)


async def test_more_than_is_possible_again_and_again(bench: Bench) -> None:
    watch = bench.auditor.watch("ida")
    part = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA"}}
    media = request(messages=[{"role": "user", "content": [part]}])
    for _ in range(2 * CONTRADICTIONS_MAX):
        watch.exceeded(media, MODEL)  # what they cost is a setting
        watch.exceeded(request(include_reasoning=False), MODEL)  # what was thought is not shown
    assert not watch.is_marked
    for _ in range(CONTRADICTIONS_MAX):
        watch.exceeded(request(), MODEL)
    await bench.auditor.settled()
    assert kinds(bench.store, "ida") == [(MODEL, "exceeded")]


def record(**fields: Any) -> UsageRecord:
    found = UsageRecord(
        RequestId("r"),
        None,
        Dialect.CHAT,
        "alias",
        "",
        Outcome.COMPLETED,
        200,
        started_at=NOW_MS / 1000,
    )
    found.engine, found.prompt, found.completion = "ida", 100, 1000
    for name, value in fields.items():
        setattr(found, name, value)
    return found


def report(**fields: Any) -> Report:
    told: dict[str, Any] = {
        "id": "r",
        "ticket": "t",
        "outcome": "completed",
        "prompt": 100,
        "cached": 0,
        "completion": 1000,
        "reasoning": 0,
        "estimated": False,
        "started_at": NOW_MS / 1000,
        "total_s": 1.0,
        "streamed": True,
    }
    return Report(**told | fields)


@pytest.mark.parametrize(
    ("recorded", "reported", "marks"),
    [
        ({}, {}, False),
        ({}, {"prompt": 102, "completion": 1010, "cached": 2}, False),
        ({}, {"prompt": 103}, True),
        ({}, {"completion": 1011}, True),
        ({}, {"completion": 900}, True),
        ({}, {"cached": 50}, True),
        ({}, {"reasoning": 50}, True),
        ({}, {"completion": 1, "outcome": "client_gone"}, False),
        ({"outcome": Outcome.CLIENT_GONE}, {"completion": 1}, False),
        ({"estimated": True}, {"completion": 1}, False),
        ({}, {"completion": 1, "estimated": True}, False),
        ({"engine": "abe"}, {"completion": 1}, False),  # it was tried elsewhere then
    ],
)
async def test_reports_are_compared(
    bench: Bench, recorded: dict[str, Any], reported: dict[str, Any], marks: bool
) -> None:
    for _ in range(CONTRADICTIONS_MAX):
        bench.auditor.compare("ida", MODEL, record(**recorded), report(**reported))
    await bench.auditor.settled()
    assert kinds(bench.store, "ida") == ([(MODEL, "report")] if marks else [])


async def test_reports_of_what_was_sent_again_contradict_nothing(bench: Bench) -> None:
    """The worker has answered it twice, each time as its engine pleased, and reports both."""
    again = record()
    again.sent_again = True
    for _ in range(CONTRADICTIONS_MAX):
        bench.auditor.compare("ida", MODEL, again, report(completion=1))
    assert not bench.auditor.watch("ida").is_marked


async def test_reports_of_what_was_not_believed_contradict_nothing(bench: Bench) -> None:
    """They come when the worker is forgiven already."""
    await bench.answered("ida", 80, JUDGED_MIN)
    compare: Callable[[float], None] = lambda at: bench.auditor.compare(  # noqa: E731
        "ida", MODEL, record(started_at=at), report(completion=9999)
    )
    for _ in range(CONTRADICTIONS_MAX):
        compare(NOW_MS / 1000)
    bench.auditor.forgive("ida")
    for _ in range(CONTRADICTIONS_MAX):
        compare(NOW_MS / 1000)
    assert not bench.auditor.watch("ida").is_marked
    for _ in range(CONTRADICTIONS_MAX):
        compare(NOW_MS / 1000 + 1)
    assert bench.auditor.watch("ida").is_marked
    await bench.auditor.settled()
    assert Kind.REPORT in bench.auditor.watch("ida").standing(MODEL).marks


async def test_who_offers_many_models_keeps_its_marks(bench: Bench) -> None:
    watch = bench.auditor.watch("gpu")
    for _ in range(CONTRADICTIONS_MAX):
        watch.exceeded(request(), MODEL)
    for number in range(MODELS_MAX + 5):
        watch.standing(f"other {number}")
    assert watch.standing(MODEL).marks == {Kind.EXCEEDED}
    await bench.auditor.settled()
