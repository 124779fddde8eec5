"""HTTP/1.1 towards the client: framing, connections, methods, errors, headers."""

import asyncio
import json
import ssl
from typing import Any

import pytest
from tests.integration.harness import (
    CHAT,
    LAST_CHUNK,
    SHORT_STREAM,
    STREAM,
    STREAM_HEAD,
    TLS,
    Puppet,
    RawEngine,
    chain,
    chunked,
    completion,
    get,
    json_answer,
    post,
    says,
    stream_answer,
)

HI = json_answer(completion("hi"))
CHAT_HEAD = (
    b"POST /v1/chat/completions HTTP/1.1\r\nHost: test\r\nContent-Type: application/json\r\n"
)


# Requests and their bodies


async def test_a_chunked_request_body_is_put_together() -> None:
    body = json.dumps(CHAT).encode()
    pieces = b"".join(chunked(body[at : at + 5]) for at in range(0, len(body), 5))
    engine = RawEngine(says(HI))
    async with chain(engine) as c:
        answer = await c.ask(
            CHAT_HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + pieces + b"0\r\nX-Sum: 1\r\n\r\n"
        )
    assert answer.status == 200
    assert engine.requests[0].body == body
    assert engine.requests[0].headers["content-length"] == str(len(body))
    assert "transfer-encoding" not in engine.requests[0].headers


async def test_a_client_that_expects_100_continue_is_told_to() -> None:
    body = json.dumps(CHAT).encode()
    async with chain(says(HI)) as c:
        client = await c.connect()
        client.send(CHAT_HEAD + b"Expect: 100-continue\r\nContent-Length: %d\r\n\r\n" % len(body))
        assert await client.head() == b"HTTP/1.1 100 Continue\r\n\r\n"
        client.send(body)
        assert (await client.answer()).status == 200
        # the body is on its way: no 100 is needed
        client.send(CHAT_HEAD + b"Expect: 100-continue\r\nContent-Length: %d\r\n\r\n{" % len(body))
        assert await client.silence()
        client.send(body[1:])
        assert (await client.answer()).status == 200
        # sent along without waiting: no 100 is needed
        client.send(
            CHAT_HEAD + b"Expect: 100-continue\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
        )
        assert (await client.answer()).status == 200


async def test_what_is_refused_by_its_head_is_not_told_to_continue() -> None:
    async with chain(says(HI), body_bytes_max=2000) as c:
        for head, status in (
            (CHAT_HEAD + b"Expect: 100-continue\r\nContent-Length: 2001\r\n\r\n", 413),
            (
                b"POST /nowhere HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 9\r\n\r\n",
                404,
            ),
            (CHAT_HEAD + b"Expect: the-worst\r\nContent-Length: 9\r\n\r\n", 417),
        ):
            client = await c.connect()
            client.send(head)
            answer = await client.answer()
            assert answer.status == status
            assert answer.headers["connection"] == "close"
            assert await client.eof() == b""


async def test_a_body_above_the_limit_is_refused_whatever_its_framing() -> None:
    big = b"x" * 3000
    engine = RawEngine(says(HI))
    async with chain(engine, body_bytes_max=2000) as c:
        for request in (
            post(big),
            CHAT_HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + chunked(big) + LAST_CHUNK,
        ):
            client = await c.connect()
            client.send(request)
            answer = await client.answer()
            assert answer.status == 413
            assert "2000" in answer.json["error"]["message"]
            assert await client.eof() == b""
        assert (await c.ask(post(CHAT))).status == 200
    assert len(engine.requests) == 1


async def test_a_refusal_reaches_a_client_that_is_still_sending() -> None:
    """Closing with unread bytes would reset the connection and take the answer with it."""
    async with chain(says(HI), body_bytes_max=2000) as c:
        client = await c.connect()
        client.writer.transport.pause_reading()  # type: ignore[attr-defined]  # a stream's
        client.send(CHAT_HEAD + b"Content-Length: 50000000\r\n\r\n")
        for _ in range(10):
            client.send(b"x" * 100_000)
            await asyncio.sleep(0.005)
        client.writer.transport.resume_reading()  # type: ignore[attr-defined]
        answer = await client.answer()
        assert answer.status == 413
        assert answer.complete


