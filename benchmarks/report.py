"""Turns measurements into a table of targets, measured ratios and verdicts; as text, Markdown or JSON."""

import json
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field

from benchmarks.measure import Spread, Turns
from benchmarks.shapes import (
    HOP_TARGET,
    HOPS,
    IDLE,
    KIB_PER_STREAM_MAX,
    LATENCY_TARGETS,
    MIB_IN_ALL_MAX,
    Target,
)


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table. ``value`` and ``limit`` are in the same terms; no ``limit`` means no verdict."""

    name: str
    figure: str
    target: str
    measured: str
    beside: str
    value: float
    limit: float | None = None

    @property
    def verdict(self) -> str:
        if self.limit is None:
            return ""
        if self.value <= self.limit:
            return "met"
        return f"not met, by {self.value / self.limit - 1:.0%}"


@dataclass(slots=True)
class Report:
    """Everything that a run found out. ``judged`` is off for quick runs, whose times mean nothing."""

    machine: dict[str, str]
    rows: list[Row] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    judged: bool = True

    def add(self, rows: Sequence[Row], notes: Sequence[str] = (), *, part: str = "") -> None:
        self.rows += rows
        self.notes += [f"{part}: {note}" if part else note for note in notes]

    def as_json(self) -> str:
        rows = [
            asdict(row) | ({"verdict": row.verdict} if self.judged else {}) for row in self.rows
        ]
        return json.dumps({"machine": self.machine, "rows": rows, "notes": self.notes}, indent=2)

    def as_markdown(self) -> str:
        """The table as the documentation shows it."""
        lines = [
            "| figure | target | measured | beside it | verdict |",
            "| --- | --- | --- | --- | --- |",
        ]
        lines += [
            f"| {row.figure} | {row.target} | {row.measured} | {row.beside} | {row.verdict if self.judged else ''} |"
            for row in self.rows
        ]
        return "\n".join([*lines, "", *(f"- {note}" for note in self.notes)])

    def as_text(self) -> str:
        cells = [("figure", "target", "measured", "beside it", "verdict")]
        cells += [
            (row.figure, row.target, row.measured, row.beside, row.verdict if self.judged else "")
            for row in self.rows
        ]
        widths = [max(len(line[column]) for line in cells) for column in range(len(cells[0]))]
        lines = [
            "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
            for line in cells
        ]
        lines.insert(1, "  ".join("-" * width for width in widths))
        about = "  ".join(f"{name}: {value}" for name, value in self.machine.items())
        return "\n".join([about, "", *lines, "", *(f"! {note}" for note in self.notes)])


def _limit(target: Target | None) -> str:
    if target is None:
        return "–"
    return f"≤ {target.ratio_max:g} ×" + (f" (then {target.later:g} ×)" if target.later else "")


def _ratio(spread: Spread) -> str:
    return f"{spread.median:.2f} × [{spread.least:.2f}–{spread.greatest:.2f}]"


def cpu_rows(turns: Turns) -> list[Row]:
    """CPU time per unit of each relay against nginx; only Filature is judged."""
    shape = turns.shape
    theirs = Spread.of(turns.cpu_us("nginx")).median
    rows = []
    for name in turns.measured:
        if name == "nginx":
            continue
        ours = name == "filature"
        ratio = turns.cpu_ratio(name)
        rows.append(
            Row(
                name=f"cpu/{shape.name}/{name}",
                figure=f"CPU per {shape.unit}: {shape.title}" + ("" if ours else f", {name}"),
                target=_limit(shape.target if ours else None),
                measured=_ratio(ratio),
                beside=f"{Spread.of(turns.cpu_us(name)).median:.1f} µs, nginx {theirs:.1f} µs",
                value=ratio.median,
                limit=shape.target.ratio_max if ours and shape.target else None,
            )
        )
    return rows


def hop_rows(turns: Turns) -> list[Row]:
    """CPU time per unit of proxy and worker together, against the proxy with an engine of its own; both without TLS,
    then both with it."""
    shape = turns.shape
    rows = []
    for hop, alone in HOPS:
        ratio = turns.cpu_ratio(hop, alone)
        theirs, both = (Spread.of(turns.cpu_us(name)).median for name in (alone, hop))
        with_tls = hop.endswith("-tls")
        rows.append(
            Row(
                name=f"{hop}/{shape.name}",
                figure=f"proxy and worker, CPU per {shape.unit}: {shape.title}"
                + (", TLS on the tunnel and for clients" if with_tls else ""),
                target=_limit(HOP_TARGET),
                measured=_ratio(ratio),
                beside=f"{both:.1f} µs at {_rate(turns, hop):,.0f}/s, the proxy alone {theirs:.1f} µs at "
                f"{_rate(turns, alone):,.0f}/s",
                value=ratio.median,
                limit=HOP_TARGET.ratio_max,
            )
        )
    return rows


def _rate(turns: Turns, relay: str) -> float:
    """Units per second, as they came through."""
    return statistics.median(turns.units(turn) / turn.seconds for turn in turns.measured[relay])


def latency_rows(turns: Turns) -> list[Row]:
    """Latency added by the relay: what passes through it, less what comes directly, quantile by quantile."""
    rows: list[Row] = []
    if not all(turn.latency_ns for each in turns.measured.values() for turn in each):
        return rows  # nothing came through in some turn; the notes say so
    for quantile, target in LATENCY_TARGETS.items():
        added: dict[str, Spread] = {}
        for name, each in turns.measured.items():
            direct = turns.measured["direct"]
            pairs = zip(each, direct, strict=True)
            added[name] = Spread.of(
                [(a.latency_ns[quantile] - b.latency_ns[quantile]) / 1000 for a, b in pairs]
            )
        theirs, direct_us = added["nginx"], _median_us(turns, "direct", quantile)
        for name, mine in added.items():
            if name in ("nginx", "direct"):
                continue
            ratio = mine.median / theirs.median if theirs.median > 0 else float("nan")
            ours = name == "filature"
            rows.append(
                Row(
                    name=f"latency/{quantile}/{name}",
                    figure=f"added latency per event, {quantile}: {turns.shape.title}"
                    + ("" if ours else f", {name}"),
                    target=_limit(target if ours else None),
                    measured=f"{ratio:.2f} × [{mine.least:.0f}–{mine.greatest:.0f} µs]",
                    beside=f"{mine.median:.0f} µs, nginx {theirs.median:.0f} µs; direct {direct_us:.0f} µs",
                    value=ratio,
                    limit=target.ratio_max if ours else None,
                )
            )
    return rows


def _median_us(turns: Turns, name: str, quantile: str) -> float:
    return Spread.of([turn.latency_ns[quantile] / 1000 for turn in turns.measured[name]]).median


def memory_rows(turns: Turns) -> list[Row]:
    """Memory per open stream and in all."""
    count = int(turns.shape.load["connections"])
    theirs = turns.measured["nginx"][0].relay_pss_bytes - turns.before["nginx"].pss_bytes
    rows = []
    for name, each in turns.measured.items():
        if name == "nginx":
            continue
        ours = name == "filature"
        grown = (each[0].relay_rss_bytes - turns.before[name].rss_bytes) / count / 1024
        total = each[0].relay_rss_bytes / 1024**2
        suffix = "" if ours else f", {name}"
        rows += [
            Row(
                f"memory/stream/{name}",
                f"memory per open stream: {IDLE.title}{suffix}",
                f"≤ {KIB_PER_STREAM_MAX:g} KiB" if ours else "–",
                f"{grown:.1f} KiB",
                f"nginx {theirs / count / 1024:.1f} KiB",
                grown,
                KIB_PER_STREAM_MAX if ours else None,
            ),
            Row(
                f"memory/total/{name}",
                f"memory in all, {count:,} streams open{suffix}",
                f"≤ {MIB_IN_ALL_MAX:g} MiB" if ours else "–",
                f"{total:.0f} MiB",
                f"{turns.before[name].rss_bytes / 1024**2:.0f} MiB before; nginx "
                f"{turns.measured['nginx'][0].relay_pss_bytes / 1024**2:.0f} MiB",
                total,
                MIB_IN_ALL_MAX if ours else None,
            ),
        ]
    return rows
