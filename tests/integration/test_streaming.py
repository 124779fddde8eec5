"""Answers that go well, seen from the socket: what streams, what is added, what stays as it was."""

import asyncio
import json
from typing import Any

import pytest
from tests.integration.harness import Answer, Puppet, RawEngine, chain, says
from tests.integration.messages import (
    CHAT,
    DONE,
    LAST_CHUNK,
    MESSAGES_ASK,
    MESSAGES_STREAM,
    RESPONSES_ASK,
    RESPONSES_STREAM,
    SHORT_STREAM,
    STREAM,
    STREAM_HEAD,
    WITH_USAGE,
    chunked,
    completion,
    cost,
    delta,
    json_answer,
    post,
    stream_answer,
    tokens,
    usage_event,
)


def usage_of(answer: Answer) -> dict[str, Any]:
    """The usage in the one event of a stream that carries it."""
    (usage,) = [
        payload["usage"]
        for line in answer.body.splitlines()
        if line.startswith(b"data: {") and (payload := json.loads(line[6:])).get("usage")
    ]
    assert isinstance(usage, dict)
    return usage


def comment_of(answer: Answer) -> dict[str, Any]:
    """The usage in the one comment that tells it."""
    (line,) = [line for line in answer.body.splitlines() if line.startswith(b": filature ")]
    usage = json.loads(line.removeprefix(b": filature "))["usage"]
    assert isinstance(usage, dict)
    return usage


async def test_events_arrive_one_by_one_as_they_came() -> None:
    puppet = Puppet()
    async with chain(puppet) as c:
        client = await c.connect()
        client.send(post(STREAM))
        call = await puppet.call()
        assert call.request.path == "/v1/chat/completions"
        call.send(STREAM_HEAD, chunked(delta("", role="assistant")))
        assert await client.silence(), "nothing is sent before the first content"
        call.send(chunked(delta("one")))
        head = await client.head()
        assert head.startswith(b"HTTP/1.1 200 OK\r\n")
        assert await client.chunk() == delta("", role="assistant") + delta("one")
        for word in ("two", "three"):
            call.send(chunked(delta(word)))
            assert await client.chunk() == delta(word)
            assert await client.silence(0.01)
        call.end(chunked(delta("", finish="stop")), chunked(usage_event(10, 2)))
        call.send(chunked(DONE), LAST_CHUNK)
        rest = b""
        while chunk := await client.chunk():
            rest += chunk
        assert rest.startswith(delta("", finish="stop"))
        assert rest.endswith(DONE)


async def test_the_head_of_a_stream() -> None:
    async with chain(says(stream_answer(SHORT_STREAM))) as c:
        answer = await c.ask(post(STREAM))
    assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert answer.headers["cache-control"] == "no-cache"
    assert answer.headers["x-accel-buffering"] == "no"
    assert answer.headers["transfer-encoding"] == "chunked"
    assert "content-length" not in answer.headers
    assert "connection" not in answer.headers
    assert answer.request_id.startswith("req_")


async def test_an_event_that_needs_no_change_keeps_every_byte() -> None:
    odd = (
        b'event: message\r\nid: 7\r\ndata:{"choices" : [ {"index":0,"delta":{"content":"\\u00e9\xc3\xa9"}} ],'
        b'"extra":[1e2, 1.50]}\r\n\r\n'
    )
    between = b": a comment\n\nretry: 5\n\ndata: null\n\n"
    events = [delta("a"), odd, between, odd, delta("b", finish="stop"), DONE]
    async with chain(says(stream_answer(events))) as c:
        answer = await c.ask(post(STREAM))
    assert answer.body.startswith(b"".join(events[:-2]))
    assert answer.body.endswith(DONE)


async def test_whole_chunks_are_spliced_and_cut_ones_put_together() -> None:
    """However the engine's bytes are cut into chunks and packets, the client reads the same."""
    puppet = Puppet()
    events = [delta("one"), delta("two"), delta("three", finish="stop"), usage_event(5, 3), DONE]
    whole = stream_answer(events)
    tiny = STREAM_HEAD + b"".join(chunked(bytes([b])) for b in b"".join(events)) + LAST_CHUNK
    one_chunk = STREAM_HEAD + chunked(b"".join(events)) + LAST_CHUNK
    bodies = set()
    async with chain(puppet) as c:
        client = await c.connect()
        for data, step in ((whole, 7), (whole, 1 << 20), (tiny, 100), (one_chunk, 1)):
            client.send(post(WITH_USAGE))
            call = await puppet.call()
            for at in range(0, len(data), step):
                call.send(data[at : at + step])
                if step < 10:
                    await asyncio.sleep(0)
            call.end()
            answer = await client.answer()
            assert answer.complete
            bodies.add(answer.body)
    assert len(bodies) == 1


