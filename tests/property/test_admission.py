"""Admission, settlement and reports in any order, with crashes between: the books agree."""

import asyncio
import random
import sqlite3
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text
from tests.unit.request.asking import parse
from tests.unit.store.working import replaced

from filature.admin.checking import check_store
from filature.answer.bounds import UsageBounds, within
from filature.answer.pricing import cost_of
from filature.answer.usage import Usage
from filature.errors import FilatureError
from filature.ledger.accounts import client_account
from filature.ledger.commands import OpenAccount, Refund, TopUp
from filature.proxy.admission import Admission
from filature.proxy.callers import Caller
from filature.proxy.free_failures import FreeFailures
from filature.proxy.grants import HeldGrant
from filature.proxy.rates import RateLimiter
from filature.proxy.reports import ReportDesk
from filature.proxy.tickets import TicketOffice
from filature.relay.clock import CoarseClock
from filature.relay.engines import Engine, EngineAddress, EngineDirectory, ServedModel
from filature.relay.limits import RelayLimits
from filature.relay.outcome import Outcome
from filature.relay.tunnel import TunnelPool
from filature.store.idempotency import KEPT_MS, Claim, Idempotency
from filature.store.keys import KeyLimits
from filature.store.store import Store
from filature.store.usage_records import RecentUsage
from filature.store.worker_tokens import WorkerToken
from filature.telemetry.record import UsageRecord
from filature.units import AccountId, Nano, RequestId, TransferId
from filature.wire.dialect import Dialect

KEY = bytes(32)
REQUEST_S = 600.0
CLIENTS = [client_account("ada"), client_account("bob")]
WORKERS = ["gpu", "tpu"]
STEPS = 120
DAY_MS = 86_400_000
FREE = [
    Outcome.ENGINE_FAILED,
    Outcome.ENGINE_FAILED_MIDSTREAM,
    Outcome.DRAINED,
    Outcome.REFUSED_BY_ENGINE,
]
LEFT = [Outcome.CLIENT_GONE, Outcome.CLIENT_STALLED, Outcome.CLIENT_TIMEOUT]


class Running:
    """An admitted request; ``tickets`` are those of the workers that were asked."""

    def __init__(self, grant: HeldGrant, record: UsageRecord) -> None:
        self.grant = grant
        self.record = record
        self.engine = grant.engines[0]
        self.tickets: dict[str, str] = {}


class Life:
    """One process of a proxy on a database: what does not outlive it."""

    def __init__(self, store: Store, clock: CoarseClock, world: "World", boot: str) -> None:
        self.store = store
        self.rates = RateLimiter(
            store.spending, monotonic_s=lambda: clock.now, wall_ms=lambda: world.wall_ms
        )
        self.recent = RecentUsage(1000)
        self.idempotency = Idempotency(store.writer, lambda: world.wall_ms)
        self.admission = Admission(
            ledger=store.ledger,
            prices=store.prices,
            engines=world.engines,
            idempotency=self.idempotency,
            rates=self.rates,
            failures=FreeFailures(lambda: clock.now),
            clock=clock,
            tickets=TicketOffice(KEY, boot, REQUEST_S + 60),
            default_price=None,
            completion_tokens_default=100,
            request_s=REQUEST_S,
        )
        self.desk = ReportDesk(
            store,
            self.idempotency,
            self.recent,
            KEY,
            boot,
            lambda: world.wall_ms,
            lambda *_: None,
            self.rates.spend,
        )
        self.running: list[Running] = []
        self.ending: list[Running] = []
        """Complete, and nobody heard of the commit."""


