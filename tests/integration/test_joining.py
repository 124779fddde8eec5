"""Who may join, for how long, and what strangers can do at the workers' routes."""

import asyncio
import json
import time
from pathlib import Path
from typing import Any

import pytest
from tests.integration.accounts import store_of
from tests.integration.harness import WAIT_S, EngineRequest, Puppet, RawEngine, says
from tests.integration.messages import (
    CHAT,
    DONE,
    SHORT_STREAM,
    STREAM,
    chunked,
    completion,
    cost,
    get,
    json_answer,
    post,
    stream_answer,
)
from tests.integration.network import Fake, engine_of, network

from filature.proxy.control import CONTROL_BODY_BYTES_MAX
from filature.proxy.workers import HEARTBEAT_S, LEASE_S
from filature.relay.fetch import fetch
from filature.relay.upstream import UpstreamPool
from filature.wire import control
from filature.wire.control import Welcome
from filature.worker import lasting
from filature.worker import link as link_module
from filature.worker.link import ProxyLink
from filature.worker.outbox import Outbox
from filature.worker.settings import OUTBOX_FILE
from filature.worker.terms import LOOK_S, TERMS_FILE, Change, write_change

HI = json_answer(completion("hi", 3, 2))


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
        assert (await net.chain.ask(post(CHAT))).status == 503
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


async def test_a_model_that_is_sold_is_only_not_there_now_when_its_workers_are_away() -> None:
    """Clients ask again after a 503, and give up at a 404: after a proxy's restart workers come back one by one."""
    async with network(RawEngine(says(HI)), RawEngine(says(HI), models=("other",))) as net:
        assert (await net.chain.ask(post(CHAT))).status == 200
        net.chain.proxy.workers.drain("gpu0")
        await store_of(net.chain).prices.set("priced", prompt=1, cached=1, completion=1)
        for model, status, code in (
            ("m", 503, "unavailable"),  # asked for before, at the settings' price
            ("priced", 503, "unavailable"),
            ("none", 404, "model_not_found"),
        ):
            answer = await net.chain.ask(post({**CHAT, "model": model}))
            assert (answer.status, answer.json["error"]["code"]) == (status, code), model
            assert ("retry-after" in answer.headers) is (status == 503)


async def test_after_a_start_no_model_is_unknown_before_the_workers_came_back() -> None:
    other = post({**CHAT, "model": "other"})
    async with network(RawEngine(says(HI))) as net:
        await net.token("late")
        early = await net.chain.ask(other)
        assert (early.status, early.headers["retry-after"]) == (503, "1")
        assert (await net.chain.ask(post(CHAT))).status == 200
        net.chain.proxy.workers._gathers_until = 0.0
        late = await net.chain.ask(other)
        assert late.status == 404, "it has been away for longer than a lease"


async def test_a_proxy_that_was_away_is_joined_again() -> None:
    async with network(RawEngine(says(HI))) as net:
        workers = net.chain.proxy.workers
        (worker,) = workers.list()
        workers._remove(worker, "is forgotten")
        assert (await net.chain.ask(post(CHAT))).status == 503
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
    "body",
    [
        {},
        [],
        {"instance": "x"},
        HELLO | {"capacity": 0},
        HELLO | {"version": "\x1b[2J"},
        HELLO | {"models": [{"id": ""}]},
    ],
)
async def test_a_hello_that_makes_no_sense_is_named(body: Any) -> None:
    async with network() as net:
        auth = f"Authorization: Bearer {await net.token('gpu')}\r\n"
        answer = await net.chain.ask(post(body, control.HELLO_PATH, headers=auth))
        assert answer.status == 400
        assert net.chain.proxy.workers.list() == []


async def test_a_workers_message_is_bounded_however_it_is_framed() -> None:
    async with network() as net:
        auth = f"Authorization: Bearer {await net.token('gpu')}\r\n"
        big = b" " * (CONTROL_BODY_BYTES_MAX + 1)
        whole = post(big, control.HELLO_PATH, headers=auth)
        head = whole[: whole.index(b"Content-Length")]
        for request in (whole, head + b"Transfer-Encoding: chunked\r\n\r\n" + chunked(big)):
            assert (await net.chain.ask(request)).status == 413


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
            asked = Asks()
            known.pool.send(asked, post(CHAT, headers=line))
            async with asyncio.timeout(5):
                await asked.over.wait()
            assert asked.status == 403
        assert engine.requests == []


class Asks:
    """A request that a test sends down a tunnel."""

    def __init__(self) -> None:
        self.status = 0
        self.over = asyncio.Event()

    def on_connected(self, connection: Any) -> None: ...
    def on_head(self, head: Any) -> None:
        self.status = head.status

    def on_payload(self, payload: bytes, raw: bytes | None) -> None: ...
    def on_end(self) -> None:
        self.over.set()

    def on_lost(self, reason: str, *, ours: bool = False) -> None:
        self.over.set()

    def on_silent(self) -> bool:
        return False


