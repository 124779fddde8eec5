"""``enable_debug``: the timing headers, and ``debug`` beside the usage, with a worker in between and without."""

import asyncio
import json
import time
from typing import Any

import pytest
from tests.integration.accounts import store_of
from tests.integration.harness import WAIT_S, Answer, Puppet, RawEngine, chain, says
from tests.integration.messages import (
    CHAT,
    DONE,
    SHORT_STREAM,
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
    stream_answer,
    usage_event,
)
from tests.integration.network import Fake, network

from filature.store.idempotency import Claim, Idempotency, Replaced
from filature.telemetry.record import UsageRecord

DEBUG = {"enable_debug": True}
HI = json_answer(completion("hi", 3, 2))
ALL = ["proxy-start", "proxy-end", "worker-start", "worker-end"]


def times(answer: Answer) -> dict[str, float]:
    """The timing headers, without their common beginning."""
    return {
        name.removeprefix("x-filature-"): float(value)
        for name, value in answer.headers.items()
        if name.startswith("x-filature-")
    }


def last_debug(answer: Answer) -> dict[str, Any]:
    """Of the only event that has it."""
    (line,) = [line for line in answer.body.splitlines() if b'"debug":' in line]
    told = json.loads(line[line.index(b"{") :])
    debug = told.get("debug") or told["response"]["debug"]
    assert isinstance(debug, dict)
    return debug


async def test_a_whole_answer_through_a_worker_tells_all_four() -> None:
    engine = RawEngine(says(HI))
    async with network(engine) as net:
        before = time.time()
        answer = await net.chain.ask(post(CHAT | DEBUG))
        after = time.time()
        told = times(answer)
        assert sorted(told) == sorted(ALL)
        order = ["proxy-start", "worker-start", "worker-end", "proxy-end"]
        assert before - 1e-5 <= told["proxy-start"]
        assert told["proxy-end"] <= after + 1e-5
        assert [told[name] for name in order] == sorted(told.values())
        debug = answer.json["debug"]
        assert debug["worker"] == {"start": told["worker-start"], "end": told["worker-end"]}
        assert debug["proxy"]["start"] == told["proxy-start"]
        parts = [debug["proxy"][name] for name in ("queue_s", "first_content_s", "total_s")]
        assert 0 < parts[0] <= parts[1] <= parts[2]
        assert answer.json["usage"]["total_cost"] == cost(3, 2)
        (request,) = engine.requests
        assert not [name for name in request.headers if "filature" in name]
        assert "enable_debug" not in request.json
        record = await net.chain.usage(answer.request_id)
        timings = record["timings"]
        assert timings["ended_at"] == pytest.approx(timings["started_at"] + timings["total_s"])
        assert timings["worker"] == {
            "started_at": told["worker-start"],
            "ended_at": told["worker-end"],
        }


async def test_a_stream_tells_its_starts_in_the_head_and_the_rest_in_the_last_event() -> None:
    puppet = Puppet()
    async with network(puppet) as net:
        client = await net.chain.connect()
        client.send(post(WITH_USAGE | DEBUG))
        call = await puppet.call()
        call.send(STREAM_HEAD, chunked(delta("one")))
        head = await client.head()
        assert b"x-filature-proxy-start: " in head
        assert b"x-filature-worker-start: " in head
        assert b"-end: " not in head
        assert await client.chunk() == delta("one")
        call.end(chunked(delta("", finish="stop") + usage_event(5, 2) + DONE), b"0\r\n\r\n")
        rest = b""
        while chunk := await client.chunk():
            rest += chunk
        assert rest.endswith(DONE)
        (told,) = [json.loads(line[6:]) for line in rest.splitlines() if b'"debug"' in line]
        assert told["choices"] == []
        assert told["usage"]["total_cost"] == cost(5, 2)
        assert list(told["debug"]) == ["proxy", "worker"]
        assert list(told["debug"]["worker"]) == ["start"]
        proxy = told["debug"]["proxy"]
        assert proxy["queue_s"] <= proxy["first_content_s"] <= proxy["total_s"]
        request = head.partition(b"x-request-id: ")[2].partition(b"\r\n")[0].decode()
        timings = (await net.chain.usage(request))["timings"]
        assert timings["worker"]["started_at"] == told["debug"]["worker"]["start"]
        async with asyncio.timeout(WAIT_S):
            while len(net.workers["gpu0"].outbox):  # it reports once a second
                await asyncio.sleep(0.01)
        timings = (await net.chain.usage(request))["timings"]
        assert timings["started_at"] <= timings["worker"]["ended_at"] <= time.time()
        stored = await store_of(net.chain).usage.get(request)
        assert stored is not None
        assert UsageRecord.from_log(stored[1]).as_dict()["timings"] == timings


