"""Failures after the client was sent something: they are visible, free, and never look like an end."""

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest
from tests.integration.harness import Answer, Call, Chain, Client, Puppet, RawEngine, chain, says
from tests.integration.messages import (
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
    get,
    json_answer,
    post,
    stream_answer,
    tokens,
    usage_event,
)

TOLD = [
    pytest.param({"error": {"message": "dead", "code": 500}}, "dead", id="dict"),
    pytest.param({"error": "dead"}, "dead", id="string"),
    pytest.param({"error": {"message": "dead", "type": "x"}, "id": "c1"}, "dead", id="with more"),
    pytest.param({"error": {"number": 10**400}}, f'{{"number": {10**400}}}', id="no double"),
]


def sent(*events: bytes) -> tuple[bytes, ...]:
    return (STREAM_HEAD, *map(chunked, events))


def ping_on(call: Call) -> None:
    async def pinging() -> None:
        while not call.request.gone.is_set():
            call.send(chunked(b": ping\n\n"))
            await asyncio.sleep(0.02)

    call.pinging = asyncio.create_task(pinging())  # type: ignore[attr-defined]  # kept alive here


def _events(stream: bytes) -> list[bytes]:
    return [part + b"\n\n" for part in stream.split(b"\n\n") if part]


FAULTS: dict[str, Callable[[Call], None]] = {
    "closed": lambda call: call.close(),
    "reset": lambda call: call.reset(),
    "half an event, then closed": lambda call: call.close(chunked(delta("lost")[:-5])),
    "half a chunk, then closed": lambda call: call.close(chunked(delta("lost"))[:-9]),
    "bad framing": lambda call: call.send(b"nonsense\r\n"),
    "too long a chunk": lambda call: call.send(b"1\r\nabc\r\n"),
    "clean end without a finish": lambda call: call.end(LAST_CHUNK),
    "clean end in an event": lambda call: call.end(chunked(delta("lost")[:-9]), LAST_CHUNK),
    "usage but no finish": lambda call: call.end(chunked(usage_event(1, 1)), LAST_CHUNK),
    "error frame": lambda call: call.end(
        chunked(event({"error": {"message": "dead"}})), LAST_CHUNK
    ),
    "error frame, then its end mark": lambda call: call.end(
        chunked(event({"error": {"message": "dead"}})), chunked(DONE), LAST_CHUNK
    ),
    "error frame and end mark at once": lambda call: call.end(
        chunked(event({"error": {"message": "dead"}}) + DONE), LAST_CHUNK
    ),
    "error frame after a finish": lambda call: call.end(
        chunked(delta("", finish="stop")), chunked(event({"error": "dead"})), LAST_CHUNK
    ),
    "stall": lambda _: None,
    "stall with pings": ping_on,
}


@pytest.mark.parametrize("end", [delta("c").rstrip(), delta("c") + delta("", finish="stop")])
async def test_what_was_kept_of_a_stream_that_ends_unfinished_goes_before_the_error(
    end: bytes,
) -> None:
    """A last event without its blank line, and a finish event while another choice goes on."""
    second = event({"choices": [{"index": 1, "delta": {"content": "b"}, "finish_reason": None}]})
    async with chain(says(stream_answer([delta("a"), second, end]))) as c:
        answer = await c.ask(post({**STREAM, "n": 2}))
        assert answer.events[:-1] == [delta("a"), second, *_events(end)]
        assert b'"error"' in answer.events[-1]
        assert (await c.only_usage())["outcome"] == "engine_failed_midstream"


@pytest.mark.parametrize("events", [(), (delta("b", finish="stop"), DONE)])
async def test_what_came_with_bad_framing_is_not_lost(events: tuple[bytes, ...]) -> None:
    """As where it was read before that; behind the end mark it costs the connection only."""
    async with chain(says(b"".join([*sent(delta("a"), *events), b"nonsense\r\n"]))) as c:
        answer = await c.ask(post(STREAM))
        assert answer.events[0] == delta("a")
        outcome = "completed" if events else "engine_failed_midstream"
        assert (await c.only_usage())["outcome"] == outcome
        assert answer.body.endswith(DONE) == bool(events)


async def test_what_is_left_of_a_stream_that_is_cut_in_an_event_is_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    half = delta("lost")[:-5]
    engine = RawEngine(says(*sent(delta("a"), half), close=True))
    async with chain(engine) as c:
        answer = await c.ask(post(STREAM))
        record = await c.usage(answer.request_id)
    assert record["unprocessed_bytes"] == len(half)
    assert caplog.messages == [
        f"unprocessed data in answer: bytes={len(half)}, of engine {engine.url}, in {record['id']}"
    ]


