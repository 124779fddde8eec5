"""Methods, paths, errors and headers: what the proxy answers where, and what crosses."""

import pytest
from tests.integration.harness import RawEngine, chain, says
from tests.integration.messages import (
    CHAT,
    LAST_CHUNK,
    SHORT_STREAM,
    STREAM,
    STREAM_HEAD,
    chunked,
    completion,
    get,
    json_answer,
    post,
)

HI = json_answer(completion("hi"))
CHAT_HEAD = (
    b"POST /v1/chat/completions HTTP/1.1\r\nHost: test\r\nContent-Type: application/json\r\n"
)


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


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://localhost:3000"])
async def test_a_web_page_spends_nothing_without_a_key(origin: str) -> None:
    """A browser sends such requests for any page, and only hides the answer."""
    raw = RawEngine(says(HI))
    headers = f"Origin: {origin}\r\n"
    async with chain(raw, cors_origins="https://app.example") as c:
        answer = await c.ask(post(CHAT, headers=headers))
        assert (answer.status, answer.json["error"]["code"]) == (401, "invalid_api_key")
        assert "FILATURE_CORS_ORIGINS" in answer.json["error"]["message"]
        assert (await c.ask(get("/v1/balance", headers=headers))).status == 401
    assert not raw.requests


async def test_a_web_page_is_told_that_a_path_is_unknown() -> None:
    origin = "Origin: https://app.example\r\n"
    preflight = get("/v1/moderations", method="OPTIONS", headers=origin)
    async with chain(cors_origins="https://app.example") as c:
        assert (await c.ask(preflight)).status == 204
        answer = await c.ask(post({}, "/v1/moderations", headers=origin))
        assert answer.status == 404
        assert answer.headers["access-control-allow-origin"] == "https://app.example"
        assert answer.json["error"]["code"] == "unknown_url"
    async with chain() as c:
        assert (await c.ask(preflight)).status == 404


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


ANTHROPIC = "anthropic-version: 2023-06-01\r\n"


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v1/messages/batches", 404),
        ("GET", "/v1/files", 404),
        ("GET", "/v1/models/none", 404),
        ("GET", "/v1/usage/none", 404),
        ("DELETE", "/v1/models", 405),
    ],
)
async def test_anthropic_s_clients_get_its_form_on_every_path(
    method: str, path: str, status: int
) -> None:
    async with chain(says(HI)) as c:
        answer = await c.ask(get(path, method=method, headers=ANTHROPIC))
        other = await c.ask(get(path, method=method))
    assert answer.status == other.status == status
    assert answer.json["type"] == "error"
    assert set(answer.json["error"]) == {"type", "message"}
    assert set(other.json) == {"error"}
    assert set(other.json["error"]) == {"message", "type", "param", "code"}


async def test_anthropic_s_clients_find_the_id_where_they_look_for_it() -> None:
    messages = {"model": "m", "max_tokens": 1, "messages": [{"role": "user", "content": "a"}]}
    async with chain(says(HI), cors_origins="*") as c:
        for request in (
            post(messages, "/v1/messages", headers=ANTHROPIC),
            post({"model": "m"}, "/v1/messages", headers=ANTHROPIC),
            get("/v1/models", headers=ANTHROPIC),
        ):
            answer = await c.ask(request)
            assert answer.headers["request-id"] == answer.headers["x-request-id"]
            exposed = answer.headers["access-control-expose-headers"].split(", ")
            assert {"request-id", "x-request-id"} <= set(exposed)
        assert "request-id" not in (await c.ask(post(CHAT))).headers


@pytest.mark.parametrize("coding", ["gzip", "Zstd", "br", "identity, deflate"])
async def test_a_compressed_body_is_refused_for_what_it_is(coding: str) -> None:
    async with chain(says(HI)) as c:
        answer = await c.ask(post(b"\x1f\x8b\x08", headers=f"Content-Encoding: {coding}\r\n"))
        plain = [
            await c.ask(post(CHAT, headers=f"Content-Encoding:{none}\r\n"))
            for none in (" Identity", " UTF-8", "")
        ]
    assert answer.status == 400
    assert answer.json["error"]["code"] == "unsupported_encoding"
    assert "Content-Encoding" in answer.json["error"]["message"]
    assert [each.status for each in plain] == [200] * 3


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


@pytest.mark.parametrize("header", ["x-client-request-id", "x-request-id"])
@pytest.mark.parametrize("bad", ["a b", "x" * 129, "\u00e9"])
async def test_an_id_that_could_not_be_echoed_is_refused(header: str, bad: str) -> None:
    async with chain(says(HI)) as c:
        request = post(CHAT).replace(b"Host", f"{header}: {bad}\r\nHost".encode("latin-1"))
        answer = await c.ask(request)
    assert answer.status == 400
    assert answer.json["error"]["param"] == header


async def test_an_empty_id_is_none() -> None:
    async with chain(says(HI)) as c:
        answer = await c.ask(post(CHAT, headers="X-Client-Request-Id:\r\nX-Request-Id:\r\n"))
    assert answer.status == 200
    assert "x-client-request-id" not in answer.headers


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
    ours = {"content-type", "content-length", "date", "x-request-id", "request-id"}
    assert set(answer.headers) == ours
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