async def test_usage_that_was_asked_for_comes_with_its_cost() -> None:
    async with chain(says(stream_answer(SHORT_STREAM))) as c:
        answer = await c.ask(post(WITH_USAGE))
        record = await c.usage(answer.request_id)
    assert answer.events[-1] == DONE
    last = json.loads(answer.events[-2].removeprefix(b"data: "))
    assert last["choices"] == []
    assert last["usage"]["total_cost"] == cost(10, 2)
    assert last["usage"]["prompt_total_cost"] + last["usage"]["completion_total_cost"] == cost(
        10, 2
    )
    assert last["usage"]["cost"] == pytest.approx(cost(10, 2) / 1e9)
    assert record["outcome"] == "completed"
    assert record["usage"]["total_cost"] == cost(10, 2)
    assert (record["usage"]["prompt_tokens"], record["usage"]["completion_tokens"]) == (10, 2)
    assert not record["usage"]["estimated"]
    assert record["streamed"]
    assert record["status"] == 200
    assert record["model"] == "m"
    assert record["tries"] == 1
    timings = record["timings"]
    assert 0 < timings["queue_s"] < timings["first_content_s"] <= timings["total_s"]


async def test_usage_that_was_not_asked_for_is_told_in_a_comment() -> None:
    engine = RawEngine(says(stream_answer(SHORT_STREAM)))
    async with chain(engine) as c:
        answer = await c.ask(post(STREAM))
    assert engine.requests[0].json["stream_options"]["include_usage"] is True
    assert b'"choices":[]' not in answer.body
    assert comment_of(answer)["total_cost"] == cost(10, 2)
    assert answer.events[-1] == DONE


@pytest.mark.parametrize("setting", ["hide", "send"])
async def test_usage_that_was_not_asked_for_by_setting(setting: str) -> None:
    async with chain(says(stream_answer(SHORT_STREAM)), usage_when_unrequested=setting) as c:
        answer = await c.ask(post(STREAM))
        assert (await c.usage(answer.request_id))["usage"]["total_cost"] == cost(10, 2)
    assert b": filature" not in answer.body
    assert (b'"total_cost"' in answer.body) is (setting == "send")


CONTINUOUS = [
    delta("a", usage=tokens(10, 1)),
    delta("b", usage=tokens(10, 2)),
    delta("c", finish="stop", usage=tokens(10, 3)),
    usage_event(10, 3),
    DONE,
]


async def test_continuous_usage_is_asked_for_and_taken_out() -> None:
    engine = RawEngine(says(stream_answer(CONTINUOUS)))
    engine.continuous = True
    async with chain(engine) as c:
        answer = await c.ask(post(WITH_USAGE))
    options = engine.requests[0].json["stream_options"]
    assert options == {"include_usage": True, "continuous_usage_stats": True}
    assert answer.events[:2] == [delta("a"), delta("b")]
    assert usage_of(answer)["total_cost"] == cost(10, 3)


async def test_continuous_usage_that_was_asked_for_stays_with_the_cost_so_far() -> None:
    options = {"include_usage": True, "continuous_usage_stats": True}
    engine = RawEngine(says(stream_answer(CONTINUOUS)))
    engine.continuous = True
    async with chain(engine) as c:
        answer = await c.ask(post(STREAM | {"stream_options": options}))
    first = json.loads(answer.events[0].removeprefix(b"data: "))
    assert first["usage"]["completion_tokens"] == 1
    assert first["usage"]["total_cost"] == cost(10, 1)


async def test_the_body_reaches_the_engine_as_the_client_wrote_it() -> None:
    engine = RawEngine(says(json_answer(completion("hi"))))
    body = b'{ "model":"m",\n "messages":[{"role":"user","content":"\\u00e9"}], "top_k" : 1.50, "x":null}'
    async with chain(engine) as c:
        await c.ask(post(body))
    assert engine.requests[0].body == body[:-1] + b',"max_tokens":16384}'


async def test_a_whole_answer_has_its_length_and_its_cost() -> None:
    async with chain(says(json_answer(completion("hi", 3, 2)))) as c:
        answer = await c.ask(post(CHAT))
        record = await c.usage(answer.request_id)
    assert answer.status == 200
    assert answer.headers["content-type"] == "application/json"
    assert int(answer.headers["content-length"]) == len(answer.body)
    assert "transfer-encoding" not in answer.headers
    expected = completion("hi", 3, 2)
    usage = answer.json["usage"]
    assert usage["total_cost"] == cost(3, 2)
    assert {**answer.json, "usage": {k: usage[k] for k in expected["usage"]}} == expected
    assert record["usage"]["total_cost"] == cost(3, 2)
    assert not record["streamed"]


