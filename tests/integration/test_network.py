"""Workers that dial in: what passes through the tunnel, who is asked, what happens when one fails."""

import asyncio
import json
from typing import Any

import pytest
from tests.integration.accounts import CREDIT, balance, customer, records, store_of
from tests.integration.harness import Client, Puppet, RawEngine, chain, says
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
from tests.integration.network import Network, network

from filature.proxy.workers import LEASE_S
from filature.wire import control

HI = json_answer(completion("hi", 3, 2))


def usage_of(body: bytes) -> dict[str, Any]:
    (line,) = [
        line for line in body.splitlines() if line.startswith(b"data: {") and b'"usage":{' in line
    ]
    usage = json.loads(line[6:])["usage"]
    assert isinstance(usage, dict)
    return usage


async def engine_of(net: Network, name: str) -> Any:
    worker = net.chain.proxy.workers.get(name)
    assert worker is not None
    return worker.engine


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
    async with chain(own) as c:
        net = Network(c, _Later())
        await net.join("gpu", others)
        for _ in range(4):
            answer = await c.ask(post(CHAT | {"kv_transfer_params": {}}))
            assert answer.status == 200
        assert others.requests == []
        await net.leave("gpu")
        await others.close()


class _Later:
    """Stands for an exit stack: the test cleans up itself, before the chain does."""

    def push_async_callback(self, *_: Any) -> None: ...

    def enter_context(self, context: Any) -> Any:
        return context.__enter__()


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
        await dead.close()


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


class Fake:
    """A worker that a test plays: it says hello, dials, and answers as it is told, or not at all."""

    def __init__(self, net: Network, token: str, said: bytes) -> None:
        self.port = net.chain.proxy.port
        self.token = token
        self.said = said
        self.instance = "0123456789abcdef"
        self.requests = 0
        self._tasks: list[asyncio.Task[None]] = []

    @classmethod
    async def join(cls, net: Network, name: str, *, coefficient: int, says: bytes = b"") -> "Fake":
        fake = cls(net, await net.token(name), says)
        standing = {
            "instance": fake.instance,
            "models": [{"id": "m", "coefficient": coefficient}],
            "capacity": 8,
        }
        auth = f"Authorization: Bearer {fake.token}\r\n"
        answer = await net.chain.ask(post(standing, control.HELLO_PATH, headers=auth))
        assert answer.status == 200, answer.body
        for _ in range(3):
            fake._tasks.append(asyncio.create_task(fake._tunnel()))
        worker = net.chain.proxy.workers.get(name)
        assert worker is not None
        async with asyncio.timeout(5):
            while worker.pool.idle_connections < 3:
                await asyncio.sleep(0.001)
        return fake

    def upgrade(self) -> bytes:
        lines = (
            f"Authorization: Bearer {self.token}\r\n{control.INSTANCE_HEADER}: {self.instance}\r\n"
            f"Connection: upgrade\r\nUpgrade: {control.TUNNEL_PROTOCOL}\r\n"
        )
        return get(control.TUNNEL_PATH, headers=lines)

    async def _tunnel(self) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(self.upgrade())
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101 ")
        try:
            while await reader.read(65536):
                self.requests += 1
                writer.write(self.said)
        finally:
            writer.close()

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


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


# joining and leaving


async def test_a_worker_that_drains_fails_no_request() -> None:
    first, second = Puppet(), RawEngine(says(HI))
    async with network() as net:
        leaving = await net.join("leaving", first, coefficient=500, drain_s=5)
        await asyncio.sleep(0.15)
        client = await net.chain.connect()
        client.send(post(CHAT))
        call = await first.call()
        await net.join("staying", second)
        draining = asyncio.create_task(leaving.drain())
        async with asyncio.timeout(5):
            while (await engine_of(net, "leaving")).models:
                await asyncio.sleep(0.01)
        await asyncio.sleep(0.15)
        assert (await net.chain.ask(post(CHAT))).status == 200
        assert len(second.requests) == 1
        call.end(HI)
        assert (await client.answer()).status == 200
        await draining


async def test_a_new_process_of_a_worker_takes_the_place_of_the_old_one_with_its_prices() -> None:
    engine = RawEngine(says(HI))
    async with network(engine) as net:
        assert (await net.chain.ask(post(CHAT))).json["usage"]["total_cost"] == cost(3, 2)
        await net.leave("gpu0")
        await net.join("gpu0", RawEngine(says(HI)), coefficient=2000)
        await asyncio.sleep(0.15)
        assert (await net.chain.ask(post(CHAT))).json["usage"]["total_cost"] == 2 * cost(3, 2)
        assert len(net.chain.proxy.workers.list()) == 1


async def test_a_lease_ends_when_nothing_is_heard() -> None:
    async with network() as net:
        fake = await Fake.join(net, "gone", coefficient=1000)
        worker = net.chain.proxy.workers.get("gone")
        assert worker is not None
        worker.lease_until -= LEASE_S + 1
        async with asyncio.timeout(5):
            while net.chain.proxy.workers.list():
                await asyncio.sleep(0.01)
        assert (await net.chain.ask(post(CHAT))).status in {404, 503}
        await fake.close()


