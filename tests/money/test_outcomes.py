"""Who pays: a test for each row of the outcome table, named after it.

Each shows the charge, the worker's earning and the operator's fee in the ledger, the outcome's name in the
usage record, and that it is counted. "Proxy died" is in ``test_kills.py``, too.
"""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import pytest
from tests.integration.accounts import (
    CREDIT,
    Customer,
    balance,
    charges,
    customer,
    money,
    records,
    store_of,
)
from tests.integration.harness import (
    Call,
    Chain,
    Client,
    EngineRequest,
    Puppet,
    RawEngine,
    says,
)
from tests.integration.messages import (
    CHAT,
    DONE,
    LAST_CHUNK,
    SHORT_STREAM,
    STREAM,
    STREAM_HEAD,
    chunked,
    completion,
    cost,
    delta,
    event,
    json_answer,
    stream_answer,
    tokens,
)

from filature.ledger.accounts import FEES, worker_account
from filature.proxy.settings import DATABASE_FILE
from filature.relay.outcome import Outcome
from filature.store.store import Store
from filature.telemetry.record import UsageRecord
from filature.units import RequestId

FEE_BP: Final = 1234
PROMPT: Final = 10


@asynccontextmanager
async def served(*engines: Any, **settings: Any) -> AsyncIterator[tuple[Chain, Customer]]:
    """A chain that takes a fee, and a customer of it."""
    async with money(*engines, fee_bp=FEE_BP, **settings) as c:
        yield c, await customer(c, CREDIT)


async def ended(c: Chain) -> UsageRecord:
    """The record of the one request, once it is over."""
    async with asyncio.timeout(10):
        while store_of(c).ledger.state.holds or not len(c.proxy.usage):
            await asyncio.sleep(0.001)
    (record,) = await records(c)
    return record


async def paid(c: Chain, who: Customer, outcome: str, amount: int) -> UsageRecord:
    """The one request ended so, and cost its client so much, of which the worker got all but the fee."""
    record = await ended(c)
    assert record.outcome == outcome
    assert record.total_cost == amount <= record.held
    assert balance(c, who.account) == who.credit - amount
    assert balance(c, FEES) == amount * FEE_BP // 10_000
    stored = await charges(c)
    if amount:
        (charge,) = stored
        assert str(charge.id) == record.id
        assert (charge.amount, charge.held) == (amount, record.held)
        earned = balance(c, worker_account(record.engine))
        assert earned == amount - amount * FEE_BP // 10_000
    elif outcome != "completed":
        assert not stored
    counted = c.proxy.metrics.exposition(c.proxy.metrics.registry()).decode()
    assert f'filature_requests_total{{dialect="chat",model="m",outcome="{outcome}"}} 1.0' in counted
    return record


async def streaming(c: Chain, who: Customer, puppet: Puppet, **more: Any) -> tuple[Client, Call]:
    """A stream of which the client has seen five tokens, and the engine has told of them."""
    puppet.continuous = True
    client = await c.connect()
    client.send(who.asks(STREAM | more))
    call = await puppet.call()
    call.send(STREAM_HEAD, *[chunked(delta("x", usage=tokens(PROMPT, n + 1))) for n in range(5)])
    await client.head()
    seen = b""
    while seen != delta("x") * 5:
        seen += await client.chunk()
    return client, call


def puppet_that_reports() -> Puppet:
    puppet = Puppet()
    puppet.continuous = True
    return puppet


class TestCompleted:
    """Client: usage. Worker: usage − fee."""

    @pytest.mark.parametrize("stream", [False, True])
    async def test_completed(self, stream: bool) -> None:
        answer = stream_answer(SHORT_STREAM) if stream else json_answer(completion("hi", 10, 2))
        async with served(says(answer)) as (c, who):
            assert (await c.ask(who.asks(STREAM if stream else CHAT))).status == 200
            await paid(c, who, "completed", cost(PROMPT, 2))


