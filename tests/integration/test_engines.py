"""HTTP/1.1 towards the engines: which one is asked, which failures are theirs, what is never trusted."""

import asyncio
import gzip
import json
import ssl
from typing import Any

import pytest
from tests.integration.harness import TLS, EngineRequest, Handler, Puppet, RawEngine, chain, says
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
    event,
    json_answer,
    post,
    stream_answer,
)

HI = json_answer(completion("hi"))
JSON_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"


# Which engine


async def test_the_least_busy_engine_is_asked() -> None:
    first, second = Puppet(), Puppet()
    async with chain(first, second) as c:
        clients = [await c.connect() for _ in range(4)]
        for number, client in enumerate(clients):
            client.send(post(CHAT | {"messages": [{"role": "user", "content": f"hi {number}"}]}))
            await asyncio.sleep(0.01)
        calls = [await first.call(), await first.call(), await second.call(), await second.call()]
        assert c.running == 4
        calls[2].end(HI)
        calls[3].end(HI)
        answers = [await clients[1].answer(), await clients[3].answer()]
        assert [a.status for a in answers] == [200, 200]
        clients[1].send(post(CHAT))
        (await second.call()).end(HI)
        assert (await clients[1].answer()).status == 200
        calls[0].end(HI)
        calls[1].end(HI)
        assert (await clients[0].answer()).status == 200
        assert (await clients[2].answer()).status == 200


async def test_only_an_engine_that_serves_the_model_is_asked() -> None:
    first, second = RawEngine(says(HI), models=("a",)), RawEngine(says(HI), models=("b", "c"))
    async with chain(first, second) as c:
        for name in "bcb":
            assert (await c.ask(post(CHAT | {"model": name}))).status == 200
    assert first.requests == []
    assert len(second.requests) == 3


# Whose failure it is


def broken(*parts: bytes) -> Handler:
    return says(*parts, close=True)


