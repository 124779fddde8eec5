"""API keys, and what was spent by each. All are held in memory; whether a request may run is decided elsewhere."""

from dataclasses import asdict, dataclass, fields
from typing import Any, Final, Literal, get_args

from sqlalchemy import Connection, func, select

from filature.errors import InvalidRequest, NotFound
from filature.store.credentials import (
    MODELS_MAX,
    Credential,
    Credentials,
    models_column,
    models_of,
)
from filature.store.schema import api_keys, key_spending
from filature.units import NANO_MAX, AccountId, Nano

NAME_CHARS_MAX: Final = 128
PERIODS_KEPT: Final = 2
"""Of a key's spending, the latest: the one that runs, and the one before for a clock that is set back."""

Period = Literal["day", "month", "year", "total"]
PERIODS: Final[tuple[Period, ...]] = get_args(Period)


@dataclass(frozen=True, slots=True)
class KeyLimits:
    """What a key may do; None: no limit of its own. Amounts are nano-credits.

    Each field is a column of ``api_keys`` by the same name.
    """

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


@dataclass(slots=True, kw_only=True)
class ApiKey(Credential):
    """A key without its secret."""

    account: AccountId
    name: str
    limits: KeyLimits


class KeyRing(Credentials[ApiKey]):
    """All keys; of those that are found some have expired."""

    _table = api_keys
    _prefix = "sk-fil-"
    _id_prefix = "key_"

    def list(self, account: AccountId | None = None) -> "list[ApiKey]":
        """In the order in which they were made; those of one account, or all."""
        return [key for key in self._by_id.values() if account in (None, key.account)]

    async def create(self, account: AccountId, name: str, limits: KeyLimits) -> tuple[str, ApiKey]:
        """A new key of an account that is there, and its secret, which is told this once."""
        if len(name) > NAME_CHARS_MAX:
            raise InvalidRequest(f"name has at most {NAME_CHARS_MAX} characters.", param="name")
        columns = asdict(limits) | {"models": models_column(limits.models)}
        return await self._issue(account=account, name=name, **columns)

    @staticmethod
    def _of(row: dict[str, Any], kept: dict[str, Any]) -> ApiKey:
        limits = {field.name: row[field.name] for field in fields(KeyLimits)}
        return ApiKey(
            **kept,
            account=AccountId(row["account"]),
            name=row["name"],
            limits=KeyLimits(**limits | {"models": models_of(row["models"])}),
        )

    @staticmethod
    def _missing(id_: str) -> NotFound:
        return NotFound(f"There is no key {id_!r}.", param="key", code="key_not_found")


def read_spending(connection: Connection) -> dict[tuple[str, str], int]:
    """What was spent by key and period, nano-credits: each key's latest PERIODS_KEPT.

    A key's periods are all of one kind, whose names sort as they follow on each other.
    """
    table = key_spending.c
    later = func.row_number().over(partition_by=table.key_id, order_by=table.period.desc())
    ranked = select(key_spending, later.label("place")).subquery()
    rows = connection.execute(select(ranked).where(ranked.c.place <= PERIODS_KEPT))
    return {(row.key_id, row.period): row.spent for row in rows}
