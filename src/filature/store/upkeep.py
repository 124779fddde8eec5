"""A database as a whole: its schema's version, copies into another, backups. Nothing is served meanwhile.

All but ``backup`` work as the database's only writer: a proxy that runs on it is told of, and stays.
"""

import os
import shlex
import shutil
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from hashlib import blake2b
from pathlib import Path
from typing import Any, Final

from sqlalchemy import URL, Connection, Table, func, insert, inspect, select, text
from sqlalchemy.exc import DBAPIError

from filature.errors import StoreError
from filature.ledger.invariants import check_ledger
from filature.store.database import Database, WriterLock, take_session_lock
from filature.store.ledger_rows import read_accounts, read_corrected, read_transfers
from filature.store.schema import metadata

COPIED_AT_ONCE: Final = 1000
"""Rows read, and given to the other database, at a time."""
TOLD_MAX: Final = 5
"""Of what is wrong with a ledger."""
_VERSION_TABLE: Final = "alembic_version"
_SQLITE_START: Final = b"SQLite format 3\0"
_DUMP_START: Final = b"PGDMP"
_TABLES: Final = tuple(table.name for table in metadata.sorted_tables)


def upgrade(url: str) -> None:
    """Bring the schema to this program's version, as a proxy does at its start. Raises StoreError."""
    with _alone(Database(url)) as database:
        database.upgrade()
        _keep_private(database)


def copy(source_url: str, target_url: str) -> dict[str, int]:
    """Copy all that is stored into an empty database, in one transaction; how many rows of each table.

    What arrived is read again and compared, and must be a sound ledger. Raises StoreError; then
    nothing was copied.
    """
    source = Database(source_url)
    source.must_be_there()
    with ExitStack() as stack:
        stack.enter_context(_alone(source))
        source.upgrade()
        target = stack.enter_context(_alone(Database(target_url)))
        target.upgrade()
        _keep_private(target)
        with _told(target), source.engine.connect() as read, target.engine.begin() as write:
            for connection in (read, write):
                _take_your_time(connection)
            _must_be_empty(write, target)
            rows = {table.name: _copy_table(table, read, write) for table in metadata.sorted_tables}
            _must_be_sound(write, f"the ledger in {source.name}")
            return rows


def backup(url: str, path: Path) -> None:
    """Write all that is stored at one moment to a new file; a proxy may go on meanwhile. Raises StoreError.

    An SQLite file, or for PostgreSQL what its own ``pg_dump`` writes.
    """
    database = Database(url)
    database.must_be_there()
    if path.exists():
        raise StoreError(f"{path} is there already.")
    part = path.with_name(f".{path.name}.part")
    with _removed(part), _told_of_files(path):
        os.close(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600))
        if database.kind == "sqlite":
            _copy_file(database.path, part)
        else:
            tables = [f"--table={name}" for name in (*_TABLES, _VERSION_TABLE)]
            _run("pg_dump", database, ["--format=custom", *tables], into=part)
        _sync(part)
        part.replace(path)


def restore(path: Path, url: str) -> None:
    """Fill an empty database from what ``backup`` wrote. Raises StoreError.

    Its schema stays what it was: a proxy upgrades it at its start.
    """
    kind = _kind_of(path)
    database = Database(url)
    if database.kind != kind:
        raise StoreError(
            f"{path} is the backup of a database of the other kind than {database.name}: restore it "
            f"as {kind}, and use `filature db copy` then."
        )
    with _alone(database):
        if kind == "sqlite":
            _restore_file(path, database)
        else:
            _restore_dump(path, database)


# Alone with a database


@contextmanager
def _alone(database: Database) -> Iterator[Database]:
    """As its only writer, closed at the end. Raises StoreError when another process writes to it."""
    lock = WriterLock(database)
    session: Connection | None = None
    try:
        lock.take()
        if database.kind == "postgresql":
            with _told(database):
                session = database.engine.connect()
            take_session_lock(database, session.connection.driver_connection)
        yield database
    finally:
        if session is not None:
            session.invalidate()
            session.close()
        database.close()
        lock.release()


