"""What a running proxy does for its store now and then: old rows go, forgotten holds are let go of."""

import asyncio
import logging
from typing import Final

from filature.errors import StoreError
from filature.ledger.accounts import client_account
from filature.ledger.commands import OpenAccount, TopUp
from filature.proxy.admission import Admission
from filature.proxy.presence import Presence
from filature.store.embedded import EmbeddedLedger
from filature.store.idempotency import PURGED_AT_ONCE as KEYS_PURGED_AT_ONCE
from filature.store.idempotency import Idempotency
from filature.store.store import Store
from filature.store.usage import PURGED_AT_ONCE
from filature.store.wall import wall_ms
from filature.units import DAY_MS, Nano, TransferId

LOOK_S: Final = 60.0
PURGE_LOOKS: Final = 30
"""Old rows are looked for at every so many looks."""
DEMO_ACCOUNT: Final = client_account("demo")

log = logging.getLogger(__name__)


class Upkeep:
    """``begin`` before anything is served, then ``run`` until it is cancelled, then ``end``."""

    def __init__(
        self,
        store: Store,
        idempotency: Idempotency,
        admission: Admission,
        presence: Presence,
        usage_days: int,
    ) -> None:
        self._store = store
        self._idempotency = idempotency
        self._admission = admission
        self._presence = presence
        self._usage_ms = usage_days * DAY_MS

    async def begin(self) -> None:
        """See to what a process that died left behind."""
        await self._idempotency.recover()

    async def run(self) -> None:
        looks = 0
        while True:
            if looks % PURGE_LOOKS == 0:
                await self._purge()
            await asyncio.sleep(LOOK_S)
            looks += 1
            await self.end()
            expired = self._admission.expire()
            if expired:
                log.error("%d holds were never ended: a defect", expired)

    async def end(self) -> None:
        """Store what was added up since."""
        try:
            await self._presence.store()
        except StoreError as error:
            log.warning("how long workers were there is stored later: %s", error)

    async def _purge(self) -> None:
        try:
            before_ms = wall_ms() - self._usage_ms
            while await self._store.usage.purge(before_ms) == PURGED_AT_ONCE:
                pass
            while await self._idempotency.purge() == KEYS_PURGED_AT_ONCE:
                pass
        except StoreError as error:
            log.warning("old rows stay for now: %s", error)


async def open_demo_account(ledger: EmbeddedLedger, credit: Nano) -> None:
    """The account of requests without a key, with its credit: given once, when it is opened."""
    await ledger.run(OpenAccount(DEMO_ACCOUNT))
    if credit:
        top_up = TopUp(
            TransferId("demo-credit"), DEMO_ACCOUNT, credit, wall_ms(), "starting credit"
        )
        await ledger.run(top_up)