EMPTY_STREAM = stream_answer([])
BEFORE_CONTENT: dict[str, Handler] = {
    **{
        str(status): says(json_answer({"error": {"message": "no"}}, f"{status} No"))
        for status in (401, 403, 404, 405, 408, 409, 418, 429, 500, 502, 503, 504, 529)
    },
    "redirect": says(json_answer({}, "307 Elsewhere", "Location: http://127.0.0.1:1/\r\n")),
    "no content": says(b"HTTP/1.1 204 No Content\r\n\r\n"),
    "not modified, as if with a body": says(
        b"HTTP/1.1 304 Not Modified\r\nTransfer-Encoding: chunked\r\n\r\n"
    ),
    "closed without a word": broken(),
    "cut head": broken(b"HTTP/1.1 200 OK\r\nConte"),
    "cut after the head": broken(STREAM_HEAD),
    "cut after the role": broken(STREAM_HEAD, chunked(delta("", role="assistant"))),
    "cut in an event": broken(STREAM_HEAD, chunked(delta("text")[:-9])),
    "empty 200": says(EMPTY_STREAM),
    "empty 200 with a length": says(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"),
    "empty 200 until the close": broken(b"HTTP/1.1 200 OK\r\n\r\n"),
    "only a role": says(stream_answer([delta("", role="assistant")])),
    "only an end mark": says(stream_answer([DONE])),
    "a document that is no answer": says(json_answer({"detail": "Not Found"})),
    "null": says(json_answer(None)),
    "only pings": says(stream_answer([b": ping\n\n", b": ping\n\n"])),
    "error frame": says(stream_answer([event({"error": {"message": "dead", "code": 500}}), DONE])),
    "error frame after the role": says(
        stream_answer([delta("", role="assistant"), event({"error": "dead"}), DONE])
    ),
    "not an answer": says(json_answer("<html>")[:-8] + b"<html>oh"),
    "not an answer in chunks": says(stream_answer([b"2ab\r\n" + SHORT_STREAM[0], DONE])),
    "half a document": says(stream_answer([b'{"choices":['])),
    "garbage": says(b"\x00\x01SSH-2.0-OpenSSH\r\n\r\n"),
    "another protocol": says(b"ICY 200 OK\r\n\r\n"),
    "bare line ends": broken(b"HTTP/1.1 200 OK\nContent-Length: 2\n\n{}"),
    "folded": says(b"HTTP/1.1 200 OK\r\nX-A: 1\r\n 2\r\nContent-Length: 2\r\n\r\n{}"),
    "length and chunks": says(STREAM_HEAD[:-2], b"Content-Length: 5\r\n\r\n", LAST_CHUNK),
    "two lengths": says(JSON_HEAD, b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}"),
    "unknown coding": says(JSON_HEAD, b"Transfer-Encoding: gzip, chunked\r\n\r\n", LAST_CHUNK),
    "bad chunk size": says(STREAM_HEAD, b"xyz\r\n"),
    "chunk longer than said": says(STREAM_HEAD, b"2\r\nabcd\r\n"),
    "endless head": says(b"HTTP/1.1 200 OK\r\nX: ", b"x" * 50_000),
    "endless chunk size line": says(STREAM_HEAD, b"1;" + b"x" * 1000),
    "compressed": says(
        JSON_HEAD,
        b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(gzip.compress(b"{}")),
        gzip.compress(b"{}"),
    ),
    "switched protocols": says(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n"),
}


def times_asked(fault: str) -> int:
    """Once; again only where a kept connection might have gone stale."""
    return 2 if fault == "closed without a word" else 1


@pytest.mark.parametrize("fault", BEFORE_CONTENT)
async def test_a_failure_before_the_content_is_the_engine_s_and_the_next_is_asked(
    fault: str,
) -> None:
    bad, good = RawEngine(BEFORE_CONTENT[fault]), RawEngine(says(stream_answer(SHORT_STREAM)))
    async with chain(bad, good) as c:
        answer = await c.ask(post(STREAM))
        record = await c.usage(answer.request_id)
    assert answer.status == 200
    assert answer.complete
    assert answer.body.startswith(delta("a"))
    assert answer.body.endswith(DONE)
    assert b"role" not in answer.body, "nothing of the first engine's"
    assert b"dead" not in answer.body
    assert len(bad.requests) == times_asked(fault)
    assert len(good.requests) == 1
    assert bad.requests[0].body == good.requests[0].body
    assert record["outcome"] == "completed"
    assert record["tries"] == 2
    assert record["engine"] == good.url


@pytest.mark.parametrize("fault", BEFORE_CONTENT)
async def test_when_no_other_engine_is_left_the_client_is_told(fault: str) -> None:
    engine = RawEngine(BEFORE_CONTENT[fault])
    async with chain(engine) as c:
        client = await c.connect()
        client.send(post(STREAM))
        answer = await client.answer()
        record = await c.usage(answer.request_id)
        client.send(post(CHAT | {"model": "none"}))
        assert (await client.answer()).status == 404, "the connection goes on"
    assert answer.status in (502, 503)
    assert answer.headers["retry-after"]
    assert answer.headers["content-type"] == "application/json"
    assert answer.json["error"]["type"] == "api_error"
    assert answer.json["error"]["code"]
    assert answer.json["error"]["message"]
    assert record["outcome"] == "engine_failed"
    assert record["status"] == answer.status
    assert record["error_code"] == answer.json["error"]["code"]
    assert record["usage"]["total_cost"] == 0
    assert len(engine.requests) == times_asked(fault)


async def test_a_whole_answer_to_a_request_for_a_stream_is_passed_whole() -> None:
    async with chain(says(HI)) as c:
        answer = await c.ask(post(STREAM))
        record = await c.usage(answer.request_id)
    assert answer.headers["content-type"] == "application/json"
    assert answer.json["choices"][0]["message"]["content"] == "hi"
    assert record["outcome"] == "completed"


@pytest.mark.parametrize("whole", ["half a document", "not JSON", "an error", "a shorter body"])
async def test_a_whole_answer_that_is_broken_is_retried_too(whole: str) -> None:
    body = json.dumps(completion("hi")).encode()
    head = JSON_HEAD + b"Content-Length: %d\r\n\r\n"
    fault = {
        "half a document": says(head % (len(body) - 9), body[:-9]),
        "not JSON": says(head % 5, b"oops!"),
        "an error": says(json_answer({"error": {"message": "dead"}})),
        "a shorter body": broken(head % len(body), body[:-9]),
    }[whole]
    bad, good = RawEngine(fault), RawEngine(says(HI))
    async with chain(bad, good) as c:
        answer = await c.ask(post(CHAT))
        assert (await c.usage(answer.request_id))["tries"] == 2
    assert answer.json["choices"][0]["message"]["content"] == "hi"


async def test_an_engine_that_refuses_connections_is_skipped_then_set_aside() -> None:
    good = RawEngine(says(HI))
    gone = RawEngine(says(HI))
    async with chain(gone, good) as c:
        gone._server.close()
        await gone._server.wait_closed()
        for connection in c.proxy.engines.engines[0].pool._idle:
            connection.transport.abort()
        tries = []
        for _ in range(3):
            answer = await c.ask(post(CHAT))
            assert answer.status == 200
            tries.append((await c.usage(answer.request_id))["tries"])
    assert tries == [2, 1, 1]


async def test_at_most_two_more_engines_are_asked() -> None:
    engines = [RawEngine(BEFORE_CONTENT["500"]) for _ in range(4)]
    async with chain(*engines) as c:
        answer = await c.ask(post(CHAT))
        record = await c.usage(answer.request_id)
    assert answer.status == 502
    assert record["tries"] == 3
    assert sum(len(engine.requests) for engine in engines) == 3


async def test_no_retry_by_setting() -> None:
    engines = [RawEngine(BEFORE_CONTENT["500"]), RawEngine(says(HI))]
    async with chain(*engines, retries_max=0) as c:
        assert (await c.ask(post(CHAT))).status == 502
    assert engines[1].requests == []


@pytest.mark.parametrize("silent", ["no head", "no content"])
async def test_an_engine_that_does_not_begin_in_time_is_replaced(silent: str) -> None:
    slow, good = Puppet(), RawEngine(says(stream_answer(SHORT_STREAM)))
    async with chain(slow, good, first_byte_s=0.2) as c:
        client = await c.connect()
        client.send(post(STREAM))
        call = await slow.call()
        if silent == "no content":
            call.send(STREAM_HEAD, chunked(delta("", role="assistant")))
        await call.gone()
        answer = await client.answer()
        assert answer.body.startswith(delta("a"))
        assert (await c.usage(answer.request_id))["tries"] == 2


async def test_an_engine_that_does_not_begin_in_time_and_is_the_only_one() -> None:
    async with chain(slow := Puppet(), first_byte_s=0.2) as c:
        client = await c.connect()
        client.send(post(STREAM))
        call = await slow.call()
        await call.gone()
        answer = await client.answer()
        assert answer.status == 504
        assert answer.json["error"]["code"] == "engine_timeout"
        assert (await c.usage(answer.request_id))["outcome"] == "engine_stalled"


async def test_pings_before_the_content_do_not_commit_to_an_engine() -> None:
    """Comments were sent so that the client does not give up; the next engine can still answer."""
    slow, good = Puppet(), RawEngine(says(stream_answer(SHORT_STREAM)))
    async with chain(slow, good, hold_s=0.1, ping_s=0.1) as c:
        client = await c.connect()
        client.send(post(STREAM))
        call = await slow.call()
        call.send(STREAM_HEAD)
        await client.head()
        assert (await client.chunk()).startswith(b":")
        call.reset()
        rest = b""
        while chunk := await client.chunk():
            rest += chunk
        assert delta("a") in rest
        assert rest.endswith(DONE)
        assert (await c.only_usage())["outcome"] == "completed"


async def test_after_the_content_nobody_else_is_asked() -> None:
    bad = RawEngine(broken(STREAM_HEAD, chunked(delta("one"))))
    good = RawEngine(says(stream_answer(SHORT_STREAM)))
    async with chain(bad, good) as c:
        answer = await c.ask(post(STREAM))
        assert (await c.usage(answer.request_id))["outcome"] == "engine_failed_midstream"
    assert answer.events[0] == delta("one")
    assert b"error" in answer.events[-1]
    assert good.requests == []


# Whose judgement it is


REFUSALS: list[tuple[Any, str, str | None, str | None]] = [
    (
        {"error": {"message": "too hot", "type": "x", "param": "temperature", "code": "bad"}},
        "too hot",
        "temperature",
        "bad",
    ),
    ({"error": {"message": "too hot", "code": 400}}, "too hot", None, None),
    ({"error": "too hot"}, "too hot", None, None),
    ({"detail": "too hot"}, "too hot", None, None),
    ({"detail": [{"loc": ["body", "a", 0], "msg": "too hot"}]}, "a.0: too hot", "a.0", None),
    ({"object": "error", "message": "too hot", "code": 40001}, "too hot", None, None),
    (
        {"error": {"message": "This model's maximum context length is 8 tokens.", "code": 400}},
        "This model's maximum context length is 8 tokens.",
        None,
        "context_length_exceeded",
    ),
]


@pytest.mark.parametrize("status", [400, 413, 422])
@pytest.mark.parametrize(("body", "message", "param", "code"), REFUSALS)
async def test_an_engine_s_judgement_passes_in_the_envelope(
    status: int, body: Any, message: str, param: str | None, code: str | None
) -> None:
    first, second = [RawEngine(says(json_answer(body, f"{status} No"))) for _ in range(2)]
    async with chain(first, second) as c:
        answer = await c.ask(post(STREAM))
        record = await c.usage(answer.request_id)
    assert answer.status == status
    error = answer.json["error"]
    assert (error["message"], error["param"], error["code"]) == (message, param, code)
    assert error["type"] == "invalid_request_error"
    assert answer.headers["x-should-retry"] == "false"
    assert record["outcome"] == "refused_by_engine"
    assert record["usage"]["total_cost"] == 0
    assert len(first.requests) + len(second.requests) == 1


async def test_a_refusal_in_plain_text_and_in_the_messages_dialect() -> None:
    plain = b"HTTP/1.1 400 No\r\nContent-Type: text/plain\r\nContent-Length: 7\r\n\r\ntoo hot"
    ask = {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "x"}]}
    async with chain(says(plain)) as c:
        answer = await c.ask(post(ask, "/v1/messages"))
    assert answer.status == 400
    assert answer.json == {
        "type": "error",
        "error": {"type": "invalid_request_error", "message": "too hot"},
    }