async def test_a_head_above_the_limit_is_refused() -> None:
    async with chain() as c:
        answer = await c.ask(get("/health", headers=f"X-Big: {'x' * 40_000}\r\n"))
        assert answer.status == 431
        assert answer.headers["connection"] == "close"
        client = await c.connect()
        client.send(get("/health", headers=f"X-Big: {'x' * 40_000}")[:-4])  # never ends
        assert (await client.answer()).status == 431


@pytest.mark.parametrize(
    "partial",
    [
        b"GET /hea",
        b"GET /health HTTP/1.1\r\nHost: a\r\n",
        CHAT_HEAD + b"Content-Length: 10\r\n\r\n123",
        CHAT_HEAD + b"Transfer-Encoding: chunked\r\n\r\n5\r\n12",
    ],
)
async def test_a_request_that_never_ends_is_timed_out(partial: bytes) -> None:
    async with chain(head_s=0.2, body_idle_s=0.2) as c:
        client = await c.connect()
        client.send(partial)
        answer = await client.answer()
        assert answer.status == 408
        assert answer.headers["connection"] == "close"
        assert await client.eof() == b""


async def test_bytes_that_trickle_in_do_not_extend_the_head_s_deadline() -> None:
    async with chain(head_s=0.3) as c:
        client = await c.connect()
        client.send(b"GET /health HTTP/1.1\r\nX: ")

        async def trickle() -> None:
            while True:
                client.send(b"x")
                await asyncio.sleep(0.02)

        trickling = asyncio.create_task(trickle())
        assert (await client.answer()).status == 408
        trickling.cancel()


async def test_a_connection_that_says_nothing_is_closed_without_a_word() -> None:
    async with chain(head_s=0.1) as c:
        client = await c.connect()
        assert await client.eof() == b""


async def test_too_many_connections_are_turned_away() -> None:
    async with chain(connections_max=2) as c:
        first, second = await c.connect(), await c.connect()
        first.send(get("/health"))
        assert (await first.answer()).status == 200
        second.send(get("/health"))
        assert (await second.answer()).status == 200
        assert await (await c.connect()).eof() == b""
        first.send(get("/health"))
        assert (await first.answer()).status == 200


# Connections


async def test_pipelined_requests_are_answered_in_order() -> None:
    puppet = Puppet()
    async with chain(puppet) as c:
        client = await c.connect()
        client.send(
            post(CHAT | {"user": "1"})
            + get("/health")
            + b"\r\n"  # an empty line may stand between requests
            + post(CHAT | {"user": "2"})
            + get("/nowhere")
            + get("/v1/models/m")
        )
        for user in "12":
            call = await puppet.call()
            assert call.request.json["user"] == user
            assert puppet.uncalled
            call.end(json_answer(completion(user)))
            answer = await client.answer()
            assert answer.json["choices"][0]["message"]["content"] == user
            if user == "1":
                assert (await client.answer()).json == {"status": "ok"}
        assert (await client.answer()).status == 404
        assert (await client.answer()).json["id"] == "m"


async def test_both_sides_keep_their_connections() -> None:
    engine = RawEngine(says(HI))
    async with chain(engine) as c:
        before = engine.connections
        client = await c.connect()
        for _ in range(5):
            client.send(post(CHAT))
            assert (await client.answer()).status == 200
        assert engine.connections == before


@pytest.mark.parametrize(
    "request_", [post(CHAT, headers="Connection: close\r\n"), post(CHAT, version="1.0")]
)
async def test_a_client_that_wants_the_close_gets_it(request_: bytes) -> None:
    async with chain(says(HI)) as c:
        client = await c.connect()
        client.send(request_)
        answer = await client.answer()
        assert answer.headers["connection"] == "close"
        assert answer.json["choices"]
        assert await client.eof() == b""


