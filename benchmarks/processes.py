"""Starts and ends what a measurement needs: engine, relays, load generator; each on its core, none left behind."""

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import IO

from benchmarks.engine import EngineOptions
from benchmarks.generator import Load, Measured, trusting

ROOT = Path(__file__).resolve().parent.parent
START_TIMEOUT_S = 30.0


class StartFailed(Exception):
    """A process that a measurement needs did not start; the message says which and what it wrote."""


@contextlib.contextmanager
def on_core(core: int | None) -> Iterator[None]:
    """What is started inside runs on ``core`` and stays there; ``None`` changes nothing."""
    before = os.sched_getaffinity(0)
    if core is not None:
        os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@contextlib.contextmanager
def running(
    command: Sequence[str],
    *,
    core: int | None,
    log: Path | None = None,
    env: dict[str, str] | None = None,
) -> Iterator["subprocess.Popen[bytes]"]:
    """A child process whose input is a pipe, and whose output is one, or with ``log`` goes to that file.

    Ended by closing its input, then by signals.
    """
    with contextlib.ExitStack() as stack:
        file: IO[bytes] | None = stack.enter_context(log.open("wb")) if log else None
        with on_core(core):
            child = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=file or subprocess.PIPE,
                stderr=file,
                cwd=ROOT,
                env=env,
            )
        try:
            yield child
        finally:
            _end(child)


def _end(child: "subprocess.Popen[bytes]") -> None:
    for pipe in (child.stdin, child.stdout):
        if pipe is not None:
            with contextlib.suppress(OSError):
                pipe.close()
    for stop, patience_s in ((child.terminate, 5.0), (child.kill, 5.0)):
        if child.poll() is None:
            stop()
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(patience_s)


def announced_port(child: "subprocess.Popen[bytes]") -> int:
    """The port from the JSON line that our own children print first."""
    assert child.stdout is not None
    line = child.stdout.readline()
    if not line:
        msg = f"{child.args!r} ended before it listened"
        raise StartFailed(msg)
    return int(json.loads(line)["port"])


@contextlib.contextmanager
def engine(options: EngineOptions, *, core: int | None) -> Iterator[tuple[int, int]]:
    """(port, pid) of an engine with these options."""
    command = [sys.executable, "-m", "benchmarks.engine", "--options", json.dumps(asdict(options))]
    with running(command, core=core) as child:
        yield announced_port(child), child.pid


def generate(load: Load, *, core: int | None) -> Measured:
    """Runs the load generator in a process of its own and returns what it measured."""
    command = [sys.executable, "-m", "benchmarks.generator", json.dumps(asdict(load))]
    with on_core(core):
        done = subprocess.run(command, stdout=subprocess.PIPE, check=False, cwd=ROOT)
    if done.returncode:
        msg = f"the load generator failed with status {done.returncode}"
        raise StartFailed(msg)
    return Measured(**json.loads(done.stdout))


def free_port() -> int:
    """A port that was free a moment ago, for servers that cannot choose one themselves."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_until_ready(
    child: "subprocess.Popen[bytes]", port: int, *, path: str, timeout_s: float, tls: bool = False
) -> None:
    """Returns once ``path`` answers 200; raises StartFailed when the child ends or time runs out."""
    deadline = time.monotonic() + timeout_s
    url = f"{'https' if tls else 'http'}://127.0.0.1:{port}{path}"
    while time.monotonic() < deadline:
        if child.poll() is not None:
            msg = f"{child.args!r} ended with status {child.returncode} before it listened"
            raise StartFailed(msg)
        try:
            with urllib.request.urlopen(url, timeout=2, context=trusting()) as answer:
                answer.read()
                return
        except (OSError, urllib.error.URLError):
            time.sleep(0.05)
    msg = f"{child.args!r} did not answer {path} within {timeout_s:.0f} s"
    raise StartFailed(msg)


def children_of(pid: int) -> list[int]:
    """Process ids of a process's direct children."""
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii")
    return [int(child) for child in text.split()]
