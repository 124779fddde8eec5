"""Workers' tokens: made, found and revoked. All are held in memory; whether a worker may join is decided elsewhere."""

import hashlib
import hmac
import re
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Self

import orjson
from sqlalchemy import Connection, Row, insert, select, update

from filature.errors import InvalidRequest, NotFound
from filature.store.reader import Reader
from filature.store.schema import worker_tokens
from filature.store.writer import GroupWriter

PREFIX: Final = "fil-wrk-"
WORKER_CHARS_MAX: Final = 64
MODELS_MAX: Final = 1000
_WORKER_NAME: Final = re.compile(rf"[A-Za-z0-9][A-Za-z0-9._-]{{0,{WORKER_CHARS_MAX - 1}}}")
_SECRET_BYTES: Final = 32
_HINT_CHARS: Final = 4


@dataclass(slots=True)
class WorkerToken:
    """A token without its secret. The live object: ``revoked_ms`` is set when it is revoked."""

    id: str
    hint: str
    """The secret's last characters, to know it by."""
    worker: str
    """What its account in the ledger is called: ``worker:NAME``."""
    created_ms: int
    models: frozenset[str] | None
    """Those that it may serve; None: all."""
    digest: bytes
    """SHA-256 of the secret."""
    revoked_ms: int | None = None


class WorkerTokens:
    """All tokens, found by their secret. Changes are done when they are stored.

    Where one raises StoreError it may still be stored later: a token whose secret nobody was told, or
    a revocation that is to be asked for again.
    """

    def __init__(self, writer: GroupWriter, wall_ms: Callable[[], int]) -> None:
        self._writer = writer
        self._wall_ms = wall_ms
        self._by_digest: dict[bytes, WorkerToken] = {}
        self._by_id: dict[str, WorkerToken] = {}

    @classmethod
    async def load(cls, reader: Reader, writer: GroupWriter, wall_ms: Callable[[], int]) -> Self:
        tokens = cls(writer, wall_ms)
        for token in await reader.read(_read_tokens):
            tokens._add(token)
        return tokens

    def find(self, secret: bytes) -> WorkerToken | None:
        """The token, revoked ones too: that is the caller's to see."""
        digest = hashlib.sha256(secret).digest()
        token = self._by_digest.get(digest)
        if token is None or not hmac.compare_digest(token.digest, digest):
            return None
        return token

    def get(self, token_id: str) -> WorkerToken:
        """Raises NotFound."""
        token = self._by_id.get(token_id)
        if token is None:
            raise NotFound(
                f"There is no worker token {token_id!r}.",
                param="token",
                code="worker_token_not_found",
            )
        return token

    def list(self) -> "list[WorkerToken]":
        """In the order in which they were made."""
        return list(self._by_id.values())

    async def create(self, worker: str, models: frozenset[str] | None) -> tuple[str, WorkerToken]:
        """A new token of a worker, which may have others, and its secret, which is told this once."""
        if not _WORKER_NAME.fullmatch(worker):
            raise InvalidRequest(
                f"worker must be 1 to {WORKER_CHARS_MAX} letters, digits and . _ -, beginning with a "
                "letter or digit.",
                param="worker",
            )
        if models is not None and len(models) > MODELS_MAX:
            raise InvalidRequest(f"A token names at most {MODELS_MAX} models.", param="models")
        secret = PREFIX + secrets.token_urlsafe(_SECRET_BYTES)
        token = WorkerToken(
            id=f"wt_{secrets.token_hex(8)}",
            hint=secret[-_HINT_CHARS:],
            worker=worker,
            created_ms=self._wall_ms(),
            models=models,
            digest=hashlib.sha256(secret.encode("ascii")).digest(),
        )
        await self._writer.call(lambda connection: _insert(connection, token))
        self._add(token)
        return secret, token

    async def revoke(self, token_id: str) -> WorkerToken:
        """From now on it is refused. Raises NotFound; a token that was revoked stays as it is."""
        token = self.get(token_id)
        if token.revoked_ms is None:
            now_ms = self._wall_ms()
            table = worker_tokens.c
            still_valid = (table.id == token_id) & table.revoked_ms.is_(None)
            statement = update(worker_tokens).where(still_valid).values(revoked_ms=now_ms)
            await self._writer.execute(statement)
            if token.revoked_ms is None:  # else somebody else revoked it meanwhile
                token.revoked_ms = now_ms
        return token

    def _add(self, token: WorkerToken) -> None:
        self._by_digest[token.digest] = token
        self._by_id[token.id] = token


def _read_tokens(connection: Connection) -> list[WorkerToken]:
    query = select(worker_tokens).order_by(worker_tokens.c.created_ms, worker_tokens.c.id)
    return [_token(row) for row in connection.execute(query)]


def _token(row: Row[Any]) -> WorkerToken:
    return WorkerToken(
        id=row.id,
        hint=row.hint,
        worker=row.worker,
        created_ms=row.created_ms,
        models=None if row.models is None else frozenset(orjson.loads(row.models)),
        digest=bytes(row.digest),
        revoked_ms=row.revoked_ms,
    )


def _insert(connection: Connection, token: WorkerToken) -> None:
    models = None if token.models is None else orjson.dumps(sorted(token.models)).decode()
    connection.execute(
        insert(worker_tokens).values(
            id=token.id,
            digest=token.digest,
            hint=token.hint,
            worker=token.worker,
            created_ms=token.created_ms,
            models=models,
        )
    )
