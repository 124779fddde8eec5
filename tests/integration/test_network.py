"""Workers that dial in: what passes through the tunnel, who is asked, what happens when one fails."""

import asyncio
import json
import ssl
from typing import Any

import pytest
from tests.integration.accounts import CREDIT, balance, customer, records
from tests.integration.harness import TLS, Client, Puppet, RawEngine, says
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
    get,
    json_answer,
    post,
    stream_answer,
    usage_event,
)
from tests.integration.network import Fake, engine_of, network

from filature.relay.fetch import fetch
from filature.wire.ticket import issue

HI = json_answer(completion("hi", 3, 2))


def usage_of(body: bytes) -> dict[str, Any]:
    (line,) = [
        line for line in body.splitlines() if line.startswith(b"data: {") and b'"usage":{' in line
    ]
    usage = json.loads(line[6:])["usage"]
    assert isinstance(usage, dict)
    return usage


# what passes


async def test_a_stream_passes_event_by_event_with_usage_and_cost() -> None:
    puppet = Puppet()
    async with network(puppet) as net:
        client = await net.chain.connect()
        client.send(post(WITH_USAGE))
        call = await puppet.call()
        call.send(STREAM_HEAD, chunked(delta("", role="assistant")), chunked(delta("one")))
        assert (await client.head()).startswith(b"HTTP/1.1 200 OK\r\n")
        first = await client.chunk()
        assert first == delta("", role="assistant") + delta("one")
        call.send(chunked(delta(" two")))
        assert await client.chunk() == delta(" two")
        call.end(chunked(delta("", finish="stop") + usage_event(5, 2) + DONE), b"0\r\n\r\n")
        rest = b""
        while chunk := await client.chunk():
            rest += chunk
        assert rest.endswith(DONE)
        assert usage_of(rest)["total_cost"] == cost(5, 2)
        record = await net.chain.only_usage()
        assert (record["engine"], record["outcome"], record["tries"]) == ("gpu0", "completed", 1)
        assert balance(net.chain) == 10 * CREDIT - cost(5, 2)


@pytest.mark.parametrize(
    ("path", "asked", "answer"),
    [
        ("/v1/chat/completions", CHAT, HI),
        ("/v1/completions", {"model": "m", "prompt": "a", "max_tokens": 5}, HI),
        ("/v1/responses", {"model": "m", "input": "a"}, None),
        ("/v1/messages", {"model": "m", "max_tokens": 9, "messages": CHAT["messages"]}, None),
    ],
)
async def test_whole_answers_of_each_dialect(path: str, asked: Any, answer: bytes | None) -> None:
    counted = {"input_tokens": 3, "output_tokens": 2}
    engine = RawEngine(
        says(answer or json_answer({"id": "r", "usage": counted, "status": "completed"}))
    )
    async with network(engine) as net:
        got = await net.chain.ask(post(asked, path))
        assert got.status == 200
        assert got.json["usage"]["total_cost"] == cost(3, 2)
        (request,) = engine.requests
        assert request.path == path


@pytest.mark.parametrize("stream", [False, True])
async def test_with_tls_on_the_whole_way(stream: bool) -> None:
    certified = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certified.load_cert_chain(TLS / "cert.pem", TLS / "key.pem")
    trusting = ssl.create_default_context(cafile=str(TLS / "cert.pem"))
    engine = RawEngine(says(stream_answer([delta("a"), usage_event(3, 2), DONE]) if stream else HI))
    await engine.start(tls=certified)
    async with network(tls_cert=TLS / "cert.pem", tls_key=TLS / "key.pem") as net:
        ca = TLS / "cert.pem"
        await net.join("gpu", engine, engine_ca=ca, proxy_ca=ca)
        client = await net.chain.connect(tls=trusting)
        for _ in range(3):
            client.send(post(STREAM if stream else CHAT))
            answer = await client.answer()
            assert answer.complete
            assert b'"total_cost":%d' % cost(3, 2) in answer.body
    await engine.close()