@pytest.mark.parametrize("fault", FAULTS)
async def test_a_failure_in_the_stream_is_an_error_event_and_a_proper_end(fault: str) -> None:
    puppet = Puppet()
    async with chain(puppet, progress_s=0.2) as c:
        client = await c.connect()
        client.send(post(STREAM))
        call = await puppet.call()
        call.send(*sent(delta("one"), delta("two")))
        head = await client.head()
        assert head.startswith(b"HTTP/1.1 200")
        FAULTS[fault](call)
        body = b""
        while chunk := await client.chunk():
            body += chunk
        assert DONE not in body
        assert b"lost" not in body
        events = [e for e in body.split(b"\n\n") if e and not e.startswith(b":")]
        assert events[:2] == [delta("one")[:-2], delta("two")[:-2]]
        error = json.loads(events[-1].removeprefix(b"data: "))["error"]
        assert set(error) == {"message", "type", "param", "code"}
        assert error["type"] == "api_error"
        assert error["code"] is None or isinstance(error["code"], str)
        if "error frame" in fault:
            assert error["message"] == "dead"
        record = await c.only_usage()
        expected = "engine_stalled" if "stall" in fault else "engine_failed_midstream"
        assert record["outcome"] == expected
        assert record["usage"]["total_cost"] == 0
        assert record["error_code"] == error["code"]
        assert record["events"] >= 2
        client.send(post(STREAM))
        (await puppet.call()).end(*sent(delta("a"), delta("b", finish="stop"), DONE), LAST_CHUNK)
        assert (await client.answer()).body.endswith(DONE), "the client's connection goes on"
        call.over.set()


