"""Accounts over real sockets: who may ask, what is held, who pays for which end, what is told of it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from tests.integration.harness import Answer, Chain, EngineRequest, Puppet, RawEngine, chain, says
from tests.integration.messages import (
    CHAT,
    DONE,
    LAST_CHUNK,
    SHORT_STREAM,
    STREAM,
    STREAM_HEAD,
    chunked,
    completion,
    delta,
    get,
    json_answer,
    post,
    stream_answer,
    usage_event,
)

from filature.admin.checking import check_store
from filature.ledger.accounts import client_account
from filature.ledger.commands import OpenAccount, TopUp
from filature.proxy.upkeep import DEMO_ACCOUNT
from filature.store.keys import KeyLimits
from filature.store.store import Store
from filature.units import AccountId, Nano, TransferId

ALICE = client_account("alice")
CREDIT = 10**9


def store_of(c: Chain) -> Store:
    assert c.proxy.store is not None
    return c.proxy.store


async def rich(c: Chain, credit: int, account: AccountId = ALICE, **limits: Any) -> str:
    """A key of a new account with so many nano-credits."""
    store = store_of(c)
    await store.ledger.run(OpenAccount(account))
    if credit:
        top_up = TopUp(TransferId(f"top-up of {account}"), account, Nano(credit), 1)
        await store.ledger.run(top_up)
    secret, _ = await store.keys.create(account, "test", KeyLimits(**limits))
    return secret


def keyed(secret: str, body: object, path: str = "/v1/chat/completions", **more: str) -> bytes:
    request = post(body, path)
    line, rest = request.split(b"\r\n", 1)
    lines = f"Authorization: Bearer {secret}\r\n"
    lines += "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in more.items())
    return b"%b\r\n%b%b" % (line, lines.encode(), rest)


def balance(c: Chain, account: AccountId = ALICE) -> int:
    return store_of(c).ledger.state.accounts[account].balance


async def sound(c: Chain) -> None:
    await store_of(c).ledger.flush()
    report = await check_store(store_of(c))
    assert not report.violations, report.violations


@asynccontextmanager
async def money(*engines: Any, **settings: Any) -> AsyncIterator[Chain]:
    """A chain where keys are needed, and whose ledger is sound afterwards."""
    async with chain(*engines, keyless=False, **settings) as c:
        yield c
        await sound(c)


def code(answer: Answer) -> tuple[int, str]:
    return answer.status, answer.json["error"]["code"]


# Who may ask


async def test_without_a_valid_key_nothing_is_served() -> None:
    engine = RawEngine(says(json_answer(completion("hi"))))
    async with money(engine) as c:
        assert code(await c.ask(post(CHAT))) == (401, "invalid_api_key")
        assert code(await c.ask(keyed("sk-fil-wrong", CHAT))) == (401, "invalid_api_key")
        secret = await rich(c, CREDIT)
        assert (await c.ask(keyed(secret, CHAT))).status == 200
        (key,) = store_of(c).keys.list()
        await store_of(c).keys.revoke(key.id)
        assert code(await c.ask(keyed(secret, CHAT))) == (401, "invalid_api_key")
    assert len(engine.requests) == 1


async def test_a_key_is_revoked_on_a_connection_that_is_open() -> None:
    async with money(says(json_answer(completion("hi")))) as c:
        secret = await rich(c, CREDIT)
        client = await c.connect()
        client.send(keyed(secret, CHAT))
        assert (await client.answer()).status == 200
        await store_of(c).keys.revoke(store_of(c).keys.list()[0].id)
        client.send(keyed(secret, CHAT))
        assert (await client.answer()).status == 401


async def test_anthropics_header_is_a_key_too() -> None:
    async with money(says(json_answer(completion("hi")))) as c:
        secret = await rich(c, CREDIT)
        request = keyed(secret, CHAT).replace(b"Authorization: Bearer ", b"x-api-key: ")
        assert (await c.ask(request)).status == 200


async def test_on_loopback_keyless_requests_are_the_demo_accounts() -> None:
    async with chain(says(json_answer(completion("hi")))) as c:
        assert (await c.ask(post(CHAT))).status == 200
        assert (await c.ask(keyed("none", CHAT))).status == 200  # SDKs insist on some key
        assert code(await c.ask(keyed("sk-fil-wrong", CHAT))) == (401, "invalid_api_key")
        shown = (await c.ask(get("/v1/balance"))).json
        assert shown["account"] == "demo"
        assert shown["spent_nano"] == 10 * CREDIT - balance(c, DEMO_ACCOUNT) > 0
        await sound(c)


async def test_the_balance_tells_what_is_held() -> None:
    puppet = Puppet()
    async with money(puppet) as c:
        secret = await rich(c, CREDIT)
        client = await c.connect()
        client.send(keyed(secret, {**STREAM, "max_tokens": 100}))
        call = await puppet.call()
        request = get("/v1/balance").replace(
            b"\r\n", f"\r\nAuthorization: Bearer {secret}\r\n".encode(), 1
        )
        shown = (await c.ask(request)).json
        assert shown["held_nano"] > 0
        assert shown["available_nano"] + shown["held_nano"] == shown["balance_nano"] == CREDIT
        call.send(STREAM_HEAD, chunked(delta("a", finish="stop")), chunked(DONE))
        call.end(LAST_CHUNK)
        assert (await client.answer()).complete


async def test_usage_is_the_accounts_own_and_survives_in_the_database() -> None:
    async with money(says(json_answer(completion("hi")))) as c:
        alice = await rich(c, CREDIT)
        bob = await rich(c, CREDIT, client_account("bob"))
        id_ = (await c.ask(keyed(alice, CHAT))).request_id
        page = get(f"/v1/usage/{id_}")
        mine = page.replace(b"\r\n", f"\r\nAuthorization: Bearer {alice}\r\n".encode(), 1)
        other = page.replace(b"\r\n", f"\r\nAuthorization: Bearer {bob}\r\n".encode(), 1)
        assert (await c.ask(page)).status == 401
        assert (await c.ask(other)).status == 404
        recent = (await c.ask(mine)).json
        c.proxy.usage._records.clear()
        assert (await c.ask(mine)).json == recent
        assert (await c.ask(other)).status == 404


# What is held


async def test_who_cannot_pay_the_prompt_is_told_what_it_needs() -> None:
    engine = RawEngine(says(json_answer(completion("hi"))))
    async with money(engine) as c:
        answer = await c.ask(keyed(await rich(c, 1000), CHAT))
        assert code(answer) == (402, "insufficient_quota")
        assert "0.000001 available" in answer.json["error"]["message"]
        assert balance(c) == 1000
    assert [r for r in engine.requests if r.path == "/v1/chat/completions"] == []


@pytest.mark.parametrize("asked", [{"max_tokens": 500}, {}, {"max_completion_tokens": 500}])
async def test_credit_for_some_tokens_is_what_the_engine_is_asked_for(
    asked: dict[str, int],
) -> None:
    engine = RawEngine(says(json_answer(completion("hi", 3, 2))))
    async with money(engine, price_in="1", price_cached="0", price_out="1") as c:
        bound = 512 + 16 + len("hello") + 16  # the template, the message, its text
        secret = await rich(c, (bound + 25) * 1000)
        answer = await c.ask(keyed(secret, {**CHAT, **asked}))
        assert answer.status == 200
        sent = engine.requests[-1].json
        numbers = {sent[name] for name in ("max_tokens", "max_completion_tokens") if name in sent}
        (number,) = numbers
        assert 20 <= number <= 45
        assert balance(c) == (bound + 25) * 1000 - 5000


async def test_200_clients_of_one_poor_account_never_take_it_below_zero() -> None:
    async def engine(request: EngineRequest, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(0)
        if request.json.get("stream"):
            events = [delta("a"), delta("b", finish="stop"), usage_event(10, 20), DONE]
            writer.write(stream_answer(events))
        else:
            writer.write(json_answer(completion("hi", 10, 20)))

    async with money(RawEngine(engine), price_in="1", price_cached="0", price_out="10") as c:
        cost = 10 * 1000 + 20 * 10_000
        secret = await rich(c, 20 * cost + 600_000)

        async def ask(number: int) -> Answer:
            body = {**(STREAM if number % 2 else CHAT), "max_tokens": 20}
            return await c.ask(keyed(secret, body))

        answers = await asyncio.gather(*(ask(number) for number in range(200)))
        statuses = [answer.status for answer in answers]
        assert set(statuses) == {200, 402}
        served = [answer for answer in answers if answer.status == 200]
        assert all(answer.complete for answer in served)
        records = await store_of(c).usage.list(account=ALICE, limit=1000)
        charges = sum(record["total_cost"] for record in records)
        assert charges == 20 * cost + 600_000 - balance(c)
        assert balance(c) >= 0
        assert sorted(r["id"] for r in records) == sorted(a.request_id for a in served)


# Limits of keys


async def test_limits_of_a_key() -> None:
    async with money(says(json_answer(completion("hi")))) as c:
        few = await rich(c, CREDIT, requests_per_minute=1)
        first = await c.ask(keyed(few, CHAT))
        assert first.headers["x-ratelimit-limit-requests"] == "1"
        assert first.headers["x-ratelimit-remaining-requests"] == "0"
        second = await c.ask(keyed(few, CHAT))
        assert code(second) == (429, "rate_limit_exceeded")
        assert 1 <= int(second.headers["retry-after"]) <= 60
        other = await rich(c, 0, models=frozenset({"other"}))
        assert code(await c.ask(keyed(other, CHAT))) == (403, "model_not_allowed")
        poor = await rich(c, 0, budget=Nano(10), budget_period="day")
        assert code(await c.ask(keyed(poor, CHAT))) == (429, "budget_exceeded")
        late = await rich(c, 0, expires_ms=1)
        assert code(await c.ask(keyed(late, CHAT))) == (401, "expired_api_key")
        cheap = await rich(c, 0, max_coefficient=999)
        assert code(await c.ask(keyed(cheap, CHAT))) == (403, "max_coefficient_too_low")


async def test_prices_aliases_and_coefficients() -> None:
    engine = RawEngine(says(json_answer(completion("hi", 10, 5))), models=("m", "free"))
    async with money(engine, price_default=False) as c:
        secret = await rich(c, CREDIT)
        prices = store_of(c).prices
        assert code(await c.ask(keyed(secret, CHAT))) == (404, "model_not_priced")
        await prices.set("m", prompt=CREDIT, cached=0, completion=2 * CREDIT, fee_bp=1000)
        await prices.set_alias("nick", "m")
        await prices.set_coefficient(engine.url, "*", 500)
        answer = await c.ask(keyed(secret, {**CHAT, "model": "nick"}))
        assert engine.requests[-1].json["model"] == "m"
        assert answer.json["usage"]["total_cost"] == 10_000
        accounts = store_of(c).ledger.state.accounts
        assert accounts[AccountId("fees")].balance == 1000
        assert accounts[AccountId(f"worker:{engine.url}")].balance == 9000


# Idempotency-Key


async def test_the_same_idempotency_key_is_charged_once() -> None:
    engine = RawEngine(says(json_answer(completion("hi"))))
    async with money(engine) as c:
        secret = await rich(c, CREDIT)
        first = await c.ask(keyed(secret, CHAT, Idempotency_Key="k"))
        left = balance(c)
        again = await c.ask(keyed(secret, CHAT, Idempotency_Key="k"))
        assert again.body == first.body
        assert again.headers["idempotency-replayed"] == "true"
        other = await c.ask(keyed(secret, {**CHAT, "n": 2}, Idempotency_Key="k"))
        assert code(other) == (422, "idempotency_key_reused")
        assert balance(c) == left
    assert len(engine.requests) == 1


async def test_a_streamed_answer_is_not_kept_and_a_running_one_is_told() -> None:
    puppet = Puppet()
    async with money(puppet) as c:
        secret = await rich(c, CREDIT)
        request = keyed(secret, STREAM, Idempotency_Key="k")
        client = await c.connect()
        client.send(request)
        call = await puppet.call()
        running = await c.ask(request)
        assert code(running) == (409, "idempotency_key_running")
        assert running.headers["retry-after"] == "1"
        call.send(STREAM_HEAD, chunked(delta("a", finish="stop")), chunked(DONE))
        call.end(LAST_CHUNK)
        assert (await client.answer()).complete
        settled = await c.ask(request)
        assert code(settled) == (409, "already_settled")
        assert settled.headers["x-should-retry"] == "false"


async def test_what_cost_nothing_may_run_again() -> None:
    answers = [
        b"HTTP/1.1 400 Bad Request\r\nContent-Length: 2\r\n\r\n{}",
        json_answer(completion("hi")),
    ]

    async def engine(request: EngineRequest, writer: asyncio.StreamWriter) -> None:
        writer.write(answers.pop(0))

    async with money(RawEngine(engine)) as c:
        secret = await rich(c, CREDIT)
        request = keyed(secret, CHAT, Idempotency_Key="k")
        assert (await c.ask(request)).status == 400
        assert (await c.ask(request)).status == 200


# The end waits for the commit


@pytest.mark.parametrize("body", [STREAM, CHAT], ids=["streamed", "whole"])
async def test_the_end_is_released_when_the_charge_is_stored(body: dict[str, Any]) -> None:
    handler = says(stream_answer(SHORT_STREAM) if body is STREAM else json_answer(completion("hi")))
    async with money(handler) as c:
        secret = await rich(c, CREDIT)
        writer = store_of(c).writer
        held: list[Any] = []
        writer._write = lambda batch, **_: held.append(batch)  # type: ignore[method-assign]
        client = await c.connect()
        client.send(keyed(secret, body))
        while not held:
            await asyncio.sleep(0.001)
        del writer._write
        if body is STREAM:
            assert b"[DONE]" not in client.reader._buffer  # type: ignore[attr-defined]
            assert b"0\r\n\r\n" not in client.reader._buffer  # type: ignore[attr-defined]
        else:
            assert await client.silence()
        writer._write(held[0], again=False)
        answer = await client.answer()
        assert answer.complete
        assert answer.body.endswith(DONE) or body is CHAT


@pytest.mark.parametrize("body", [STREAM, CHAT], ids=["streamed", "whole"])
async def test_without_its_commit_an_answer_fails_and_costs_nothing(body: dict[str, Any]) -> None:
    handler = says(stream_answer(SHORT_STREAM) if body is STREAM else json_answer(completion("hi")))
    async with money(handler) as c:
        secret = await rich(c, CREDIT)
        object.__setattr__(c.proxy._plane.limits, "commit_wait_s", 0.1)
        writer = store_of(c).writer
        held: list[Any] = []
        writer._write = lambda batch, **_: held.append(batch)  # type: ignore[method-assign]
        answer = await c.ask(keyed(secret, body))
        del writer._write
        assert b"ledger_unavailable" in answer.body
        assert b"[DONE]" not in answer.body
        assert answer.status == 503  # for nothing had been sent
        writer._write(held[0], again=False)
        await store_of(c).ledger.flush()
        assert balance(c) == CREDIT
        (record,) = await store_of(c).usage.list()
        assert (record["outcome"], record["total_cost"]) == ("not_settled", 0)