# all of them


async def test_workers_that_come_and_go_leave_nothing_behind() -> None:
    async with network() as net:
        clock = net.chain.proxy._clock
        before = len(clock._callbacks)
        auth = f"Authorization: Bearer {await net.token('gpu')}\r\n"
        for number in range(20):  # each a new process in place of the one before
            standing = HELLO | {"instance": f"{number:016x}"}
            assert (
                await net.chain.ask(post(standing, control.HELLO_PATH, headers=auth))
            ).status == 200
        await asyncio.sleep(0.3)
        (worker,) = net.chain.proxy.workers.list()
        assert len(clock._callbacks) == before + 1, "that of the one that is here"
        assert net.chain.proxy.engines.engines == [worker.engine]


async def test_a_rolling_restart_of_ten_workers_fails_no_request() -> None:
    """Whole or streamed: each is answered to its end."""

    async def answers(request: EngineRequest, writer: asyncio.StreamWriter) -> None:
        writer.write(stream_answer(SHORT_STREAM) if request.json.get("stream") else HI)

    engine = RawEngine(answers)
    async with network() as net:
        names = [f"gpu{number}" for number in range(10)]
        for name in names:
            await net.join(name, engine, drain_s=5)
        seen: list[tuple[int, bool]] = []
        over = asyncio.Event()

        async def ask(number: int) -> None:
            messages = [{"role": "user", "content": f"hi {number}"}]
            body = (STREAM if number % 2 else CHAT) | {"messages": messages}
            while not over.is_set():
                answer = await net.chain.ask(post(body))
                ended = not number % 2 or DONE in answer.events
                seen.append((answer.status, answer.complete and ended))

        asking = [asyncio.create_task(ask(number)) for number in range(8)]
        for name in names:
            await net.workers[name].drain()
            await net.leave(name)
            await net.join(name, engine, drain_s=5)
        over.set()
        await asyncio.gather(*asking)
        assert len(seen) > 100
        assert set(seen) == {(200, True)}
        assert len(net.chain.proxy.workers.list()) == 10


# the same bytes again


async def test_a_hello_said_again_changes_nothing() -> None:
    async with network() as net:
        fake = await Fake.join(net, "gpu", coefficient=1000)
        (worker,) = net.chain.proxy.workers.list()
        for _ in range(3):
            assert (await net.chain.ask(fake.hello)).status == 200
        assert net.chain.proxy.workers.list() == [worker]
        assert worker.pool.idle_connections == 3
        await fake.close()


async def test_a_process_that_was_replaced_is_not_let_in_again() -> None:
    """Neither it nor whoever has its hello puts out the one that took its place, nor harms another worker."""
    engine = RawEngine(says(HI))
    async with network(engine) as net:
        fake = await Fake.join(net, "gpu", coefficient=1000)
        await fake.close()
        await net.join("gpu", engine)  # with the same token
        workers = net.chain.proxy.workers.list()
        for _ in range(3):
            refused = await net.chain.ask(fake.hello)
            assert (refused.status, refused.json["error"]["code"]) == (409, "worker_replaced")
            tunnel = await net.chain.connect()
            tunnel.send(fake.upgrade())
            head = await tunnel.head()
            assert b" 409 " in head or await tunnel.eof() == b"", "refused, or closed at once"
            assert (await net.chain.ask(post(CHAT))).status == 200
        assert net.chain.proxy.workers.list() == workers
        assert [worker.state for worker in workers] == ["ready", "ready"]
        await net.leave("gpu")
        workers[-1].lease_until -= LEASE_S + 1
        async with asyncio.timeout(5):
            while len(net.chain.proxy.workers.list()) > 1:
                await asyncio.sleep(0.01)
        assert (await net.chain.ask(fake.hello)).status == 200, "there is no other any more"


async def test_an_old_process_that_ends_while_the_new_one_is_here_takes_nothing_from_it() -> None:
    engine = RawEngine(says(HI))
    async with network() as net:
        old = await net.join("gpu", engine)
        await net.join("gpu", engine)
        await old.drain()
        await old.links[0].tell()
        (worker,) = net.chain.proxy.workers.list()
        assert worker.instance == net.workers["gpu"].instance
        assert (await net.chain.ask(post(CHAT))).status == 200
        await old.close()


