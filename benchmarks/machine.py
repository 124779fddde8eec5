"""What the operating system accounts: CPU time and memory of processes, cores, open-file limits. Linux only."""

import gc
import os
import re
import resource
import time
from dataclasses import dataclass
from pathlib import Path

_CPUCLOCK_SCHED = 2
"""The kind of process clock that the scheduler keeps, to the nanosecond (see clock_getcpuclockid(3))."""


def cpu_ns(pid: int) -> int:
    """User and system time of a process, all of its threads (the ended ones too) and none of its children, in ns.

    The scheduler's own sum, which ``/proc/PID/stat`` shows in ticks of 10 ms.
    """
    return time.clock_gettime_ns((~pid << 3) | _CPUCLOCK_SCHED)


@dataclass(frozen=True, slots=True)
class Memory:
    """Of one process or of several together."""

    rss_bytes: int
    pss_bytes: int


def memory(pid: int) -> Memory:
    """Resident and proportional set size now, from ``smaps_rollup``."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii")
    found = {
        name: int(value) * 1024
        for name, value in re.findall(r"^(Rss|Pss):\s+(\d+) kB", text, re.MULTILINE)
    }
    return Memory(found["Rss"], found["Pss"])


def core_busy_share(before: tuple[int, int], after: tuple[int, int]) -> float:
    """The share of a core's time that was not idle, between two of ``core_times``."""
    total = after[1] - before[1]
    return (after[0] - before[0]) / total if total else 0.0


def core_times(core: int | None) -> tuple[int, int]:
    """(busy, total) of one core in ticks since the machine started; zeros for ``None``."""
    if core is None:
        return 0, 0
    for line in Path("/proc/stat").read_text(encoding="ascii").splitlines():
        name, *values = line.split()
        if name == f"cpu{core}":
            numbers = [int(value) for value in values[:8]]
            return sum(numbers) - numbers[3] - numbers[4], sum(numbers)
    msg = f"no core {core}"
    raise LookupError(msg)


def pin(core: int | None) -> None:
    """Keeps this process, and what it starts, on one core; ``None`` leaves it where it is."""
    if core is not None:
        os.sched_setaffinity(0, {core})


def cores() -> tuple[int | None, int | None]:
    """(the relay's core, the core of engine and generator); ``None`` for both on a machine with one core."""
    available = sorted(os.sched_getaffinity(0))
    return (available[0], available[1]) if len(available) > 1 else (None, None)


def raise_open_files() -> int:
    """Raises the soft limit of open files to the hard one and returns it."""
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def freeze_garbage() -> None:
    """Takes the collector's pauses out of engine and generator: what they keep, they keep for good."""
    gc.collect()
    gc.freeze()
    gc.disable()