OTHERS: dict[str, tuple[Any, list[bytes]]] = {
    "/v1/completions": (
        {"model": "m", "prompt": "x", "stream": True},
        [event({"id": "t", "choices": [{"index": 0, "text": "one", "finish_reason": None}]})],
    ),
    "/v1/messages": (MESSAGES_ASK, MESSAGES_STREAM[:2]),
    "/v1/responses": (RESPONSES_ASK, RESPONSES_STREAM[:2]),
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("path", OTHERS)
async def test_a_failure_is_told_in_each_dialect_s_own_form(path: str, fault: str) -> None:
    ask, begun = OTHERS[path]
    puppet = Puppet()
    async with chain(puppet, progress_s=0.2) as c:
        client = await c.connect()
        client.send(post(ask, path))
        call = await puppet.call()
        call.send(*sent(*begun))
        await client.head()
        FAULTS[fault](call)
        body = b""
        while chunk := await client.chunk():
            body += chunk
        record = await c.only_usage()
        call.over.set()
    events = [each for each in _events(body) if not each.startswith(b":")]
    assert events[: len(begun)] == begun
    for mark in (b"[DONE]", b"message_stop", b"response.completed", b"lost"):
        assert mark not in body
    name, _, data = events[-1].rpartition(b"data: ")
    told = json.loads(data)
    assert name == (b"" if path == "/v1/completions" else b"event: error\n")
    assert told.get("type") == (None if path == "/v1/completions" else "error")
    message = told["message"] if path == "/v1/responses" else told["error"]["message"]
    assert message == "dead" if "error frame" in fault else message
    assert record["outcome"] == (
        "engine_stalled" if "stall" in fault else "engine_failed_midstream"
    )
    assert record["usage"]["total_cost"] == 0


@pytest.mark.parametrize(("frame", "message"), TOLD)
async def test_what_the_engine_says_is_told(frame: Any, message: str) -> None:
    async with chain(says(stream_answer([delta("one"), event(frame), DONE]))) as c:
        answer = await c.ask(post(STREAM))
    assert answer.events[0] == delta("one")
    assert json.loads(answer.events[-1].removeprefix(b"data: "))["error"]["message"] == message
    assert len(answer.events) == 2


async def fail_after_content(c: Chain, path: str, ask: Any) -> Answer:
    answer = await c.ask(post(ask, path))
    record = await c.usage(answer.request_id)
    assert record["outcome"] == "engine_failed_midstream"
    assert record["usage"]["total_cost"] == 0
    assert answer.complete
    return answer


@pytest.mark.parametrize("cut", [True, False])
async def test_the_messages_dialect_s_error_event(cut: bool) -> None:
    frame = event(
        {"type": "error", "error": {"type": "overloaded_error", "message": "dead"}}, "error"
    )
    fault = b"" if cut else chunked(frame) + LAST_CHUNK
    engine = RawEngine(says(*sent(*MESSAGES_STREAM[:2]), fault, close=cut))
    async with chain(engine) as c:
        answer = await fail_after_content(c, "/v1/messages", MESSAGES_ASK)
    name, data = answer.events[-1].splitlines()[:2]
    assert name == b"event: error", "its SDK passes over an unnamed event"
    told = json.loads(data.removeprefix(b"data: "))
    assert told["type"] == "error"
    assert set(told["error"]) == {"type", "message"}
    assert b"message_stop" not in answer.body


@pytest.mark.parametrize("cut", [True, False])
async def test_the_responses_dialect_s_error_event(cut: bool) -> None:
    frame = event({"type": "error", "code": "x", "message": "dead", "sequence_number": 2}, "error")
    fault = b"" if cut else chunked(frame) + LAST_CHUNK
    engine = RawEngine(says(*sent(*RESPONSES_STREAM[:2]), fault, close=cut))
    async with chain(engine) as c:
        answer = await fail_after_content(c, "/v1/responses", RESPONSES_ASK)
    name, data = answer.events[-1].splitlines()[:2]
    assert name == b"event: error"
    told = json.loads(data.removeprefix(b"data: "))
    assert told["type"] == "error"
    assert told["sequence_number"] == 2
    assert told["message"]
    assert b"response.completed" not in answer.body


async def test_responses_failed_is_a_failure() -> None:
    failed = {
        "type": "response.failed",
        "sequence_number": 2,
        "response": {"id": "r", "error": {"code": "server_error", "message": "dead"}},
    }
    engine = RawEngine(
        says(stream_answer([*RESPONSES_STREAM[:2], event(failed, "response.failed")]))
    )
    async with chain(engine) as c:
        answer = await fail_after_content(c, "/v1/responses", RESPONSES_ASK)
    assert b"dead" in answer.events[-1]


async def test_the_completions_dialect_and_an_http_1_0_client() -> None:
    piece = event({"id": "t", "choices": [{"index": 0, "text": "one", "finish_reason": None}]})
    engine = RawEngine(says(*sent(piece), close=True))
    async with chain(engine) as c:
        client = await c.connect()
        ask = {"model": "m", "prompt": "x", "stream": True}
        client.send(post(ask, "/v1/completions", version="1.0"))
        answer = await client.answer()
    assert answer.events[0] == piece
    assert b'"error"' in answer.events[-1]


@pytest.mark.parametrize("cut", ["after the end mark", "in the last chunk"])
async def test_a_cut_after_the_end_mark_is_completed(cut: str) -> None:
    events = sent(delta("a"), delta("b", finish="stop"), usage_event(10, 2), DONE)
    last = b"" if cut == "after the end mark" else b"0\r\n"
    async with chain(says(*events, last, close=True)) as c:
        answer = await c.ask(post(WITH_USAGE))
        record = await c.usage(answer.request_id)
    assert answer.complete
    assert answer.body.endswith(DONE)
    assert b'"total_cost":%d' % cost(10, 2) in answer.body
    assert record["outcome"] == "completed"
    assert record["usage"]["total_cost"] == cost(10, 2)


async def test_a_stall_after_the_end_mark_is_completed() -> None:
    """The engine said all and then holds the connection open: nobody waits for it."""
    puppet = Puppet()
    async with chain(puppet, progress_s=0.2) as c:
        client = await c.connect()
        client.send(post(WITH_USAGE))
        call = await puppet.call()
        call.send(*sent(delta("a"), delta("b", finish="stop"), usage_event(10, 2), DONE))
        answer = await client.answer()
        record = await c.usage(answer.request_id)
        await call.gone()
    assert answer.body.endswith(DONE)
    assert record["outcome"] == "completed"
    assert record["usage"]["total_cost"] == cost(10, 2)


async def test_a_whole_document_is_complete_though_its_connection_was_cut() -> None:
    body = json.dumps(completion("hi", 10, 2)).encode()
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
    cuts = [
        head + b"Content-Length: %d\r\n\r\n" % (len(body) + 1) + body,
        head + b"Transfer-Encoding: chunked\r\n\r\n" + chunked(body),
        head + b"Transfer-Encoding: chunked\r\n\r\n" + chunked(body)[:-2],
    ]
    for data in cuts:
        async with chain(says(data, close=True)) as c:
            answer = await c.ask(post({**STREAM, "stream": False}))
            record = await c.usage(answer.request_id)
        assert answer.status == 200
        assert answer.json["usage"]["total_cost"] == cost(10, 2)
        assert record["outcome"] == "completed"


async def test_a_cut_stream_tells_what_was_used_though_it_is_free() -> None:
    engine = RawEngine(
        says(*sent(*[delta("x", usage=tokens(10, n + 1)) for n in range(37)]), close=True)
    )
    engine.continuous = True
    async with chain(engine) as c:
        answer = await c.ask(post(STREAM))
        record = await c.usage(answer.request_id)
    assert record["outcome"] == "engine_failed_midstream"
    assert record["usage"]["completion_tokens"] == 37
    assert not record["usage"]["estimated"]
    assert record["usage"]["total_cost"] == 0


@pytest.mark.parametrize("fault", FAULTS)
async def test_other_streams_do_not_notice(fault: str) -> None:
    puppet = Puppet()
    async with chain(puppet, progress_s=0.5) as c:
        good, bad = await c.connect(), await c.connect()
        good.send(post(STREAM))
        good_call = await puppet.call()
        good_call.send(*sent(delta("a")))
        await good.head()
        assert await good.chunk() == delta("a")
        bad.send(post(STREAM))
        bad_call = await puppet.call()
        bad_call.send(*sent(delta("x")))
        failed = asyncio.create_task(bad.answer())
        FAULTS[fault](bad_call)
        while not failed.done():
            good_call.send(chunked(delta("b")))
            assert await good.chunk() == delta("b")
            await asyncio.sleep(0.01)
        assert b'"error"' in failed.result().body
        good_call.end(chunked(delta("", finish="stop")), chunked(DONE), LAST_CHUNK)
        assert await drained(good)
        bad_call.over.set()


async def drained(client: Client) -> bool:
    body = b""
    while chunk := await client.chunk():
        body += chunk
    return body.endswith(DONE)


async def test_half_a_large_document_does_not_end_properly() -> None:
    """It was too large to be held until its end, and its head is out: only a cut can tell."""
    document = json.dumps(completion("x" * 5_000_000)).encode()
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
    data = document * 2 + b"{"
    engine = RawEngine(says(head % (len(data) + 9), data, close=True))
    async with chain(engine) as c:
        answer = await c.ask(post({"model": "m", "input": "x"}, "/v1/embeddings"))
        record = await c.usage(answer.request_id)
    assert not answer.complete
    assert record["outcome"] == "engine_failed_midstream"


@pytest.mark.parametrize(("fields", "comment"), [(b"", b": \n\n"), (b"id: 1\n", b": \n")])
async def test_a_stream_s_silence_is_filled_and_a_slow_engine_is_no_failure(
    fields: bytes, comment: bytes
) -> None:
    """Behind an event with an id SDKs would take a blank line for an event without data."""
    puppet = Puppet()
    async with chain(puppet, ping_s=0.1, progress_s=5) as c:
        client = await c.connect()
        client.send(post(STREAM))
        call = await puppet.call()
        call.send(*sent(fields + delta("a")))
        await client.head()
        assert await client.chunk() == fields + delta("a")
        for _ in range(2):
            assert await client.chunk() == comment
        call.end(chunked(delta("b", finish="stop")), chunked(DONE), LAST_CHUNK)
        assert await drained(client)
        assert (await c.only_usage())["outcome"] == "completed"


ERROR = {"error": {"message": "dead", "code": 500}}


@pytest.mark.parametrize(
    "document",
    [ERROR, completion("half") | {"choices": [ERROR | {"message": {"content": "half"}}]}],
)
async def test_an_error_in_a_whole_answer_of_status_200(document: Any) -> None:
    async with chain(says(json_answer(document))) as c:
        answer = await c.ask(post({"model": "m", "messages": [{"role": "user", "content": "x"}]}))
        assert (await c.only_usage())["usage"]["total_cost"] == 0
    assert answer.status == 502
    assert answer.json["error"]["message"] == "dead"


@pytest.mark.parametrize(
    "documents",
    [[completion("lost")], [ERROR], [completion("lost"), ERROR]],
    ids=["answer", "error", "both"],
)
async def test_a_document_in_an_event_stream_that_has_begun(documents: list[Any]) -> None:
    """The client reads events already: it would take a document for nothing, and its end for a proper one."""
    puppet = Puppet()
    async with chain(puppet, hold_s=0.05, ping_s=0.05) as c:
        client = await c.connect()
        client.send(post(STREAM))
        call = await puppet.call()
        call.send(STREAM_HEAD)
        await client.head()
        call.end(chunked(b"".join(json.dumps(each).encode() for each in documents)), LAST_CHUNK)
        body = b""
        while chunk := await client.chunk():
            body += chunk
        assert b"lost" not in body
        last = body.removesuffix(b"\n\n").rpartition(b"\n\n")[2]
        assert json.loads(last.removeprefix(b"data: "))["error"]["code"] == "engine_failed"
        record = await c.only_usage()
        client.send(get("/v1/models"))
        assert (await client.answer()).status == 200, "nothing stood behind the end"
    assert record["outcome"] == "engine_failed", "no content was seen"
    assert record["usage"]["total_cost"] == 0