async def test_a_streaming_client_that_wants_the_close_gets_it() -> None:
    async with chain(says(stream_answer(SHORT_STREAM))) as c:
        client = await c.connect()
        client.send(post(STREAM, headers="Connection: close\r\n"))
        answer = await client.answer()
        assert answer.headers["connection"] == "close"
        assert answer.complete
        assert await client.eof() == b""


async def test_an_http_1_0_client_may_keep_its_connection() -> None:
    async with chain(says(HI)) as c:
        client = await c.connect()
        for request in (
            post(CHAT, version="1.0", headers="Connection: keep-alive\r\n"),
            get("/health", version="1.0", headers="Connection: Keep-Alive\r\n"),
            get("/nowhere", version="1.0", headers="Connection: keep-alive\r\n"),
        ):
            client.send(request)
            assert (await client.answer()).headers["connection"] == "keep-alive"


async def test_an_idle_connection_is_closed() -> None:
    async with chain(idle_s=0.1) as c:
        client = await c.connect()
        client.send(get("/health"))
        assert (await client.answer()).status == 200
        assert await client.eof() == b""


async def test_a_request_is_judged_once_it_is_whole_though_it_came_byte_by_byte() -> None:
    async with chain(says(HI)) as c:
        client = await c.connect()
        for byte in b"\r\n" + get("/health") + post(CHAT):
            client.send(bytes([byte]))
            await asyncio.sleep(0)
        assert (await client.answer()).json == {"status": "ok"}
        assert (await client.answer()).status == 200


async def test_many_requests_to_a_client_that_reads_nothing_wait_in_bounds() -> None:
    async with chain(client_stall_s=0.2) as c:
        client = await c.connect(limit=4096)
        client.writer.transport.pause_reading()  # type: ignore[attr-defined]  # a stream's
        (connection,) = c.proxy._downstream.connections
        asked = get("/v1/usage/none") * 500
        for _ in range(100):  # some 20 MB of answers
            client.send(asked)
            await asyncio.sleep(0)
            assert connection.transport.get_write_buffer_size() < 400_000
        assert len(connection._buffer) < 400_000
        async with asyncio.timeout(5):
            while c.proxy._downstream.connections:
                await asyncio.sleep(0.01)


# Methods and paths


async def test_pages() -> None:
    async with chain(RawEngine(says(HI), models=("m", "n"))) as c:
        models = await c.ask(get("/v1/models"))
        assert models.headers["content-type"] == "application/json"
        assert [entry["id"] for entry in models.json["data"]] == ["m", "n"]
        assert (await c.ask(get("/v1/models/n"))).json["id"] == "n"
        assert (await c.ask(get("/v1/models/%6E"))).json["id"] == "n"
        assert (await c.ask(get("/v1/models/none"))).json["error"]["code"] == "model_not_found"
        assert (await c.ask(get("/health"))).status == 200
        assert (await c.ask(get("/ready"))).status == 200
        assert (await c.ask(get("/v1/usage/req_none"))).json["error"]["code"] == "usage_not_found"


async def test_no_engine_has_answered_yet() -> None:
    async with chain(urls=("http://127.0.0.1:9",), wait=False) as c:
        assert (await c.ask(get("/health"))).status == 200
        assert (await c.ask(get("/ready"))).status == 503
        answer = await c.ask(post(CHAT))
        assert answer.status == 503
        assert answer.headers["retry-after"]
        assert (await c.usage(answer.request_id))["outcome"] == "no_engine"


@pytest.mark.parametrize(
    "target", ["/v1/chat/completions?api-version=1&x", "http://test/v1/chat/completions"]
)
async def test_a_query_or_a_whole_url_changes_nothing(target: str) -> None:
    engine = RawEngine(says(HI))
    async with chain(engine) as c:
        assert (await c.ask(post(CHAT, target))).status == 200
    assert engine.requests[0].path == "/v1/chat/completions"


