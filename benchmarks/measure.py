"""Runs a shape through several relays in alternating turns and keeps every turn's figures; judges nothing."""

import contextlib
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from benchmarks import processes
from benchmarks.generator import Load, Measured
from benchmarks.machine import Memory, cores, memory
from benchmarks.relays import RELAYS, Relay
from benchmarks.shapes import Shape

_SATURATED = 0.9
_RATE_SHARE_MIN = 0.93
_FOREIGN_SHARE_MAX = 0.15


@dataclass(frozen=True)
class Effort:
    """How long to measure: ``rounds`` turns of each relay, each warmed up and then measured for so long."""

    rounds: int = 7
    warm_s: float = 0.5
    seconds: float = 2.0


@dataclass(frozen=True, slots=True)
class Spread:
    """Median, least and greatest of some values."""

    median: float
    least: float
    greatest: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        return cls(statistics.median(values), min(values), max(values))


@dataclass(slots=True)
class Turns:
    """All turns of one shape: relay name → what each of its turns measured, in order."""

    shape: Shape
    measured: dict[str, list[Measured]] = field(default_factory=dict)
    before: dict[str, Memory] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def cpu_us(self, relay: str) -> list[float]:
        """The relay's CPU time per unit of work in each turn, in µs."""
        return [
            turn.relay_cpu_ns / max(1, self.units(turn)) / 1000 for turn in self.measured[relay]
        ]

    def units(self, turn: Measured) -> int:
        return turn.events if self.shape.unit == "event" else turn.answers

    def cpu_ratio(self, relay: str, yardstick: str = "nginx") -> Spread:
        """The ratios of CPU time, turn by turn."""
        pairs = zip(self.cpu_us(relay), self.cpu_us(yardstick), strict=True)
        return Spread.of([mine / theirs for mine, theirs in pairs if theirs])

    @property
    def failures(self) -> int:
        return sum(turn.failures for turns in self.measured.values() for turn in turns)


def run_shape(
    shape: Shape,
    relays: Sequence[str],
    effort: Effort,
    progress: Callable[[str], None] = lambda _line: None,
) -> Turns:
    """Starts an engine and the relays, gives each its turn, again and again. ``direct`` names no relay at all."""
    relay_core, load_core = cores()
    turns = Turns(shape)
    with contextlib.ExitStack() as stack:
        engine_port, engine_pid = stack.enter_context(
            processes.engine(shape.engine, core=load_core)
        )
        started = [
            Relay("direct", engine_port, ())
            if name == "direct"
            else stack.enter_context(RELAYS[name](engine_port, relay_core))
            for name in relays
        ]
        for relay in started:
            turns.measured[relay.name] = []
            if relay.pids:
                turns.before[relay.name] = _memory_of(relay)
        for turn in range(effort.rounds):
            for relay in started:
                load = Load(
                    host="127.0.0.1",
                    port=relay.port,
                    tls=relay.tls,
                    warm_s=effort.warm_s,
                    seconds=effort.seconds,
                    events_per_answer=shape.engine.events,
                    relay_pids=relay.pids,
                    own_pids=(engine_pid,),
                    relay_core=relay_core,
                    **shape.load,
                )
                measured = processes.generate(load, core=load_core)
                turns.measured[relay.name].append(measured)
                progress(
                    f"{shape.name} {turn + 1}/{effort.rounds} {relay.name}: {_line(turns, measured)}"
                )
    turns.notes += _notes(turns)
    return turns


def _memory_of(relay: Relay) -> Memory:
    each = [memory(pid) for pid in relay.pids]
    return Memory(sum(used.rss_bytes for used in each), sum(used.pss_bytes for used in each))


def _line(turns: Turns, measured: Measured) -> str:
    units = max(1, turns.units(measured))
    return (
        f"{units / measured.seconds:,.0f} {turns.shape.unit}s/s, {measured.relay_cpu_ns / units / 1000:.2f} µs each, "
        f"load {_share(measured):.0%} of its core, {measured.failures} failures"
    )


def _share(measured: Measured) -> float:
    """How much of its core the load took: generator and engine together."""
    return (measured.own_cpu_ns + measured.generator_cpu_ns) / 1e9 / measured.seconds


def _notes(turns: Turns) -> list[str]:
    """What a reader must know before believing the figures."""
    notes = []
    shape = turns.shape
    for name, each in turns.measured.items():
        load = statistics.median(_share(turn) for turn in each)
        if load > _SATURATED:
            notes.append(
                f"{name}: the load took {load:.0%} of its core, so it set the rate, not the relay"
            )
        if shape.paced_per_s:
            rate = statistics.median(turns.units(turn) / turn.seconds for turn in each)
            if rate < _RATE_SHARE_MIN * shape.paced_per_s:
                notes.append(
                    f"{name}: {rate:,.0f} {shape.unit}s/s came through of {shape.paced_per_s:,.0f}"
                )
        foreign = statistics.median(turn.foreign_share for turn in each)
        if foreign > _FOREIGN_SHARE_MAX:
            notes.append(f"{name}: others took {foreign:.0%} of the relay's core meanwhile")
        faults = [fault for turn in each for fault in turn.faults]
        if faults:
            count = sum(turn.failures for turn in each)
            notes.append(f"{name}: {count} FAILURES, such as {faults[0]!r}")
    return notes
