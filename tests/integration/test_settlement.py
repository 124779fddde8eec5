"""The end of an answer is shown when its charge is stored: what is on the wire before, and every way to wait.

The commits of these tests happen when the test says so, and their time passes when it says so.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from tests.integration.accounts import balance, store_of
from tests.integration.commits import (
    TEXT,
    Gate,
    arrived,
    asked,
    later,
    rest_of,
    streamed,
)
from tests.integration.harness import WAIT_S, Chain, Puppet, chain
from tests.integration.messages import (
    CHAT,
    DONE,
    LAST_CHUNK,
    MESSAGES_ASK,
    MESSAGES_STREAM,
    RESPONSES_ASK,
    RESPONSES_STREAM,
    STREAM,
    STREAM_HEAD,
    WITH_USAGE,
    chunked,
    completion,
    cost,
    delta,
    event,
    json_answer,
    post,
    usage_event,
)

COMPLETIONS_STREAM = [
    event({"id": "t", "choices": [{"index": 0, "text": "a", "finish_reason": None}]}),
    event({"id": "t", "choices": [{"index": 0, "text": "b", "finish_reason": "stop"}]}),
    DONE,
]
COMPLETIONS_ASK = {"model": "m", "prompt": "x", "stream": True}
STREAMS = [
    pytest.param("/v1/chat/completions", STREAM, [*TEXT, DONE], id="chat"),
    pytest.param("/v1/chat/completions", WITH_USAGE, [*TEXT, usage_event(3, 2), DONE], id="usage"),
    pytest.param("/v1/completions", COMPLETIONS_ASK, COMPLETIONS_STREAM, id="completions"),
    pytest.param("/v1/responses", RESPONSES_ASK, RESPONSES_STREAM, id="responses"),
    pytest.param("/v1/messages", MESSAGES_ASK, MESSAGES_STREAM, id="messages"),
]
END_MARKS = (b"[DONE]", b"response.completed", b"message_stop")
WHOLE = [
    pytest.param("/v1/chat/completions", CHAT, completion("hi"), id="chat"),
    pytest.param(
        "/v1/completions",
        {"model": "m", "prompt": "x"},
        {"choices": [{"index": 0, "text": "hi", "finish_reason": "stop"}]},
        id="completions",
    ),
    pytest.param(
        "/v1/responses",
        {"model": "m", "input": "x"},
        {"output": [{"content": [{"type": "output_text", "text": "hi"}]}]},
        id="responses",
    ),
    pytest.param(
        "/v1/messages",
        MESSAGES_ASK | {"stream": False},
        {"type": "message", "content": [{"type": "text", "text": "hi"}]},
        id="messages",
    ),
    pytest.param(
        "/v1/embeddings",
        {"model": "m", "input": "x"},
        {"data": [{"embedding": [1, 2]}], "usage": {"prompt_tokens": 1}},
        id="embeddings",
    ),
    pytest.param(
        "/v1/messages/count_tokens",
        {"model": "m", "messages": [{"role": "user", "content": "x"}]},
        {"input_tokens": 1},
        id="count_tokens",
    ),
]


# What is on the wire before the commit


@pytest.mark.parametrize(("path", "ask", "events"), STREAMS)
async def test_a_stream_s_end_waits(path: str, ask: Any, events: list[bytes]) -> None:
    puppet = Puppet()
    async with chain(puppet) as c:
        gate = Gate(c)
        client = await c.connect()
        client.send(post(ask, path))
        call = await puppet.call()
        call.send(STREAM_HEAD)
        before = b""
        for each in events[:-1]:
            call.send(chunked(each))
            before += await arrived(client, 0.02)
        call.end(chunked(events[-1]), LAST_CHUNK)
        await gate.settled()
        before += await arrived(client)
        assert b"HTTP/1.1 200" in before
        assert not any(mark in before for mark in END_MARKS)
        assert not before.endswith(LAST_CHUNK)
        if ask is WITH_USAGE:
            assert b'"total_cost":%d' % cost(3, 2) in before, "the usage chunk may go out"
        gate.commit()
        answer = await rest_of(client, before)
        assert answer.complete
        assert any(mark in answer.events[-1] for mark in END_MARKS)


async def test_what_comes_in_one_read_with_the_end_mark_waits_with_it() -> None:
    puppet = Puppet()
    async with chain(puppet) as c:
        gate = Gate(c)
        client, _ = await asked(c, puppet, post(STREAM), *streamed(*TEXT, DONE))
        await gate.settled()
        assert await client.silence(), "not even the head is out"
        gate.commit()
        answer = await client.answer()
        assert answer.events[0] == TEXT[0]
        assert answer.body.endswith(DONE)
        assert answer.headers["transfer-encoding"] == "chunked"


async def test_without_an_end_mark_the_last_chunk_waits() -> None:
    puppet = Puppet()
    async with chain(puppet) as c:
        gate = Gate(c)
        client = await c.connect()
        client.send(post(STREAM))
        call = await puppet.call()
        call.send(STREAM_HEAD, chunked(TEXT[0]))
        before = await client.head() + chunked(await client.chunk())
        call.end(chunked(TEXT[1]), LAST_CHUNK)
        await gate.settled()
        before += await arrived(client)
        assert not before.endswith(LAST_CHUNK)
        gate.commit()
        answer = await rest_of(client, before)
        assert answer.complete
        assert TEXT[1] in answer.events


@pytest.mark.parametrize(("path", "ask", "said"), WHOLE)
async def test_a_whole_answer_waits(path: str, ask: Any, said: Any) -> None:
    puppet = Puppet()
    async with chain(puppet) as c:
        gate = Gate(c)
        client, _ = await asked(c, puppet, post(ask, path), json_answer(said))
        await gate.settled()
        assert await client.silence()
        gate.commit()
        answer = await client.answer()
        assert answer.status == 200
        assert set(said) <= set(answer.json)


@pytest.mark.parametrize("version", ["1.0", "1.1"])
async def test_of_a_document_too_large_to_be_held_the_last_byte_waits(version: str) -> None:
    puppet = Puppet()
    async with chain(puppet) as c:
        object.__setattr__(c.proxy._plane.limits, "document_bytes_held_max", 100)
        gate = Gate(c)
        request = post(CHAT, version=version)
        client, _ = await asked(c, puppet, request, json_answer(completion("x" * 200)))
        await gate.settled()
        before = await arrived(client)
        assert b"x" * 200 in before
        assert not before.endswith(LAST_CHUNK if version == "1.1" else b"}}")
        gate.commit()
        answer = await rest_of(client, before)
        assert answer.complete
        assert answer.json["usage"]["total_cost"] == cost(3, 2)


async def test_a_client_without_chunks_waits_for_the_end_mark_and_the_close() -> None:
    puppet = Puppet()
    async with chain(puppet) as c:
        gate = Gate(c)
        client = await c.connect()
        client.send(post(STREAM, version="1.0"))
        call = await puppet.call()
        call.send(STREAM_HEAD, chunked(TEXT[0]))
        before = await client.head() + await client.reader.readuntil(TEXT[0])
        call.end(chunked(TEXT[1]), chunked(DONE), LAST_CHUNK)
        await gate.settled()
        before += await arrived(client)
        assert DONE not in before
        gate.commit()
        answer = await rest_of(client, before)
        assert answer.body.endswith(DONE)


# The wait


async def give_up_by_time(c: Chain) -> None:
    later(c, c.proxy._plane.limits.commit_wait_s)


async def give_up_by_drain(c: Chain) -> None:
    c.proxy.downstream.end_all()


GIVE_UPS = [
    pytest.param(give_up_by_time, "not_settled", "ledger_unavailable", id="time"),
    pytest.param(give_up_by_drain, "drained", "draining", id="drain"),
]
TOLD = {"ledger_unavailable": b"nothing was charged", "draining": b"shutting down"}
GiveUp = Callable[[Chain], Awaitable[None]]


def counted(c: Chain) -> float:
    """Requests that ended, as the metrics have it."""
    (requests,) = [each for each in c.proxy.metrics.collect() if each.name == "filature_requests"]
    return sum(sample.value for sample in requests.samples)


@pytest.mark.parametrize(("path", "ask", "events"), STREAMS)
@pytest.mark.parametrize(("give_up", "outcome", "code"), GIVE_UPS)
async def test_a_stream_whose_commit_does_not_come_fails_and_costs_nothing(
    path: str, ask: Any, events: list[bytes], give_up: GiveUp, outcome: str, code: str
) -> None:
    puppet = Puppet()
    async with chain(puppet) as c:
        credit = balance(c)
        gate = Gate(c)
        client = await c.connect()
        client.send(post(ask, path))
        call = await puppet.call()
        call.send(STREAM_HEAD, *map(chunked, events[:2]))
        before = await client.head()
        call.end(*map(chunked, events[2:]), LAST_CHUNK)
        await gate.settled()
        await give_up(c)
        answer = await rest_of(client, before)
        assert answer.complete, "the body has its proper end"
        assert TOLD[code] in answer.events[-1]
        assert b"error" in answer.events[-1]
        assert not any(mark in answer.body for mark in END_MARKS)
        record = await c.only_usage()
        assert record["outcome"] == outcome
        assert record["usage"]["total_cost"] == 0
        gate.commit()  # too late
        await store_of(c).ledger.flush()
        assert balance(c) == credit
        assert not await arrived(client, 0.02)
        (stored,), _ = await store_of(c).usage.list()
        assert (stored["outcome"], stored["total_cost"]) == (outcome, 0)
        assert counted(c) == 1, "what comes too late ends nothing once more"


@pytest.mark.parametrize(("give_up", "outcome", "code"), GIVE_UPS)
async def test_a_whole_answer_whose_commit_does_not_come_is_an_error(
    give_up: GiveUp, outcome: str, code: str
) -> None:
    puppet = Puppet()
    async with chain(puppet) as c:
        gate = Gate(c)
        client, _ = await asked(c, puppet, post(CHAT), json_answer(completion("secret")))
        await gate.settled()
        await give_up(c)
        answer = await client.answer()
        assert answer.status == 503
        assert answer.json["error"]["code"] == code
        assert answer.headers["retry-after"]
        assert b"secret" not in answer.body
        gate.commit()


async def test_a_document_that_streams_is_cut_when_its_commit_does_not_come() -> None:
    puppet = Puppet()
    async with chain(puppet) as c:
        object.__setattr__(c.proxy._plane.limits, "document_bytes_held_max", 100)
        gate = Gate(c)
        client, _ = await asked(c, puppet, post(CHAT), json_answer(completion("x" * 200)))
        await gate.settled()
        await give_up_by_time(c)
        answer = await client.answer()
        assert not answer.complete
        assert (await c.only_usage())["outcome"] == "not_settled"
        gate.commit()


async def test_after_a_commit_that_did_not_come_the_connection_goes_on() -> None:
    puppet = Puppet()
    async with chain(puppet) as c:
        gate = Gate(c)
        client, _ = await asked(c, puppet, post(STREAM), *streamed(*TEXT, DONE))
        await gate.settled()
        await give_up_by_time(c)
        assert (await client.answer()).status == 503
        gate.commit()
        client.send(post(STREAM))
        (await puppet.call()).end(*streamed(*TEXT, DONE))
        assert (await client.answer()).body.endswith(DONE)


async def test_after_a_commit_that_did_not_come_an_idempotency_key_is_free() -> None:
    puppet = Puppet()
    async with chain(puppet) as c:
        request = post(CHAT, headers="Idempotency-Key: k\r\n")
        client = await c.connect()
        client.send(request)
        call = await puppet.call()
        gate = Gate(c)
        call.end(json_answer(completion("hi")))
        await gate.settled()
        await give_up_by_time(c)
        assert (await client.answer()).status == 503
        gate.commit()
        await store_of(c).ledger.flush()
        again, _ = await asked(c, puppet, request, json_answer(completion("again")))
        answer = await again.answer()
        assert (answer.status, b"again" in answer.body) == (200, True)


@pytest.mark.parametrize("ask", [STREAM, CHAT], ids=["streamed", "whole"])
async def test_a_client_that_leaves_while_it_waits_is_charged(ask: Any) -> None:
    puppet = Puppet()
    async with chain(puppet) as c:
        credit = balance(c)
        gate = Gate(c)
        said: tuple[bytes, ...] = (json_answer(completion("hi", 3, 2)),)
        if ask is STREAM:
            said = streamed(*TEXT, usage_event(3, 2), DONE)
        client, _ = await asked(c, puppet, post(ask), *said)
        await gate.settled()
        client.leave()
        async with asyncio.timeout(5):
            while c.proxy.downstream.connections:
                await asyncio.sleep(0.001)
        assert not len(c.proxy.usage), "it has not ended before it is stored"
        gate.commit()
        record = await c.only_usage()
        assert record["outcome"] == "completed"
        assert record["usage"]["total_cost"] == cost(3, 2)
        assert balance(c) == credit - cost(3, 2)


async def test_a_drain_waits_for_the_commit_within_its_grace() -> None:
    puppet = Puppet()
    async with chain(puppet, drain_s=60) as c:
        gate = Gate(c)
        client, _ = await asked(c, puppet, post(STREAM), *streamed(*TEXT, DONE))
        await gate.settled()
        draining = asyncio.create_task(c.proxy.drain())
        assert await client.silence()
        gate.commit()
        assert (await client.answer()).body.endswith(DONE)
        assert await client.eof() == b""
        async with asyncio.timeout(WAIT_S):
            await draining
        assert (await c.only_usage())["outcome"] == "completed"


async def test_a_drain_in_which_the_engine_does_not_end_its_answer() -> None:
    """The end mark came, the end of the message did not: nobody can wait for the commit any more."""
    puppet = Puppet()
    async with chain(puppet) as c:
        credit = balance(c)
        client = await c.connect()
        client.send(post(STREAM))
        call = await puppet.call()
        call.send(*streamed(*TEXT, DONE)[:-1])
        assert await client.silence()
        c.proxy.downstream.end_all()
        answer = await client.answer()
        assert answer.json["error"]["code"] == "draining"
        await call.gone()
        call.over.set()
        await store_of(c).ledger.flush()
        assert balance(c) == credit


async def test_what_was_pipelined_is_answered_after_the_commit() -> None:
    puppet = Puppet()
    async with chain(puppet) as c:
        gate = Gate(c)
        client, _ = await asked(
            c, puppet, post(STREAM) + post(CHAT), *streamed(delta("x"), *TEXT, DONE)
        )
        await gate.settled()
        assert puppet.uncalled
        gate.commit()
        assert (await client.answer()).body.endswith(DONE)
        (await puppet.call()).end(json_answer(completion("second")))
        assert b"second" in (await client.answer()).body


async def test_other_deadlines_are_over_once_the_answer_is_whole() -> None:
    puppet = Puppet()
    async with chain(puppet) as c:
        gate = Gate(c)
        client, _ = await asked(c, puppet, post(STREAM | {"timeout": 5}), *streamed(*TEXT, DONE))
        await gate.settled()
        later(c, c.proxy._plane.limits.commit_wait_s - 1)  # beyond the request's own timeout
        assert await client.silence()
        gate.commit()
        assert (await client.answer()).body.endswith(DONE)
