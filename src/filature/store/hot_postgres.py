"""How a batch is written to PostgreSQL: a few statements, whatever its size, sent at once.

Each is given all rows of its table as one JSON text.
"""

from collections.abc import Sequence
from typing import Any, Final

import orjson

from filature.ledger.accounts import kind_of
from filature.ledger.transfers import Transfer
from filature.store.batch import TRANSFER_COLUMNS, USAGE_COLUMNS, Batch, transfer_values

_ROWS: Final = "jsonb_array_elements(%s::jsonb) WITH ORDINALITY AS element (value, place)"


def _cell(index: int, kind: str) -> str:
    return f"(value->>{index})::{kind}"


def _cells(*kinds: str) -> str:
    return ", ".join(_cell(index, kind) for index, kind in enumerate(kinds))


_TEXT: Final = "text"
_NUMBER: Final = "bigint"
_ACCOUNTS: Final = (
    "INSERT INTO ledger_accounts (id, kind, debits, credits, opened_ms) "
    f"SELECT {_cells(_TEXT, _TEXT, _NUMBER, _NUMBER, _NUMBER)} FROM {_ROWS} "
    "ON CONFLICT (id) DO NOTHING"
)
_TRANSFERS: Final = (
    f"INSERT INTO transfers ({TRANSFER_COLUMNS}) "
    f"SELECT {_cells(*[_TEXT] * 4, *[_NUMBER] * 5, _TEXT, _TEXT)} FROM {_ROWS} ORDER BY place"
)
_BALANCES: Final = (
    "UPDATE ledger_accounts SET debits = ledger_accounts.debits + changes.debits, "
    f"credits = ledger_accounts.credits + changes.credits FROM (SELECT {_cell(0, _TEXT)} AS id, "
    f"{_cell(1, _NUMBER)} AS debits, {_cell(2, _NUMBER)} AS credits FROM {_ROWS}) AS changes "
    "WHERE ledger_accounts.id = changes.id"
)
_USAGE: Final = (
    f"INSERT INTO usage_records ({USAGE_COLUMNS}) "
    f"SELECT {_cells(_TEXT, _TEXT, _TEXT, _NUMBER, _TEXT, _TEXT, _NUMBER, _TEXT)} FROM {_ROWS} "
    "ON CONFLICT (id) DO UPDATE SET outcome = excluded.outcome, total_cost = excluded.total_cost, "
    "record = excluded.record"
)
_SPENDING: Final = (
    f"INSERT INTO key_spending (key_id, period, spent) SELECT {_cells(_TEXT, _TEXT, _NUMBER)} FROM {_ROWS} "
    "ON CONFLICT (key_id, period) DO UPDATE SET spent = key_spending.spent + excluded.spent"
)
_STORED: Final = f"SELECT {TRANSFER_COLUMNS} FROM transfers WHERE id = %s"


class PostgresRows:
    """See ``HotRows``."""

    def prepare(self, driver: Any) -> None:
        """Nothing to do."""

    def work(self, batch: Batch, at_ms: int) -> list[tuple[str, Sequence[Any]]]:
        work: list[tuple[str, Sequence[Any]]] = []
        if batch.accounts:
            opened = [[name, kind_of(name), 0, 0, at_ms] for name in batch.accounts]
            work.append((_ACCOUNTS, _json(opened)))
        if batch.transfers:
            moved = [transfer_values(each) for each in batch.transfers.values()]
            work.append((_TRANSFERS, _json(moved)))
            work.append((_BALANCES, _json(batch.balance_changes())))
        if batch.usage:
            work.append((_USAGE, _json([each.values() for each in batch.usage.values()])))
        if batch.spending:
            spent = [(key, period, amount) for (key, period), amount in batch.spending.items()]
            work.append((_SPENDING, _json(spent)))
        work += [(statement.replace("?", "%s"), values) for statement, values in batch.also]
        return work

    def write(self, driver: Any, work: list[tuple[str, Sequence[Any]]]) -> None:
        with driver.pipeline():
            for statement, values in work:
                driver.execute(statement, values)
        driver.commit()

    def is_stored(self, driver: Any, transfer: Transfer) -> bool:
        found = driver.execute(_STORED, (transfer.id,)).fetchone()
        driver.commit()
        return bool(found == transfer_values(transfer))


def _json(rows: Sequence[Any]) -> tuple[str]:
    return (orjson.dumps(rows).decode(),)
