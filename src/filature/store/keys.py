"""API keys: made, found and revoked. They are all held in memory; whether a request may run is decided elsewhere."""

import hashlib
import hmac
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Literal, Self, get_args

import orjson
from sqlalchemy import Connection, Row, func, insert, select, update

from filature.errors import InvalidRequest, NotFound
from filature.store.reader import Reader
from filature.store.schema import api_keys, key_spending
from filature.store.writer import GroupWriter
from filature.units import NANO_MAX, AccountId, Nano

KEY_PREFIX: Final = "sk-fil-"
NAME_CHARS_MAX: Final = 128
MODELS_MAX: Final = 1000
PERIODS_KEPT: Final = 2
"""Of a key's spending, the latest: the one that runs, and the one before for a clock that is set back."""
_SECRET_BYTES: Final = 32
_HINT_CHARS: Final = 4

Period = Literal["day", "month", "year", "total"]
PERIODS: Final[tuple[Period, ...]] = get_args(Period)


@dataclass(frozen=True, slots=True)
class KeyLimits:
    """What a key may do; None: no limit of its own. Amounts are nano-credits."""

    budget: Nano | None = None
    budget_period: Period | None = None
    """Whose end renews the budget, by UTC; set when ``budget`` is."""
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    concurrency: int | None = None
    """Requests at the same time."""
    models: frozenset[str] | None = None
    max_coefficient: int | None = None
    """Thousandths: dearer workers are not asked."""
    expires_ms: int | None = None

    def __post_init__(self) -> None:
        """Raises InvalidRequest, which names the limit."""
        least = {"budget": 0, "max_coefficient": 0}
        for name in (
            "budget",
            "requests_per_minute",
            "tokens_per_minute",
            "concurrency",
            "max_coefficient",
            "expires_ms",
        ):
            value, lowest = getattr(self, name), least.get(name, 1)
            if value is not None and value < lowest:
                raise InvalidRequest(f"{name} must be at least {lowest}.", param=name)
            if value is not None and value > NANO_MAX:
                raise InvalidRequest(f"{name} must be at most {NANO_MAX}.", param=name)
        if (self.budget is None) != (self.budget_period is None):
            raise InvalidRequest("budget and budget_period belong together.", param="budget_period")
        if self.budget_period is not None and self.budget_period not in PERIODS:
            known = ", ".join(PERIODS)
            raise InvalidRequest(f"budget_period is one of {known}.", param="budget_period")
        if self.models is not None and len(self.models) > MODELS_MAX:
            raise InvalidRequest(f"A key names at most {MODELS_MAX} models.", param="models")

    @property
    def is_counted(self) -> bool:
        """Whether anything has to be counted for the key."""
        return (
            self.budget is not None
            or self.requests_per_minute is not None
            or self.tokens_per_minute is not None
            or self.concurrency is not None
        )


@dataclass(slots=True)
class ApiKey:
    """A key without its secret. The live object: ``revoked_ms`` is set when it is revoked."""

    id: str
    hint: str
    """The secret's last characters, to know it by."""
    account: AccountId
    name: str
    created_ms: int
    limits: KeyLimits
    digest: bytes
    """SHA-256 of the secret."""
    revoked_ms: int | None = None


