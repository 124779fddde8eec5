"""What a worker served and earned, by day and model: its charges and corrections, and the records beside them."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final

from sqlalchemy import JSON, ColumnElement, Connection, Row, cast, func, select, type_coerce

from filature.ledger.accounts import worker_account
from filature.ledger.transfers import CHARGES, TransferKind
from filature.store.reader import Reader
from filature.store.schema import transfers, usage_records
from filature.units import DAY_MS

_TOKENS: Final = ("prompt", "cached", "completion", "reasoning")
_REVERSED: Final = "not_settled"
"""The outcome of a charge that was given back at once, since its client was told that the answer failed."""


@dataclass(slots=True)
class Earned:
    """Of one model on one day (its number since 1970, by UTC). Amounts are nano-credits.

    What corrections took back is taken off on their day.
    """

    day: int
    model: str
    """Empty: of requests whose records are no longer kept."""
    settled: int = 0
    """Requests that were charged for."""
    voided: dict[str, int] = field(default_factory=dict)
    """Requests that were not, by outcome."""
    prompt: int = 0
    cached: int = 0
    completion: int = 0
    reasoning: int = 0
    charged: int = 0
    """What clients, or the operator for them, paid."""
    fees: int = 0

    @property
    def earned(self) -> int:
        return self.charged - self.fees


async def earnings(reader: Reader, worker: str, since_ms: int) -> list[Earned]:
    """Of what was charged, corrected or began and cost nothing from ``since_ms`` on, the earliest day first."""

    def read(connection: Connection) -> list[Earned]:
        sums: dict[tuple[int, str], Earned] = {}

        def sum_of(row: Row[Any]) -> Earned:
            key = (int(row.day), row.model or "")
            return sums.setdefault(key, Earned(*key))

        for row in _charges(connection, worker, since_ms):
            earned = sum_of(row)
            earned.charged += int(row.amount)
            earned.fees += int(row.fee)
            if row.outcome == _REVERSED:
                earned.voided[_REVERSED] = earned.voided.get(_REVERSED, 0) + row.number
                continue
            earned.settled += row.number
            for name in _TOKENS:
                setattr(earned, name, getattr(earned, name) + int(getattr(row, name) or 0))
        for row in _corrections(connection, worker, since_ms):
            earned = sum_of(row)
            earned.charged -= int(row.amount)
            earned.fees -= int(row.fee)
        for row in _voided(connection, worker, since_ms):
            voided = sum_of(row).voided
            voided[row.outcome] = voided.get(row.outcome, 0) + row.number
        return [sums[key] for key in sorted(sums)]

    return await reader.read(read)


def _charges(connection: Connection, worker: str, since_ms: int) -> Iterable[Row[Any]]:
    table, record = transfers.c, _record(connection)
    day = (table.at_ms // DAY_MS).label("day")
    model, outcome = usage_records.c.model, usage_records.c.outcome
    query = (
        select(
            day,
            model,
            outcome,
            func.count().label("number"),
            func.sum(table.amount).label("amount"),
            func.sum(table.fee).label("fee"),
            *(func.sum(record[name].as_integer()).label(name) for name in _TOKENS),
        )
        .select_from(transfers.outerjoin(usage_records, usage_records.c.id == table.id))
        .where(table.credit == worker_account(worker), table.kind.in_(CHARGES))
        .where(table.at_ms >= since_ms)
        .group_by("day", model, outcome)
    )
    return connection.execute(query)


def _corrections(connection: Connection, worker: str, since_ms: int) -> Iterable[Row[Any]]:
    table, model = transfers.c, usage_records.c.model
    day = (table.at_ms // DAY_MS).label("day")
    query = (
        select(
            day,
            model,
            func.sum(table.amount).label("amount"),
            func.sum(table.fee).label("fee"),
        )
        .select_from(transfers.outerjoin(usage_records, usage_records.c.id == table.corrects))
        .where(table.debit == worker_account(worker), table.kind == TransferKind.CORRECTION)
        .where(table.at_ms >= since_ms)
        .group_by("day", model)
    )
    return connection.execute(query)


def _voided(connection: Connection, worker: str, since_ms: int) -> Iterable[Row[Any]]:
    """Records of requests that the worker was the last to be asked for, and nothing was charged for."""
    table, charges = usage_records.c, transfers.c
    day = (table.started_ms // DAY_MS).label("day")
    query = (
        select(day, table.model, table.outcome, func.count().label("number"))
        .select_from(usage_records.outerjoin(transfers, charges.id == table.id))
        .where(charges.id.is_(None), table.started_ms >= since_ms)
        .where(_record(connection)["engine"].as_string() == worker)
        .group_by("day", table.model, table.outcome)
    )
    return connection.execute(query)


def _record(connection: Connection) -> ColumnElement[Any]:
    """A record's text as JSON. PostgreSQL reads none that has a zero character in it."""
    text = usage_records.c.record
    if connection.dialect.name == "sqlite":
        return type_coerce(text, JSON)
    return cast(func.replace(text, "\\u0000", "\\ufffd"), JSON)
