"""Accounts over real sockets: who may ask, what is held, who pays for which end, what is told of it."""

import asyncio
from types import SimpleNamespace

import pytest
from sqlalchemy.exc import DBAPIError
from tests.integration.accounts import CREDIT, balance, customer, money, sound, store_of
from tests.integration.harness import Answer, EngineRequest, Puppet, RawEngine, chain, says
from tests.integration.messages import (
    CHAT,
    DONE,
    LAST_CHUNK,
    STREAM,
    STREAM_HEAD,
    chunked,
    completion,
    delta,
    get,
    json_answer,
    post,
)

from filature.units import AccountId, Nano


def bearing(secret: str) -> bytes:
    """A request with that key."""
    return post(CHAT, headers=f"Authorization: Bearer {secret}\r\n")


def code(answer: Answer) -> tuple[int, str]:
    return answer.status, answer.json["error"]["code"]


# Who may ask


async def test_without_a_valid_key_nothing_is_served() -> None:
    engine = RawEngine(says(json_answer(completion("hi"))))
    async with money(engine) as c:
        assert code(await c.ask(post(CHAT))) == (401, "invalid_api_key")
        assert code(await c.ask(bearing("sk-fil-wrong"))) == (401, "invalid_api_key")
        for page in ("/v1/balance", "/v1/usage/req_1"):
            unknown = await c.ask(get(page))
            assert code(unknown) == (401, "invalid_api_key")
            assert "None was given" in unknown.json["error"]["message"]
        alice = await customer(c, CREDIT)
        assert (await c.ask(alice.asks(CHAT))).status == 200
        (key,) = store_of(c).keys.list()
        await store_of(c).keys.revoke(key.id)
        assert code(await c.ask(alice.asks(CHAT))) == (401, "invalid_api_key")
    assert len(engine.requests) == 1


async def test_a_key_is_revoked_on_a_connection_that_is_open() -> None:
    async with money(says(json_answer(completion("hi")))) as c:
        alice = await customer(c, CREDIT)
        client = await c.connect()
        client.send(alice.asks(CHAT))
        assert (await client.answer()).status == 200
        await store_of(c).keys.revoke(store_of(c).keys.list()[0].id)
        client.send(alice.asks(CHAT))
        assert (await client.answer()).status == 401
        client = await c.connect()
        client.send(alice.gets("/v1/balance"))
        assert (await client.answer()).status == 401
        client.send(alice.gets("/v1/models"))
        assert (await client.answer()).status == 200  # is for everybody


async def test_anthropics_header_is_a_key_too() -> None:
    async with money(says(json_answer(completion("hi")))) as c:
        alice = await customer(c, CREDIT)
        request = alice.asks(CHAT).replace(b"Authorization: Bearer ", b"x-api-key: ")
        assert (await c.ask(request)).status == 200


async def test_of_two_keys_it_is_the_one_of_ours() -> None:
    """Anthropic's SDK sends both where its environment has a token for another service."""
    async with chain(says(json_answer(completion("hi")))) as c:
        alice = await customer(c, CREDIT)
        both = b"authorization: Bearer sk-ant-oat01-other\r\nx-api-key: "
        request = alice.asks(CHAT).replace(b"Authorization: Bearer ", both)
        assert (await c.ask(request)).status == 200
        assert balance(c, alice.account) < CREDIT
        assert balance(c) == 10 * CREDIT  # the demo account's


async def test_on_loopback_keyless_requests_are_the_demo_accounts() -> None:
    async with chain(says(json_answer(completion("hi")))) as c:
        assert (await c.ask(post(CHAT))).status == 200
        assert (await c.ask(bearing("none"))).status == 200  # SDKs insist on some key
        assert code(await c.ask(bearing("sk-fil-wrong"))) == (401, "invalid_api_key")
        shown = (await c.ask(get("/v1/balance"))).json
        assert shown["account"] == "demo"
        assert shown["spent_nano"] == 10 * CREDIT - balance(c) > 0
        await sound(c)


async def test_the_balance_tells_what_is_held() -> None:
    puppet = Puppet()
    async with money(puppet) as c:
        alice = await customer(c, CREDIT)
        client = await c.connect()
        client.send(alice.asks({**STREAM, "max_tokens": 100}))
        call = await puppet.call()
        request = alice.gets("/v1/balance")
        shown = (await c.ask(request)).json
        assert shown["held_nano"] > 0
        assert shown["available_nano"] + shown["held_nano"] == shown["balance_nano"] == CREDIT
        call.send(STREAM_HEAD, chunked(delta("a", finish="stop")), chunked(DONE))
        call.end(LAST_CHUNK)
        assert (await client.answer()).complete