class World:
    """What outlives a proxy: its database, its engines, its clients, and what these were told."""

    life: Life

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder = folder
        self.random = random.Random(seed)
        self.wall_ms = 1_800_000_000_000
        self.clock = CoarseClock(lambda: self.wall_ms / 1000)
        limits = RelayLimits()
        self.engines = EngineDirectory(
            Engine(
                EngineAddress.parse(f"http://{name}=m:m"),
                self.clock,
                limits,
                pool=TunnelPool(self.clock, limits) if name in WORKERS else None,
            )
            for name in ("own", *WORKERS)
        )
        for engine, name in zip(self.engines.engines, ("own", *WORKERS), strict=True):
            engine.name = name
        self.lives = self.requests = self.transfers = 0
        self.delivered: dict[str, int] = {}
        """What complete answers said that they cost."""
        self.reports: list[tuple[str, dict[str, Any]]] = []
        """Of workers that were asked: the worker, and what it metered."""
        self.claimed: dict[tuple[str, str], list[tuple[str, int]]] = {}
        """By account and Idempotency-Key: the requests that had it, and when."""

    async def begin(self) -> None:
        store = await self._open()
        for client in CLIENTS:
            await store.ledger.run(OpenAccount(client))
            await store.keys.create(client, "", KeyLimits())
            budget = KeyLimits(
                budget=Nano(10**6), budget_period="day", tokens_per_minute=5000, concurrency=3
            )
            await store.keys.create(client, "", budget)
        await self.set_price()
        await self.top_up()

    async def _open(self) -> Store:
        url = f"sqlite:///{self.folder}/{self.lives}.db"
        store = await Store.open(url, lambda: self.wall_ms)
        self.life = Life(store, self.clock, self, f"boot-{self.lives}")
        await self.life.idempotency.recover()
        return store

    async def crash(self) -> None:
        """What was committed stays; what waits, and all that is in memory, is lost."""
        old, path = self.life, self.folder / f"{self.lives}.db"
        self.lives += 1
        with (
            sqlite3.connect(path) as source,
            sqlite3.connect(self.folder / f"{self.lives}.db") as copy,
        ):
            source.backup(copy)
        for each in old.running + old.ending:
            self._metered(each, Outcome.CLIENT_GONE)
        old.ending.clear()  # nobody hears of a commit any more
        await old.store.close()
        await self._open()

    # what may happen

    async def set_price(self) -> None:
        prices = [self.random.randrange(0, 10**8) for _ in range(4)]
        await self.life.store.prices.set(
            "m",
            prompt=prices[0],
            cached=prices[1],
            completion=prices[2],
            reasoning=prices[3],
            request=self.random.choice([0, 7]),
            fee_bp=self.random.choice([0, 1, 3333, 10_000]),
            template_tokens=5,
            media_tokens=5,
        )

    async def top_up(self) -> None:
        self.transfers += 1
        client = self.random.choice(CLIENTS)
        amount = Nano(self.random.randrange(1, 10**5))
        command = TopUp(TransferId(f"in-{self.transfers}"), client, amount, self.wall_ms)
        await self.life.store.ledger.run(command)

    async def refund(self) -> None:
        self.transfers += 1
        client = self.random.choice(CLIENTS)
        amount = self.life.store.ledger.available(client)
        if amount:
            command = Refund(TransferId(f"out-{self.transfers}"), client, amount, self.wall_ms)
            await self.life.store.ledger.run(command)

    async def change_coefficient(self) -> None:
        engine = self.random.choice(self.engines.engines)
        coefficient = self.random.choice([0, 1, 999, 1000, 2500])
        if engine.is_remote:
            engine.models["m"] = ServedModel("m", self.random.choice([None, 300]), 0, coefficient)
        else:
            await self.life.store.prices.set_coefficient(engine.name, "m", coefficient)

    async def revoke(self) -> None:
        keys = [key for key in self.life.store.keys.list() if key.revoked_ms is None]
        if len(keys) > 2:
            await self.life.store.keys.revoke(self.random.choice(keys).id)

    async def wait(self) -> None:
        passed_s = self.random.choice([0.1, 1, 30, 100])
        self.clock.now += passed_s
        self.wall_ms += int(passed_s * 1000)
        if self.random.random() < 0.1:
            self.wall_ms += self.random.choice([-DAY_MS, DAY_MS])
        assert self.life.admission.expire() == 0

    async def ask(self) -> None:
        draw, admission = self.random, self.life.admission
        dialect = draw.choice(list(Dialect))
        more: dict[str, Any] = {}
        if dialect.has_choices:
            more = {"n": draw.randrange(1, 4), "max_tokens": draw.choice([None, 1, 50])}
        request = parse(dialect, **more)
        key = draw.choice([None, *self.life.store.keys.list()])
        account = draw.choice(CLIENTS) if key is None else key.account
        self.requests += 1
        record = UsageRecord(
            RequestId(f"r{self.requests}"), None, dialect, "m", "", Outcome.REFUSED, 0
        )
        record.account, record.started_at = account, self.wall_ms / 1000
        record.key_id = None if key is None else key.id
        caller = Caller(account, key)
        has_key = draw.random() < 0.4
        claim = await self._claim(record) if has_key else None
        if has_key and claim is None:
            return
        available = self.life.store.ledger.available(account)
        try:
            offer = admission.offer(caller, request)
            counted = draw.choice([None, 3]) if dialect.is_metered else None
            grant = admission.admit(caller, request, record, offer, counted)
        except FilatureError:
            assert self.life.store.ledger.available(account) == available
            if claim is not None:
                self.life.idempotency.release(claim)
            return
        grant.claim = claim
        self.life.running.append(Running(grant, record))
        await self.try_engine()

    async def _claim(self, record: UsageRecord) -> Claim | None:
        """With an Idempotency-Key that others have, too; None where one of them has it now."""
        claim = Claim(AccountId(record.account), self.random.choice("abc"), record.id, b"")
        if await self.life.idempotency.claim(claim, replaced) is not claim:
            return None
        place = (claim.account, claim.key)
        self.claimed.setdefault(place, []).append((claim.request_id, self.wall_ms))
        return claim

    async def try_engine(self) -> None:
        """It is sent to an engine, perhaps after others."""
        for each in self._some(self.life.running):
            each.engine = self.random.choice(list(each.grant.engines))
            if each.engine.is_remote:
                line = each.grant.ticket_line(each.engine, each.record).decode()
                each.tickets[each.engine.name] = line.partition(": ")[2].strip()

    def _some(self, of: list[Running]) -> list[Running]:
        return [self.random.choice(of)] if of else []

    async def end(self) -> None:
        for each in self._some(self.life.running):
            self.life.running.remove(each)
            outcome = self.random.choice([*FREE, *LEFT, *[Outcome.COMPLETED] * 6])
            self._meter(each, outcome)
            if outcome is Outcome.COMPLETED:
                self.life.ending.append(each)
                each.grant.end(each.record, partial(self._committed, each))
            else:
                each.grant.end(each.record, None)
                self.life.recent.add(each.record)
            self._metered(each, outcome)

    def _meter(self, each: Running, outcome: Outcome) -> None:
        """As ``relay.accounting`` does, whatever the engine claims."""
        record, grant, draw = each.record, each.grant, self.random
        prompt, completion = draw.randrange(300), draw.choice([0, 5, 1000])
        claimed = Usage(
            prompt, draw.randrange(prompt + 1), completion, draw.randrange(completion + 1)
        )
        bounds = UsageBounds(grant.prompt_tokens, grant.completion_tokens)
        usage = within(claimed, bounds, draw.choice([3, 10**6]))
        record.outcome, record.engine = outcome, each.engine.name
        if not Dialect(record.dialect).is_metered or (outcome in LEFT and draw.random() < 0.5):
            return
        record.prompt, record.cached = usage.prompt, usage.cached
        record.completion, record.reasoning = usage.completion, usage.reasoning
        if outcome.is_charged:
            tariff = grant.tariff(each.engine)
            record.prompt_cost, record.completion_cost, record.total_cost = cost_of(usage, tariff)
            assert record.total_cost <= record.held, "the hold covers whatever may be charged"

    def _metered(self, each: Running, outcome: Outcome) -> None:
        """The workers that were asked have their reports ready, some of them with lies in it."""
        for worker, ticket in each.tickets.items():
            report = {
                "id": each.record.id,
                "ticket": ticket,
                "outcome": outcome,
                "prompt": self.random.choice([each.record.prompt, 5, 10**6]),
                "cached": self.random.choice([0, 10**6]),
                "completion": self.random.choice([each.record.completion, 5, 10**6]),
                "reasoning": self.random.choice([0, 10**6]),
            }
            self.reports.append((worker, report))

    def _committed(self, each: Running) -> None:
        life = self.life
        if each in life.ending:
            life.ending.remove(each)
            life.recent.add(each.record)
            self.delivered[each.record.id] = each.record.total_cost

    async def give_up(self) -> None:
        """The commit does not come in time."""
        for each in self._some(self.life.ending):
            self.life.ending.remove(each)
            record = each.record
            record.outcome = Outcome.NOT_SETTLED
            record.prompt_cost = record.completion_cost = record.total_cost = 0
            each.grant.give_up()
            self.life.recent.add(record)

    async def report(self) -> None:
        """Reports come whenever they like, twice at once, and more often."""
        if not self.reports:
            return
        worker, told = self.random.choice(self.reports)
        token = WorkerToken(id="w", hint="", digest=b"", created_ms=0, worker=worker, models=None)
        await asyncio.gather(*(self.life.desk.take(token, [told]) for _ in range(2)))

    async def flush(self) -> None:
        await self.life.store.ledger.flush()
        await asyncio.sleep(0)

    # what must be true

    async def agree(self) -> None:
        """The ledger, the usage records, the keys' spending and what clients saw tell the same."""
        await self.flush()
        life = self.life
        store = life.store
        assert (await check_store(store)).violations == []
        records, more = await store.usage.list(limit=10_000)
        assert not more
        charged = {record["id"]: record["total_cost"] for record in records}
        for client in CLIENTS:
            account = store.ledger.state.accounts[client]
            paid = sum(each["total_cost"] for each in records if each["account"] == client)
            moved = [
                transfer
                for transfer in await _transfers(store)
                if client in (transfer[1], transfer[2]) and transfer[0] in ("charge", "correction")
            ]
            assert paid == sum(each[3] if each[1] == client else -each[3] for each in moved)
            assert account.held == sum(
                each.record.held for each in life.running if each.record.account == client
            )
        for request, cost in self.delivered.items():
            assert charged[request] == cost, "an answer that a client saw complete is charged for"
        for requests in self.claimed.values():
            times = sorted(at_ms for request, at_ms in requests if charged.get(request))
            for one, next_one in pairwise(times):
                assert next_one - one > KEPT_MS, "an Idempotency-Key is charged for once"
        self._keys_agree(records, await store.reader.read(_spending))

    def _keys_agree(
        self, records: list[dict[str, Any]], stored: dict[tuple[str, str], int]
    ) -> None:
        for key in self.life.store.keys.list():
            of_key = [each for each in records if each["key_id"] == key.id]
            kept = {place: spent for place, spent in stored.items() if place[0] == key.id}
            if key.limits.budget_period is None:
                assert not kept
                continue
            assert sum(kept.values()) == sum(each["total_cost"] for each in of_key)
            for place in sorted(kept)[-2:]:  # as many as are kept at hand
                assert self.life.rates.spent(place) == kept[place]