@pytest.mark.parametrize(
    "path", ["/v1/models", "/health", "/v1/models/m", "/v1/models/none", "/v1/usage/none", "/ready"]
)
async def test_head_is_get_without_the_body(path: str) -> None:
    async with chain(says(HI)) as c:
        client = await c.connect()
        client.send(get(path) + get(path, method="HEAD") + get("/health"))
        whole = await client.answer()
        head = await client.answer(head_only=True)
        assert head.status == whole.status
        assert head.headers["content-length"] == whole.headers["content-length"]
        assert head.headers["content-type"] == whole.headers["content-type"]
        assert (await client.answer()).json == {"status": "ok"}


@pytest.mark.parametrize(
    ("method", "path", "status", "allow"),
    [
        ("GET", "/v1/chat/completions", 405, "POST, OPTIONS"),
        ("DELETE", "/v1/embeddings", 405, "POST, OPTIONS"),
        ("POST", "/v1/models", 405, "GET, HEAD, OPTIONS"),
        ("PUT", "/v1/models/m", 405, "GET, HEAD, OPTIONS"),
        ("GET", "/v1/messages", 405, "POST, OPTIONS"),
        ("GET", "/", 404, None),
        ("POST", "/v1/images", 404, None),
        ("GET", "/v1/chat/completions/", 404, None),
    ],
)
async def test_wrong_methods_and_unknown_paths(
    method: str, path: str, status: int, allow: str | None
) -> None:
    async with chain() as c:
        client = await c.connect()
        client.send(get(path, method=method) + get("/health"))
        answer = await client.answer()
        assert answer.status == status
        assert answer.headers.get("allow") == allow
        assert answer.headers["content-type"] == "application/json"
        assert answer.headers["x-should-retry"] == "false"
        error = answer.json["error"]
        assert method in error["message"]
        assert path in error["message"]
        assert (await client.answer()).status == 200, "the connection goes on"


async def test_options() -> None:
    async with chain() as c:
        client = await c.connect()
        for path, allow in (("/v1/chat/completions", "POST, OPTIONS"), ("*", "GET, HEAD, OPTIONS")):
            client.send(get(path, method="OPTIONS", headers="Origin: https://app.example\r\n"))
            answer = await client.answer()
            assert answer.status == 204
            assert answer.headers["allow"] == allow
            assert "content-length" not in answer.headers
            assert "access-control-allow-origin" not in answer.headers


async def test_cors() -> None:
    preflight = get(
        "/v1/chat/completions",
        method="OPTIONS",
        headers="Origin: https://app.example\r\nAccess-Control-Request-Method: POST\r\n"
        "Access-Control-Request-Headers: authorization,content-type\r\n",
    )
    origin = "Origin: https://app.example\r\n"
    other = "Origin: https://evil.example\r\n"
    async with chain(says(HI), cors_origins="https://app.example https://two.example") as c:
        answer = await c.ask(preflight)
        assert answer.status == 204
        assert answer.headers["access-control-allow-origin"] == "https://app.example"
        assert answer.headers["access-control-allow-methods"] == "POST, OPTIONS"
        assert answer.headers["access-control-allow-headers"] == "authorization,content-type"
        assert "credentials" not in str(answer.headers)
        assert answer.headers["vary"] == "origin"
        answer = await c.ask(post(CHAT, headers=origin))
        assert answer.headers["access-control-allow-origin"] == "https://app.example"
        assert "x-request-id" in answer.headers["access-control-expose-headers"]
        answer = await c.ask(post(b"{", headers=origin))
        assert answer.status == 400
        assert answer.headers["access-control-allow-origin"] == "https://app.example"
        answer = await c.ask(post(CHAT, headers=other))
        assert "access-control-allow-origin" not in answer.headers
        assert answer.headers["vary"] == "origin"
    async with chain(says(HI), cors_origins="*") as c:
        answer = await c.ask(post(CHAT, headers=other))
        assert answer.headers["access-control-allow-origin"] == "*"


# Errors