async def test_usage_is_the_accounts_own_and_survives_in_the_database() -> None:
    async with money(says(json_answer(completion("hi")))) as c:
        alice = await customer(c, CREDIT)
        bob = await customer(c, CREDIT, "bob")
        id_ = (await c.ask(alice.asks(CHAT))).request_id
        page = f"/v1/usage/{id_}"
        mine = alice.gets(page)
        other = bob.gets(page)
        assert (await c.ask(get(page))).status == 401
        assert (await c.ask(other)).status == 404
        recent = (await c.ask(mine)).json
        c.proxy.usage._records.clear()
        assert (await c.ask(mine)).json == recent
        assert (await c.ask(other)).status == 404


async def test_no_client_is_told_where_the_database_is(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*given: object) -> None:
        raise DBAPIError("", None, OSError("connection to 10.0.0.5 as user filature failed"))

    async with money(says(json_answer(completion("hi")))) as c:
        alice = await customer(c, CREDIT)
        store = store_of(c)
        broken = SimpleNamespace(engine=SimpleNamespace(connect=refused))
        with monkeypatch.context() as patch:
            patch.setattr(store.reader, "_database", broken)
            patch.setattr(store.writer, "_in_transaction", refused)
            for request in (alice.gets("/v1/usage/r"), alice.asks(CHAT, Idempotency_Key="k")):
                answer = await c.ask(request)
                assert code(answer) == (503, "ledger_unavailable")
                assert answer.headers["retry-after"] == "5"
                assert b"10.0.0.5" not in answer.body


# What is held


async def test_who_cannot_pay_the_prompt_is_told_what_it_needs() -> None:
    engine = RawEngine(says(json_answer(completion("hi"))))
    async with money(engine) as c:
        alice = await customer(c, 1000)
        answer = await c.ask(alice.asks(CHAT))
        assert code(answer) == (402, "insufficient_quota")
        assert "0.000001 available" in answer.json["error"]["message"]
        assert balance(c, alice.account) == 1000
    assert [r for r in engine.requests if r.path == "/v1/chat/completions"] == []


@pytest.mark.parametrize("asked", [{"max_tokens": 500}, {}, {"max_completion_tokens": 500}])
async def test_credit_for_some_tokens_is_what_the_engine_is_asked_for(
    asked: dict[str, int],
) -> None:
    engine = RawEngine(says(json_answer(completion("hi", 3, 2))))
    async with money(engine, price_in="1", price_cached="0", price_out="1") as c:
        bound = 512 + 16 + len("hello") + 16  # the template, the message, its text
        alice = await customer(c, (bound + 25) * 1000)
        answer = await c.ask(alice.asks({**CHAT, **asked}))
        assert answer.status == 200
        sent = engine.requests[-1].json
        numbers = {sent[name] for name in ("max_tokens", "max_completion_tokens") if name in sent}
        (number,) = numbers
        assert 20 <= number <= 45
        assert balance(c, alice.account) == (bound + 25) * 1000 - 5000


# Limits of keys


async def test_limits_of_a_key() -> None:
    async with money(says(json_answer(completion("hi")))) as c:
        few = await customer(c, CREDIT, requests_per_minute=1)
        first = await c.ask(few.asks(CHAT))
        assert first.headers["x-ratelimit-limit-requests"] == "1"
        assert first.headers["x-ratelimit-remaining-requests"] == "0"
        second = await c.ask(few.asks(CHAT))
        assert code(second) == (429, "rate_limit_exceeded")
        assert 1 <= int(second.headers["retry-after"]) <= 60
        other = await customer(c, 0, models=frozenset({"other"}))
        assert code(await c.ask(other.asks(CHAT))) == (403, "model_not_allowed")
        poor = await customer(c, 0, budget=Nano(10), budget_period="day", requests_per_minute=9)
        over = await c.ask(poor.asks(CHAT))
        assert code(over) == (429, "budget_exceeded")
        assert over.headers["x-ratelimit-remaining-requests"] == "9"
        late = await customer(c, 0, expires_ms=1)
        assert code(await c.ask(late.asks(CHAT))) == (401, "expired_api_key")
        cheap = await customer(c, 0, max_coefficient=999)
        for asked in (CHAT, CHAT | {"max_coefficient": 9999}):
            assert code(await c.ask(cheap.asks(asked))) == (403, "max_coefficient_too_low")


