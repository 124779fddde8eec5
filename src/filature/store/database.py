"""One database by its URL: connections, the schema's version, and who may write. No query is here."""

import fcntl
import os
import sqlite3
import time
from pathlib import Path
from typing import Any, Final, Literal

from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.runtime.environment import EnvironmentContext
from alembic.script import ScriptDirectory
from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError
from sqlalchemy.pool import NullPool

from filature.errors import StoreError
from filature.store.schema import metadata

SQLITE_BUSY_MS: Final = 5000
"""For another process's transaction, such as that of a backup, to let go of the file."""
CONNECT_S: Final = 5
STATEMENT_MS: Final = 30_000
"""For one statement on PostgreSQL."""
LOCK_WAIT_S: Final = 2.0
LOCK_LOOK_S: Final = 0.05
_KEEPALIVE_S: Final = {"idle": 10, "interval": 5, "count": 3}
_DEAD_MS: Final = 25_000
"""After so long without a word from the other side a connection to PostgreSQL is over, as by the keepalives above. The
server is told to see it alike: it would hold the writer's lock for hours for one that the network lost."""
_WRITER_LOCK: Final = 0x66696C61
"""The number of the advisory lock that a PostgreSQL database's only writer holds."""
_MIGRATIONS: Final = Path(__file__).parent / "migrations"


class Database:
    """A database that can be reached by ``engine``; ``kind`` says which of the two it is.

    Raises StoreError when the URL is none of ours. Nothing is connected before it is used.
    """

    def __init__(self, url: str) -> None:
        self.url = _parsed(url)
        self.kind: Literal["sqlite", "postgresql"] = (
            "sqlite" if self.url.get_backend_name() == "sqlite" else "postgresql"
        )
        self.engine: Engine = _sqlite(self.url) if self.kind == "sqlite" else _postgres(self.url)

    @property
    def path(self) -> Path:
        """The file of an SQLite database."""
        assert self.kind == "sqlite"
        assert self.url.database
        return Path(self.url.database)

    @property
    def name(self) -> str:
        """For messages: the URL without its password."""
        if self.kind == "sqlite":
            return f"{_SQLITE_START}{self.url.database}"
        return self.url.render_as_string(hide_password=True)

    def must_be_there(self) -> None:
        """SQLite would make a new file, and say nothing. Raises StoreError where there is none."""
        if self.kind != "sqlite":
            return
        try:
            there = self.path.is_file()
        except OSError as error:
            raise StoreError(f"{self.path} cannot be used: {error.strerror}") from None
        if not there:
            raise StoreError(
                f"There is no ledger at {self.path}. Say where yours is by --data-dir "
                "(FILATURE_DATA_DIR) or --database (FILATURE_DATABASE); `filature up`, `filature "
                "proxy` and `filature account create NAME` begin one."
            )

    def upgrade(self) -> None:
        """Bring the schema to this program's version, in one transaction.

        Call it as the only writer. Raises StoreError when it is newer than this program.
        """
        script = ScriptDirectory(str(_MIGRATIONS))
        try:
            if self.kind == "sqlite":
                self.path.touch(mode=0o600)  # SQLite would make it for all to read
            with self.engine.begin() as connection:
                current = MigrationContext.configure(connection).get_current_revision()
                if current == script.get_current_head():
                    return
                known = {revision.revision for revision in script.walk_revisions()}
                if current is not None and current not in known:
                    raise StoreError(
                        f"{self.name} has the schema {current}, which is newer than this program: "
                        "use the version of filature that wrote it, or a later one."
                    )
                _migrate(connection, script)
        except DBAPIError as error:
            raise StoreError(f"{self.name} cannot be used: {error.orig}") from None
        except OSError as error:
            raise StoreError(f"{self.name} cannot be used: {error.strerror}") from None

    def close(self) -> None:
        self.engine.dispose()


