"""The load shapes and the targets, as data. ``docs/performance.md`` explains them."""

from dataclasses import dataclass, field
from typing import Any, Final

from benchmarks.engine import EngineOptions


@dataclass(frozen=True, slots=True)
class Target:
    """``ratio_max`` times what nginx takes; ``later`` is the next aim, not judged."""

    ratio_max: float
    later: float | None = None


@dataclass(frozen=True, slots=True)
class Shape:
    """One load: what the engine does, what the generator does, what is counted.

    ``unit`` is what CPU time is divided by. ``paced_per_s`` is the rate the pacing asks for, in units per second;
    ``None`` for closed loops, which go as fast as they can.
    """

    name: str
    title: str
    unit: str
    engine: EngineOptions
    load: dict[str, Any] = field(default_factory=dict)
    target: Target | None = None
    paced_per_s: float | None = None


def _streams(count: int) -> dict[str, Any]:
    return {"connections": count, "stream": True, "spread_s": _ANSWER_S}


_ANSWER_S: Final = 1.0
"""How long a paced answer takes: 50 events at 20 ms."""


_AT_END: Final = EngineOptions()
_ON_EVERY: Final = EngineOptions(usage_on_every_event=True)
_PER_STREAM_PER_S: Final = 50.0

CPU_SHAPES: Final = (
    tuple(
        Shape(
            f"stream-{count}",
            f"{count} streams, 50 events at 20 ms, usage at the end",
            "event",
            _AT_END,
            {**_streams(count), "include_usage": True},
            Target(1.3, 1.15),
            count * _PER_STREAM_PER_S,
        )
        for count in (300, 1000)
    )
    + tuple(
        Shape(
            f"continuous-{count}",
            f"{count} streams, usage on every event, stripped",
            "event",
            _ON_EVERY,
            _streams(count),
            Target(1.6),
            count * _PER_STREAM_PER_S,
        )
        for count in (300, 1000)
    )
    + (
        Shape(
            "unary",
            "unary, 32 connections, 400-byte answers, equal requests",
            "request",
            _AT_END,
            {"connections": 32, "stream": False},
            Target(2.0, 1.4),
        ),
        Shape(
            "unary-paced",
            "unary, 32 connections, 10,000 requests/s, 400-byte answers",
            "request",
            _AT_END,
            {"connections": 32, "stream": False, "per_s": 10_000.0},
            Target(2.0, 1.4),
            10_000.0,
        ),
        Shape(
            "unary-varied",
            "unary, the same with prompts of 32 lengths",
            "request",
            _AT_END,
            {"connections": 32, "stream": False, "vary": True},
            Target(2.0, 1.4),
        ),
        Shape(
            "burst",
            "32 streams in a closed loop, 50 events back to back",
            "event",
            EngineOptions(interval_s=0.0),
            {**_streams(32), "include_usage": True, "spread_s": 0.0},
        ),
    )
)

HOP_SHAPES: Final = (
    *(shape for shape in CPU_SHAPES if shape.name in ("stream-300", "continuous-300")),
    Shape(
        "unary-4000",
        "unary, 32 connections, 4,000 requests/s, 400-byte answers",
        "request",
        _AT_END,
        {"connections": 32, "stream": False, "per_s": 4_000.0},
        paced_per_s=4_000.0,
    ),
    *(shape for shape in CPU_SHAPES if shape.name == "unary"),
)
HOPS: Final = (("hop", "filature"), ("hop-tls", "filature-tls"))
"""Relays with a worker, each beside the proxy alone that it is compared with."""
HOP_TARGET: Final = Target(2.2)
"""Proxy and worker together, against the proxy alone: streams at the same rate, requests at the same rate, and requests
in a closed loop, in which the proxy alone goes twice as fast, with larger batches and so with cheaper requests."""

LATENCY: Final = Shape(
    "latency",
    "300 streams at 15,000 events/s, each event with its time of sending",
    "event",
    EngineOptions(stamped=True),
    {**_streams(300), "include_usage": True, "stamped": True},
    paced_per_s=300 * _PER_STREAM_PER_S,
)
LATENCY_TARGETS: Final = {"p50": Target(1.5), "p99": Target(2.0)}

IDLE: Final = Shape(
    "idle",
    "5,000 open streams, one event each 5 s",
    "stream",
    EngineOptions(interval_s=5.0),
    {**_streams(5000), "include_usage": True, "idle": True, "spread_s": 5.0},
)
KIB_PER_STREAM_MAX: Final = 30.0
MIB_IN_ALL_MAX: Final = 250.0

POSTPROCESSOR_NS_MAX: Final = 1500.0