async def test_a_whole_answer_in_chunks_is_put_together() -> None:
    body = json.dumps(completion("hi")).encode()
    head = (
        b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
    )
    data = head + b"".join(chunked(body[at : at + 9]) for at in range(0, len(body), 9)) + LAST_CHUNK
    async with chain(says(data)) as c:
        answer = await c.ask(post(CHAT))
    assert answer.json["choices"][0]["message"]["content"] == "hi"
    assert int(answer.headers["content-length"]) == len(answer.body)


@pytest.mark.parametrize("stream", [True, False])
async def test_an_answer_that_ends_with_its_connection(stream: bool) -> None:
    body = b"".join(SHORT_STREAM) if stream else json.dumps(completion("hi")).encode()
    kind = b"text/event-stream" if stream else b"application/json"
    head = b"HTTP/1.1 200 OK\r\nContent-Type: %b\r\n\r\n" % kind
    engine = RawEngine(says(head, body, close=True))
    async with chain(engine) as c:
        answers = [await c.ask(post(STREAM if stream else CHAT)) for _ in range(2)]
        for answer in answers:
            assert answer.complete
            assert (await c.usage(answer.request_id))["outcome"] == "completed"
    assert engine.connections == 2, "the first took over the probe's"
    if stream:
        assert answers[0].body.endswith(DONE)


async def test_an_http_1_0_client_is_streamed_to_until_the_close() -> None:
    puppet = Puppet()
    async with chain(puppet) as c:
        client = await c.connect()
        client.send(post(WITH_USAGE, version="1.0"))
        call = await puppet.call()
        call.send(STREAM_HEAD, chunked(delta("a")))
        head = await client.head()
        assert b"transfer-encoding" not in head
        assert b"content-length" not in head
        assert b"connection: close" in head
        assert await client.reader.readexactly(len(delta("a"))) == delta("a")
        call.end(*map(chunked, SHORT_STREAM[1:]), LAST_CHUNK)
        rest = await client.eof()
        assert rest.endswith(DONE)
        assert b'"total_cost":3600' in rest


async def test_an_alias_is_what_the_client_sees() -> None:
    events = [delta("a", model="org/Big-8B"), *SHORT_STREAM[1:]]
    engine = RawEngine(says(stream_answer(events)), suffix="=small:org/Big-8B")
    async with chain(engine) as c:
        answer = await c.ask(post(WITH_USAGE | {"model": "small"}))
        record = await c.usage(answer.request_id)
        unknown = await c.ask(post(WITH_USAGE | {"model": "org/Big-8B"}))
    assert engine.requests[0].json["model"] == "org/Big-8B"
    assert b"org/Big-8B" not in answer.body
    assert json.loads(answer.events[0].removeprefix(b"data: "))["model"] == "small"
    assert record["model"] == "small"
    assert unknown.status == 404
    assert unknown.json["error"]["code"] == "model_not_found"
    assert unknown.json["error"]["param"] == "model"


@pytest.mark.parametrize(
    ("path", "ask", "events"),
    [
        ("/v1/responses", RESPONSES_ASK, RESPONSES_STREAM),
        ("/v1/messages", MESSAGES_ASK, MESSAGES_STREAM),
    ],
)
async def test_the_other_streaming_dialects_keep_their_usage(
    path: str, ask: dict[str, Any], events: list[bytes]
) -> None:
    engine = RawEngine(says(stream_answer(events)))
    async with chain(engine) as c:
        answer = await c.ask(post(ask, path))
        record = await c.usage(answer.request_id)
    assert engine.requests[0].path == path
    asked = engine.requests[0].json
    asked.pop("max_output_tokens", None)  # the number that was held for
    assert asked == ask, "stream_options are for chat and completions only"
    assert answer.complete
    assert len(answer.events) == len(events)
    assert b'"total_cost":%d' % cost(10, 2) in answer.body
    assert record["outcome"] == "completed"
    assert record["usage"]["prompt_tokens"] == 10
    assert record["usage"]["completion_tokens"] == 2


