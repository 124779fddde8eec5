"""Earnings statements for workers, made off the hot path: a heartbeat is given the latest one that is there."""

import asyncio
import logging
from collections.abc import Callable
from typing import Final

import orjson

from filature.errors import StoreError
from filature.ledger.accounts import worker_account
from filature.proxy.callers import Caller
from filature.relay.http1 import RequestHead
from filature.store.reader import Reader
from filature.store.statements import EarningsTotals
from filature.wire.statement import SigningKey, Statement, key_set

STATEMENTS_SECRET: Final = "statements"  # noqa: S105 - what it is called
LOOK_S: Final = 1.0
"""Between two looks at whether a worker is due."""
STATEMENT_S: Final = 60.0
"""Between two statements of one worker, at least."""

log = logging.getLogger(__name__)


class StatementDesk:
    """``of`` hands out; ``run`` makes, of those workers that asked since and whose last one is old."""

    def __init__(self, reader: Reader, key: SigningKey, wall_s: Callable[[], float]) -> None:
        self._key = key
        self._wall_s = wall_s
        self._totals = EarningsTotals(reader)
        self._latest: dict[str, str] = {}
        self._made_at: dict[str, float] = {}  # on the event loop's clock
        self._asked: set[str] = set()
        self._keys = orjson.dumps(key_set([key.public]))
        self._failing = False

    def keys(self, head: RequestHead, caller: Caller | None) -> bytes:
        """The page of public keys."""
        return self._keys

    def of(self, worker: str) -> str | None:
        """The latest; None until one is made."""
        self._asked.add(worker)
        return self._latest.get(worker)

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await asyncio.sleep(LOOK_S)
            try:
                await self.make()
                self._failing = False
            except StoreError as error:
                if not self._failing:
                    log.warning("earnings statements stay as they are: %s", error.message)
                self._failing = True

    async def make(self) -> None:
        """Those that are due now. Raises StoreError."""
        now = asyncio.get_running_loop().time()
        long_ago = now - STATEMENT_S
        due = [each for each in self._asked if self._made_at.get(each, long_ago) <= long_ago]
        if not due:
            return
        await self._totals.advance()
        self._latest |= await asyncio.to_thread(self._signed, due)
        self._made_at |= dict.fromkeys(due, now)
        self._asked.difference_update(due)

    def _signed(self, workers: list[str]) -> dict[str, str]:
        return {worker: self._key.sign(self._statement(worker)) for worker in workers}

    def _statement(self, worker: str) -> Statement:
        totals = self._totals.of(worker_account(worker))
        return Statement(
            iss=self._key.public.issuer,
            sub=worker,
            iat=int(self._wall_s()),
            earned_nano=totals.earned,
            paid_nano=totals.paid,
            corrected_nano=totals.corrected,
            requests=totals.requests,
            seq=totals.transfers,
        )
