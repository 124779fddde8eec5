"""``filature db``: the database itself: its schema, copies of it, backup and restore. It asks no admin API.

What is done, and whether another process may be using the database meanwhile, is ``store.upkeep``'s.
"""

from pathlib import Path
from typing import Annotated, Protocol

import typer

from filature.cli.connect import CHOICE_WRONG, CommandFailed, is_there
from filature.cli.session import Session, command, group
from filature.cli.tables import show_json


class _Upkeep(Protocol):
    def upgrade(self, url: str) -> object: ...
    def copy(self, source: str, target: str) -> object: ...
    def backup(self, url: str, path: Path) -> object: ...
    def restore(self, path: Path, url: str) -> object: ...


def register(app: typer.Typer) -> None:
    databases = group(app, "db", "The ledger's database: upgrade, copy, back up, restore.")
    for function in (upgrade, copy, backup, restore):
        command(databases, function)


def upgrade(session: Session) -> None:
    """Bring the schema to this program's version; a proxy does so when it starts."""
    url = session.target.database_url
    _upkeep().upgrade(url)
    _tell(session, f"{_name(url)} has this program's schema.", database=_name(url))


def copy(
    session: Session,
    target: Annotated[
        str,
        typer.Argument(
            help="The URL of an empty database: postgresql://user@host/name. A password is better "
            "given as PGPASSWORD."
        ),
    ],
) -> None:
    """Copy everything into an empty database, such as from SQLite to PostgreSQL."""
    source = session.target.database_url
    names = {"source": _name(source), "target": _name(target)}
    _upkeep().copy(source, target)
    _tell(session, f"Copied {names['source']} to {names['target']}.", **names)


def backup(
    session: Session, file: Annotated[Path, typer.Argument(help="A file that is not there yet.")]
) -> None:
    """Write everything to a file, as it is at one moment; a proxy may go on meanwhile."""
    if is_there(file):
        raise CommandFailed(f"{file} is there already", CHOICE_WRONG)
    url = session.target.database_url
    _upkeep().backup(url, file)
    _tell(session, f"Backed {_name(url)} up to {file}.", database=_name(url), file=str(file))


def restore(
    session: Session, file: Annotated[Path, typer.Argument(help="A file that backup wrote.")]
) -> None:
    """Fill an empty database from a backup."""
    if not is_there(file):
        raise CommandFailed(f"there is no file {file}", CHOICE_WRONG)
    url = session.target.database_url
    _upkeep().restore(file, url)
    _tell(session, f"Restored {_name(url)} from {file}.", database=_name(url), file=str(file))


def _upkeep() -> _Upkeep:
    from filature.store import upkeep  # noqa: PLC0415  # --help is quick

    return upkeep


def _name(url: str) -> str:
    """The URL without its password. Raises StoreError when it is none of ours."""
    from filature.store.database import Database  # noqa: PLC0415  # --help is quick

    return Database(url).name


def _tell(session: Session, text: str, **fields: str) -> None:
    if session.as_json:
        show_json({"object": "database", **fields})
    else:
        print(text)
