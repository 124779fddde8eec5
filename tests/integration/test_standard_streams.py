"""``filature up`` where nobody reads what it says: it serves, and ends when it is told to. Commands say so."""

import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.integration.test_up import ROOT, WAIT_S, environment

from filature.store.data_dir import NOTE_FILE


@contextmanager
def starting(folder: Path, shell: str, **streams: Any) -> Iterator[subprocess.Popen[bytes]]:
    """``filature up`` as ``shell`` starts it, before an engine that is not there."""
    program = f"{sys.executable} -m filature"
    command = f"exec {program} up --engine http://127.0.0.1:9 --port 0 --admin-port 0 {shell}"
    where = environment(str(folder)) | {"FILATURE_DATA_DIR": str(folder)}
    process = subprocess.Popen(["sh", "-c", command], cwd=ROOT, env=where, **streams)
    try:
        yield process
    finally:
        process.kill()
        process.wait(WAIT_S)


def until_it_serves(process: subprocess.Popen[bytes], folder: Path) -> None:
    end = time.monotonic() + WAIT_S
    while not (folder / NOTE_FILE).exists():
        assert process.poll() is None, "it ended by itself"
        assert time.monotonic() < end
        time.sleep(0.02)


def serves_and_ends(process: subprocess.Popen[bytes], folder: Path) -> None:
    until_it_serves(process, folder)
    url = json.loads((folder / NOTE_FILE).read_bytes())["admin_url"]
    assert httpx.get(f"{url}/health", trust_env=False).json() == {"status": "ok"}
    process.send_signal(signal.SIGTERM)
    assert process.wait(WAIT_S) == 0


@pytest.mark.parametrize("shell", ["2>&-", "<&- >&- 2>&-", ">/dev/full"])
def test_streams_that_are_not_there_or_take_nothing(tmp_path: Path, shell: str) -> None:
    null = subprocess.DEVNULL
    with starting(tmp_path, shell, stdin=null, stdout=null, stderr=null) as process:
        serves_and_ends(process, tmp_path)


def test_a_reader_that_left(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with starting(tmp_path, "", stdout=writing, stderr=writing) as process:
        os.close(writing)
        serves_and_ends(process, tmp_path)


def test_a_log_that_nobody_reads_holds_up_neither_requests_nor_the_end(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    os.write(writing, bytes(fcntl.fcntl(writing, fcntl.F_GETPIPE_SZ)))
    with starting(tmp_path, "", stdout=subprocess.DEVNULL, stderr=writing) as process:
        os.close(writing)
        serves_and_ends(process, tmp_path)
    os.close(reading)


def test_without_its_terminal_it_goes_on_where_that_was_asked_for(tmp_path: Path) -> None:
    def nohup() -> None:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)

    null = subprocess.DEVNULL
    with starting(tmp_path, "", stdout=null, stderr=null, preexec_fn=nohup) as process:
        until_it_serves(process, tmp_path)
        process.send_signal(signal.SIGHUP)
        serves_and_ends(process, tmp_path)


@pytest.mark.parametrize(
    "words", ["account create alice", "account list --json", "ledger export --format csv"]
)
def test_a_command_whose_output_finds_no_room_says_so(tmp_path: Path, words: str) -> None:
    program = f"{sys.executable} -m filature"
    where = environment(str(tmp_path)) | {"FILATURE_DATA_DIR": str(tmp_path)}
    first = f"{program} account create bob >/dev/null"
    done = subprocess.run(
        ["sh", "-c", f"{first} && exec {program} {words} >/dev/full"],
        cwd=ROOT,
        env=where,
        capture_output=True,
        text=True,
        timeout=WAIT_S,
        check=False,
    )
    assert done.returncode == 1
    assert "its output is not whole" in done.stderr
    assert len(done.stderr.splitlines()) == 1