async def test_a_key_is_shown_the_models_that_it_may_use() -> None:
    async with money(RawEngine(says(json_answer(completion("hi"))), models=("m", "n", "o"))) as c:
        await store_of(c).prices.set_alias("mm", "m")
        await store_of(c).prices.set_alias("nn", "n")
        some = await customer(c, CREDIT, models=frozenset({"m", "nn", "gone"}))
        every = await customer(c, 0)

        async def shown(request: bytes) -> list[str]:
            return [entry["id"] for entry in (await c.ask(request)).json["data"]]

        assert await shown(some.gets("/v1/models")) == ["m", "mm", "nn"]
        assert await shown(every.gets("/v1/models")) == ["m", "n", "o", "mm", "nn"]
        for name, status in (("m", 200), ("mm", 200), ("nn", 200), ("n", 403), ("o", 403)):
            assert (await c.ask(some.asks({**CHAT, "model": name}))).status == status
            page = await c.ask(some.gets(f"/v1/models/{name}"))
            assert page.status == (200 if status == 200 else 404)
            if status != 200:
                assert code(page) == (404, "model_not_found")
        assert (await c.ask(every.gets("/v1/models/n"))).json["id"] == "n"


async def test_prices_aliases_and_coefficients() -> None:
    engine = RawEngine(says(json_answer(completion("hi", 10, 5))), models=("m", "free"))
    async with money(engine, price_default=False) as c:
        alice = await customer(c, CREDIT)
        prices = store_of(c).prices
        assert code(await c.ask(alice.asks(CHAT))) == (404, "model_not_priced")
        await prices.set("m", prompt=CREDIT, cached=0, completion=2 * CREDIT, fee_bp=1000)
        await prices.set_alias("nick", "m")
        await prices.set_coefficient(engine.url, "*", 500)
        own = c.proxy.workers.own_engines()
        assert {name: set(models) for name, models in own.items()} == {engine.url: {"m", "free"}}
        answer = await c.ask(alice.asks({**CHAT, "model": "nick"}))
        assert engine.requests[-1].json["model"] == "m"
        assert answer.json["usage"]["total_cost"] == 10_000
        accounts = store_of(c).ledger.state.accounts
        assert accounts[AccountId("fees")].balance == 1000
        assert accounts[AccountId(f"worker:{engine.url}")].balance == 9000


async def test_a_price_counts_from_the_next_request_on() -> None:
    async with money(says(json_answer(completion("hi", 10, 5)))) as c:
        alice = await customer(c, CREDIT)
        c.proxy._clock.stop()  # what is remembered for one tick of it is remembered now
        for price in (1000, 2000):
            prices = {"prompt": price * 1_000_000, "cached": 0, "completion": 0}
            await store_of(c).prices.set("m", **prices)
            answer = await c.ask(alice.asks(CHAT))
            assert answer.json["usage"]["total_cost"] == 10 * price


# Idempotency-Key


async def test_the_same_idempotency_key_is_charged_once() -> None:
    engine = RawEngine(says(json_answer(completion("hi"))))
    async with money(engine) as c:
        alice = await customer(c, CREDIT)
        first = await c.ask(alice.asks(CHAT, Idempotency_Key="k"))
        left = balance(c, alice.account)
        again = await c.ask(alice.asks(CHAT, Idempotency_Key="k"))
        assert again.body == first.body
        assert again.headers["idempotency-replayed"] == "true"
        other = await c.ask(alice.asks({**CHAT, "n": 2}, Idempotency_Key="k"))
        assert code(other) == (422, "idempotency_key_reused")
        assert balance(c, alice.account) == left
    assert len(engine.requests) == 1


async def test_a_streamed_answer_is_not_kept_and_a_running_one_is_told() -> None:
    puppet = Puppet()
    async with money(puppet) as c:
        alice = await customer(c, CREDIT)
        request = alice.asks(STREAM, Idempotency_Key="k")
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
        message = settled.json["error"]["message"]
        assert "1 completion tokens" in message
        assert f"{(CREDIT - balance(c, alice.account)) / 1e9:.9f}".rstrip("0") in message


async def test_what_cost_nothing_may_run_again() -> None:
    answers = [
        b"HTTP/1.1 400 Bad Request\r\nContent-Length: 2\r\n\r\n{}",
        json_answer(completion("hi")),
    ]

    async def engine(request: EngineRequest, writer: asyncio.StreamWriter) -> None:
        writer.write(answers.pop(0))

    async with money(RawEngine(engine)) as c:
        alice = await customer(c, CREDIT)
        request = alice.asks(CHAT, Idempotency_Key="k")
        assert (await c.ask(request)).status == 400
        assert (await c.ask(request)).status == 200