class WriterLock:
    """Held by the one process that writes; lost with the process, whatever ends it.

    For SQLite a lock on a file beside the database, for PostgreSQL an advisory lock of the
    session that writes.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._file: int | None = None

    def take(self) -> None:
        """Take an SQLite file's lock. Raises StoreError when another process holds it, or it cannot be written."""
        if self._database.kind != "sqlite" or self._file is not None:
            return
        path = self._database.path
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._file = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise StoreError(f"{path} cannot be used: {error.strerror}") from None
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            holder = os.pread(self._file, 32, 0).decode("ascii", "replace").strip()
            self.release()
            raise in_use(self._database, f"process {holder}" if holder else "") from None
        try:
            os.ftruncate(self._file, 0)
            os.pwrite(self._file, b"%d\n" % os.getpid(), 0)
        except OSError as error:  # the disk is full
            self.release()
            raise StoreError(f"{path} cannot be used: {error.strerror}") from None

    def release(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None


def take_session_lock(database: Database, connection: Any) -> None:
    """PostgreSQL's part of ``WriterLock``, on the driver's own connection. Raises StoreError.

    Waits up to LOCK_WAIT_S: the server takes a moment to see that the process before this one is gone.
    """
    end = time.monotonic() + LOCK_WAIT_S
    while True:
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_try_advisory_lock(%s)", (_WRITER_LOCK,))
            (taken,) = cursor.fetchone()
        connection.commit()
        if taken:
            return
        if time.monotonic() >= end:
            raise in_use(database, "another session")
        time.sleep(LOCK_LOOK_S)


def in_use(database: Database, holder: str) -> StoreError:
    by = f" by {holder}" if holder else ""
    return StoreError(
        f"{database.name} is in use{by}: one process at a time may write to a ledger. Stop it, or "
        "give this one a database of its own (--data-dir or --database).",
        code="store_in_use",
    )


def _parsed(url: str) -> URL:
    if url.startswith(_SQLITE_START):  # what follows is the path as it is, whatever signs are in it
        path = url.removeprefix(_SQLITE_START)
        if path and path != ":memory:":
            return URL.create("sqlite", database=path)
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):  # the latter for a port that is no number
        shown = "this" if "@" in url else repr(url)  # a password is not repeated
        raise StoreError(f"{shown} is no database's URL: {_FORMS}") from None
    if parsed.drivername in ("postgresql", "postgres"):
        parsed = parsed.set(drivername="postgresql+psycopg")
        password = parsed.query.get("password")
        if isinstance(password, str):  # libpq takes it there, too, but there it would be shown
            parsed = parsed.set(password=password).difference_update_query(["password"])
        return parsed
    raise StoreError(f"{parsed.set(query={}).render_as_string()} cannot be used: {_FORMS}")


_SQLITE_START: Final = "sqlite:///"
_FORMS: Final = "write sqlite:///path/to/file.db or postgresql://user@host/name"


def _sqlite(url: URL) -> Engine:
    # a connection is used by one thread at a time, but not always by the one that made it
    options = {"timeout": SQLITE_BUSY_MS / 1000, "check_same_thread": False}
    engine = create_engine(url, poolclass=NullPool, connect_args=options)
    event.listen(engine, "connect", _on_sqlite_connect)
    event.listen(engine, "begin", _on_sqlite_begin)
    return engine


def _on_sqlite_connect(connection: sqlite3.Connection, record: object) -> None:
    connection.isolation_level = None  # transactions are begun by _on_sqlite_begin, DDL's too
    for pragma in (
        "journal_mode = WAL",
        "synchronous = NORMAL",  # a commit survives the process's death; docs/money.md has the rest
        "foreign_keys = ON",
    ):
        connection.execute(f"PRAGMA {pragma}")


def _on_sqlite_begin(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN")


def _postgres(url: URL) -> Engine:
    server = {"statement_timeout": STATEMENT_MS, "tcp_user_timeout": _DEAD_MS}
    server |= {f"tcp_keepalives_{name}": value for name, value in _KEEPALIVE_S.items()}
    return create_engine(
        url,
        pool_size=2,
        max_overflow=2,
        pool_pre_ping=True,
        connect_args={
            "connect_timeout": CONNECT_S,
            "application_name": "filature",
            "options": " ".join(f"-c {name}={value}" for name, value in server.items()),
            "tcp_user_timeout": _DEAD_MS,
        }
        | {f"keepalives_{name}": value for name, value in _KEEPALIVE_S.items()},
    )


def _migrate(connection: Connection, script: ScriptDirectory) -> None:
    """What ``alembic upgrade head`` does, on a connection that is there."""
    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))

    def steps(revision: Any, context: MigrationContext) -> Any:
        return script._upgrade_revs("head", revision)  # noqa: SLF001 - as alembic.command does

    with EnvironmentContext(config, script, fn=steps) as environment:
        environment.configure(
            connection=connection, target_metadata=metadata, transaction_per_migration=False
        )
        environment.run_migrations()
