"""Counts kept on the hot path as plain integers, turned into Prometheus metrics when scraped.

The metrics themselves, their names, labels and meanings, are data: ``metric_specs.py``.
"""

from collections.abc import Callable, Collection, Iterable, Iterator
from itertools import islice
from typing import Final

from prometheus_client import CollectorRegistry, PlatformCollector, ProcessCollector
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.registry import Collector

from filature import __version__
from filature.telemetry import metric_specs as spec
from filature.telemetry.metric_specs import MetricSpec
from filature.telemetry.record import UsageRecord
from filature.units import NANO_PER_CREDIT

CONTENT_TYPE: Final = CONTENT_TYPE_PLAIN_0_0_4
OTHER: Final = "other"
"""The label value for whatever was not declared, so that clients cannot make new series."""
LABEL_VALUES_MAX: Final = 256
"""Models, and engines, that have series of their own."""

_DURATION: Final = spec.REQUEST_DURATION.bounds
_FIRST: Final = spec.TIME_TO_FIRST_TOKEN.bounds
_PER_TOKEN: Final = spec.TIME_PER_OUTPUT_TOKEN.bounds
_PER_EVENT: Final = spec.TIME_PER_EVENT.bounds
_QUEUE: Final = spec.QUEUE_TIME.bounds
_TOKENS: Final = spec.TOKEN_USAGE.bounds
_OPERATIONS: Final = {"completions": "text_completion", "embeddings": "embeddings"}
"""``gen_ai.operation.name`` by dialect; every other is ``chat``."""


