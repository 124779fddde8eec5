"""Everything stored, opened by the one process that may write it."""

from collections.abc import Callable
from typing import Self

from sqlalchemy import Connection, insert

from filature.ledger.accounts import HOUSE_ACCOUNTS, Account, kind_of
from filature.ledger.book import Ledger
from filature.store.availability import WorkerDays
from filature.store.database import Database
from filature.store.disabled_workers import DisabledWorkers
from filature.store.embedded import EmbeddedLedger, LookedUp
from filature.store.keys import KeyRing, read_spending
from filature.store.ledger_rows import read_accounts
from filature.store.marks import Marks
from filature.store.payouts import PayoutRequests
from filature.store.prices import PriceBook
from filature.store.reader import Reader
from filature.store.schema import ledger_accounts
from filature.store.secrets_kept import kept_secret
from filature.store.usage import UsageLog
from filature.store.wall import wall_ms
from filature.store.worker_tokens import WorkerTokens
from filature.store.writer import GroupWriter


class Store:
    """One database and what is held of it in memory. ``await Store.open(url)``, then ``close``."""

    def __init__(  # noqa: PLR0913, PLR0917 - all that is held in memory of one database
        self,
        database: Database,
        writer: GroupWriter,
        reader: Reader,
        ledger: EmbeddedLedger,
        keys: KeyRing,
        prices: PriceBook,
        worker_tokens: WorkerTokens,
        disabled_workers: DisabledWorkers,
        marks: Marks,
        spending: dict[tuple[str, str], int],
    ) -> None:
        self.database = database
        self.writer = writer
        self.reader = reader
        self.ledger = ledger
        self.keys = keys
        self.prices = prices
        self.worker_tokens = worker_tokens
        self.disabled_workers = disabled_workers
        self.marks = marks
        self.worker_days = WorkerDays(reader, writer)
        self.payout_requests = PayoutRequests(reader, writer)
        self.spending = spending
        """What keys with a budget spent, by key and period, when it was opened."""
        self.usage = UsageLog(reader, writer)

    @classmethod
    async def open(cls, url: str, clock: Callable[[], int] = wall_ms) -> Self:
        """Take the database for this process, bring its schema up to date, and read it.

        Raises StoreError when another process has it, or when it cannot be used.
        """
        database = Database(url)
        writer = GroupWriter(database, clock)
        reader = Reader(database)
        try:
            await writer.open()
            accounts = await writer.call(lambda connection: _accounts(connection, clock()))
            history = LookedUp()
            ledger = EmbeddedLedger(
                Ledger(accounts, history=history), history, writer, reader, clock
            )
            keys = await KeyRing.load(reader, writer, clock)
            prices = await PriceBook.load(reader, writer, clock)
            worker_tokens = await WorkerTokens.load(reader, writer, clock)
            disabled = await DisabledWorkers.load(reader, writer)
            marks = await Marks.load(reader, writer)
            spending = await reader.read(read_spending)
        except BaseException:
            await writer.close()
            reader.close()
            database.close()
            raise
        return cls(
            database,
            writer,
            reader,
            ledger,
            keys,
            prices,
            worker_tokens,
            disabled,
            marks,
            spending,
        )

    async def secret(self, name: str) -> bytes:
        """32 random bytes, made when ``name`` is first asked for, and the same ever after.

        Raises StoreError; asked again it answers with what was stored meanwhile.
        """
        return await kept_secret(self.writer, name)

    async def close(self) -> None:
        """Commit what waits, and let others have the database."""
        await self.writer.close()
        self.reader.close()
        self.database.close()


def _accounts(connection: Connection, now_ms: int) -> list[Account]:
    """The stored accounts, the house's among them: a new ledger is given those."""
    accounts = read_accounts(connection)
    missing = set(HOUSE_ACCOUNTS) - {account.id for account in accounts}
    if not missing:
        return accounts
    rows = [
        {"id": name, "kind": kind_of(name), "debits": 0, "credits": 0, "opened_ms": now_ms}
        for name in sorted(missing)
    ]
    connection.execute(insert(ledger_accounts), rows)
    return read_accounts(connection)