async def test_an_endless_refusal_is_cut_short() -> None:
    async def endless(request: EngineRequest, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 No\r\nTransfer-Encoding: chunked\r\n\r\n")
        while not request.gone.is_set():
            writer.write(chunked(b"x" * 100_000))
            await writer.drain()
            await asyncio.sleep(0)

    async with chain(endless) as c:
        answer = await c.ask(post(CHAT))
    assert answer.status == 400
    assert len(answer.body) < 20_000


# Connections


async def test_a_connection_that_went_stale_is_made_anew() -> None:
    engine = RawEngine(says(HI))
    async with chain(engine) as c:
        assert (await c.ask(post(CHAT))).status == 200
        puppet_connections = engine.connections

        async def closing(request: EngineRequest, writer: asyncio.StreamWriter) -> None:
            engine.handler = says(HI)
            writer.close()  # as if it had been closed before the request came

        engine.handler = closing
        answer = await c.ask(post(CHAT))
        assert answer.status == 200
        assert (await c.usage(answer.request_id))["tries"] == 1
        assert engine.connections == puppet_connections + 1
    assert len(engine.requests) == 3


async def test_it_is_made_anew_once_only() -> None:
    engine = RawEngine(says(HI))
    async with chain(engine) as c:
        assert (await c.ask(post(CHAT))).status == 200
        engine.handler = says(close=True)
        assert (await c.ask(post(CHAT))).status == 502
    assert len(engine.requests) == 3


async def test_interim_answers_are_passed_over() -> None:
    interim = b"HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n"
    puppet = Puppet()
    async with chain(puppet) as c:
        client = await c.connect()
        client.send(post(CHAT))
        call = await puppet.call()
        call.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        await asyncio.sleep(0.01)
        call.end(interim, HI)
        answer = await client.answer()
    assert answer.status == 200
    assert "link" not in answer.headers


async def test_bytes_behind_an_answer_cost_the_connection_only() -> None:
    engine = RawEngine(says(HI, b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nstolen"))
    async with chain(engine) as c:
        for _ in range(3):
            answer = await c.ask(post(CHAT))
            assert answer.json["choices"][0]["message"]["content"] == "hi"
    assert engine.connections == 3, "the first took over the probe's"


async def test_bytes_on_an_idle_connection_are_no_answer() -> None:
    puppet = Puppet()
    async with chain(puppet) as c:
        client = await c.connect()
        client.send(post(CHAT))
        call = await puppet.call()
        call.end(HI)
        assert (await client.answer()).status == 200
        call.send(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nstolen")
        await asyncio.sleep(0.02)
        client.send(post(CHAT))
        (await puppet.call()).end(HI)
        assert (await client.answer()).json["choices"][0]["message"]["content"] == "hi"


# Addresses


async def test_a_base_path() -> None:
    engine = RawEngine(says(HI), suffix="/api/openai/v1/")
    async with chain(engine) as c:
        assert (await c.ask(post(CHAT))).status == 200
    assert engine.requests[0].path == "/api/openai/v1/chat/completions"
    assert engine.probes[0].path == "/api/openai/v1/models"


async def test_the_engine_s_key_is_given_to_every_question() -> None:
    engine = RawEngine(says(HI))
    async with chain(engine, engine_key="sk-engine") as c:
        await c.ask(post(CHAT, headers="Authorization: Bearer sk-client\r\n"))
    asked = [*engine.probes, *engine.requests]
    assert len(asked) == 3
    assert {request.headers["authorization"] for request in asked} == {"Bearer sk-engine"}
    async with chain(engine := RawEngine(says(HI))) as c:
        await c.ask(post(CHAT, headers="Authorization: Bearer sk-client\r\n"))
    assert "authorization" not in engine.requests[0].headers


async def test_a_request_that_is_longer_than_what_the_kernel_takes_at_once() -> None:
    """It waits in the transport, which tells its protocol so; ``chain`` would see what that does not handle."""
    engine = RawEngine(says(HI))
    async with chain(engine) as c:
        text = "a" * (12 * 1024 * 1024)
        answer = await c.ask(post(CHAT | {"messages": [{"role": "user", "content": text}]}))
        assert answer.status == 200
        assert engine.requests[0].json["messages"][0]["content"] == text


async def test_an_engine_by_https() -> None:
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server.load_cert_chain(TLS / "cert.pem", TLS / "key.pem")
    engine = RawEngine(says(stream_answer(SHORT_STREAM)))
    await engine.start(tls=server)
    async with chain(engine, engine_ca=TLS / "cert.pem") as c:
        for _ in range(2):
            answer = await c.ask(post(STREAM))
            assert answer.body.endswith(DONE)


async def test_an_engine_whose_certificate_nobody_vouches_for() -> None:
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server.load_cert_chain(TLS / "cert.pem", TLS / "key.pem")
    engine = RawEngine(says(HI), suffix="=m")
    await engine.start(tls=server)
    async with chain(engine, wait=False) as c:
        await c.looked()
        answer = await c.ask(post(CHAT))
        assert answer.status == 502
        assert "certificate" in answer.json["error"]["message"].lower()
    assert engine.requests == []
