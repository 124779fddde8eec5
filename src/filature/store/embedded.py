"""The ledger of a proxy that is its only writer: decided in memory, on the loop, and stored in groups.

Holds are in memory only. A charge, a top-up or an account's opening is done when its commit
returned; who has to wait for that is told then.
"""

import asyncio
from collections.abc import Callable, Iterable
from typing import Final

from sqlalchemy import Connection

from filature.errors import StoreError
from filature.ledger.book import Ledger
from filature.ledger.commands import (
    Command,
    Correct,
    OpenAccount,
    OpenHold,
    PostHold,
    VoidHold,
)
from filature.ledger.decide import transfer_ids_read
from filature.ledger.outcomes import Outcome, Result
from filature.ledger.state import State
from filature.ledger.transfers import Transfer
from filature.store.batch import Batch, Committed, UsageRow
from filature.store.ledger_rows import read_corrections, read_transfer
from filature.store.reader import Reader
from filature.store.writer import GroupWriter
from filature.units import AccountId, HoldId, Nano, TransferId

RUN_S: Final = 30.0
"""For a command of an operator to be committed."""


class LookedUp:
    """A ``History`` of what was read before a decision; see ``ledger/__init__.py``."""

    def __init__(self) -> None:
        self._transfers: dict[TransferId, Transfer] = {}
        self._corrections: dict[TransferId, list[Transfer]] = {}

    def transfer(self, transfer: TransferId) -> Transfer | None:
        return self._transfers.get(transfer)

    def corrections(self, transfer: TransferId) -> Iterable[Transfer]:
        return self._corrections.get(transfer, ())

    def show(self, found: list[Transfer], corrections: dict[TransferId, list[Transfer]]) -> None:
        self._transfers = {transfer.id: transfer for transfer in found}
        self._corrections = corrections

    def clear(self) -> None:
        self._transfers = {}
        self._corrections = {}


class EmbeddedLedger:
    """Holds and charges for requests, at once; commands of an operator, awaited.

    ``hold``, ``settle``, ``void`` and ``reverse`` never wait: ids of requests are new, so nothing is
    looked up for them.
    """

    def __init__(
        self,
        ledger: Ledger,
        history: LookedUp,
        writer: GroupWriter,
        reader: Reader,
        wall_ms: Callable[[], int],
    ) -> None:
        self._ledger = ledger
        self._history = history
        self._writer = writer
        self._reader = reader
        self._wall_ms = wall_ms
        self._running = asyncio.Lock()
        writer.on_committed = self._on_committed

    @property
    def state(self) -> State:
        """To be read only."""
        return self._ledger.state

    @property
    def failing(self) -> str | None:
        """Why nothing can be stored now; None as a rule."""
        return self._writer.failing

    def available(self, client: AccountId) -> Nano:
        """What of the client's balance is not held; zero of an account that is not there."""
        account = self.state.accounts.get(client)
        return Nano(0) if account is None else account.available

    # requests

    def hold(
        self, request: HoldId, client: AccountId, amount: Nano, fee_bp: int, expires_ms: int
    ) -> Outcome:
        """Set money aside. Raises StoreError while nothing can be stored."""
        if self._writer.failing is not None:
            raise StoreError
        return self._ledger.run(OpenHold(request, client, amount, fee_bp, expires_ms)).outcome

    def settle(
        self,
        request: HoldId,
        worker: AccountId,
        amount: Nano,
        usage: UsageRow,
        committed: Committed | None,
        budget: tuple[str, str] | None = None,
    ) -> Outcome:
        """Charge ``amount`` of the hold and store the record with it; ``committed`` is called after.

        ``budget`` is the key and the period whose budget it uses up. The worker's account is opened when
        it is not there.
        """
        pending = self._writer.pending
        if worker not in self.state.accounts:
            pending.add(self._ledger.run(OpenAccount(worker)).effects)
        result = self._ledger.run(PostHold(request, worker, amount, self._wall_ms()))
        pending.add(result.effects)
        if budget is not None and amount:
            pending.spend(*budget, amount)
        self._keep(usage, committed)
        return result.outcome

    def void(self, request: HoldId, usage: UsageRow, committed: Committed | None = None) -> Outcome:
        """Let the hold go and store the record; nobody is charged."""
        outcome = self._ledger.run(VoidHold(request)).outcome
        self._keep(usage, committed)
        return outcome

    def reverse(
        self,
        request: HoldId,
        amount: Nano,
        usage: UsageRow,
        note: str,
        budget: tuple[str, str] | None = None,
    ) -> Outcome:
        """Give a charge back that is not stored yet, to the key's budget too, and replace its record."""
        charge = TransferId(request)
        outcome = Outcome.DONE
        if amount:
            command = Correct(
                TransferId(f"{request}:reversed"), charge, amount, self._wall_ms(), note
            )
            result = self._ledger.run(command)
            self._writer.pending.add(result.effects)
            outcome = result.outcome
            if budget is not None:
                self._writer.pending.spend(*budget, -amount)
        self._keep(usage, None)
        return outcome

    def note(self, usage: UsageRow) -> None:
        """Store a record with which no money of a client moves."""
        self._keep(usage, None)

    def _keep(self, usage: UsageRow, committed: Committed | None) -> None:
        pending = self._writer.pending
        pending.usage[usage.id] = usage
        if committed is not None:
            pending.committed.append(committed)
        if self._writer.is_idle:
            self._writer.submit()

    async def find(self, transfer: TransferId) -> Transfer | None:
        """What was decided under an id, stored yet or not. Raises StoreError."""
        recent = self.state.transfers.get(transfer)
        if recent is not None:
            return recent
        return await self._reader.read(lambda connection: read_transfer(connection, transfer))

    def expire(self, now_ms: int) -> int:
        """Let go of holds whose time is over: those of a defect, for every request ends. How many."""
        return sum(1 for _ in self._ledger.expire(now_ms))

    # operators

    async def run(self, command: Command) -> Result:
        """Decide a command; when this returns it is stored. Raises StoreError when it cannot be.

        After an error it may still be stored later: give it again with the same id to know.
        """
        async with self._running:  # until it is stored, for what is stored is forgotten here
            if self._writer.failing is not None:
                raise StoreError
            await self._look_up(command)
            try:
                result = self._ledger.run(command)
            finally:
                self._history.clear()
            if result.effects.is_durable:
                self._writer.pending.add(result.effects)
                await self.flush()
            return result

    async def _look_up(self, command: Command) -> None:
        ids = transfer_ids_read(self.state, command)
        if not ids:
            return

        def look_up(connection: Connection) -> None:
            found = [read_transfer(connection, each) for each in ids]
            self._history.show(
                [transfer for transfer in found if transfer is not None],
                {ids[-1]: read_corrections(connection, ids[-1])},
            )

        await self._reader.read(look_up)

    async def flush(self) -> None:
        """Wait until all that was decided so far is stored. Raises StoreError when it takes too long."""
        stored = asyncio.Event()
        self._writer.pending.committed.append(stored.set)
        self._writer.submit()
        try:
            async with asyncio.timeout(RUN_S):
                await stored.wait()
        except TimeoutError:
            raise StoreError(
                f"It could not be stored yet ({self._writer.failing or 'the database is slow'}); it "
                "is tried again."
            ) from None

    def _on_committed(self, batch: Batch) -> None:
        self._ledger.forget(batch.transfers)