class TestTheClientEndedIt:
    """Client: usage up to that moment, nothing before the engine's first event. Worker: the same − fee."""

    @pytest.mark.parametrize("how", ["reset", "close", "half-close"])
    async def test_client_went_away_or_cancelled(self, how: str) -> None:
        puppet = puppet_that_reports()
        async with served(puppet) as (c, who):
            client, call = await streaming(c, who, puppet)
            if how == "reset":
                client.leave()
            elif how == "close":
                client.writer.close()
            else:
                client.writer.write_eof()
            await call.gone()
            await paid(c, who, "client_gone", cost(PROMPT, 5))
            call.over.set()

    async def test_client_reached_its_own_timeout(self) -> None:
        puppet = puppet_that_reports()
        async with served(puppet) as (c, who):
            client, call = await streaming(c, who, puppet, timeout=0.3)
            assert b'"timeout"' in await rest(client)
            await paid(c, who, "client_timeout", cost(PROMPT, 5))
            call.over.set()

    async def test_client_stopped_reading_past_its_deadline(self) -> None:
        puppet = puppet_that_reports()
        async with served(puppet, client_stall_s=0.3) as (c, who):
            client = await c.connect()
            client.writer.transport.pause_reading()  # type: ignore[attr-defined]
            raw: socket.socket = client.writer.get_extra_info("socket")
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.send(who.asks(STREAM))
            call = await puppet.call()
            call.send(STREAM_HEAD)
            told = 0
            while not over(call):
                told += 1
                call.send(chunked(delta("x" * 20_000, usage=tokens(PROMPT, told))))
                await asyncio.sleep(0.001)
            record = await ended(c)
            assert 0 < record.completion <= told
            await paid(c, who, "client_stalled", cost(PROMPT, record.completion))
            call.over.set()

    @pytest.mark.parametrize("how", ["gone", "timeout"])
    @pytest.mark.parametrize("when", ["before the head", "before the first event"])
    async def test_nothing_before_the_engines_first_event(self, how: str, when: str) -> None:
        puppet = puppet_that_reports()
        async with served(puppet) as (c, who):
            client = await c.connect()
            client.send(who.asks(STREAM | ({"timeout": 0.3} if how == "timeout" else {})))
            call = await puppet.call()
            if when == "before the first event":
                call.send(STREAM_HEAD, chunked(b": ping\n\n"))
                await asyncio.sleep(0.02)
            if how == "gone":
                client.leave()
            else:
                assert (await client.answer()).json["error"]["code"] == "timeout"
            await call.gone()
            await paid(c, who, f"client_{how}", 0)
            call.over.set()


def over(call: Call) -> bool:
    """Whether the proxy has let go of the engine."""
    return call.request.gone.is_set() or call.writer.is_closing()


async def rest(client: Client) -> bytes:
    """What is left of a chunked body."""
    body = b""
    while chunk := await client.chunk():
        body += chunk
    return body


