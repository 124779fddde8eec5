"""Secrets that are given out: made, found and revoked. All are held in memory; what one allows is decided elsewhere."""

import hashlib
import hmac
import secrets
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Final, Generic, Self, TypeVar

import orjson
from sqlalchemy import Table, insert, select, update

from filature.errors import NotFound
from filature.store.reader import Reader
from filature.store.writer import GroupWriter

MODELS_MAX: Final = 1000
_SECRET_BYTES: Final = 32
_HINT_CHARS: Final = 4


@dataclass(slots=True, kw_only=True)
class Credential:
    """What is kept of a secret. The live object: ``revoked_ms`` is set when it is revoked."""

    id: str
    hint: str
    """The secret's last characters, to know it by."""
    digest: bytes
    """SHA-256 of the secret."""
    created_ms: int
    revoked_ms: int | None = None


KindOf = TypeVar("KindOf", bound=Credential)


class Credentials(ABC, Generic[KindOf]):
    """Those of one table, found by their secret. Changes are done when they are stored.

    Where one raises StoreError it may still be stored later: a credential whose secret nobody was told, or
    a revocation that is to be asked for again.
    """

    _table: ClassVar[Table]
    _prefix: ClassVar[str]
    """Of its secrets."""
    _id_prefix: ClassVar[str]

    def __init__(self, writer: GroupWriter, wall_ms: Callable[[], int]) -> None:
        self._writer = writer
        self._wall_ms = wall_ms
        self._by_digest: dict[bytes, KindOf] = {}
        self._by_id: dict[str, KindOf] = {}

    @classmethod
    async def load(cls, reader: Reader, writer: GroupWriter, wall_ms: Callable[[], int]) -> Self:
        made, table = cls(writer, wall_ms), cls._table
        query = select(table).order_by(table.c.created_ms, table.c.id)
        for row in await reader.read(lambda connection: connection.execute(query).all()):
            made._add(row._asdict())
        return made

    @staticmethod
    @abstractmethod
    def _of(row: dict[str, Any], kept: dict[str, Any]) -> KindOf:
        """``kept``: the fields that every Credential has."""

    @staticmethod
    @abstractmethod
    def _missing(id_: str) -> NotFound: ...

    def find(self, secret: bytes) -> KindOf | None:
        """Revoked ones too: that is the caller's to see."""
        digest = hashlib.sha256(secret).digest()
        found = self._by_digest.get(digest)
        if found is None or not hmac.compare_digest(found.digest, digest):
            return None
        return found

    def get(self, id_: str) -> KindOf:
        """Raises NotFound."""
        found = self._by_id.get(id_)
        if found is None:
            raise self._missing(id_)
        return found

    def list(self) -> "list[KindOf]":
        """In the order in which they were made."""
        return list(self._by_id.values())

    async def revoke(self, id_: str) -> KindOf:
        """From now on it is refused. Raises NotFound; what was revoked stays as it is."""
        found = self.get(id_)
        if found.revoked_ms is None:
            now_ms = self._wall_ms()
            table = self._table.c
            still_valid = (table.id == id_) & table.revoked_ms.is_(None)
            statement = update(self._table).where(still_valid).values(revoked_ms=now_ms)
            await self._writer.execute(statement)
            if found.revoked_ms is None:  # else somebody else revoked it meanwhile
                found.revoked_ms = now_ms
        return found

    async def _issue(self, **columns: Any) -> tuple[str, KindOf]:
        """A new secret, told this once, and what is kept of it: a row with ``columns`` besides."""
        secret = self._prefix + secrets.token_urlsafe(_SECRET_BYTES)
        row = columns | {
            "id": self._id_prefix + secrets.token_hex(8),
            "hint": secret[-_HINT_CHARS:],
            "digest": hashlib.sha256(secret.encode("ascii")).digest(),
            "created_ms": self._wall_ms(),
            "revoked_ms": None,
        }
        await self._writer.execute(insert(self._table).values(row))
        return secret, self._add(row)

    def _add(self, row: dict[str, Any]) -> KindOf:
        kept = {name: row[name] for name in ("id", "hint", "digest", "created_ms", "revoked_ms")}
        made = self._by_id[row["id"]] = self._by_digest[row["digest"]] = self._of(row, kept)
        return made


def models_column(models: frozenset[str] | None) -> str | None:
    """None: all models."""
    return None if models is None else orjson.dumps(sorted(models)).decode()


def models_of(column: str | None) -> frozenset[str] | None:
    return None if column is None else frozenset(orjson.loads(column))
