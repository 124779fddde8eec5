"""The tests' own PostgreSQL: that either kind of binaries serves, and that nothing of it is left behind."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import psycopg
import pytest
from tests import databases
from tests.databases import (
    NoPostgres,
    PostgresServer,
    installed_binaries,
    postgres_server,
    system_binaries,
)

ROOT = Path(__file__).resolve().parents[3]
WAIT_S = 30.0


@pytest.mark.parametrize("binaries", [system_binaries, installed_binaries])
def test_a_server_keeps_what_it_is_told_and_leaves_nothing(
    binaries: Callable[[], Path | None],
) -> None:
    folder = binaries()
    if folder is None:
        pytest.skip(f"no {binaries.__name__.replace('_', ' ')} here")
    server = PostgresServer(folder)
    try:
        url = server.create()
        with psycopg.connect(url) as connection:
            connection.execute("CREATE TABLE t (n bigint)")
            connection.execute("INSERT INTO t VALUES (9223372036854775807)")
        with psycopg.connect(url) as connection:
            assert connection.execute("SELECT n FROM t").fetchall() == [(2**63 - 1,)]
        server.drop(url)
        with pytest.raises(psycopg.OperationalError, match="does not exist"):
            psycopg.connect(url)
    finally:
        server.stop()
    assert not server.directory.exists()


def test_a_server_ends_with_the_process_that_started_it(postgres: PostgresServer) -> None:
    script = (
        "from pathlib import Path\n"
        "from tests.databases import PostgresServer\n"
        f"server = PostgresServer(Path({str(postgres.binaries)!r}))\n"
        "print(server.directory, flush=True)\n"
        "input()"
    )
    started = subprocess.Popen(
        [sys.executable, "-c", script],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}"},
    )
    with started:
        assert started.stdout is not None
        directory = Path(started.stdout.readline().strip())
        server = int((directory / "data" / "postmaster.pid").read_text().split("\n")[0])
        started.send_signal(signal.SIGKILL)
    end = time.monotonic() + WAIT_S
    while directory.exists():
        assert time.monotonic() < end, "the server lives on"
        time.sleep(0.01)
    with pytest.raises(ProcessLookupError):
        os.kill(server, 0)


def test_binaries_that_others_cannot_reach_are_copied() -> None:
    folder = installed_binaries()
    if folder is None:
        pytest.skip("no installed binaries here")
    package = folder.parent.parent
    with TemporaryDirectory() as closed:  # to all but us
        for each in (package, package.with_name(f"{package.name}.libs")):
            shutil.copytree(each, Path(closed) / each.name)
        server = PostgresServer(Path(closed) / package.name / "pginstall" / "bin")
        server.stop()
    assert not server.directory.exists()


@pytest.fixture
def broken() -> Iterator[Path]:
    """The folder of binaries that do not run."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        for program in ("initdb", "postgres"):
            (folder / program).write_text("#!/bin/sh\nexit 1\n")
            (folder / program).chmod(0o755)
        yield folder


def test_binaries_that_do_not_run_are_told(broken: Path) -> None:
    with pytest.raises(NoPostgres, match="does not start"):
        PostgresServer(broken)


def test_where_the_system_s_do_not_run_the_installed_ones_do(
    broken: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if installed_binaries() is None:
        pytest.skip("no installed binaries here")
    monkeypatch.setattr(databases, "system_binaries", lambda: broken)
    with postgres_server() as server:
        server.execute("SELECT 1")