async def _transfers(store: Store) -> list[Any]:
    query = text("SELECT kind, debit, credit, amount FROM transfers")
    return list(await store.reader.read(lambda connection: connection.execute(query).all()))


def _spending(connection: Any) -> dict[tuple[str, str], int]:
    rows = connection.execute(text("SELECT key_id, period, spent FROM key_spending"))
    return {(row.key_id, row.period): row.spent for row in rows}


@pytest.mark.parametrize("seed", range(12))
async def test_whatever_happens_the_books_agree(tmp_path: Path, seed: int) -> None:
    world = World(tmp_path, seed)
    await world.begin()
    steps = {
        world.ask: 30,
        world.try_engine: 8,
        world.end: 20,
        world.give_up: 3,
        world.report: 10,
        world.flush: 5,
        world.wait: 5,
        world.top_up: 3,
        world.refund: 1,
        world.set_price: 2,
        world.change_coefficient: 3,
        world.revoke: 1,
        world.crash: 2,
        world.agree: 3,
    }
    for step in world.random.choices(list(steps), list(steps.values()), k=STEPS):
        await step()
    while world.life.running:
        await world.end()
    for _ in range(3 * len(world.reports)):
        await world.report()
    await world.agree()
    assert not world.life.store.ledger.state.holds, "nothing is held when all has ended"
    await world.life.store.close()
