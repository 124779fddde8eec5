"""Watches what workers claim: samples answers, has them counted in a thread, marks, and suspends in the end."""

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Callable, Coroutine, Iterable
from concurrent.futures import ThreadPoolExecutor
from math import ceil
from typing import Any, Final
from weakref import WeakSet

import orjson

from filature.admin.marks import ClaimFigures
from filature.answer.bounds import Belief
from filature.errors import StoreError
from filature.proxy.audit.claims import TOLERANCE, TOLERANCE_TOKENS, Claim, Kind
from filature.proxy.audit.measure import Measured, hides, measure_all
from filature.proxy.audit.norms import Norms
from filature.proxy.audit.recount import Recounter
from filature.proxy.audit.standing import SUSPENDED_AFTER, Standing
from filature.relay.clock import CoarseClock
from filature.relay.outcome import Outcome
from filature.relay.watch import Sample
from filature.request.parse import ParsedRequest
from filature.store.disabled_workers import DisabledWorkers
from filature.store.marks import SUSPENDED, Mark, Marks
from filature.telemetry.metrics import Metrics
from filature.telemetry.record import UsageRecord
from filature.wire.control import Report

PENDING_MAX: Final = 64
"""Samples that wait to be counted; above it none is taken."""
TOGETHER: Final = 8
"""Samples that are handed to the thread without waiting for more: each time it is woken costs."""
SAMPLES_MAX: Final = 16
"""Of one worker at once, from their beginning until they are judged; above it none begins."""
SAMPLE_S: Final = 30.0
"""Seconds after which a sample is slow: its place may be given to another that needs one."""
SLOW_SAMPLES_MAX: Final = 8
"""Of one worker that keep their places all the same, the oldest: it may have none but slow answers."""
REPEATED_S: Final = 30.0
"""For which an engine is expected to have a prompt's beginning cached."""
PREFIXES_MAX: Final = 4096
"""Of one worker."""
MODELS_MAX: Final = 1000
"""Of one worker that are looked at."""

log = logging.getLogger(__name__)

_Handed = tuple["WorkerWatch", Standing, Sample]