class KeyRing:
    """All keys, found by their secret. Changes are done when they are stored.

    Where one raises StoreError it may still be stored later: a key whose secret nobody was told, or
    a revocation that is to be asked for again.
    """

    def __init__(self, writer: GroupWriter, wall_ms: Callable[[], int]) -> None:
        self._writer = writer
        self._wall_ms = wall_ms
        self._by_digest: dict[bytes, ApiKey] = {}
        self._by_id: dict[str, ApiKey] = {}

    @classmethod
    async def load(cls, reader: Reader, writer: GroupWriter, wall_ms: Callable[[], int]) -> Self:
        ring = cls(writer, wall_ms)
        for key in await reader.read(_read_keys):
            ring._add(key)
        return ring

    def find(self, secret: bytes) -> ApiKey | None:
        """The key, revoked and expired ones too: that is the caller's to see."""
        digest = hashlib.sha256(secret).digest()
        key = self._by_digest.get(digest)
        if key is None or not hmac.compare_digest(key.digest, digest):
            return None
        return key

    def get(self, key_id: str) -> ApiKey:
        """Raises NotFound."""
        key = self._by_id.get(key_id)
        if key is None:
            raise NotFound(f"There is no key {key_id!r}.", param="key", code="key_not_found")
        return key

    def list(self, account: AccountId | None = None) -> "list[ApiKey]":
        """In the order in which they were made; those of one account, or all."""
        return [key for key in self._by_id.values() if account in (None, key.account)]

    async def create(self, account: AccountId, name: str, limits: KeyLimits) -> tuple[str, ApiKey]:
        """A new key of an account that is there, and its secret, which is told this once."""
        if len(name) > NAME_CHARS_MAX:
            raise InvalidRequest(f"name has at most {NAME_CHARS_MAX} characters.", param="name")
        secret = KEY_PREFIX + secrets.token_urlsafe(_SECRET_BYTES)
        key = ApiKey(
            id=f"key_{secrets.token_hex(8)}",
            hint=secret[-_HINT_CHARS:],
            account=account,
            name=name,
            created_ms=self._wall_ms(),
            limits=limits,
            digest=hashlib.sha256(secret.encode("ascii")).digest(),
        )
        await self._writer.call(lambda connection: _insert(connection, key))
        self._add(key)
        return secret, key

    async def revoke(self, key_id: str) -> ApiKey:
        """From now on it is refused. Raises NotFound; a key that was revoked stays as it is."""
        key = self.get(key_id)
        if key.revoked_ms is None:
            now_ms = self._wall_ms()
            table = api_keys.c
            still_valid = (table.id == key_id) & table.revoked_ms.is_(None)
            statement = update(api_keys).where(still_valid).values(revoked_ms=now_ms)
            await self._writer.execute(statement)
            if key.revoked_ms is None:  # else somebody else revoked it meanwhile
                key.revoked_ms = now_ms
        return key

    def _add(self, key: ApiKey) -> None:
        self._by_digest[key.digest] = key
        self._by_id[key.id] = key


def read_spending(connection: Connection) -> dict[tuple[str, str], int]:
    """What was spent by key and period, nano-credits: each key's latest PERIODS_KEPT.

    A key's periods are all of one kind, whose names sort as they follow on each other.
    """
    table = key_spending.c
    later = func.row_number().over(partition_by=table.key_id, order_by=table.period.desc())
    ranked = select(key_spending, later.label("place")).subquery()
    rows = connection.execute(select(ranked).where(ranked.c.place <= PERIODS_KEPT))
    return {(row.key_id, row.period): row.spent for row in rows}


def _read_keys(connection: Connection) -> list[ApiKey]:
    query = select(api_keys).order_by(api_keys.c.created_ms, api_keys.c.id)
    return [_key(row) for row in connection.execute(query)]


def _key(row: Row[Any]) -> ApiKey:
    limits = KeyLimits(
        budget=row.budget,
        budget_period=row.budget_period,
        requests_per_minute=row.requests_per_minute,
        tokens_per_minute=row.tokens_per_minute,
        concurrency=row.concurrency,
        models=None if row.models is None else frozenset(orjson.loads(row.models)),
        max_coefficient=row.max_coefficient,
        expires_ms=row.expires_ms,
    )
    return ApiKey(
        row.id,
        row.hint,
        AccountId(row.account),
        row.name,
        row.created_ms,
        limits,
        bytes(row.digest),
        row.revoked_ms,
    )


def _insert(connection: Connection, key: ApiKey) -> None:
    limits = key.limits
    models = None if limits.models is None else orjson.dumps(sorted(limits.models)).decode()
    connection.execute(
        insert(api_keys).values(
            id=key.id,
            digest=key.digest,
            hint=key.hint,
            account=key.account,
            name=key.name,
            created_ms=key.created_ms,
            expires_ms=limits.expires_ms,
            budget=limits.budget,
            budget_period=limits.budget_period,
            requests_per_minute=limits.requests_per_minute,
            tokens_per_minute=limits.tokens_per_minute,
            concurrency=limits.concurrency,
            models=models,
            max_coefficient=limits.max_coefficient,
        )
    )