async def test_embeddings_and_completions() -> None:
    embedding = {
        "object": "list",
        "data": [{"embedding": [0.1]}],
        "model": "m",
        "usage": {"prompt_tokens": 4, "total_tokens": 4},
    }
    text = {
        "id": "t",
        "choices": [{"index": 0, "text": "b", "finish_reason": "stop"}],
        "usage": tokens(1, 1),
    }
    by_path = {"/v1/embeddings": json_answer(embedding), "/v1/completions": json_answer(text)}

    async def handler(request: Any, writer: asyncio.StreamWriter) -> None:
        writer.write(by_path[request.path])

    async with chain(handler) as c:
        embedded = await c.ask(post({"model": "m", "input": "a"}, "/v1/embeddings"))
        completed = await c.ask(post({"model": "m", "prompt": "a"}, "/v1/completions"))
    assert embedded.json["usage"]["total_cost"] == cost(4, 0)
    assert completed.json["usage"]["total_cost"] == cost(1, 1)


async def test_the_token_counter_passes_as_it_is() -> None:
    body = {"model": "m", "messages": [{"role": "user", "content": "hello"}]}
    async with chain(says(json_answer({"input_tokens": 8}))) as c:
        answer = await c.ask(post(body, "/v1/messages/count_tokens"))
        record = await c.usage(answer.request_id)
    assert answer.json == {"input_tokens": 8}
    assert record["outcome"] == "completed"
    assert record["usage"]["total_cost"] == 0


async def test_a_stream_without_an_end_mark_is_completed_and_nothing_is_added() -> None:
    events = [delta("a"), delta("b", finish="stop")]
    async with chain(says(stream_answer(events))) as c:
        answer = await c.ask(post(STREAM))
        record = await c.usage(answer.request_id)
    assert answer.complete
    assert DONE not in answer.body
    assert record["outcome"] == "completed"
    assert record["usage"]["estimated"]


async def test_an_answer_without_any_text_is_an_answer() -> None:
    """Held back until the content, which never comes: it is whole at its end."""
    events = [delta("", role="assistant"), delta("", finish="stop"), usage_event(10, 0), DONE]
    for ended in (DONE, b""):
        said = events[:-1] + ([DONE] if ended else [])
        async with chain(says(stream_answer(said))) as c:
            answer = await c.ask(post(WITH_USAGE))
            record = await c.usage(answer.request_id)
        assert answer.headers["cache-control"] == "no-cache"
        assert answer.events[:2] == events[:2]
        assert usage_of(answer)["total_cost"] == cost(10, 0)
        assert record["outcome"] == "completed"
        assert record["tries"] == 1


async def test_what_is_held_is_released_in_time() -> None:
    """A long prefill: after ``hold_s`` the client gets the head, and comments from then on."""
    puppet = Puppet()
    async with chain(puppet, hold_s=0.1, ping_s=0.1, progress_s=0.1) as c:
        client = await c.connect()
        client.send(post(STREAM))
        call = await puppet.call()
        call.send(STREAM_HEAD, chunked(delta("", role="assistant")))
        await client.head()
        assert await client.chunk() == delta("", role="assistant")
        for _ in range(2):
            comment = await client.chunk()
            assert comment.startswith(b":")
            assert comment.endswith(b"\n\n")
        call.end(*map(chunked, SHORT_STREAM), LAST_CHUNK)
        rest = b""
        while chunk := await client.chunk():
            rest += chunk
        assert rest.endswith(DONE)
        assert delta("a") in rest
        timings = (await c.only_usage())["timings"]
        assert timings["queue_s"] < 0.1 < timings["first_content_s"] < timings["total_s"]


async def test_a_document_is_not_announced_by_comments() -> None:
    """A comment is no JSON: where the head says that some comes, nothing precedes it."""
    puppet = Puppet()
    async with chain(puppet, hold_s=0.05, ping_s=0.05) as c:
        client = await c.connect()
        client.send(post(STREAM))
        call = await puppet.call()
        head, document = json_answer(completion("hi")).split(b"\r\n\r\n")
        call.send(head + b"\r\n\r\n")
        assert await client.silence(0.4)
        call.end(document)
        answer = await client.answer()
    assert answer.json["choices"][0]["message"]["content"] == "hi"


@pytest.mark.parametrize(
    "more",
    [b"", *(b"Content-Encoding:%b\r\n" % coding for coding in (b" Identity", b" none", b""))],
)
async def test_an_engine_that_tells_no_content_type(more: bytes) -> None:
    for ask, kind, said in (
        (CHAT, "application/json", json.dumps(completion("hi")).encode()),
        (STREAM, "text/event-stream", b"".join(SHORT_STREAM)),
    ):
        head = b"HTTP/1.1 200 OK\r\n%bContent-Length: %d\r\n\r\n" % (more, len(said))
        async with chain(says(head, said)) as c:
            answer = await c.ask(post(ask))
        assert answer.status == 200
        assert answer.headers["content-type"] == kind