class _Histogram:
    """Observations by bucket; the last bucket has no bound."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def add(self, value: float) -> None:
        """Count one observation (``bisect_left``, compiled)."""
        bounds = self.bounds
        low, high = 0, len(bounds)
        while low < high:
            middle = (low + high) >> 1
            if bounds[middle] < value:
                low = middle + 1
            else:
                high = middle
        self.counts[low] += 1
        self.total += value


class _ModelSeries:
    """All that is counted of one model in one dialect."""

    __slots__ = (
        "cached",
        "completion",
        "completion_cost",
        "completion_tokens",
        "estimated",
        "first",
        "outcomes",
        "per_event",
        "per_token",
        "prompt",
        "prompt_cost",
        "prompt_tokens",
        "queue",
        "reasoning",
        "request_cost",
        "unprocessed",
    )

    def __init__(self) -> None:
        self.outcomes: dict[str, _Histogram] = {}  # the request's duration, by outcome
        self.queue = _Histogram(_QUEUE)
        self.first = _Histogram(_FIRST)
        self.per_event = _Histogram(_PER_EVENT)
        self.per_token = _Histogram(_PER_TOKEN)
        self.prompt_tokens = _Histogram(_TOKENS)
        self.completion_tokens = _Histogram(_TOKENS)
        self.prompt = self.cached = self.completion = self.reasoning = 0
        self.prompt_cost = self.completion_cost = self.request_cost = 0
        self.estimated = self.unprocessed = 0


class Metrics(Collector):
    """The metrics of one process. ``record`` is on the hot path; all else is not.

    ``models`` gives the models that engines tell now, ``engines`` the engines' names. A model that no
    engine told is counted under ``other``, and so is what is above LABEL_VALUES_MAX.

    The gauges are plain attributes, set by whoever knows them; None is not shown.
    """

    def __init__(
        self,
        *,
        models: Callable[[], Collection[str]] = tuple,
        engines: Iterable[str] = (),
    ) -> None:
        self.open_streams: int | None = None
        self.open_connections: int | None = None
        self.upstream_connections: int | None = None
        self.requests_running: int | None = None
        self.requests_elsewhere: int | None = None
        self.engines_ready: int | None = None
        self.usage_records_kept: int | None = None
        self.log_lines_dropped: int | None = None
        self.ledger_failing: int | None = None
        self.ledger_commits: int | None = None
        self.ledger_transfers: int | None = None
        self.ledger_holds: int | None = None
        self.outbox_reports: int | None = None
        self.outbox_reports_dropped: int | None = None
        self.tunnels_ready: int | None = None
        self._told_models = models
        self._models: set[str] = set()
        self._engines = set(islice(engines, LABEL_VALUES_MAX))
        self._series: dict[tuple[str, str], _ModelSeries] = {}
        self._engine_failures: dict[tuple[str, str], int] = {}
        self._limits: dict[str, int] = {}
        self._retries = 0

    def record(self, record: UsageRecord) -> None:
        """Count one ended request."""
        series = self._series.get((record.dialect, record.model))
        if series is None:
            series = self._series_of(record.dialect, record.model)
        total_s = record.total_s
        duration = series.outcomes.get(record.outcome)
        if duration is None:
            duration = series.outcomes[record.outcome] = _Histogram(_DURATION)
        duration.add(total_s)
        if record.tries:
            queue_s = record.queue_s
            series.queue.add(queue_s)
            if record.tries > 1:
                self._retries += record.tries - 1
        first_s = record.first_content_s
        if first_s is not None:
            series.first.add(first_s)
            if record.events > 1:
                each_s = (total_s - first_s) / (record.events - 1)
                series.per_event.add(each_s)
            if record.streamed and record.completion > 1:
                each_s = (total_s - first_s) / (record.completion - 1)
                series.per_token.add(each_s)
        tokens = record.prompt
        if tokens:
            series.prompt += tokens
            series.cached += record.cached
            series.prompt_tokens.add(tokens)
        tokens = record.completion
        if tokens:
            series.completion += tokens
            series.reasoning += record.reasoning
            series.completion_tokens.add(tokens)
        if record.total_cost:
            prompt, completion = record.prompt_cost, record.completion_cost
            series.prompt_cost += prompt
            series.completion_cost += completion
            series.request_cost += record.total_cost - prompt - completion
        if record.estimated:
            series.estimated += 1
        if record.unprocessed_bytes:
            series.unprocessed += record.unprocessed_bytes

    def know_engine(self, engine: str) -> None:
        """Let an engine have series of its own, as long as there is room."""
        if len(self._engines) < LABEL_VALUES_MAX:
            self._engines.add(engine)

    def engine_failed(self, engine: str, reason: str) -> None:
        """Count one failed try of an engine. ``reason`` is one of a fixed set of names."""
        key = (engine if engine in self._engines else OTHER, reason)
        self._engine_failures[key] = self._engine_failures.get(key, 0) + 1

    def limit_reached(self, limit: str) -> None:
        """Count that a bound was reached. ``limit`` is the bound's name in the code."""
        self._limits[limit] = self._limits.get(limit, 0) + 1

    def registry(self) -> CollectorRegistry:
        """A registry of this process's metrics, for scraping; independent of the global one."""
        registry = CollectorRegistry(auto_describe=False)
        registry.register(self)
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)
        return registry

    def exposition(self, registry: CollectorRegistry) -> bytes:
        """The text that Prometheus scrapes, in CONTENT_TYPE."""
        return generate_latest(registry)

    def collect(self) -> Iterator[Metric]:
        """The metrics as they stand (prometheus_client's Collector protocol)."""
        yield from self._collect_requests()
        yield from self._collect_histograms()
        yield from self._collect_amounts()
        failures = _counter(spec.ENGINE_FAILURES)
        for (engine, reason), count in sorted(self._engine_failures.items()):
            failures.add_metric([engine, reason], count)
        limits = _counter(spec.LIMITS_REACHED)
        for limit, count in sorted(self._limits.items()):
            limits.add_metric([limit], count)
        retries = _counter(spec.RETRIES)
        retries.add_metric([], self._retries)
        yield from (failures, limits, retries)
        for gauge in spec.GAUGES:
            value: int | None = getattr(self, gauge.name.removeprefix("filature_"))
            if value is not None:
                yield GaugeMetricFamily(gauge.name, gauge.help, value)
        build = GaugeMetricFamily(spec.BUILD_INFO.name, spec.BUILD_INFO.help, labels=["version"])
        build.add_metric([__version__], 1)
        yield build

    def _series_of(self, dialect: str, model: str) -> _ModelSeries:
        """The series of a model seen for the first time, or of one that has none of its own."""
        key = (dialect, model if self._is_known(model) else OTHER)
        series = self._series.get(key)
        if series is None:
            series = self._series[key] = _ModelSeries()
        return series

    def _is_known(self, model: str) -> bool:
        known = self._models
        if model in known:
            return True
        if len(known) >= LABEL_VALUES_MAX or model not in self._told_models():
            return False
        known.add(model)
        return True

    def _collect_requests(self) -> Iterator[Metric]:
        requests = _counter(spec.REQUESTS)
        duration = _histogram(spec.REQUEST_DURATION)
        for (dialect, model), series in sorted(self._series.items()):
            labels = [_OPERATIONS.get(dialect, "chat"), model, dialect]
            for outcome, histogram in sorted(series.outcomes.items()):
                requests.add_metric([dialect, model, outcome], sum(histogram.counts))
                error_type = "" if outcome == "completed" else outcome
                _add(duration, [*labels, error_type], histogram, _DURATION)
        yield from (requests, duration)

    def _collect_histograms(self) -> Iterator[Metric]:
        usage = _histogram(spec.TOKEN_USAGE)
        first = _histogram(spec.TIME_TO_FIRST_TOKEN)
        per_token = _histogram(spec.TIME_PER_OUTPUT_TOKEN)
        per_event = _histogram(spec.TIME_PER_EVENT)
        queue = _histogram(spec.QUEUE_TIME)
        for (dialect, model), series in sorted(self._series.items()):
            labels = [_OPERATIONS.get(dialect, "chat"), model, dialect]
            series.prompt_tokens.total = float(series.prompt)
            series.completion_tokens.total = float(series.completion)
            _add(usage, [*labels, "input"], series.prompt_tokens, _TOKENS)
            _add(usage, [*labels, "output"], series.completion_tokens, _TOKENS)
            _add(first, labels, series.first, _FIRST)
            _add(per_token, labels, series.per_token, _PER_TOKEN)
            _add(per_event, [dialect, model], series.per_event, _PER_EVENT)
            _add(queue, [dialect, model], series.queue, _QUEUE)
        yield from (usage, first, per_token, per_event, queue)

    def _collect_amounts(self) -> Iterator[Metric]:
        tokens = _counter(spec.TOKENS)
        cost = _counter(spec.COST)
        estimated = _counter(spec.ESTIMATED)
        unprocessed = _counter(spec.UNPROCESSED_BYTES)
        for (dialect, model), series in sorted(self._series.items()):
            for kind in ("prompt", "cached", "completion", "reasoning"):
                tokens.add_metric([dialect, model, kind], getattr(series, kind))
            for part in ("prompt", "completion", "request"):
                nano: int = getattr(series, f"{part}_cost")
                cost.add_metric([dialect, model, part], nano / NANO_PER_CREDIT)
            estimated.add_metric([dialect, model], series.estimated)
            unprocessed.add_metric([dialect, model], series.unprocessed)
        yield from (tokens, cost, estimated, unprocessed)


def _counter(metric: MetricSpec) -> CounterMetricFamily:
    return CounterMetricFamily(metric.name, metric.help, labels=metric.labels)


def _histogram(metric: MetricSpec) -> HistogramMetricFamily:
    return HistogramMetricFamily(metric.name, metric.help, labels=metric.labels)


def _add(
    family: HistogramMetricFamily,
    labels: list[str],
    histogram: _Histogram,
    bounds: tuple[float, ...],
) -> None:
    """Add one series unless it is empty; buckets become cumulative here."""
    running = 0
    buckets = []
    for bound, count in zip((*bounds, float("inf")), histogram.counts, strict=True):
        running += count
        buckets.append(("+Inf" if bound == float("inf") else f"{float(bound)!r}", running))
    if running:
        family.add_metric(labels, buckets, histogram.total)