async def test_errors_are_in_the_dialect_s_own_form() -> None:
    async with chain(says(HI)) as c:
        chat = await c.ask(post(b"{nonsense"))
        responses = await c.ask(post({"model": "m"}, "/v1/responses"))
        messages = await c.ask(post({"model": "m"}, "/v1/messages"))
        nowhere = await c.ask(
            post({"model": "none", "max_tokens": 1, "messages": []}, "/v1/messages")
        )
        wrong = await c.ask(get("/v1/messages"))
    for answer in (chat, responses):
        assert answer.status == 400
        assert set(answer.json) == {"error"}
        assert set(answer.json["error"]) == {"message", "type", "param", "code"}
        assert answer.json["error"]["type"] == "invalid_request_error"
    assert messages.status == 400
    assert messages.json["type"] == "error"
    assert messages.json["error"]["type"] == "invalid_request_error"
    assert nowhere.status in (400, 404)
    assert nowhere.json["type"] == "error"
    assert wrong.status == 405
    assert wrong.json["type"] == "error"


async def test_a_refused_request_leaves_a_record_and_asks_no_engine() -> None:
    engine = RawEngine(says(HI))
    async with chain(engine, body_bytes_max=2000) as c:
        for request, status in (
            (post({"model": "m"}), 400),
            (post({**CHAT, "model": "none"}), 404),
            (post(b"x" * 3000), 413),
            (get("/v1/chat/completions"), 405),
        ):
            answer = await c.ask(request)
            record = await c.usage(answer.request_id)
            assert answer.status == record["status"] == status
            assert record["outcome"] == "refused"
            assert record["dialect"] == "chat"
            assert record["usage"]["total_cost"] == 0
            assert record["error_code"] == answer.json["error"]["code"]
    assert engine.requests == []


# Headers


async def test_ids() -> None:
    engine = RawEngine(says(HI))
    async with chain(engine) as c:
        plain = await c.ask(post(CHAT))
        named = await c.ask(post(CHAT, headers="X-Client-Request-Id: mine-1\r\n"))
        theirs = await c.ask(post(CHAT, headers="X-Request-Id: mine-2\r\n"))
        guid = await c.ask(post(CHAT | {"request_guid": "mine-3"}))
        both = await c.ask(
            post(CHAT | {"request_guid": "other"}, headers="X-Client-Request-Id: mine-6\r\n")
        )
        refused = await c.ask(post(b"{", headers="X-Client-Request-Id: mine-4\r\n"))
        records = [await c.usage(a.request_id) for a in (plain, named, theirs, guid, refused)]
        page = await c.ask(get("/health", headers="X-Request-Id: mine-5\r\n"))
    assert "x-client-request-id" not in plain.headers
    assert both.headers["x-client-request-id"] == "mine-6"
    given = [a.headers.get("x-client-request-id") for a in (named, theirs, guid, refused)]
    assert given == ["mine-1", "mine-2", "mine-3", "mine-4"]
    assert [r["client_request_id"] for r in records] == [None, *given]
    ids = [a.request_id for a in (plain, named, theirs, guid, refused, page)]
    assert len(set(ids)) == len(ids)
    assert all(id_.startswith("req_") for id_ in ids)
    assert [r.headers["x-request-id"] for r in engine.requests if "other" not in str(r.json)][
        :4
    ] == ids[:4]


@pytest.mark.parametrize("guid", ["a b", "x" * 129, "\u00e9", "\ud800", "a\r\nset-cookie: b", ""])
async def test_a_guid_that_could_not_be_echoed_is_refused(guid: str) -> None:
    async with chain(says(HI)) as c:
        answer = await c.ask(post(CHAT | {"request_guid": guid}))
    assert answer.status == 400
    assert answer.json["error"]["param"] == "request_guid"
    assert "set-cookie" not in answer.headers


@pytest.mark.parametrize("bad", ["a b", "x" * 129, "\u00e9"])
async def test_an_id_that_could_not_be_echoed_is_refused(bad: str) -> None:
    async with chain(says(HI)) as c:
        request = post(CHAT).replace(
            b"Host", f"X-Client-Request-Id: {bad}\r\nHost".encode("latin-1")
        )
        answer = await c.ask(request)
    assert answer.status == 400
    assert answer.json["error"]["param"] == "x-client-request-id"


