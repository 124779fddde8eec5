"""HTTP/1.1 towards the client: framing, connections, other sockets."""

import asyncio
import json
import ssl
from typing import Any

import pytest
from tests.integration.harness import TLS, Puppet, RawEngine, chain, says
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
    stream_answer,
)

from filature.proxy.routes import UNREAD_BODY_BYTES_MAX

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
    sent = body[:-1] + b',"max_tokens":16384}'
    assert engine.requests[0].body == sent
    assert engine.requests[0].headers["content-length"] == str(len(sent))
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


@pytest.mark.parametrize("line", ["GET /health", "HEAD /v1/models", "OPTIONS /v1/chat/completions"])
async def test_a_request_without_a_key_and_a_use_for_a_body_fills_no_memory(line: str) -> None:
    method, path = line.split()
    big = b"x" * (UNREAD_BODY_BYTES_MAX + 1)
    async with chain(says(HI), keyless=False) as c:
        for request, status in (
            (get(path, method=method, headers="Content-Length: 2\r\n") + b"{}", (200, 204)),
            (get(path, method=method, headers=f"Content-Length: {len(big)}\r\n"), (413,)),
            (
                get(path, method=method, headers="Transfer-Encoding: chunked\r\n") + chunked(big),
                (413,),
            ),
        ):
            client = await c.connect()
            client.send(request)
            assert (await client.answer(head_only=method == "HEAD")).status in status


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


async def test_too_many_connections_are_turned_away_where_all_are_at_work() -> None:
    puppet = Puppet()
    async with chain(puppet, connections_max=2) as c:
        clients = [await c.connect(), await c.connect()]
        for client in clients:
            client.send(post(CHAT))
        calls = [await puppet.call() for _ in clients]
        assert await (await c.connect()).eof() == b""
        for call in calls:
            call.end(json_answer(completion("hi")))
        for client in clients:
            assert (await client.answer()).status == 200
        counted = c.proxy.metrics.exposition(c.proxy.metrics.registry()).decode()
        assert 'filature_limits_reached_total{limit="connections_max"} 1.0' in counted


async def test_a_new_connection_takes_the_place_of_one_that_asks_for_nothing() -> None:
    """Of one on which nothing was asked yet before one that is between two requests."""
    async with chain(connections_max=3) as c:
        served = [await c.connect(), await c.connect()]
        for client in served:
            client.send(get("/health"))
            assert (await client.answer()).status == 200
        stranger = await c.connect()
        stranger.send(b"GET /health HTTP/1.1\r\n")
        for _ in range(4):  # all turned away by their heads
            again = await c.connect()
            assert await stranger.eof() == b""
            again.send(get("/nowhere"))
            assert (await again.answer()).status == 404
            stranger = again
        stranger.send(get("/health"))
        assert (await stranger.answer()).status == 200
        newest = await c.connect()
        assert await served[0].eof() == b"", "the one that was idle for the longest"
        for client in (served[1], stranger, newest):
            client.send(get("/health"))
            assert (await client.answer()).status == 200


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
        (connection,) = c.proxy.downstream.connections
        asked = get("/v1/nothing") * 500
        for _ in range(100):  # some 20 MB of answers
            client.send(asked)
            await asyncio.sleep(0)
            assert connection.transport.get_write_buffer_size() < 400_000
        assert len(connection._buffer) < 400_000
        async with asyncio.timeout(5):
            while c.proxy.downstream.connections:
                await asyncio.sleep(0.01)


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
        await call.gone()
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
