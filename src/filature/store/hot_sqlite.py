"""How a batch is written to SQLite: by one statement as a rule, which is its own transaction.

The driver lets go of the interpreter once a statement and then has to ask for it back, against a busy event loop. A
statement writes one table, so the writer's connection has a view of its own, in whose rows a transfer, a usage
record, changes of balances and a key's spending lie side by side, and triggers that put each of them where it belongs.
"""

from collections.abc import Sequence
from typing import Any, Final

from filature.ledger.accounts import kind_of
from filature.ledger.transfers import Transfer
from filature.store.batch import TRANSFER_COLUMNS, USAGE_COLUMNS, Batch, transfer_values

ROWS_MAX: Final = 32
"""In one statement; a larger batch takes several. For each number there is a statement, compiled when it is needed."""
_CHANGED: Final = 3
"""Balances in one row: those that a transfer changes at most."""

_TRANSFER: Final = TRANSFER_COLUMNS.split(", ")
_RECORD: Final = USAGE_COLUMNS.split(", ")
_SPENDING: Final = ("key_id", "period", "spent")
_NO_TRANSFER: Final = (None,) * len(_TRANSFER)
_NO_RECORD: Final = (None,) * len(_RECORD)
_NO_CHANGE: Final = (None,) * 3
_NO_SPENDING: Final = (None,) * len(_SPENDING)

_COLUMNS: Final = (
    *(f"transfer_{name}" for name in _TRANSFER),
    *(f"record_{name}" for name in _RECORD),
    *(f"{name}_{at}" for at in range(_CHANGED) for name in ("account", "debits", "credits")),
    *(f"spending_{name}" for name in _SPENDING),
)
_WIDTH: Final = len(_TRANSFER) + len(_RECORD)
"""Columns of a row that has neither balances nor spending."""


def _insert(table: str, prefix: str, columns: Sequence[str]) -> str:
    values = ", ".join(f"NEW.{prefix}_{name}" for name in columns)
    return f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({values})"


_UPDATES: Final = "; ".join(
    f"UPDATE ledger_accounts SET debits = debits + NEW.debits_{at}, credits = credits + NEW.credits_{at} "
    f"WHERE id = NEW.account_{at}"
    for at in range(_CHANGED)
)
_TRIGGERS: Final = (
    ("transfer_id", _insert("transfers", "transfer", _TRANSFER)),
    (
        "record_id",
        _insert("usage_records", "record", _RECORD)
        + " ON CONFLICT (id) DO UPDATE SET outcome = excluded.outcome, "
        "total_cost = excluded.total_cost, record = excluded.record",
    ),
    ("account_0", _UPDATES),
    (
        "spending_key_id",
        _insert("key_spending", "spending", _SPENDING)
        + " ON CONFLICT (key_id, period) DO UPDATE SET spent = spent + excluded.spent",
    ),
)
_SETUP: Final = (
    "PRAGMA temp_store = MEMORY",
    f"CREATE TEMP VIEW batch AS SELECT {', '.join(f'NULL AS {name}' for name in _COLUMNS)}",
    *(
        f"CREATE TEMP TRIGGER batch_{column} INSTEAD OF INSERT ON batch WHEN NEW.{column} IS NOT NULL "
        f"BEGIN {statement}; END"
        for column, statement in _TRIGGERS
    ),
)
_ACCOUNT: Final = (
    "INSERT INTO ledger_accounts (id, kind, debits, credits, opened_ms) VALUES (?, ?, 0, 0, ?) "
    "ON CONFLICT (id) DO NOTHING"
)
_STORED: Final = f"SELECT {TRANSFER_COLUMNS} FROM transfers WHERE id = ?"


def _statement(rows: int, *, full: bool) -> str:
    """For so many rows; unless ``full`` only the first has balances and spending."""
    marks = ", ".join(["?"] * len(_COLUMNS))
    short = ", ".join(["?"] * _WIDTH + ["NULL"] * (len(_COLUMNS) - _WIDTH))
    others = marks if full else short
    return f"INSERT INTO batch VALUES {', '.join([f'({marks})'] + [f'({others})'] * (rows - 1))}"


_SHORT: Final = [_statement(max(1, rows), full=False) for rows in range(ROWS_MAX + 1)]
_FULL: Final = [_statement(max(1, rows), full=True) for rows in range(ROWS_MAX + 1)]


class SqliteRows:
    """See ``HotRows``."""

    def prepare(self, driver: Any) -> None:
        for statement in _SETUP:
            driver.execute(statement)

    def work(self, batch: Batch, at_ms: int) -> list[tuple[str, Sequence[Any]]]:
        work: list[tuple[str, Sequence[Any]]] = [
            (_ACCOUNT, (name, str(kind_of(name)), at_ms)) for name in batch.accounts
        ]
        work += _rows_of(batch)
        work += batch.also
        return work

    def write(self, driver: Any, work: list[tuple[str, Sequence[Any]]]) -> None:
        if len(work) == 1:
            statement, values = work[0]
            driver.execute(statement, values)
            return
        driver.execute("BEGIN IMMEDIATE")
        for statement, values in work:
            driver.execute(statement, values)
        driver.commit()

    def is_stored(self, driver: Any, transfer: Transfer) -> bool:
        found = driver.execute(_STORED, (transfer.id,)).fetchone()
        return bool(found == transfer_values(transfer))


def _rows_of(batch: Batch) -> list[tuple[str, Sequence[Any]]]:
    transfers, records = list(batch.transfers.values()), list(batch.usage.values())
    changes, spending = batch.balance_changes(), list(batch.spending.items())
    changed_rows = (len(changes) + _CHANGED - 1) // _CHANGED
    full = changed_rows > 1 or len(spending) > 1
    work: list[tuple[str, Sequence[Any]]] = []
    rows = max(len(transfers), len(records), changed_rows, len(spending))
    for start in range(0, rows, ROWS_MAX):
        end = min(start + ROWS_MAX, rows)
        values: list[Any] = []
        for at in range(start, end):
            values += transfer_values(transfers[at]) if at < len(transfers) else _NO_TRANSFER
            values += records[at].values() if at < len(records) else _NO_RECORD
            if full or at == start:
                for place in range(at * _CHANGED, (at + 1) * _CHANGED):
                    values += changes[place] if place < len(changes) else _NO_CHANGE
                if at < len(spending):
                    (key, period), amount = spending[at]
                    values += (key, period, amount)
                else:
                    values += _NO_SPENDING
        work.append(((_FULL if full else _SHORT)[end - start], values))
    return work