async def test_headers_cross_by_allow_list_only() -> None:
    planted = (
        "Authorization: Bearer sk-secret\r\nX-Api-Key: sk-secret\r\nCookie: a=secret\r\n"
        "X-Forwarded-For: 10.9.8.7\r\nForwarded: for=10.9.8.7\r\nUser-Agent: secret/1\r\n"
        "Accept-Encoding: gzip, br\r\nAccept: text/event-stream\r\nTraceparent: 00-ab-cd-01\r\n"
        "OpenAI-Organization: secret\r\nAnthropic-Version: 2023-06-01\r\nTE: trailers\r\n"
        "Connection: keep-alive, x-hop\r\nX-Hop: secret\r\nProxy-Authorization: secret\r\n"
    )
    theirs = (
        "Set-Cookie: engine=secret\r\nServer: uvicorn-secret\r\nX-Request-Id: engine-secret\r\n"
        "Access-Control-Allow-Origin: https://secret\r\nVia: secret\r\nX-Anything: secret\r\n"
        "Connection: keep-alive, x-anything\r\n"
    )
    engine = RawEngine(says(json_answer(completion("hi"), headers=theirs)))
    async with chain(engine, engine_key="engine-key") as c:
        answer = await c.ask(post(CHAT, headers=planted))
    (request,) = engine.requests
    assert request.headers == {
        "host": f"127.0.0.1:{engine.port}",
        "accept-encoding": "identity",
        "authorization": "Bearer engine-key",
        "content-type": "application/json",
        "x-request-id": answer.request_id,
        "accept": "text/event-stream",
        "traceparent": "00-ab-cd-01",
        "content-length": str(len(request.body)),
    }
    assert set(answer.headers) == {"content-type", "content-length", "date", "x-request-id"}
    assert "secret" not in str(answer.headers)


async def test_the_headers_of_a_stream_cross_by_allow_list_too() -> None:
    head = STREAM_HEAD.replace(b"content-type", b"Set-Cookie: a=b\r\nServer: s\r\ncontent-type")
    async with chain(says(head, *map(chunked, SHORT_STREAM), LAST_CHUNK)) as c:
        answer = await c.ask(post(STREAM))
    assert set(answer.headers) == {
        "content-type",
        "cache-control",
        "x-accel-buffering",
        "date",
        "x-request-id",
        "transfer-encoding",
    }


# Other sockets


def client_tls() -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(TLS / "cert.pem"))


async def test_https_towards_the_client() -> None:
    settings: dict[str, Any] = {"tls_cert": TLS / "cert.pem", "tls_key": TLS / "key.pem"}
    async with chain(says(stream_answer(SHORT_STREAM)), body_bytes_max=2000, **settings) as c:
        client = await c.connect(tls=client_tls())
        for _ in range(2):
            client.send(post(STREAM))
            answer = await client.answer()
            assert answer.complete
            assert answer.body.endswith(SHORT_STREAM[-1])
        client.send(post(b"x" * 3000))
        assert (await client.answer()).status == 413
        plain = await c.connect()
        plain.send(get("/health"))
        assert b"200" not in await plain.eof()


async def test_a_client_by_https_that_leaves() -> None:
    settings: dict[str, Any] = {"tls_cert": TLS / "cert.pem", "tls_key": TLS / "key.pem"}
    async with chain(puppet := Puppet(), **settings) as c:
        client = await c.connect(tls=client_tls())
        client.send(post(STREAM))
        call = await puppet.call()
        call.send(STREAM_HEAD, chunked(SHORT_STREAM[0]))
        await client.head()
        client.leave()
        await call.gone(within_s=1.0)
        assert (await c.only_usage())["outcome"] == "client_gone"
        call.over.set()


async def test_ipv6() -> None:
    engine = RawEngine(says(HI))
    try:
        await engine.start("::1")
    except OSError:
        pytest.skip("this machine has no IPv6")
    async with chain(engine, host="::1") as c:
        client = await c.connect(host="::1")
        client.send(post(CHAT))
        assert (await client.answer()).status == 200
    assert engine.requests[0].headers["host"] == f"[::1]:{engine.port}"