@contextmanager
def _told(database: Database) -> Iterator[None]:
    try:
        yield
    except DBAPIError as error:
        raise StoreError(f"{database.name} cannot be used: {error.orig}") from None


def _keep_private(database: Database) -> None:
    if database.kind == "sqlite":
        database.path.chmod(0o600)


def _must_be_empty(connection: Connection, database: Database) -> None:
    """Tables may be there, but no row. Raises StoreError."""
    there = set(inspect(connection).get_table_names())
    for table in metadata.sorted_tables:
        if table.name in there and connection.execute(select(table).limit(1)).first() is not None:
            raise StoreError(
                f"{database.name} is not empty: there are rows in {table.name}. Give one that is."
            )


def _must_be_sound(connection: Connection, what: str) -> None:
    accounts, corrected = read_accounts(connection), read_corrected(connection)
    violations = check_ledger(accounts, read_transfers(connection), corrected=corrected)
    if violations:
        told = [f"{each.invariant}: {each.subject}: {each.message}" for each in violations]
        more = [f"and {len(told) - TOLD_MAX} more"] if len(told) > TOLD_MAX else []
        raise StoreError(f"{what} is not sound. " + "; ".join(told[:TOLD_MAX] + more))


def _take_your_time(connection: Connection) -> None:
    """No statement of this transaction is too long: nobody waits for it."""
    if connection.dialect.name == "postgresql":
        connection.execute(text("SET LOCAL statement_timeout = 0"))


# Copies from one database to another


def _copy_table(table: Table, source: Connection, target: Connection) -> int:
    sent = _Fingerprint()
    for rows in _read(table, source):
        sent.add(rows)
        target.execute(insert(table), [dict(row._mapping) for row in rows])  # noqa: SLF001 - it is public
    arrived = _Fingerprint()
    for rows in _read(table, target):
        arrived.add(rows)
    if arrived != sent:
        raise StoreError(f"What arrived in {table.name} is not what was sent: nothing was copied.")
    column = table.autoincrement_column
    if column is not None and target.dialect.name == "postgresql":
        sequence = func.pg_get_serial_sequence(table.name, column.name)
        target.execute(select(func.setval(sequence, func.max(column))).where(column.is_not(None)))
    return sent.rows


def _read(table: Table, connection: Connection) -> Iterator[Any]:
    columns = list(table.primary_key)
    query = select(table).order_by(*columns)
    result = connection.execute(query, execution_options={"yield_per": COPIED_AT_ONCE})
    yield from result.partitions()


class _Fingerprint:
    """Tells whether two tables have the same rows; each database sorts them in its own way."""

    def __init__(self) -> None:
        self.rows = 0
        self._sum = 0

    def add(self, rows: Any) -> None:
        for row in rows:
            self.rows += 1
            digest = blake2b(repr(tuple(row)).encode("utf-8", "backslashreplace"), digest_size=16)
            self._sum += int.from_bytes(digest.digest())

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, _Fingerprint):
            return NotImplemented
        return (self.rows, self._sum) == (other.rows, other._sum)

    __hash__ = None  # type: ignore[assignment]  # it changes


# Files


def _kind_of(path: Path) -> str:
    """What wrote a backup. Raises StoreError."""
    try:
        with path.open("rb") as file:
            start = file.read(len(_SQLITE_START))
    except OSError as error:
        raise StoreError(f"{path} cannot be read: {error.strerror}") from None
    if start == _SQLITE_START:
        return "sqlite"
    if start.startswith(_DUMP_START):
        return "postgresql"
    raise StoreError(f"{path} is no backup that `filature db backup` wrote.")


def _copy_file(source: Path, target: Path) -> None:
    """An SQLite database as it is at one moment, into one file. Raises StoreError."""
    try:
        with _connected(source, "ro") as read, _connected(target, "rw") as write:
            read.backup(write)
            write.execute("PRAGMA journal_mode = DELETE")  # else it comes with two files more
            (said,) = write.execute("PRAGMA quick_check(1)").fetchone()
    except sqlite3.Error as error:
        raise StoreError(f"{source} cannot be copied: {error}") from None
    if said != "ok":
        raise StoreError(f"{source} is damaged: {said}")