async def test_a_proxy_whose_certificate_is_not_known_is_not_joined() -> None:
    engine = RawEngine(says(HI))
    async with network(tls_cert=TLS / "cert.pem", tls_key=TLS / "key.pem") as net:
        await net.join("gpu", engine, wait=False)
        await asyncio.sleep(0.5)
        assert net.chain.proxy.workers.list() == []


async def test_models_are_listed_with_who_serves_them_and_at_which_prices() -> None:
    engine = RawEngine(says(HI))
    async with network() as net:
        for name, coefficient in (("a", 500), ("b", 1000), ("c", 2000)):
            await net.join(name, engine, coefficient=coefficient, max_requests=8)
        assert net.chain.proxy.workers.own_engines() == {}
        (entry,) = (await net.chain.ask(get("/v1/models"))).json["data"]
        assert entry["id"] == "m"
        assert (entry["workers"], entry["room"], entry["context_length"]) == (3, 24, 8192)
        assert entry["coefficient"] == {"lowest": 500, "median": 1000}
        assert entry["price"] == {
            "prompt": {"lowest": 0.1, "median": 0.2},
            "completion": {"lowest": 0.4, "median": 0.8},
        }


async def test_an_alias_of_the_worker_is_renamed_both_ways() -> None:
    engine = RawEngine(
        says(json_answer(completion("hi") | {"model": "big/model"})), suffix="=small:big/model"
    )
    async with network(engine) as net:
        answer = await net.chain.ask(post(CHAT | {"model": "small"}))
        assert answer.json["model"] == "small"
        assert engine.requests[0].json["model"] == "big/model"


async def test_an_answer_without_usage_is_estimated_and_nothing_is_made_up_on_the_way() -> None:
    engine = RawEngine(says(stream_answer([delta("hello"), delta("", finish="stop"), DONE])))
    async with network(engine) as net:
        answer = await net.chain.ask(post(STREAM))
        assert answer.complete
        record = await net.chain.only_usage()
        assert record["outcome"] == "completed"
        assert record["usage"]["estimated"]


SECRETS = ("sk-planted", "planted-cookie", "203.0.113.9", "planted-engine-key", "fil-wrk-")


async def test_neither_side_sees_what_is_the_other_s() -> None:
    """An API key, a cookie, the client's address, the engine's key, the worker's token."""
    engine = RawEngine(
        says(
            b"HTTP/1.1 200 OK\r\nset-cookie: planted-cookie\r\nserver: planted-engine-key\r\n"
            b"content-type: application/json\r\ncontent-length: 2\r\n\r\n{}"
        )
    )
    async with network() as net:
        await net.join("gpu", engine, engine_key="planted-engine-key")
        lines = (
            "Cookie: planted-cookie\r\nX-Forwarded-For: 203.0.113.9\r\nForwarded: for=203.0.113.9\r\n"
            "x-api-key: sk-planted\r\nAuthorization: Bearer sk-planted\r\nX-Real-IP: 203.0.113.9\r\n"
            "traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\n"
        )
        answer = await net.chain.ask(post(CHAT | {"user": "planted-cookie"}, headers=lines))
        (request,) = engine.requests
        assert request.headers["authorization"] == "Bearer planted-engine-key"
        seen = json.dumps({**request.headers, "authorization": ""}) + request.body.decode()
        for secret in SECRETS:
            assert secret not in seen
            assert secret not in json.dumps(answer.headers) + answer.body.decode()
        assert "traceparent" in request.headers
        assert "x-filature-ticket" not in request.headers, "an engine is told nothing of tickets"


# what does not


async def test_what_would_make_an_engine_fetch_something_is_refused() -> None:
    engine = RawEngine(says(HI))
    async with network(engine) as net:
        part = {"type": "image_url", "image_url": {"url": "http://192.168.0.1/admin"}}
        answer = await net.chain.ask(
            post(CHAT | {"messages": [{"role": "user", "content": [part]}]})
        )
        assert answer.status == 400
        assert answer.json["error"]["code"] == "remote_media_refused"
        assert answer.json["error"]["param"] == "messages[0].content[0].image_url.url"
        answer = await net.chain.ask(post(CHAT | {"kv_transfer_params": {}}))
        assert (answer.status, answer.json["error"]["param"]) == (400, "kv_transfer_params")
        assert engine.requests == []


