"""Engines that do not stop where they should: behind their end mark, or past the tokens they were allowed."""

import json
from typing import Any

import pytest
from tests.integration.accounts import balance, store_of
from tests.integration.commits import TEXT, arrived, later, streamed
from tests.integration.harness import Call, Chain, Client, Puppet, RawEngine, chain, says
from tests.integration.messages import (
    CHAT,
    DONE,
    LAST_CHUNK,
    STREAM,
    STREAM_HEAD,
    chunked,
    completion,
    cost,
    delta,
    event,
    json_answer,
    post,
)


async def begun(c: Chain, puppet: Puppet, ask: Any = STREAM) -> tuple[Client, Call]:
    """A client that read the first text of an engine."""
    client = await c.connect()
    client.send(post(ask))
    call = await puppet.call()
    call.send(STREAM_HEAD, chunked(TEXT[0]))
    assert await client.head()
    assert await client.chunk() == TEXT[0]
    return client, call


async def held_open(c: Chain, puppet: Puppet, ask: Any = STREAM) -> tuple[Client, Call]:
    """A client of an engine that said the end mark, and holds its message open."""
    client, call = await begun(c, puppet, ask)
    call.send(chunked(TEXT[1]), chunked(DONE))
    assert DONE not in await arrived(client)
    return client, call


async def test_an_engine_that_holds_on_after_its_end_mark_is_not_waited_for() -> None:
    puppet = Puppet()
    async with chain(puppet) as c:
        client, call = await held_open(c, puppet)
        later(c, 0.5)
        assert DONE not in await arrived(client, 0.02)
        later(c, c.proxy._plane.limits.end_mark_wait_s + 0.5)
        assert DONE in await client.reader.readuntil(LAST_CHUNK)
        await call.gone()
        call.over.set()
        assert (await c.only_usage())["outcome"] == "completed"


async def test_an_engine_that_goes_on_after_its_end_mark_is_cut() -> None:
    puppet = Puppet()
    async with chain(puppet) as c:
        client, call = await held_open(c, puppet)
        for _ in range(80):
            call.send(chunked(b": " + b"x" * 1000 + b"\n\n"))
        await client.reader.readuntil(LAST_CHUNK)
        await call.gone()
        call.over.set()
        assert (await c.only_usage())["outcome"] == "completed"


async def test_an_engine_that_holds_on_after_an_error_is_not_waited_for() -> None:
    puppet = Puppet()
    async with chain(puppet) as c:
        client, call = await begun(c, puppet)
        call.send(chunked(event({"error": {"message": "dead"}})))
        rest = await client.reader.readuntil(LAST_CHUNK)
        assert b"dead" in rest
        await call.gone()
        call.over.set()
        assert (await c.only_usage())["outcome"] == "engine_failed_midstream"


async def test_an_error_behind_the_end_mark_is_a_failure_and_the_mark_is_not_shown() -> None:
    puppet = Puppet()
    async with chain(puppet) as c:
        credit = balance(c)
        client, call = await held_open(c, puppet)
        call.end(chunked(event({"error": {"message": "dead"}})), LAST_CHUNK)
        rest = await client.reader.readuntil(LAST_CHUNK)
        assert b"dead" in rest
        assert DONE not in rest
        assert (await c.only_usage())["outcome"] == "engine_failed_midstream"
        assert balance(c) == credit


async def test_nor_where_both_come_at_once() -> None:
    puppet = Puppet()
    async with chain(puppet) as c:
        credit = balance(c)
        client, call = await begun(c, puppet)
        call.end(chunked(TEXT[1] + DONE + event({"error": {"message": "dead"}})), LAST_CHUNK)
        rest = await client.reader.readuntil(LAST_CHUNK)
        assert b"dead" in rest
        assert DONE not in rest
        assert b"total_cost" not in rest
        assert balance(c) == credit


async def test_nothing_of_a_failed_try_is_in_the_next_one_s_answer() -> None:
    """All of the first answer waited for its end, so its engine could still be replaced."""
    failing, good = Puppet(), Puppet()
    async with chain(failing, good) as c:
        client = await c.connect()
        client.send(post(STREAM))
        call = await failing.call()
        call.send(STREAM_HEAD, chunked(delta("lost", finish="stop") + DONE))
        assert await client.silence()
        call.end(chunked(event({"error": {"message": "dead"}})), LAST_CHUNK)
        (await good.call()).end(*streamed(*TEXT, DONE))
        answer = await client.answer()
        assert b"lost" not in answer.body
        assert answer.body.count(DONE) == 1


async def test_a_client_that_does_not_read_does_not_change_a_known_outcome() -> None:
    puppet = Puppet()
    async with chain(puppet) as c:
        client, call = await held_open(c, puppet)
        (connection,) = [x for x in c.proxy.downstream.connections if x.busy]
        connection.pause_writing()
        later(c, c.proxy._plane.limits.client_stall_s)
        assert (await c.only_usage())["outcome"] == "completed"
        connection.resume_writing()
        assert DONE in await client.reader.readuntil(LAST_CHUNK)
        call.over.set()


# A cap that an engine ignores


def usage_on(text: str, completed: int) -> bytes:
    return delta(text, usage={"prompt_tokens": 1, "completion_tokens": completed})


@pytest.mark.parametrize(
    "more",
    [[usage_on("c", 6)], [delta("c")] * 80],
    ids=["by its own count", "by events"],
)
async def test_an_engine_that_goes_on_past_its_cap_is_stopped(more: list[bytes]) -> None:
    puppet = Puppet()
    async with chain(puppet) as c:
        credit = balance(c)
        client = await c.connect()
        client.send(post(STREAM | {"max_tokens": 5}))
        call = await puppet.call()
        assert call.request.json["max_tokens"] == 5
        call.send(STREAM_HEAD, *map(chunked, [usage_on("a", 4), usage_on("b", 5)]))
        head = await client.head()
        await arrived(client, 0.02)
        later(c, 1)
        assert not await arrived(client, 0.02), "what it may, it may"
        call.send(*map(chunked, more))
        await arrived(client, 0.02)
        later(c, 1)
        rest = await client.reader.readuntil(LAST_CHUNK)
        assert head.startswith(b"HTTP/1.1 200")
        assert b'"error"' in rest
        assert b"past the tokens" in rest
        await call.gone()
        call.over.set()
        assert (await c.only_usage())["outcome"] == "engine_failed_midstream"
        (engine,) = c.proxy.engines.engines
        assert engine.failures == 1
        await store_of(c).ledger.flush()
        assert balance(c) == credit


async def test_a_whole_answer_past_its_cap_costs_what_was_allowed() -> None:
    said = completion("hello hello", 3, 900)
    async with chain(RawEngine(says(json_answer(said)))) as c:
        answer = await c.ask(post(CHAT | {"max_tokens": 5}))
        assert json.loads(answer.body)["usage"]["total_cost"] == cost(3, 5)
        record = await c.usage(answer.request_id)
        assert record["outcome"] == "completed"
        assert record["usage"]["total_cost"] == cost(3, 5)
