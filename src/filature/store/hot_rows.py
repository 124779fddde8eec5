"""How a batch is written: a few statements, whatever its size, each given all rows as one JSON text.

One statement a table means that the driver lets go of the interpreter once a table and not once a
row, so that the event loop need not give way to the writer's thread for every row.
"""

from typing import Any, Final, Literal

import orjson

from filature.ledger.accounts import kind_of
from filature.store.batch import Batch


class Statements:
    """The SQL of one kind of database; each statement takes one parameter, a JSON array of rows."""

    def __init__(self, kind: Literal["sqlite", "postgresql"]) -> None:
        rows, mark, cell = _SQLITE if kind == "sqlite" else _POSTGRES
        self._mark = mark

        def cells(*columns: str) -> str:
            return ", ".join(cell(index, kind_) for index, kind_ in enumerate(columns))

        text, number = "text", "bigint"
        source = f"FROM {rows} WHERE true"
        self.accounts = (
            "INSERT INTO ledger_accounts (id, kind, debits, credits, opened_ms) "
            f"SELECT {cells(text, text, number, number, number)} {source} "
            "ON CONFLICT (id) DO NOTHING"
        )
        self.transfers = (
            "INSERT INTO transfers (id, kind, debit, credit, amount, at_ms, fee, fee_bp, held, "
            "corrects, note) SELECT "
            + cells(text, text, text, text, *[number] * 5, text, text)
            + f" {source}{_ORDER if kind == 'postgresql' else ''}"
        )
        self.balances = (
            f"UPDATE ledger_accounts SET debits = ledger_accounts.debits + changes.debits, "
            f"credits = ledger_accounts.credits + changes.credits FROM (SELECT {cell(0, text)} AS id, "
            f"{cell(1, number)} AS debits, {cell(2, number)} AS credits FROM {rows}) AS changes "
            "WHERE ledger_accounts.id = changes.id"
        )
        self.usage = (
            "INSERT INTO usage_records (id, account, key_id, started_ms, model, outcome, "
            f"total_cost, record) SELECT "
            f"{cells(text, text, text, number, text, text, number, text)} {source} "
            "ON CONFLICT (id) DO UPDATE SET outcome = excluded.outcome, "
            "total_cost = excluded.total_cost, record = excluded.record"
        )
        self.spending = (
            "INSERT INTO key_spending (key_id, period, spent) SELECT "
            f"{cells(text, text, number)} {source} ON CONFLICT (key_id, period) "
            "DO UPDATE SET spent = key_spending.spent + excluded.spent"
        )
        self.is_stored = f"SELECT 1 FROM transfers WHERE id = {mark}"

    def translate(self, statement: str) -> str:
        """SQL that has ``?`` for its parameters, as this database's driver wants it."""
        return statement if self._mark == "?" else statement.replace("?", self._mark)


def _sqlite_cell(index: int, kind: str) -> str:
    return f"json_extract(value, '$[{index}]')"


def _postgres_cell(index: int, kind: str) -> str:
    return f"(value->>{index})::{kind}"


_SQLITE: Final = ("json_each(?)", "?", _sqlite_cell)
_POSTGRES: Final = (
    "jsonb_array_elements(%s::jsonb) WITH ORDINALITY AS element (value, place)",
    "%s",
    _postgres_cell,
)
_ORDER: Final = " ORDER BY place"


def rows_of(batch: Batch, statements: Statements, at_ms: int) -> list[tuple[str, Any]]:
    """The statements that write ``batch``, in order, each with its parameter."""
    work: list[tuple[str, Any]] = []
    if batch.accounts:
        opened = [[name, kind_of(name), 0, 0, at_ms] for name in batch.accounts]
        work.append((statements.accounts, _json(opened)))
    if batch.transfers:
        work.append(
            (
                statements.transfers,
                _json(
                    [
                        [
                            t.id,
                            t.kind,
                            t.debit,
                            t.credit,
                            t.amount,
                            t.at_ms,
                            t.fee,
                            t.fee_bp,
                            t.held,
                            t.corrects,
                            t.note,
                        ]
                        for t in batch.transfers.values()
                    ]
                ),
            )
        )
        work.append((statements.balances, _json(batch.balance_changes())))
    if batch.usage:
        work.append((statements.usage, _json([row.as_list() for row in batch.usage.values()])))
    if batch.spending:
        spent = [[key, period, amount] for (key, period), amount in batch.spending.items()]
        work.append((statements.spending, _json(spent)))
    return work


def _json(rows: list[Any]) -> str:
    return orjson.dumps(rows).decode()
