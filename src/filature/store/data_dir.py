"""The data directory: the admin API's token, and the note by which commands find a running proxy."""

import contextlib
import json
import os
import secrets
from pathlib import Path
from typing import Final, NamedTuple

from filature.errors import StoreError

TOKEN_FILE: Final = "admin-token"  # noqa: S105 - a name of a file
NOTE_FILE: Final = "proxy.json"
TOKEN_CHARS_MIN: Final = 16
_NOTE_BYTES_MAX: Final = 4096


class RunningProxy(NamedTuple):
    """What a proxy says of itself while it runs."""

    pid: int
    admin_url: str
    database: str
    """For messages: the URL without its password."""


def admin_token(directory: Path) -> str:
    """The token, made when there is none yet. Raises StoreError."""
    path = directory / TOKEN_FILE
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        with contextlib.suppress(FileExistsError):
            _write_new(path, secrets.token_urlsafe(32) + "\n")
        token = path.read_text("ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise StoreError(f"The admin token in {path} cannot be had: {error}") from None
    if len(token) < TOKEN_CHARS_MIN:
        raise StoreError(f"The admin token in {path} is too short; remove the file for a new one.")
    return token


def write_note(directory: Path, proxy: RunningProxy) -> None:
    """Let commands find this process. Raises StoreError."""
    path = directory / NOTE_FILE
    part = directory / f"{NOTE_FILE}.{proxy.pid}"
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        part.unlink(missing_ok=True)
        _write_new(part, json.dumps(proxy._asdict()) + "\n")
        part.replace(path)
    except OSError as error:
        raise StoreError(f"{path} cannot be written: {error.strerror}") from None


def read_note(directory: Path) -> RunningProxy | None:
    """The proxy that was started with this directory and has not ended since; None when there is none."""
    try:
        with (directory / NOTE_FILE).open("rb") as file:
            fields = json.loads(file.read(_NOTE_BYTES_MAX))
        note = RunningProxy(int(fields["pid"]), str(fields["admin_url"]), str(fields["database"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return note if _is_alive(note.pid) else None


def remove_note(directory: Path, pid: int) -> None:
    """At the end of the process ``pid``: its own note only."""
    note = read_note(directory)
    if note is not None and note.pid == pid:
        with contextlib.suppress(OSError):
            (directory / NOTE_FILE).unlink()


def _write_new(path: Path, text: str) -> None:
    """Only for this user's eyes. Raises FileExistsError."""
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(file, "w", encoding="ascii") as opened:
        opened.write(text)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
