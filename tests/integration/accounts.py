"""Accounts with credit before a chain, and what is stored of them. Beside ``harness.py``."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Connection, select
from tests.integration.harness import Chain, chain
from tests.integration.messages import get, post

from filature.admin.checking import check_store
from filature.ledger.accounts import client_account
from filature.ledger.commands import OpenAccount, TopUp
from filature.ledger.transfers import Transfer, TransferKind
from filature.proxy.upkeep import DEMO_ACCOUNT
from filature.store.keys import KeyLimits
from filature.store.ledger_rows import read_transfers
from filature.store.schema import usage_records
from filature.store.store import Store
from filature.telemetry.record import UsageRecord
from filature.units import AccountId, Nano, TransferId

CREDIT: Final = 10**9
"""Nano-credits in a credit."""


def store_of(c: Chain) -> Store:
    assert c.proxy.store is not None
    return c.proxy.store


@dataclass(frozen=True, slots=True)
class Customer:
    """An account that was given ``credit`` nano-credits, and a key of it."""

    account: AccountId
    secret: str
    credit: int

    def asks(self, body: object, path: str = "/v1/chat/completions", **more: str) -> bytes:
        """A request as bytes. ``more`` are header lines, with ``_`` for ``-``."""
        lines = {"Authorization": f"Bearer {self.secret}", **more}
        told = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in lines.items())
        return post(body, path, headers=told)

    def gets(self, path: str) -> bytes:
        return get(path, headers=f"Authorization: Bearer {self.secret}\r\n")


async def customer(c: Chain, credit: int, name: str = "alice", **limits: Any) -> Customer:
    """A new one."""
    store, account = store_of(c), client_account(name)
    await store.ledger.run(OpenAccount(account))
    if credit:
        await store.ledger.run(TopUp(TransferId(f"top-up of {name}"), account, Nano(credit), 1))
    secret, _ = await store.keys.create(account, "test", KeyLimits(**limits))
    return Customer(account, secret, credit)


def balance(c: Chain, account: AccountId = DEMO_ACCOUNT) -> int:
    return store_of(c).ledger.state.accounts[account].balance


def held(c: Chain, account: AccountId) -> int:
    return store_of(c).ledger.state.accounts[account].held


async def charges(c: Chain) -> list[Transfer]:
    """Those that are stored."""

    def read(connection: Connection) -> list[Transfer]:
        return [t for t in read_transfers(connection) if t.kind is TransferKind.CHARGE]

    await store_of(c).ledger.flush()
    return await store_of(c).reader.read(read)


async def records(c: Chain) -> list[UsageRecord]:
    """The usage records that are stored."""

    def read(connection: Connection) -> list[UsageRecord]:
        rows = connection.execute(select(usage_records.c.record))
        return [UsageRecord.from_log(row.record) for row in rows]

    await store_of(c).ledger.flush()
    return await store_of(c).reader.read(read)


async def sound(c: Chain) -> None:
    """Fails where the ledger breaks a rule, stored or in memory."""
    report = await check_store(store_of(c))
    assert not report.violations, report.violations


@asynccontextmanager
async def money(*engines: Any, **settings: Any) -> AsyncIterator[Chain]:
    """A chain that serves nobody without a key, and whose ledger is sound afterwards."""
    async with chain(*engines, keyless=False, **settings) as c:
        yield c
        await sound(c)