FAILURES: Final[dict[str, tuple[bytes, ...]]] = {
    "cut": (STREAM_HEAD,),
    "empty": (b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: 0\r\n\r\n",),
    "500": (json_answer({"error": "no"}, status="500 Internal Server Error"),),
    "429": (json_answer({"error": "no"}, status="429 Too Many Requests"),),
    "error frame": (STREAM_HEAD, chunked(b'data: {"error":{"message":"no"}}\n\n'), LAST_CHUNK),
}


class TestFailedBeforeTheFirstContent:
    """Client: nothing; retried elsewhere. Worker: nothing."""

    @pytest.mark.parametrize("failure", FAILURES)
    async def test_and_answered_elsewhere(self, failure: str) -> None:
        """The one that failed earns nothing; the one that answered is paid by its own price."""
        engines = [RawEngine(says(*FAILURES[failure], close=True)) for _ in range(2)]
        asked: list[RawEngine] = []

        async def answer(request: EngineRequest, writer: asyncio.StreamWriter) -> None:
            asked.append(next(engine for engine in engines if request in engine.requests))
            if len(asked) == 1:
                writer.writelines(FAILURES[failure])
                writer.close()
            else:
                writer.write(stream_answer(SHORT_STREAM))

        for engine in engines:
            engine.handler = answer
        async with served(*engines) as (c, who):
            told = await c.ask(who.asks(STREAM))
            assert told.status == 200
            assert told.body.endswith(DONE)
            record = await paid(c, who, "completed", cost(PROMPT, 2))
            first, second = (worker_account(engine.url) for engine in asked)
            assert record.tries == 2
            assert worker_account(record.engine) == second
            assert first not in store_of(c).ledger.state.accounts or balance(c, first) == 0

    @pytest.mark.parametrize("failure", FAILURES)
    async def test_and_nowhere_else_to_go(self, failure: str) -> None:
        async with served(RawEngine(says(*FAILURES[failure], close=True))) as (c, who):
            assert (await c.ask(who.asks(STREAM))).status in (502, 503)
            await paid(c, who, "engine_failed", 0)


class TestFailedMidStream:
    """Client: nothing. Worker: nothing."""

    async def test_cut(self) -> None:
        puppet = puppet_that_reports()
        async with served(puppet) as (c, who):
            client, call = await streaming(c, who, puppet)
            call.reset()
            assert b'"error"' in await rest(client)
            record = await paid(c, who, "engine_failed_midstream", 0)
            assert record.completion == 5, "it is told what was used"

    async def test_error_frame(self) -> None:
        puppet = puppet_that_reports()
        async with served(puppet) as (c, who):
            client, call = await streaming(c, who, puppet)
            frame = b'data: {"error":{"message":"EngineCore encountered an issue","code":500}}\n\n'
            call.end(chunked(frame), chunked(DONE), LAST_CHUNK)
            assert DONE not in await rest(client)
            await paid(c, who, "engine_failed_midstream", 0)

    async def test_stall(self) -> None:
        puppet = puppet_that_reports()
        async with served(puppet, progress_s=0.3) as (c, who):
            client, call = await streaming(c, who, puppet)
            assert b'"engine_timeout"' in await rest(client)
            await paid(c, who, "engine_stalled", 0)
            call.over.set()

    async def test_stopped_by_a_drain(self) -> None:
        puppet = puppet_that_reports()
        async with served(puppet, drain_s=0.1) as (c, who):
            client, call = await streaming(c, who, puppet)
            draining = asyncio.create_task(c.proxy.drain())
            assert b'"draining"' in await rest(client)
            await draining
            await paid(c, who, "drained", 0)
            call.over.set()

    async def test_cap_that_the_engine_ignores(self) -> None:
        """As ``money.md`` has it: the relay ends such an answer, as failed by the engine."""
        puppet = puppet_that_reports()
        async with served(puppet, progress_s=0.3) as (c, who):
            client = await c.connect()
            client.send(who.asks(STREAM | {"max_tokens": 5}))
            call = await puppet.call()
            call.send(STREAM_HEAD)
            told = 0
            while not over(call):
                told += 1
                call.send(chunked(delta("x", usage=tokens(PROMPT, told))))
                await asyncio.sleep(0.001)
            answer = await client.answer()
            assert b"went on past the tokens" in answer.body
            await paid(c, who, "engine_failed_midstream", 0)
            assert c.proxy.engines.engines[0].failures == 1
            call.over.set()


class TestRefusedByTheEngine:
    """Client: nothing. Worker: nothing."""

    @pytest.mark.parametrize("status", [400, 413, 422])
    async def test_refused(self, status: int) -> None:
        refusal = json_answer({"error": {"message": "no"}}, status=f"{status} Refused")
        async with served(says(refusal)) as (c, who):
            assert (await c.ask(who.asks(CHAT))).status == status
            await paid(c, who, "refused_by_engine", 0)


class TestProxyDied:
    """Client: what the worker's report says, at most the hold. A static engine writes none: nothing."""

    async def test_what_left_no_trace_is_voided(self) -> None:
        """What is stored while requests run is what a process that dies leaves behind."""
        puppet = puppet_that_reports()
        async with served(puppet) as (c, who):
            client, call = await streaming(c, who, puppet)
            assert store_of(c).ledger.state.holds
            await store_of(c).ledger.flush()
            path = c.proxy.settings.data_dir / DATABASE_FILE
            left = path.with_name("left.db")
            for suffix in ("", "-wal"):
                content = path.with_name(path.name + suffix).read_bytes()
                left.with_name(left.name + suffix).write_bytes(content)
            after = await Store.open(f"sqlite:///{left}")
            assert after.ledger.available(who.account) == who.credit
            assert not after.ledger.state.holds
            await after.close()
            client.leave()
            await paid(c, who, "client_gone", cost(PROMPT, 5))
            call.over.set()


class TestMoreThanIsPossible:
    """Client: what is possible. Worker: the same − fee, and a mark against it."""

    CLAIMS: Final[dict[str, tuple[dict[str, Any], int, int]]] = {
        "completion above what was allowed": (tokens(3, 10**6), 3, 20),
        "prompt above its bound": (tokens(10**6, 2), 512 + 16 + len("hello"), 2),
    }

    @pytest.mark.parametrize("claim", CLAIMS)
    @pytest.mark.parametrize("stream", [False, True])
    async def test_worker_claims_more_than_is_possible(self, claim: str, stream: bool) -> None:
        usage, prompt, completed = self.CLAIMS[claim]
        text = "word " * 100
        whole = completion(text) | {"usage": usage}
        final = {"id": "c1", "object": "chat.completion.chunk", "choices": [], "usage": usage}
        events = [delta(text, finish="stop"), event(final), DONE]
        handler = says(stream_answer(events) if stream else json_answer(whole))
        async with served(handler) as (c, who):
            body = (STREAM if stream else CHAT) | {"max_tokens": 20}
            answer = await c.ask(who.asks(body))
            assert answer.status == 200
            record = await paid(c, who, "completed", cost(prompt, completed))
            assert (record.prompt, record.completion) == (prompt, completed)
            counted = c.proxy.metrics.exposition(c.proxy.metrics.registry()).decode()
            assert 'reason="engine_exceeded"} 1.0' in counted, "a mark against it"

    async def test_no_more_than_the_bytes_of_the_answer(self) -> None:
        """A completion has a byte per token at least."""
        whole = completion("hi", 3, 500)
        async with served(says(json_answer(whole))) as (c, who):
            await c.ask(who.asks(CHAT | {"max_tokens": 1000}))
            record = await ended(c)
            assert record.completion <= len(json_answer(whole))
            assert record.completion < 500
            await paid(c, who, "completed", cost(3, record.completion))


class TestRefusedByUs:
    """Not in the table, for nothing was asked of anybody: no hold, no charge."""

    async def test_refused(self) -> None:
        async with served(says(json_answer(completion("hi")))) as (c, who):
            answer = await c.ask(who.asks(CHAT | {"n": "many"}))
            assert answer.status == 400
            (record,) = c.proxy.usage._records.values()
            assert record.outcome == "refused"
            assert not store_of(c).ledger.state.holds
            assert balance(c, who.account) == who.credit


class TestNobodyWasAsked:
    """Ends that the table has no row for: nothing came of them, and nobody pays."""

    async def test_no_engine(self) -> None:
        """None has answered yet."""
        with socket.create_server(("127.0.0.1", 0)) as deaf:
            url = f"http://127.0.0.1:{deaf.getsockname()[1]}"
            async with served(urls=(url,), wait=False) as (c, who):
                answer = await c.ask(who.asks(CHAT))
                assert answer.status == 503
                assert answer.headers["retry-after"]
                assert c.proxy.usage._records[RequestId(answer.request_id)].outcome == "no_engine"
                assert not await charges(c)
                assert balance(c, who.account) == who.credit

    async def test_replayed(self) -> None:
        """The same request again, by its Idempotency-Key: the same answer, and no second charge."""
        async with served(says(json_answer(completion("hi", PROMPT, 2)))) as (c, who):
            first = await c.ask(who.asks(CHAT, idempotency_key="k"))
            await paid(c, who, "completed", cost(PROMPT, 2))
            again = await c.ask(who.asks(CHAT, idempotency_key="k"))
            assert again.body == first.body
            assert again.headers["idempotency-replayed"] == "true"
            assert c.proxy.usage._records[RequestId(again.request_id)].outcome == "replayed"
            assert balance(c, who.account) == who.credit - cost(PROMPT, 2)


async def test_free_failures_are_rationed() -> None:
    """An account whose requests keep breaking engines is slowed, then refused; others are not."""
    broken = RawEngine(says(close=True))
    async with served(broken, retries_max=0) as (c, who):
        other = await customer(c, CREDIT, "other")
        statuses = []
        async with asyncio.timeout(60):
            while 429 not in statuses:
                answers = await asyncio.gather(*(c.ask(who.asks(CHAT)) for _ in range(20)))
                statuses += [answer.status for answer in answers]
                assert len(statuses) < 400
        assert len(statuses) - statuses.count(429) >= 60
        refused = await c.ask(who.asks(CHAT))
        assert refused.status == 429
        assert refused.json["error"]["code"] == "too_many_failures"
        assert int(refused.headers["retry-after"]) > 0
        assert (await c.ask(other.asks(CHAT))).status != 429
        assert balance(c, who.account) == who.credit


@pytest.mark.parametrize("how", ["gone", "timeout"])
async def test_who_does_not_wait_for_the_first_event_is_rationed(how: str) -> None:
    """Whether it leaves or lets its own timeout run out: the engine worked for nothing."""
    puppet = Puppet()
    async with served(puppet) as (c, who):
        client = await c.connect()
        client.send(who.asks(STREAM | ({"timeout": 0.2} if how == "timeout" else {})))
        call = await puppet.call()
        if how == "gone":
            client.leave()
        await call.gone()
        call.over.set()
        await paid(c, who, f"client_{how}", 0)
        assert len(c.proxy._admission._failures._scores) == 1


async def test_who_leaves_what_is_sold_for_nothing_is_not() -> None:
    """It saw some of its answers, and no cost is what they cost."""
    puppet = puppet_that_reports()
    async with served(puppet, price_in=0, price_cached=0, price_out=0) as (c, who):
        client, call = await streaming(c, who, puppet)
        client.leave()
        await call.gone()
        call.over.set()
        assert (await ended(c)).outcome == "client_gone"
        assert not c.proxy._admission._failures._scores


TESTED_ELSEWHERE: Final = {
    Outcome.NOT_SETTLED: "../integration/test_settlement.py",
    Outcome.REPORTED: "test_dead_proxy.py",
    Outcome.REPLACED: "test_dead_proxy.py",
}


@pytest.mark.parametrize("outcome", list(Outcome))
def test_every_outcome_of_the_program_is_shown(outcome: Outcome) -> None:
    """One that is added needs a row, and a test."""
    here = Path(__file__)
    path = here.parent / TESTED_ELSEWHERE.get(outcome, here.name)
    text = path.read_text().replace('f"client_{how}"', '"client_gone", "client_timeout"')
    assert f'"{outcome}"' in text