async def test_who_did_not_ask_for_usage_gets_it_in_the_comment() -> None:
    async with network(RawEngine(says(stream_answer(SHORT_STREAM)))) as net:
        answer = await net.chain.ask(post(STREAM | DEBUG))
        (line,) = [line for line in answer.body.splitlines() if b"debug" in line]
        assert line.startswith(b': filature {"usage":{')
        assert sorted(last_debug(answer)) == ["proxy", "worker"]


MESSAGES: dict[str, Any] = {"model": "m", "max_tokens": 9, "messages": CHAT["messages"]}


@pytest.mark.parametrize(
    ("path", "asked", "events"),
    [
        (
            "/v1/messages",
            MESSAGES,
            [
                event({"type": "message_start", "message": {"id": "m"}}, "message_start"),
                event(
                    {
                        "type": "content_block_delta",
                        "index": 0,
                        "delta": {"type": "text_delta", "text": "a"},
                    },
                    "content_block_delta",
                ),
                event(
                    {
                        "type": "message_delta",
                        "delta": {"stop_reason": "end_turn"},
                        "usage": {"input_tokens": 3, "output_tokens": 2},
                    },
                    "message_delta",
                ),
                event({"type": "message_stop"}, "message_stop"),
            ],
        ),
        (
            "/v1/responses",
            {"model": "m", "input": "a"},
            [
                event(
                    {"type": "response.output_text.delta", "delta": "a", "sequence_number": 0},
                    "response.output_text.delta",
                ),
                event(
                    {
                        "type": "response.completed",
                        "sequence_number": 1,
                        "response": {
                            "id": "r",
                            "status": "completed",
                            "usage": {"input_tokens": 3, "output_tokens": 2},
                        },
                    },
                    "response.completed",
                ),
            ],
        ),
    ],
)
async def test_streams_of_other_dialects(
    path: str, asked: dict[str, Any], events: list[bytes]
) -> None:
    async with network(RawEngine(says(stream_answer(events)))) as net:
        answer = await net.chain.ask(post(asked | {"stream": True} | DEBUG, path))
        assert sorted(times(answer)) == ["proxy-start", "worker-start"]
        assert sorted(last_debug(answer)) == ["proxy", "worker"]
        assert b'"total_cost":%d' % cost(3, 2) in answer.body


async def test_an_engine_of_the_proxys_own_is_no_hop_and_tells_no_times() -> None:
    lying = json_answer(completion("hi"), headers="x-filature-worker-start: 1.5\r\n")
    async with chain(says(lying)) as c:
        answer = await c.ask(post(CHAT | DEBUG))
        assert sorted(times(answer)) == ["proxy-end", "proxy-start"]
        assert list(answer.json["debug"]) == ["proxy"]


async def test_who_does_not_ask_is_told_nothing() -> None:
    engine = RawEngine(says(HI))
    async with network(engine) as net:
        for asked in (CHAT, CHAT | {"enable_debug": False}):
            answer = await net.chain.ask(post(asked, headers="x-filature-debug: 1\r\n"))
            assert times(answer) == {}
            assert "debug" not in answer.json


async def test_an_error_of_an_admitted_request_has_its_times_too() -> None:
    bad = json_answer({"error": {"message": "no"}}, "400 Bad Request")
    async with network(RawEngine(says(bad))) as net:
        answer = await net.chain.ask(post(CHAT | DEBUG))
        assert answer.status == 400
        assert sorted(times(answer)) == sorted(ALL)


async def test_a_worker_cannot_say_what_is_no_time() -> None:
    lying = json_answer(
        completion("hi"),
        headers="x-filature-worker-start: 1.5, x\r\nx-filature-worker-end: 2.5\r\nx-filature-x: 1\r\n",
    )
    async with network() as net:
        fake = await Fake.join(net, "gpu0", coefficient=1000, says=lying)
        answer = await net.chain.ask(post(CHAT | DEBUG))
        assert sorted(times(answer)) == ["proxy-end", "proxy-start", "worker-end"]
        assert list(answer.json["debug"]) == ["proxy"]
        await fake.close()


async def test_times_count_from_the_request_also_where_it_had_to_wait(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An ``Idempotency-Key`` is claimed in the database first."""
    async with chain(says(HI)) as c:
        claim = Idempotency.claim
        waited: list[float] = []

        async def slow(self: Idempotency, claimed: Claim, replaced: Replaced) -> Claim:
            began = time.perf_counter()
            await asyncio.sleep(0.05)
            waited.append(time.perf_counter() - began)
            return await claim(self, claimed, replaced)

        monkeypatch.setattr(Idempotency, "claim", slow)
        answer = await c.ask(post(CHAT | DEBUG, headers="Idempotency-Key: a\r\n"))
        assert answer.json["debug"]["proxy"]["queue_s"] >= waited[0] - 1e-6
        assert (await c.usage(answer.request_id))["timings"]["queue_s"] >= waited[0] - 1e-6