async def test_a_revoked_token_ends_it_at_once() -> None:
    async with network(RawEngine(says(HI))) as net:
        (token,) = store_of(net.chain).worker_tokens.list()
        await store_of(net.chain).worker_tokens.revoke(token.id)
        async with asyncio.timeout(5):
            while net.chain.proxy.workers.list():
                await asyncio.sleep(0.01)
        auth = f"Authorization: Bearer {await net.token('gpu0')}\r\n"
        answer = await net.chain.ask(post({}, control.HELLO_PATH, headers=auth))
        assert answer.status == 401


async def test_a_token_for_some_models_serves_only_those() -> None:
    async with network() as net:
        await net.token("gpu", frozenset({"m"}))
        await net.join("gpu", RawEngine(says(HI), models=("m", "other")))
        assert set((await engine_of(net, "gpu")).models) == {"m"}


async def test_a_proxy_that_was_away_is_joined_again() -> None:
    async with network(RawEngine(says(HI))) as net:
        workers = net.chain.proxy.workers
        (worker,) = workers.list()
        workers._remove(worker, "is forgotten")
        assert (await net.chain.ask(post(CHAT))).status in {404, 503}
        await net.workers["gpu0"].links[0].tell()  # the next heartbeat
        await net.workers["gpu0"].links[0].tell()
        await net.ready("gpu0")
        assert (await net.chain.ask(post(CHAT))).status == 200


# strangers


HELLO = {"instance": "0" * 16, "models": [{"id": "m"}], "capacity": 1}


@pytest.mark.parametrize("auth", ["", "Bearer fil-wrk-wrong", "Basic x", "Bearer sk-fil-x"])
@pytest.mark.parametrize("path", [control.HELLO_PATH, control.HEARTBEAT_PATH, control.REPORTS_PATH])
async def test_without_a_token_nobody_joins(path: str, auth: str) -> None:
    async with network(RawEngine(says(HI))) as net:
        lines = f"Authorization: {auth}\r\n" if auth else ""
        answer = await net.chain.ask(post(HELLO, path, headers=lines))
        assert (answer.status, answer.json["error"]["code"]) == (401, "invalid_worker_token")
        answer = await net.chain.ask(get(control.TUNNEL_PATH, headers=lines))
        assert answer.status == 401
        assert len(net.chain.proxy.workers.list()) == 1
        assert (await net.chain.ask(post(CHAT))).status == 200


@pytest.mark.parametrize(
    "body", [{}, [], {"instance": "x"}, HELLO | {"capacity": 0}, HELLO | {"models": [{"id": ""}]}]
)
async def test_a_hello_that_makes_no_sense_is_named(body: Any) -> None:
    async with network() as net:
        auth = f"Authorization: Bearer {await net.token('gpu')}\r\n"
        answer = await net.chain.ask(post(body, control.HELLO_PATH, headers=auth))
        assert answer.status == 400
        assert net.chain.proxy.workers.list() == []


async def test_a_tunnel_needs_a_hello_and_an_upgrade() -> None:
    async with network() as net:
        fake = Fake(net, await net.token("gpu"), b"")
        answer = await net.chain.ask(fake.upgrade())
        assert (answer.status, answer.json["error"]["code"]) == (409, "hello_needed")
        plain = get(control.TUNNEL_PATH, headers=f"Authorization: Bearer {fake.token}\r\n")
        assert (await net.chain.ask(plain)).status == 400


async def test_garbage_on_a_tunnel_closes_it_and_harms_nobody() -> None:
    async with network(RawEngine(says(HI))) as net:
        fake = await Fake.join(net, "bad", coefficient=1, says=b"\x00\xff garbage\r\n\r\n")
        reader, writer = await asyncio.open_connection("127.0.0.1", fake.port)
        writer.write(fake.upgrade())
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"POST / HTTP/1.1\r\n\r\n")  # nothing was asked
        assert await reader.read() == b""
        writer.close()
        await asyncio.sleep(0.15)
        for _ in range(3):
            assert (await net.chain.ask(post(CHAT))).status == 200
        await fake.close()


async def test_a_worker_answers_only_with_its_own_ticket() -> None:
    """What reaches a worker down its tunnel without one, or with another's, is refused."""
    engine = RawEngine(says(HI))
    async with network(engine) as net:
        (known,) = net.chain.proxy.workers.list()
        for line in ("", "x-filature-ticket: nonsense\r\n"):
            seen: list[int] = []
            done = asyncio.Event()

            class Asks:
                def on_connected(self, connection: Any) -> None: ...
                def on_head(self, head: Any) -> None:
                    seen.append(head.status)

                def on_payload(self, payload: bytes, raw: bytes | None) -> None: ...
                def on_end(self) -> None:
                    done.set()

                def on_lost(self, reason: str) -> None:
                    done.set()

            known.pool.send(Asks(), post(CHAT, headers=line))
            async with asyncio.timeout(5):
                await done.wait()
            assert seen == [403]
        assert engine.requests == []


async def test_the_events_of_a_strange_stream_pass_unchanged() -> None:
    odd = [
        event({"choices": [{"index": 0, "delta": {"content": "é", "x": None}}], "y": 1.50}),
        DONE,
    ]
    async with network(RawEngine(says(stream_answer([delta("a"), *odd])))) as net:
        answer = await net.chain.ask(post(STREAM))
        assert odd[0] in answer.body
