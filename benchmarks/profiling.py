"""Where the relay's time goes under a load: sampled from outside, so that the samples do not slow what they see.

py-spy, where it is found (``pip install py-spy``), tells Python functions apart; perf, where it is found, tells kernel,
interpreter and libraries apart. Neither is needed for anything else.
"""

import collections
import re
import shutil
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

from benchmarks import processes
from benchmarks.generator import Load
from benchmarks.machine import cores
from benchmarks.measure import Effort
from benchmarks.relays import RELAYS
from benchmarks.shapes import Shape

_SHOWN = 30
_SAMPLES_PER_S = 1000
_LINE_NUMBER = re.compile(r":\d+(?=\)$)")
_PERF_LINE = re.compile(r"^\s*([\d.]+)%\s+(\S+)\s+\[(.)\]\s+(.+)$")


def profile(shape: Shape, relay_name: str, effort: Effort) -> str:
    """Samples ``relay_name`` under ``shape`` and returns tables as text; raises StartFailed as the relays do."""
    relay_core, load_core = cores()
    seconds = max(4.0, effort.seconds)
    with (
        processes.engine(shape.engine, core=load_core) as (engine_port, _engine_pid),
        RELAYS[relay_name](engine_port, relay_core) as relay,
    ):
        load = Load("127.0.0.1", relay.port, warm_s=1.0, seconds=seconds * 2 + 3, **shape.load)
        background = threading.Thread(
            target=processes.generate, args=(load,), kwargs={"core": load_core}
        )
        background.start()
        threading.Event().wait(1.5)
        tables = [sample(relay.pids[0], seconds) for sample in (_by_function, _by_symbol)]
        background.join()
    return "\n\n".join([f"{shape.title}, {relay_name}", *tables])


def _program(name: str) -> str | None:
    beside = Path(sys.executable).with_name(name)
    return str(beside) if beside.exists() else shutil.which(name)


def _by_function(pid: int, seconds: float) -> str:
    """Python functions by their own time and by that with what they call."""
    program = _program("py-spy")
    if program is None:
        return "py-spy is not here (pip install py-spy): no times by Python function"
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "stacks"
        command = [program, "record", "--nonblocking", "-f", "raw", "-r", str(_SAMPLES_PER_S)]
        command += ["-d", str(round(seconds)), "-p", str(pid), "-o", str(out)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode or not out.exists():
            return f"py-spy failed: {done.stderr.strip()[-300:]}"
        stacks = out.read_text(encoding="utf-8").splitlines()
    lines: collections.Counter[str] = collections.Counter()
    own: collections.Counter[str] = collections.Counter()
    whole: collections.Counter[str] = collections.Counter()
    for stack in stacks:
        frames, _, count = stack.rpartition(" ")
        names = [_LINE_NUMBER.sub("", frame) for frame in frames.split(";")]
        lines[frames.rpartition(";")[2]] += int(count)
        own[names[-1]] += int(count)
        whole.update(dict.fromkeys(names, int(count)))
    tables = {
        "by line": lines,
        "by function, own time": own,
        "by function, with what it calls": whole,
    }
    total = own.total()
    return "\n\n".join(f"{title}\n{_table(counts, total)}" for title, counts in tables.items())


def _table(counts: "collections.Counter[str]", total: int) -> str:
    return "\n".join(
        f"{count / max(1, total):7.1%}  {name}" for name, count in counts.most_common(_SHOWN)
    )


def _by_symbol(pid: int, seconds: float) -> str:
    """Kernel, interpreter and libraries by symbol."""
    program = _program("perf")
    if program is None:
        return "perf is not here: no times by symbol"
    with tempfile.TemporaryDirectory() as folder:
        data = str(Path(folder) / "perf.data")
        record = [
            program,
            "record",
            "-q",
            "-F",
            "999",
            "-p",
            str(pid),
            "-o",
            data,
            "--",
            "sleep",
            str(seconds),
        ]
        done = subprocess.run(record, capture_output=True, text=True, check=False)
        if done.returncode:
            return f"perf failed: {done.stderr.strip()[-300:]}"
        report = [program, "report", "-q", "-i", data, "--sort", "dso,symbol", "--stdio"]
        lines = subprocess.run(
            report, capture_output=True, text=True, check=False
        ).stdout.splitlines()
    shares: collections.Counter[str] = collections.Counter()
    symbols = []
    for line in lines:
        found = _PERF_LINE.match(line)
        if found:
            share, dso, _kind, symbol = found.groups()
            shares[dso] += round(float(share) * 100)
            symbols.append(f"{float(share):6.1f}%  {dso:24} {symbol}")
    objects = "\n".join(f"{count / 100:6.1f}%  {dso}" for dso, count in shares.most_common(8))
    return "by object\n" + objects + "\n\nby symbol\n" + "\n".join(symbols[:_SHOWN])