async def test_one_s_own_engine_takes_what_a_worker_does_not() -> None:
    own, others = RawEngine(says(HI)), RawEngine(says(HI))
    async with network(others, own=(own,)) as net:
        for _ in range(4):
            answer = await net.chain.ask(post(CHAT | {"kv_transfer_params": {}}))
            assert answer.status == 200
        assert others.requests == []


async def test_an_engine_s_refusal_is_the_client_s() -> None:
    told = {"error": {"message": "too long", "param": "messages", "code": 400}}
    async with network(RawEngine(says(json_answer(told, status="400 Bad Request")))) as net:
        answer = await net.chain.ask(post(CHAT))
        assert answer.status == 400
        assert answer.json["error"]["message"] == "too long"
        assert balance(net.chain) == 10 * CREDIT


# failures


async def test_the_client_notices_nothing_of_a_worker_that_was_replaced() -> None:
    first, second = Puppet(), RawEngine(says(stream_answer(SHORT_STREAM)))
    async with network() as net:
        await net.join("cheap", first, coefficient=500)
        await net.join("dear", second)
        await asyncio.sleep(0.15)
        client = await net.chain.connect()
        client.send(post(STREAM))
        (await first.call()).send(STREAM_HEAD, chunked(delta("", role="assistant")))
        await net.leave("cheap")
        answer = await client.answer()
        assert answer.complete
        assert answer.body.endswith(DONE)
        record = await net.chain.only_usage()
        assert (record["engine"], record["tries"], record["outcome"]) == ("dear", 2, "completed")


async def test_a_worker_that_goes_in_the_middle_ends_the_answer_with_an_error_and_costs_nothing() -> (
    None
):
    puppet = Puppet()
    async with network(puppet) as net:
        client = await net.chain.connect()
        client.send(post(STREAM))
        (await puppet.call()).send(STREAM_HEAD, chunked(delta("one")))
        await client.head()
        await client.chunk()
        await net.leave("gpu0")
        assert b'"error":' in await client.chunk()
        assert (await net.chain.only_usage())["outcome"] == "engine_failed_midstream"
        assert balance(net.chain) == 10 * CREDIT


async def test_an_engine_that_breaks_off_is_an_error_at_the_client_too() -> None:
    puppet = Puppet()
    async with network(puppet) as net:
        client = await net.chain.connect()
        client.send(post(STREAM))
        call = await puppet.call()
        call.send(STREAM_HEAD, chunked(delta("one")))
        await client.head()
        await client.chunk()
        call.reset()
        assert b'"error":' in await client.chunk()
        assert balance(net.chain) == 10 * CREDIT


async def test_a_client_that_leaves_cancels_the_engine_and_pays_for_what_came() -> None:
    puppet = Puppet()
    async with network(puppet) as net:
        client = await net.chain.connect()
        client.send(post(STREAM))
        call = await puppet.call()
        call.send(STREAM_HEAD, chunked(delta("one")), chunked(delta(" two")))
        await client.head()
        await client.chunk()
        client.leave()
        await call.gone()
        record = await net.chain.only_usage()
        assert record["outcome"] == "client_gone"
        assert record["usage"]["completion_tokens"] > 0


async def test_an_engine_that_thinks_for_longer_than_a_dead_tunnel_is_waited_for() -> None:
    """The worker announces that it is at work."""
    puppet = Puppet()
    async with network(puppet) as net:
        client = await net.chain.connect()
        client.send(post(CHAT))
        call = await puppet.call()
        await asyncio.sleep(2.6)
        assert puppet.uncalled, "it was not asked twice"
        call.end(HI)
        assert (await client.answer()).status == 200
        assert (await net.chain.only_usage())["tries"] == 1


