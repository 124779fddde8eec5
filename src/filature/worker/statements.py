"""The latest earnings statement of each proxy, on disk: what the owner of the GPU has in hand when it is to be paid.

A statement is kept when the key that this worker saw first of the proxy signed it, and when no total in it is
lower than before. All else is said in the log, and what was kept stays.
"""

import asyncio
import json
import logging
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from filature.wire.statement import (
    ProxyKey,
    Statement,
    StatementError,
    check_by,
    fallen,
    key_set,
    keys_of,
    read_keys,
    read_unchecked,
)

STATEMENT_FILE: Final = "statement.jws"
KEYS_FILE: Final = "proxy-keys.json"
FILE_BYTES_MAX: Final = 1_000_000

Fetch = Callable[[], Awaitable[bytes | None]]
"""Asks the proxy for its keys; None when it does not tell them."""

log = logging.getLogger(__name__)


class StatementKeeper:
    """Keeps what one proxy says. ``alone``: it is the worker's only one, and its file needs no name of a proxy."""

    def __init__(self, folder: Path, url: str, *, alone: bool = True) -> None:
        self._url = url
        self._keys_path = folder / KEYS_FILE
        self.path = folder / (STATEMENT_FILE if alone else f"statement.{_file_name(url)}.jws")
        self._pinned: list[ProxyKey] = []
        self._compared = False
        self._last = ""
        self._said = ""

    def joined(self) -> None:
        """The proxy may be another process now: its keys are looked at anew."""
        self._compared = False

    async def take(self, text: str | None, worker: str, fetch: Fetch) -> None:
        """Keep a statement for ``worker``, unless it is the last one. Nothing is raised; the log says what is wrong."""
        if text is None or text == self._last:
            return
        try:
            if not self._compared:
                await self._compare(await fetch())
            if not self._pinned:
                return  # until its keys are told
            self._last = text
            await asyncio.to_thread(self._keep, text, worker)
            self._said = ""
        except StatementError as error:
            self._say(f"its earnings statement is not kept: {error}")
        except (OSError, ValueError) as error:
            self._last = ""  # the disk may have room for it at the next heartbeat
            self._say(f"its earnings statement cannot be kept: {error}")

    async def _compare(self, told: bytes | None) -> None:
        """Pin the keys that the proxy tells, or compare them with those that it told first. Raises StatementError."""
        if told is None:
            return
        keys = read_keys(told)
        pinned = await asyncio.to_thread(pinned_keys, self._keys_path)
        known = pinned.get(self._url)
        if known is None:
            await asyncio.to_thread(_pin, self._keys_path, self._url, keys)
            log.info("proxy %s signs by the key %s", self._url, keys[0].id)
            known = keys
        elif not set(known) & set(keys):
            log.warning(
                "proxy %s has another key than at first, %s: its statements are not kept. Ask its "
                "operator; if that is right, take the proxy out of %s.",
                self._url,
                keys[0].id,
                self._keys_path,
            )
        self._pinned = known
        self._compared = True

    def _keep(self, text: str, worker: str) -> None:
        statement = check_by(self._pinned, text)
        if statement.sub != worker:
            raise StatementError(f"it is for {statement.sub[:100]!r}")
        before = self._before()
        if before is not None:
            if before.iss != statement.iss or before.sub != statement.sub:
                self.path.replace(self.path.with_name(f"{self.path.name}.{before.iat}"))
            elif lower := fallen(before, statement):
                raise StatementError(f"lower than in the one before: {', '.join(lower)}")
        write_file(self.path, text + "\n")

    def _before(self) -> Statement | None:
        """What was kept. It was checked then, maybe by a key that is not pinned any more."""
        try:
            return read_unchecked(read_file(self.path))
        except FileNotFoundError:
            return None
        except (StatementError, ValueError):
            log.warning("%s cannot be read; it is replaced", self.path)
            return None

    def _say(self, what: str) -> None:
        if what != self._said:
            log.warning("proxy %s: %s", self._url, what)
            self._said = what


def pinned_keys(path: Path) -> dict[str, list[ProxyKey]]:
    """The keys that each proxy told first, by its URL; none without the file. Raises StatementError or OSError."""
    try:
        told: Any = json.loads(read_file(path))
    except FileNotFoundError:
        return {}
    except ValueError:
        raise StatementError(f"{path} cannot be read") from None
    if not isinstance(told, dict):
        raise StatementError(f"{path} is no list of keys")
    return {url: keys_of(keys) for url, keys in told.items()}


def read_file(path: Path) -> str:
    """Raises OSError, or ValueError of what is no text."""
    with path.open("rb") as file:
        return file.read(FILE_BYTES_MAX).decode("utf-8").strip()


def write_file(path: Path, text: str) -> None:
    """All of it or nothing, for this user only. Raises OSError."""
    part = path.with_name(f".{path.name}.{os.getpid()}")
    file = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        with os.fdopen(file, "w", encoding="utf-8") as opened:
            opened.write(text)
            opened.flush()
            os.fsync(opened.fileno())
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def _pin(path: Path, url: str, keys: list[ProxyKey]) -> None:
    """Beside those of other proxies."""
    pinned = pinned_keys(path) | {url: keys}
    shown = {each: key_set(told) for each, told in pinned.items()}
    write_file(path, json.dumps(shown, indent=1) + "\n")


def _file_name(url: str) -> str:
    parts = urlsplit(url)
    host = (parts.hostname or "").replace(":", "_")
    return host if parts.port is None else f"{host}_{parts.port}"