class Auditor:
    """Of all workers of a proxy. ``suspend`` gives one no more requests; ``draw`` is as ``random.random``."""

    def __init__(
        self,
        marks: Marks,
        disabled: DisabledWorkers,
        metrics: Metrics,
        clock: CoarseClock,
        wall_ms: Callable[[], int],
        draw: Callable[[], float],
        suspend: Callable[[str], None],
        recounter: Recounter | None = None,
    ) -> None:
        self._marks = marks
        self._disabled = disabled
        self._metrics = metrics
        self.limit_reached = metrics.limit_reached
        self.clock = clock
        self._wall_ms = wall_ms
        self.draw = draw
        self._suspend = suspend
        self.suspended_after = SUSPENDED_AFTER
        self._recounter = recounter
        self.norms = Norms()
        self._watches: dict[str, WorkerWatch] = {}
        self._executor = ThreadPoolExecutor(1, "audit")
        self._waiting: list[_Handed] = []
        self._counted: list[_Handed] = []  # in the thread now
        self._counting: asyncio.Future[list[Measured]] | None = None
        self._storing: set[asyncio.Task[None]] = set()
        self._closed = False
        clock.each_tick(self._count_waiting)
        for mark in marks.all():
            self._restore(mark)

    def watch(self, worker: str) -> "WorkerWatch":
        """Of a worker by its name, whichever process of it runs."""
        watch = self._watches.get(worker)
        if watch is None:
            watch = self._watches[worker] = WorkerWatch(self, worker)
        return watch

    def compare(self, worker: str, model: str, record: UsageRecord, report: Report) -> None:
        """A report of a request that was settled by what the proxy metered of it, believed or not."""
        if not _contradicts(record, report) or record.engine != worker:
            return
        watch = self.watch(worker)
        if watch.is_marked or record.sent_again:  # it reports both answers, and one of them passed
            return
        if record.started_at * 1000 <= watch.forgiven_ms:
            return  # what was not believed then is in the record
        standing = watch.standing(model)
        log.warning("worker %s reports of %s what it did not say there", worker, record.id)
        if standing.contradicted():
            self.mark(watch, standing, [Kind.REPORT])

    def count(self, watch: "WorkerWatch", sample: Sample) -> None:
        """Have a sample counted, and judged: some at once, at the latest at the clock's next tick."""
        if self._closed:
            return
        if len(self._waiting) + len(self._counted) >= PENDING_MAX:
            self._metrics.limit_reached("audits_pending_max")
            return
        self._waiting.append((watch, watch.standing(sample.model), sample))
        if len(self._waiting) >= TOGETHER:
            self._count_waiting(self.clock.now)

    def _count_waiting(self, _now: float) -> None:
        if self._counting is not None or not self._waiting or self._closed:
            return
        self._counted, self._waiting = self._waiting, []
        samples = [sample for _, _, sample in self._counted]
        loop = asyncio.get_running_loop()
        self._counting = loop.run_in_executor(self._executor, measure_all, samples, self._recounter)
        self._counting.add_done_callback(self._judge_counted)

    def _judge_counted(self, done: asyncio.Future[list[Measured]]) -> None:
        counted, self._counted = self._counted, []
        self._counting = None
        if done.cancelled():
            return
        for (watch, standing, _), measured in zip(counted, done.result(), strict=True):
            if isinstance(measured, Exception):
                log.error(
                    "an answer of worker %s could not be counted", watch.worker, exc_info=measured
                )
            else:
                self._judge(watch, standing, measured)
        if len(self._waiting) >= TOGETHER:
            self._count_waiting(self.clock.now)

    def _judge(self, watch: "WorkerWatch", standing: Standing, claims: list[Claim]) -> None:
        if self._closed or watch.standing(standing.model) is not standing:
            return  # forgiven meanwhile
        fresh = standing.judge(claims, self.norms)
        if fresh:
            self.mark(watch, standing, fresh)
        elif standing.over_since_mark >= self.suspended_after and not watch.is_suspended:
            watch.is_suspended = True
            log.warning("worker %s goes on claiming too much: it is suspended", watch.worker)
            self._suspend(watch.worker)
            self._spawn(self._store_suspension(watch.worker))

    def mark(self, watch: "WorkerWatch", standing: Standing, kinds: Iterable[Kind]) -> None:
        """Hold something against a worker from now on, also after a restart."""
        if self._closed:
            return
        standing.learn(self.norms)
        for kind in kinds:
            tally = standing.tallies.get(kind)
            figures: dict[str, Any] = {"belief": standing.kept()}
            if tally is not None:
                figures |= {
                    "samples": tally.samples,
                    "claimed": tally.claimed,
                    "allowed": round(tally.allowed),
                }
            log.warning("worker %s is marked for %s of %s", watch.worker, kind, standing.model)
            self._metrics.engine_failed(watch.worker, f"marked_{kind}")
            detail = orjson.dumps(figures).decode()
            model = standing.model.replace("\0", "\ufffd")  # which PostgreSQL does not take
            mark = Mark(watch.worker, model, kind, self._wall_ms(), detail)
            self._spawn(self._marks.put(mark))

    def forgive(self, worker: str) -> None:
        """Hold nothing against a worker any more; what is stored is cleared by who says so."""
        self.watch(worker).forget(self._wall_ms())

    def reinstate(self, worker: str) -> None:
        """A suspended worker gets requests again, and is watched as it was when it was marked."""
        watch = self._watches.get(worker)
        if watch is not None:
            watch.reinstate()

    def figures(self, worker: str) -> list[ClaimFigures]:
        """What was sampled of a worker since this process began, the latest of each kind."""
        watch = self._watches.get(worker)
        return [] if watch is None else watch.figures()

    async def settled(self) -> None:
        """Until all that was handed in is judged, and stored."""
        while self._waiting or self._counting is not None or self._storing:
            self._count_waiting(self.clock.now)
            counting = () if self._counting is None else (self._counting,)
            await asyncio.gather(*counting, *self._storing, return_exceptions=True)
            await asyncio.sleep(0)

    async def close(self) -> None:
        """What waits is not counted any more."""
        self._closed = True
        self.clock.forget(self._count_waiting)
        self._waiting.clear()
        if self._counting is not None:
            self._counting.cancel()
        self._executor.shutdown(wait=False, cancel_futures=True)
        await asyncio.gather(*self._storing, return_exceptions=True)

    def _restore(self, mark: Mark) -> None:
        watch = self.watch(mark.worker)
        if mark.kind == SUSPENDED:
            watch.is_suspended = True
        else:
            belief = orjson.loads(mark.detail)["belief"]
            watch.standing(mark.model).restore(Kind(mark.kind), belief)

    async def _store_suspension(self, worker: str) -> None:
        await self._disabled.disable(worker)
        await self._marks.put(Mark(worker, "", SUSPENDED, self._wall_ms(), "{}"))

    def _spawn(self, storing: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(_logged(storing))
        self._storing.add(task)
        task.add_done_callback(self._storing.discard)


class WorkerWatch:
    """See ``relay.watch.Watch``: of one worker."""

    def __init__(self, auditor: Auditor, worker: str) -> None:
        self._auditor = auditor
        self.worker = worker
        self.is_suspended = False
        self.forgiven_ms = 0
        self._samples: WeakSet[Sample] = WeakSet()  # those that nobody let go of
        self._models: dict[str, Standing] = {}
        # when each was sent last, the latest last
        self._prefixes: OrderedDict[int, float] = OrderedDict()

    @property
    def is_marked(self) -> bool:
        return any(standing.marks for standing in self._models.values())

    def standing(self, model: str) -> Standing:
        standing = self._models.get(model)
        if standing is None:
            if len(self._models) >= MODELS_MAX:  # a mark is the last thing to be forgotten
                unmarked = (name for name, each in self._models.items() if not each.marks)
                del self._models[next(unmarked, next(iter(self._models)))]
            standing = self._models[model] = Standing(self.worker, model)
        return standing

    def begin(
        self, request: ParsedRequest, model: str, prefix: int
    ) -> tuple[Belief | None, Sample | None]:
        if not request.dialect.is_metered:
            return None, None
        is_repeated = self._is_repeated(prefix) if prefix else False
        standing = self.standing(model)
        belief = None
        if standing.marks:
            belief = standing.belief(request, is_repeated=is_repeated)
        one_in = standing.one_in(self._auditor.norms)
        if self._auditor.draw() * one_in >= 1:
            return belief, None
        now = self._auditor.clock.now
        if len(self._samples) >= SAMPLES_MAX:
            self._auditor.limit_reached("audit_samples_max")
            if not self._gave_one_up(now):
                return belief, None
        sample = Sample(request, model, is_repeated=is_repeated, began_at=now)
        self._samples.add(sample)
        return belief, sample

    def _gave_one_up(self, now: float) -> bool:
        """Whether there was a slow one too many: clients that read slowly must not hide others."""
        slow = [
            sample
            for sample in self._samples
            if sample.claimed is None and now - sample.began_at >= SAMPLE_S
        ]
        if len(slow) <= SLOW_SAMPLES_MAX:
            return False
        slow.sort(key=_began_at)
        given_up = slow[SLOW_SAMPLES_MAX]
        given_up.give_up_text()
        self._samples.discard(given_up)
        return True

    def take(self, sample: Sample) -> None:
        self._auditor.count(self, sample)

    def exceeded(self, request: ParsedRequest, model: str) -> None:
        if request.media_parts or hides(request):
            return  # tokens that a setting holds for, or that no text shows
        standing = self.standing(model)
        if standing.exceeded():
            self._auditor.mark(self, standing, [Kind.EXCEEDED])

    def forget(self, at_ms: int) -> None:
        self._models.clear()
        self.forgiven_ms = at_ms
        self.is_suspended = False

    def reinstate(self) -> None:
        self.is_suspended = False
        for standing in self._models.values():
            standing.over_since_mark = 0

    def figures(self) -> list[ClaimFigures]:
        return [
            ClaimFigures(
                model=standing.model,
                kind=kind,
                samples=tally.samples,
                claimed=tally.claimed,
                allowed=round(tally.allowed),
                marked=kind in standing.marks,
            )
            for standing in self._models.values()
            for kind, tally in standing.tallies.items()
            if tally.samples
        ]

    def _is_repeated(self, prefix: int) -> bool:
        now, prefixes = self._auditor.clock.now, self._prefixes
        sent_at = prefixes.pop(prefix, None)
        if len(prefixes) >= PREFIXES_MAX:
            prefixes.popitem(last=False)
        prefixes[prefix] = now
        return sent_at is not None and now - sent_at <= REPEATED_S


def _began_at(sample: Sample) -> float:
    return sample.began_at


def _contradicts(record: UsageRecord, report: Report) -> bool:
    """Whether a report is of another usage than the answer that passed. Guesses need not agree."""
    if record.outcome != Outcome.COMPLETED or report.outcome != Outcome.COMPLETED:
        return False
    if record.estimated or report.estimated:
        return False
    return (
        _differ(record.prompt, report.prompt)
        or _differ(record.cached, report.cached)
        or _differ(record.completion, report.completion)
        or _differ(record.reasoning, report.reasoning)
    )


def _differ(metered: int, reported: int) -> bool:
    if metered == reported:
        return False
    return abs(metered - reported) > max(TOLERANCE_TOKENS, ceil(metered * TOLERANCE))


async def _logged(storing: Coroutine[Any, Any, None]) -> None:
    try:
        await storing
    except StoreError:
        log.exception("a mark could not be stored")
