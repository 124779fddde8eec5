"""Every metric as data: its name, labels, meaning and buckets. ``docs/metrics.md`` is made from this.

Names and buckets that begin with ``gen_ai`` are those of OpenTelemetry's semantic conventions for
generative AI ("Generative AI metrics"), written as Prometheus writes them.
"""

from dataclasses import dataclass
from typing import Final, Literal

Kind = Literal["counter", "gauge", "histogram"]


@dataclass(frozen=True, slots=True)
class MetricSpec:
    """One metric. ``bounds`` are a histogram's upper bucket bounds, in the metric's unit."""

    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...] = ()
    bounds: tuple[float, ...] = ()


_MODEL: Final = ("dialect", "model")
_GEN_AI: Final = ("gen_ai_operation_name", "gen_ai_request_model", "dialect")

REQUESTS: Final = MetricSpec(
    "filature_requests_total",
    "counter",
    "Requests ended, by outcome.",
    (*_MODEL, "outcome"),
)
REQUEST_DURATION: Final = MetricSpec(
    "gen_ai_server_request_duration_seconds",
    "histogram",
    "From a request's last byte to its answer's end; error_type: the outcome where not completed.",
    (*_GEN_AI, "error_type"),
    (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92),
)
TIME_TO_FIRST_TOKEN: Final = MetricSpec(
    "gen_ai_server_time_to_first_token_seconds",
    "histogram",
    "Until the first content of an answer.",
    _GEN_AI,
    (0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0),
)
TIME_PER_OUTPUT_TOKEN: Final = MetricSpec(
    "gen_ai_server_time_per_output_token_seconds",
    "histogram",
    "Of a stream: time after the first content, divided by the tokens after the first.",
    _GEN_AI,
    (0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5),
)
TIME_PER_EVENT: Final = MetricSpec(
    "filature_time_per_output_event_seconds",
    "histogram",
    "Of a stream: time after the first content, divided by the events after the first.",
    _MODEL,
    (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0),
)
QUEUE_TIME: Final = MetricSpec(
    "filature_queue_seconds",
    "histogram",
    "Until a request was sent to the engine that answered it.",
    _MODEL,
    (0.0001, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 30.0, 60.0),
)
TOKEN_USAGE: Final = MetricSpec(
    "gen_ai_client_token_usage",
    "histogram",
    "Tokens per request; gen_ai_token_type is input or output.",
    (*_GEN_AI, "gen_ai_token_type"),
    tuple(float(4**power) for power in range(14)),
)
TOKENS: Final = MetricSpec(
    "filature_tokens_total",
    "counter",
    "Tokens metered; cached ones are among the prompt's, reasoning ones among the completion's.",
    (*_MODEL, "class"),
)
COST: Final = MetricSpec(
    "filature_cost_credits_total",
    "counter",
    "Cost of answers in credits; part is prompt, completion or request (the price per request).",
    (*_MODEL, "part"),
)
ESTIMATED: Final = MetricSpec(
    "filature_estimated_answers_total",
    "counter",
    "Answers whose usage was estimated because the engine told none.",
    _MODEL,
)
UNPROCESSED_BYTES: Final = MetricSpec(
    "filature_unprocessed_bytes_total",
    "counter",
    "Bytes at the end of engines' answers that never became an event or a document.",
    _MODEL,
)
ENGINE_FAILURES: Final = MetricSpec(
    "filature_engine_failures_total",
    "counter",
    "Tries that an engine failed, also those that another engine made good.",
    ("engine", "reason"),
)
RETRIES: Final = MetricSpec(
    "filature_retries_total",
    "counter",
    "Tries at another engine after one had failed before any content.",
)
LIMITS_REACHED: Final = MetricSpec(
    "filature_limits_reached_total",
    "counter",
    "How often a bound of the data plane was reached, by its name.",
    ("limit",),
)

OPEN_STREAMS: Final = MetricSpec(
    "filature_open_streams", "gauge", "Streamed answers under way now."
)
REQUESTS_RUNNING: Final = MetricSpec(
    "filature_requests_running", "gauge", "Requests under way now, streamed or not."
)
REQUESTS_ELSEWHERE: Final = MetricSpec(
    "filature_requests_elsewhere",
    "gauge",
    "What engines and workers run or have waiting for others, as they told last.",
)
OPEN_CONNECTIONS: Final = MetricSpec(
    "filature_open_connections", "gauge", "Open connections of clients."
)
UPSTREAM_CONNECTIONS: Final = MetricSpec(
    "filature_upstream_connections", "gauge", "Open connections to engines."
)
ENGINES_READY: Final = MetricSpec(
    "filature_engines_ready", "gauge", "Engines that answer and serve at least one model."
)
USAGE_RECORDS_KEPT: Final = MetricSpec(
    "filature_usage_records_kept", "gauge", "Usage records that can be asked for now."
)
LOG_LINES_DROPPED: Final = MetricSpec(
    "filature_log_lines_dropped",
    "gauge",
    "Request log lines lost because the log was full or gone.",
)
LEDGER_FAILING: Final = MetricSpec(
    "filature_ledger_failing",
    "gauge",
    "1 while the ledger cannot be written to, and requests are refused.",
)
LEDGER_COMMITS: Final = MetricSpec(
    "filature_ledger_commits", "gauge", "Transactions committed since the start."
)
LEDGER_TRANSFERS: Final = MetricSpec(
    "filature_ledger_transfers", "gauge", "Transfers in them: charges, top-ups and others."
)
LEDGER_HOLDS: Final = MetricSpec("filature_ledger_holds", "gauge", "Holds that are open.")
OUTBOX_REPORTS: Final = MetricSpec(
    "filature_outbox_reports",
    "gauge",
    "Of a worker: reports that no proxy has acknowledged yet.",
)
OUTBOX_REPORTS_DROPPED: Final = MetricSpec(
    "filature_outbox_reports_dropped",
    "gauge",
    "Of a worker: reports lost since the start because the outbox was full.",
)
TUNNELS_READY: Final = MetricSpec(
    "filature_tunnels_ready",
    "gauge",
    "Of a worker: connections to proxies on which nothing is being answered.",
)
BUILD_INFO: Final = MetricSpec(
    "filature_build_info", "gauge", "Always 1; the version is a label.", ("version",)
)

GAUGES: Final = (
    OPEN_STREAMS,
    REQUESTS_RUNNING,
    REQUESTS_ELSEWHERE,
    OPEN_CONNECTIONS,
    UPSTREAM_CONNECTIONS,
    ENGINES_READY,
    USAGE_RECORDS_KEPT,
    LOG_LINES_DROPPED,
    LEDGER_FAILING,
    LEDGER_COMMITS,
    LEDGER_TRANSFERS,
    LEDGER_HOLDS,
    OUTBOX_REPORTS,
    OUTBOX_REPORTS_DROPPED,
    TUNNELS_READY,
)
"""Attributes of ``Metrics`` by the same name, shown once they are set."""

ALL: Final = (
    REQUESTS,
    TOKENS,
    COST,
    ESTIMATED,
    UNPROCESSED_BYTES,
    REQUEST_DURATION,
    TIME_TO_FIRST_TOKEN,
    TIME_PER_OUTPUT_TOKEN,
    TIME_PER_EVENT,
    QUEUE_TIME,
    TOKEN_USAGE,
    ENGINE_FAILURES,
    RETRIES,
    LIMITS_REACHED,
    *GAUGES,
    BUILD_INFO,
)