async def test_price_and_capacity_are_changed_while_the_worker_runs() -> None:
    puppet = Puppet()
    async with network() as net:
        worker = await net.join("gpu", puppet, coefficient=1000)
        client = await net.chain.connect()
        client.send(post(CHAT))
        call = await puppet.call()  # at the price that was promised
        write_change(worker.settings.data_dir, Change(coefficient=2000, max_requests=1))
        engine = await engine_of(net, "gpu")
        async with asyncio.timeout(WAIT_S):
            while engine.capacity != 1 or engine.models["m"].coefficient != 2000:
                await asyncio.sleep(0.01)
        call.end(HI)
        assert (await client.answer()).json["usage"]["total_cost"] == cost(3, 2)
        client.send(post(CHAT | {"max_coefficient": 1999}))
        refused = await client.answer()
        assert refused.status == 403, refused.body
        client.send(post(CHAT))
        call = await puppet.call()
        call.end(HI)
        assert (await client.answer()).json["usage"]["total_cost"] == 2 * cost(3, 2)
        (worker.settings.data_dir / TERMS_FILE).write_text("{")  # it stays as it is
        await asyncio.sleep(1.5 * LOOK_S)
        assert (worker.terms.coefficient, worker.terms.max_requests) == (2000, 1)


async def test_a_link_that_ends_by_a_defect_is_said_and_begins_anew(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    told = ProxyLink.tell
    failed: list[str] = []

    async def tell(link: ProxyLink) -> Welcome | None:
        if not failed:
            failed.append(link.url)
            raise LookupError("a defect")
        return await told(link)

    monkeypatch.setattr(ProxyLink, "tell", tell)
    monkeypatch.setattr(lasting, "BACKOFF_MAX_S", 0.0)
    async with network(RawEngine(says(HI))) as net:
        assert (await net.chain.ask(post(CHAT))).status == 200
    assert f"the control of {failed[0]} ended unexpectedly" in caplog.text


class OddlyNaming(RawEngine):
    """An engine whose models say of themselves what cannot be."""

    def _entry(self, name: str) -> dict[str, Any]:
        return {"id": name, "created": -1, "max_model_len": 10**12}


async def test_models_that_no_proxy_takes_are_left_out_and_said(
    caplog: pytest.LogCaptureFixture,
) -> None:
    engine = OddlyNaming(says(HI), models=("m", "x" * 257, "\x1b[2J"))
    async with network(engine) as net:
        worker = net.workers["gpu0"]
        assert [model.id for model in worker.standing().models] == ["m"]
        assert (await net.chain.ask(post(CHAT))).status == 200
    assert caplog.text.count("2 models cannot be offered") == 1


async def test_no_more_models_are_offered_than_a_proxy_takes(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(control, "MODELS_MAX", 1)
    async with network(RawEngine(says(HI), models=("m", "n"))) as net:
        assert [model.id for model in net.workers["gpu0"].standing().models] == ["m"]
        assert (await net.chain.ask(post(CHAT))).status == 200
    assert "1 models cannot be offered: 'n'" in caplog.text


async def test_two_deliveries_at_once_send_a_report_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("filature.worker.link.DELIVER_S", 600.0)
    sent: list[str] = []
    posted = ProxyLink._post

    async def post_counted(link: ProxyLink, path: str, body: str, *more: float) -> bytes | None:
        if path == control.REPORTS_PATH:
            sent.append(body)
        return await posted(link, path, body, *more)

    monkeypatch.setattr(ProxyLink, "_post", post_counted)
    async with network(RawEngine(says(HI))) as net:
        assert (await net.chain.ask(post(CHAT))).status == 200
        worker = net.workers["gpu0"]
        await worker.outbox.flush()
        (link,) = worker.links
        await asyncio.gather(link.deliver(), link.deliver())
        assert len(sent) == 1
        assert len(worker.outbox) == 0


async def test_one_heartbeat_that_gets_lost_does_not_end_the_lease(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    waits: list[float] = []

    async def fetch_noted(
        pool: UpstreamPool, request: bytes, *, timeout_s: float
    ) -> tuple[int, bytes]:
        if control.HEARTBEAT_PATH.encode() in request:
            waits.append(timeout_s)
        return await fetch(pool, request, timeout_s=timeout_s)

    monkeypatch.setattr(link_module, "fetch", fetch_noted)
    async with network(RawEngine(says(HI))) as net:
        (link,) = net.workers["gpu0"].links
        assert await link.tell() is not None
    longest_pause_s = 2 * link_module.BACKOFF_S
    assert HEARTBEAT_S + waits[0] + longest_pause_s < LEASE_S - 1


async def test_reports_for_a_proxy_that_is_not_named_any_more_are_told_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    gone = "http://gone.example"
    outbox = Outbox(tmp_path / OUTBOX_FILE)
    await outbox.open()
    for name, at in (("old", 0.0), ("new", time.time())):
        outbox.add(gone, json.dumps({"id": name, "started_at": at}))
        await outbox.flush()
    await outbox.close()
    async with network() as net:
        worker = await net.join("gpu0", says(HI), data_dir=tmp_path)
        assert len(worker.outbox) == 1
        assert f"1 reports are for {gone}" in caplog.text
