"""Many clients of one poor account: it never falls below zero, and nothing is charged twice or for nothing."""

import asyncio
import random
from collections import Counter
from typing import Any

import pytest
from tests.integration.accounts import (
    Customer,
    balance,
    charges,
    customer,
    held,
    money,
    records,
    store_of,
)
from tests.integration.harness import Answer, Chain
from tests.money.demo import demo_engine

from filature.ledger.outcomes import Outcome as LedgerOutcome
from filature.units import HoldId, Nano

CLIENTS = 200
WAIT_S = 60.0
ANSWER_TOKENS = 24
ANSWERS = 20
"""How many answers the credit is for, about."""
BREAKING = 12
"""Requests whose engine breaks off; not so many that the account is slowed down for it."""
PROMPT = "Tell me about silk."


def body(number: int, max_tokens: int | None, chance: random.Random) -> dict[str, Any]:
    asked: dict[str, Any] = {
        "model": "demo",
        "messages": [{"role": "user", "content": PROMPT}],
        "stream": chance.random() < 0.5,
    }
    if max_tokens is not None:
        asked["max_tokens"] = max_tokens
    if number < BREAKING:
        asked["x_demo"] = {"fault": "cut", "after": 5}
        asked["stream"] = True
    return asked


async def watch(c: Chain, who: Customer, lowest: list[int]) -> None:
    """The least that was ever available, looked at between all that happens."""
    while True:
        lowest[0] = min(lowest[0], balance(c, who.account) - held(c, who.account))
        await asyncio.sleep(0)


@pytest.mark.parametrize("max_tokens", [ANSWER_TOKENS, 400, None])
async def test_200_clients_of_one_account_with_credit_for_20_answers(
    database_url: str, max_tokens: int | None, chance: random.Random
) -> None:
    """Whether the hold is what the answer costs, much more, or all that is there.

    The answers come slowly enough for many to run at a time.
    """
    async with (
        demo_engine(tokens=ANSWER_TOKENS, tokens_per_second=200) as engine,
        money(urls=(engine.url,), database=database_url, fee_bp=1234) as c,
    ):
        poor = await customer(c, ANSWERS * (200 * 600 + 800 * ANSWER_TOKENS))
        lowest = [poor.credit]
        watching = asyncio.create_task(watch(c, poor, lowest))
        answers: list[Answer] = []
        somebody_was_served = asyncio.Condition()

        async def client(number: int) -> None:
            """Asks until it is served, or nobody else is and there is nothing left."""
            while True:
                others_run = bool(store_of(c).ledger.state.holds)
                answer = await c.ask(poor.asks(body(number, max_tokens, chance)))
                answers.append(answer)
                async with somebody_was_served:
                    if answer.status != 402:
                        somebody_was_served.notify_all()
                        return
                    if store_of(c).ledger.state.holds:
                        await somebody_was_served.wait()
                    elif not others_run:
                        return

        async with asyncio.timeout(WAIT_S):
            await asyncio.gather(*(client(number) for number in range(CLIENTS)))
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
        assert lowest[0] >= 0
        await judge(c, poor, answers)
        assert sum(answer.status == 200 for answer in answers) >= ANSWERS


async def judge(c: Chain, poor: Customer, answers: list[Answer]) -> None:
    stored = await records(c)
    told = dict(c.proxy.usage._records)
    assert {record.id: record for record in stored}.items() <= told.items(), (
        "what is stored differs"
    )
    charged = await charges(c)
    assert balance(c, poor.account) == poor.credit - sum(each.amount for each in charged) >= 0
    assert not store_of(c).ledger.state.holds, "each admitted request is settled or voided"
    assert sum(each.amount for each in charged) == sum(each.total_cost for each in stored)
    by_request = Counter(str(each.id) for each in charged)
    assert set(by_request.values()) == {1}, "charged twice"
    paid = {str(each.id): each.amount for each in charged}

    statuses = Counter(answer.status for answer in answers)
    assert set(statuses) <= {200, 402, 502}, statuses
    assert statuses[402] > 0, "the credit was not for all"
    assert len({answer.request_id for answer in answers}) == len(answers) >= CLIENTS
    for answer in answers:
        record = told[answer.request_id]
        assert record.account == poor.account
        if answer.status == 402:
            assert answer.json["error"]["code"] == "insufficient_quota"
            assert (record.outcome, record.total_cost, record.held) == ("refused", 0, 0)
            assert answer.request_id not in paid
        elif record.outcome == "completed":
            assert answer.complete
            assert paid[answer.request_id] == record.total_cost > 0
            assert record.total_cost <= record.held
        else:
            assert record.outcome in ("engine_failed", "engine_failed_midstream")
            assert answer.request_id not in paid
    assert {record.id for record in stored if record.outcome == "completed"} == set(paid)


async def test_a_hold_that_the_rest_does_not_cover_is_not_made(database_url: str) -> None:
    """What the clients above rely on, at its edge: to the nano-credit."""
    async with money(database=database_url) as c:
        poor = await customer(c, 1000)
        ledger = store_of(c).ledger
        later_ms = 10**15
        assert ledger.hold(HoldId("a"), poor.account, Nano(600), 0, later_ms) is LedgerOutcome.DONE
        refused = ledger.hold(HoldId("b"), poor.account, Nano(401), 0, later_ms)
        assert refused is LedgerOutcome.INSUFFICIENT
        assert ledger.hold(HoldId("c"), poor.account, Nano(400), 0, later_ms) is LedgerOutcome.DONE
        assert ledger.available(poor.account) == 0
        assert ledger.expire(2 * later_ms) == 2
        assert ledger.available(poor.account) == 1000