@contextmanager
def _connected(path: Path, mode: str) -> Iterator[sqlite3.Connection]:
    uri = f"{path.absolute().as_uri()}?mode={mode}"
    connection = sqlite3.connect(uri, uri=True, isolation_level=None)
    try:
        yield connection
    finally:
        connection.close()


def _restore_file(path: Path, database: Database) -> None:
    target = database.path
    if target.is_file():
        with _told(database), database.engine.connect() as connection:
            _must_be_empty(connection, database)
    part = target.with_name(f".{target.name}.part")
    with _removed(part), _told_of_files(target):
        os.close(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600))
        _copy_file(path, part)
        restored = Database(f"sqlite:///{part}")
        with _told(restored), restored.engine.connect() as connection:
            _must_be_sound(connection, f"the ledger in {path}")
        restored.close()
        _sync(part)
        database.close()
        _leave_no_log(target)
        part.replace(target)
        _sync(target.parent)


def _leave_no_log(path: Path) -> None:
    """A write-ahead log that stays behind would be taken for that of the next file of this name."""
    if path.is_file():
        with suppress(sqlite3.Error), _connected(path, "rw") as connection:  # if it is not damaged
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    for suffix in ("-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)


def _restore_dump(path: Path, database: Database) -> None:
    with _told(database), database.engine.connect() as connection:
        _must_be_empty(connection, database)
        before = _tables_there(connection)
    options = ["--clean", "--if-exists", "--exit-on-error", "--single-transaction", "--no-owner"]
    _run("pg_restore", database, [*options, "--no-privileges", str(path)])
    with _told(database), database.engine.begin() as connection:
        not_in_backup = {name for name, _ in before & _tables_there(connection)}
        for table in reversed(metadata.sorted_tables):
            if table.name in not_in_backup:  # of a later schema: an upgrade makes it anew
                table.drop(connection)
    with _told(database), database.engine.connect() as connection:
        _must_be_sound(connection, f"the ledger in {database.name}")


def _tables_there(connection: Connection) -> set[tuple[str, int]]:
    """PostgreSQL's number of each of our tables; one that is made anew has another."""
    query = text(
        "SELECT relname, oid FROM pg_class "
        "WHERE relkind = 'r' AND relname = ANY(:names) AND pg_table_is_visible(oid)"
    )
    return {(row.relname, row.oid) for row in connection.execute(query, {"names": list(_TABLES)})}


def _run(program: str, database: Database, options: list[str], *, into: Path | None = None) -> None:
    """One of PostgreSQL's own programs on the database. Raises StoreError."""
    url = database.url
    where = URL.create(
        "postgresql", url.username, None, url.host, url.port, url.database, url.query
    )
    command = [*options, f"--dbname={where.render_as_string()}"]
    found = shutil.which(program)
    if found is None:
        told = " ".join(
            [program, *map(shlex.quote, command), *([] if into is None else ["> FILE"])]
        )
        raise StoreError(f"{program} is not installed here. Where it is, run: {told}")
    environment = dict(os.environ)
    if url.password is not None:
        environment["PGPASSWORD"] = str(url.password)  # not for all to see in the list of processes
    with (into or Path(os.devnull)).open("wb") as output:
        done = subprocess.run(  # noqa: S603 - the program and its options are ours
            [found, *command], stdout=output, stderr=subprocess.PIPE, check=False, env=environment
        )
    if done.returncode != 0:
        raise StoreError(f"{program} failed: {done.stderr.decode(errors='replace').strip()}")


@contextmanager
def _removed(part: Path) -> Iterator[None]:
    """Whatever happens, no half of a file is left."""
    try:
        yield
    finally:
        for name in (part.name, f"{part.name}-wal", f"{part.name}-shm", f"{part.name}-journal"):
            with suppress(OSError):
                part.with_name(name).unlink()


@contextmanager
def _told_of_files(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StoreError(f"{path} cannot be written: {error.strerror}") from None


def _sync(path: Path) -> None:
    """So that a power cut does not take what was said to be there."""
    file = os.open(path, os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)