async def test_a_sign_is_waited_for_from_each_request_s_own_beginning() -> None:
    """One that follows on the same connection is not judged by the time of the one before."""
    puppet = Puppet()
    async with network() as net:
        await net.join("gpu", puppet, max_requests=1)  # one connection
        client = await net.chain.connect()
        for pause, work in ((0.0, 0.0), (1.75, 0.25), (0.0, 0.25), (0.0, 0.25)):
            await asyncio.sleep(pause)
            client.send(post(CHAT))
            call = await puppet.call()
            await asyncio.sleep(work)
            call.end(HI)
            assert (await client.answer()).status == 200
        tries = [record.tries for record in net.chain.proxy.usage._records.values()]
        assert tries == [1, 1, 1, 1]


async def test_a_dead_tunnel_is_noticed_within_two_seconds() -> None:
    """A worker whose connections are there and silent: what NAT leaves of them."""
    alive = RawEngine(says(HI))
    async with network() as net:
        dead = await Fake.join(net, "dead", coefficient=1)
        await net.join("alive", alive)
        await asyncio.sleep(0.15)
        started = asyncio.get_running_loop().time()
        answer = await net.chain.ask(post(CHAT))
        assert answer.status == 200
        assert asyncio.get_running_loop().time() - started < 8
        assert dead.requests >= 1
        record = await net.chain.only_usage()
        assert (record["engine"], record["tries"]) == ("alive", 2)
        (kept,) = net.chain.proxy.usage._records.values()
        assert not kept.sent_again, "not to the one that answered"
        await dead.close()


async def test_what_was_sent_again_to_the_same_worker_is_known_as_such() -> None:
    """A worker whose first connection is dead: it may have read the request, and may report that answer, too."""

    class Late(Fake):
        """Says nothing on the connection that is asked first."""

        async def _answer(self, writer: asyncio.StreamWriter) -> None:
            if self.requests > 1:
                writer.write(HI)

    async with network() as net:
        worker = await Late.join(net, "late", coefficient=1)
        assert (await net.chain.ask(post(CHAT))).status == 200
        assert (await net.chain.ask(post(CHAT))).status == 200
        assert worker.requests == 3
        known = [each.sent_again for each in net.chain.proxy.usage._records.values()]
        assert known == [True, False]
        await worker.close()


async def test_a_worker_that_says_it_is_busy_is_no_failure() -> None:
    free = RawEngine(says(HI))
    async with network() as net:
        busy = await Fake.join(
            net,
            "busy",
            coefficient=1,
            says=b"HTTP/1.1 102 Processing\r\n\r\n"
            b"HTTP/1.1 503 Service Unavailable\r\nx-filature-busy: 1\r\ncontent-length: 0\r\n\r\n",
        )
        await net.join("free", free)
        await asyncio.sleep(0.15)
        assert (await net.chain.ask(post(CHAT))).status == 200
        assert busy.requests == 1
        assert (await engine_of(net, "busy")).failures == 0
        record = await net.chain.only_usage()
        assert (record["engine"], record["tries"]) == ("free", 1)
        await busy.close()


# room


async def test_who_finds_no_room_waits_for_its_turn() -> None:
    puppet = Puppet()
    async with network() as net:
        await net.join("gpu", puppet, max_requests=1)
        greedy = await customer(net.chain, CREDIT, "greedy")
        modest = await customer(net.chain, CREDIT, "modest")
        await asyncio.sleep(0.15)
        clients: list[Client] = []
        for who in (greedy, greedy, greedy, modest):
            client = await net.chain.connect()
            client.send(who.asks(CHAT))
            clients.append(client)
            await asyncio.sleep(0.02)
        for _ in range(4):
            (await puppet.call()).end(HI)
        answers = [await client.answer() for client in clients]
        assert [answer.status for answer in answers] == [200] * 4
        order = [record.account for record in await records(net.chain)]
        assert order[0] == "client:greedy"
        assert "client:modest" in order[1:3]


