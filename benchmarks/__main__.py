"""``python -m benchmarks``: the table of ``docs/performance.md``, measured here and now; options choose parts of it."""

import argparse
import importlib.util
import os
import platform
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import filature
from benchmarks import measure, profiling, relays, report, shapes
from benchmarks.machine import raise_open_files
from benchmarks.measure import Effort
from benchmarks.processes import StartFailed
from benchmarks.shapes import Shape

_QUICK = Effort(rounds=1, warm_s=1.0, seconds=0.4)
_PARTS = (
    *(shape.name for shape in shapes.CPU_SHAPES),
    shapes.LATENCY.name,
    shapes.IDLE.name,
    "hop",
    "routing",
    "postprocessor",
    "ledger",
)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--only", action="append", choices=_PARTS, help="one part; may be repeated")
    parser.add_argument(
        "--rounds",
        type=int,
        default=Effort.rounds,
        help="turns of each relay (default %(default)s)",
    )
    parser.add_argument(
        "--seconds",
        type=float,
        default=Effort.seconds,
        help="measured per turn (default %(default)s)",
    )
    parser.add_argument(
        "--quick", action="store_true", help="a smoke test in seconds: no verdicts, fewer streams"
    )
    parser.add_argument(
        "--pump", action="store_true", help="also a bare byte pump on uvloop: Python's floor"
    )
    parser.add_argument(
        "--sketch",
        action="store_true",
        help="also a relay of a hundred lines that meters and prices, and does nothing else",
    )
    parser.add_argument(
        "--others", action="store_true", help="also the gateways that can be installed from PyPI"
    )
    parser.add_argument(
        "--without-filature", action="store_true", help="nginx (and the others) alone"
    )
    parser.add_argument(
        "--profile", action="store_true", help="tell where the time goes in each chosen CPU shape"
    )
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="write the results there too ('-': only as JSON)"
    )
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the table there too")
    return parser.parse_args()


def _machine() -> dict[str, str]:
    model = "unknown processor"
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    return {
        "processor": f"{model}, {len(os.sched_getaffinity(0))} cores",
        "kernel": platform.release(),
        "Python": platform.python_version(),
        "yardstick": relays.nginx_version(),
        "filature": f"{filature.__version__}, {_how_installed()}",
    }


def _how_installed() -> str:
    found = importlib.util.find_spec("filature.relay.exchange")
    compiled = found is not None and not (found.origin or "").endswith(".py")
    return "compiled" if compiled else "plain Python (about half as fast as compiled)"


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _measured_names(options: argparse.Namespace) -> list[str]:
    names = ["nginx"]
    if not options.without_filature:
        names.append("filature")
    if options.pump:
        names.append("pump")
    if options.sketch:
        names.append("sketch")
    if options.others:
        from benchmarks import others  # noqa: PLC0415 - only who asks for them installs them

        names += others.available(_say)
    return names


def _parts(
    options: argparse.Namespace, names: list[str]
) -> Iterator[tuple[str, Callable[[], tuple[list[report.Row], list[str]]]]]:
    """(name, what measures it) of every part; the first member of a result are rows, the second notes."""
    effort = _QUICK if options.quick else Effort(options.rounds, Effort.warm_s, options.seconds)

    def of(
        shape: Shape,
        rows: Callable[[measure.Turns], list[report.Row]],
        relay_names: list[str],
        shape_effort: Effort = effort,
    ) -> Callable[[], tuple[list[report.Row], list[str]]]:
        def run() -> tuple[list[report.Row], list[str]]:
            turns = measure.run_shape(shape, relay_names, shape_effort, _say)
            return rows(turns), turns.notes

        return run

    def postprocessor_alone() -> tuple[list[report.Row], list[str]]:
        from benchmarks import postprocessor  # noqa: PLC0415 - the rest is measurable without it

        return postprocessor.rows(3) if options.quick else postprocessor.rows(), []

    def ledger_alone() -> tuple[list[report.Row], list[str]]:
        from benchmarks import ledger  # noqa: PLC0415 - as above

        return ledger.rows(1000) if options.quick else ledger.rows()

    def routing_alone() -> tuple[list[report.Row], list[str]]:
        from benchmarks import routing  # noqa: PLC0415 - as above

        return routing.rows(1000) if options.quick else routing.rows(), []

    for shape in shapes.CPU_SHAPES:
        if not (options.quick and shape.load["connections"] > 300):
            yield shape.name, of(shape, report.cpu_rows, names)
    yield shapes.LATENCY.name, of(shapes.LATENCY, report.latency_rows, ["direct", *names])
    if not options.quick:
        once = Effort(1, warm_s=6.0, seconds=0.5)
        yield shapes.IDLE.name, of(shapes.IDLE, report.memory_rows, names, once)

    def hop() -> tuple[list[report.Row], list[str]]:
        rows: list[report.Row] = []
        notes: list[str] = []
        for shape in shapes.HOP_SHAPES:
            names = [name for hop, alone in shapes.HOPS for name in (alone, hop)]
            turns = measure.run_shape(shape, names, effort, _say)
            rows += report.hop_rows(turns)
            notes += turns.notes
        return rows, notes

    if not options.without_filature:
        yield "hop", hop
    yield "routing", routing_alone
    yield "postprocessor", postprocessor_alone
    yield "ledger", ledger_alone


def _run(options: argparse.Namespace) -> report.Report:
    out = report.Report(_machine(), judged=not options.quick)
    for name, run in _parts(options, _measured_names(options)):
        if options.only is None or name in options.only:
            try:
                rows, notes = run()
            except StartFailed as failure:
                rows, notes = [], [f"FAILURES: {failure}"]
            out.add(rows, notes, part=name)
    return out


def main() -> int:
    options = _arguments()
    raise_open_files()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what was started is ended
    try:
        if options.profile:
            for shape in shapes.CPU_SHAPES:
                if shape.name in (options.only or ("stream-300", "unary")):
                    print(
                        profiling.profile(shape, "filature", Effort(seconds=options.seconds)),
                        end="\n\n",
                    )
            return 0
        out = _run(options)
    except StartFailed as failure:
        _say(f"benchmarks: {failure}")
        return 1
    only_json = options.json == Path("-")
    print(out.as_json() if only_json else out.as_text())
    if options.json and not only_json:
        options.json.write_text(out.as_json() + "\n", encoding="utf-8")
    if options.markdown:
        options.markdown.write_text(out.as_markdown() + "\n", encoding="utf-8")
    return 1 if any("FAILURES" in note for note in out.notes) else 0


if __name__ == "__main__":
    sys.exit(main())