async def test_who_waits_too_long_is_told_so() -> None:
    puppet = Puppet()
    async with network(wait_s=0.3) as net:
        await net.join("gpu", puppet, max_requests=1)
        await asyncio.sleep(0.15)
        running = await net.chain.connect()
        running.send(post(CHAT))
        call = await puppet.call()
        refused = await net.chain.ask(post(CHAT))
        assert refused.status == 503
        assert refused.json["error"]["code"] == "no_capacity"
        assert "retry-after" in refused.headers
        left = await net.chain.connect()
        left.send(post(CHAT))
        await asyncio.sleep(0.1)
        left.leave()
        call.end(HI)
        assert (await running.answer()).status == 200
        assert net.chain.proxy._waiting.count == 0


async def test_the_events_of_a_strange_stream_pass_unchanged() -> None:
    odd = [
        event({"choices": [{"index": 0, "delta": {"content": "é", "x": None}}], "y": 1.50}),
        DONE,
    ]
    async with network(RawEngine(says(stream_answer([delta("a"), *odd])))) as net:
        answer = await net.chain.ask(post(STREAM))
        assert odd[0] in answer.body


async def test_who_allows_more_gets_what_others_do_not_take() -> None:
    strict, free = RawEngine(says(HI)), RawEngine(says(HI))
    url = {"type": "image_url", "image_url": {"url": "https://pictures.example/a.png"}}
    asked = CHAT | {"priority": 3, "messages": [{"role": "user", "content": [url]}]}
    async with network(strict) as net:
        refused = await net.chain.ask(post(asked))
        assert (refused.status, refused.json["error"]["param"]) == (400, "priority")
        await net.join("free", free, allow_fields=["priority"], allow_media=["pictures.example"])
        await net.join("half", strict, allow_fields=["priority"])
        for _ in range(3):
            assert (await net.chain.ask(post(asked))).status == 200
        assert [each.json["priority"] for each in free.requests] == [3, 3, 3]
        assert free.requests[0].json["messages"] == asked["messages"]
        assert strict.requests == []
        refused = await net.chain.ask(post(asked | {"kv_transfer_params": {"a": 1}}))
        assert refused.status == 400


# tickets that only a proxy that means ill would send


@pytest.mark.parametrize(
    ("request_id", "more", "status"),
    [
        ("req_1", "", 200),
        ("req_\xe9", "", 403),
        ("", "", 403),
        ("r" * 129, "", 403),
        ("a b", "", 403),
        ("req_1", "\xe9", 403),
    ],
)
async def test_a_worker_refuses_what_it_could_not_ask_its_engine_or_report(
    request_id: str, more: str, status: int
) -> None:
    engine = RawEngine(says(HI))
    async with network(engine) as net:
        ticket = ticket_of(request_id, "gpu0").decode()
        headers = f"x-filature-ticket: {ticket}{more}\r\nx-request-id: {request_id}\r\n"
        asked = post(CHAT, headers=headers)
        told, _ = await fetch((await engine_of(net, "gpu0")).pool, asked, timeout_s=5)
        assert told == status
        assert len(net.workers["gpu0"].outbox) == len(engine.requests) == (status == 200)
        assert net.workers["gpu0"].engines.engines[0].running == 0


async def test_a_worker_whose_clock_is_wrong_says_so_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with network(RawEngine(says(HI))) as net:
        ticket = ticket_of("req_1", "gpu0", expires_ms=10**12).decode()  # in 2001
        asked = post(CHAT, headers=f"x-filature-ticket: {ticket}\r\nx-request-id: req_1\r\n")
        for _ in range(2):
            told, answer = await fetch((await engine_of(net, "gpu0")).pool, asked, timeout_s=5)
            assert (told, json.loads(answer)["error"]["code"]) == (403, "ticket_expired")
    assert caplog.text.count("is this machine's clock right?") == 1


def ticket_of(request_id: str, worker: str, expires_ms: int = 4 * 10**12) -> bytes:
    """As a worker reads it, which cannot tell who made it."""
    texts = [request_id, "client:alice", None, worker, "m", "chat", "boot"]
    return issue([*texts, 1000, 1, 1, 1, 1, 1, 1, 0, 100, 100, 100, expires_ms], bytes(32))
