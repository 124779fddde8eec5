"""Engines that others use, too: their metrics tell it, and they are avoided. What tells nonsense changes nothing."""

import asyncio
import logging
from collections.abc import Callable

import pytest
from tests.integration.harness import WAIT_S, EngineRequest, Handler, Puppet, RawEngine, chain, says
from tests.integration.messages import CHAT, chunked, completion, json_answer, post
from tests.integration.network import engine_of, network

from filature.relay import discovery
from filature.relay.engines import Engine

HI = json_answer(completion("hi"))


@pytest.fixture(autouse=True)
def asked_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(discovery, "REFRESH_S", 0.02)


def page(running: object, waiting: object = 0.0, *, more: int = 0) -> bytes:
    """``more``: bytes that tell nothing."""
    labels = '{engine="0",model_name="m"}'
    lines = (
        f"vllm:num_requests_running{labels} {running}",
        f"vllm:num_requests_waiting{labels} {waiting}",
        "#" * more,
    )
    text = "\n".join(lines)
    head = f"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {len(text)}\r\n\r\n"
    return (head + text).encode()


def chat(number: int) -> bytes:
    """No two begin alike."""
    return post(CHAT | {"messages": [{"role": "user", "content": f"hi {number}"}]})


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(WAIT_S):
        while not condition():
            await asyncio.sleep(0.001)


async def looked_at(*engines: RawEngine, times: int = 3) -> None:
    """Until each was asked for its load so often from now on, and the answers but the last were taken."""
    before = [len(engine.metrics_requests) for engine in engines]
    for engine, seen in zip(engines, before, strict=True):
        await until(lambda e=engine, s=seen: len(e.metrics_requests) >= s + times)  # type: ignore[misc]


# engines


@pytest.mark.parametrize("busy", [0, 1])
async def test_an_engine_that_others_use_is_avoided(busy: int) -> None:
    engines = [RawEngine(says(HI)), RawEngine(says(HI))]
    engines[busy].metrics = says(page(2.0, 1.0, more=discovery.METRICS_BYTES_MAX // 2))
    engines[1 - busy].metrics = says(page(0.0))
    async with chain(*engines) as c:
        await until(lambda: c.proxy.engines.engines[busy].elsewhere == 3)
        for number in range(3):
            assert (await c.ask(chat(number))).status == 200
        assert [len(engine.requests) for engine in engines] == [3 * busy, 3 * (1 - busy)]
        await until(lambda: c.proxy.metrics.requests_elsewhere == 3)
        engines[busy].metrics = says(json_answer({}, "404 Not Found"))
        await until(lambda: c.proxy.engines.engines[busy].elsewhere == 0)


async def test_an_engine_that_others_use_is_asked_where_there_is_no_other() -> None:
    engine = RawEngine(says(HI))
    engine.metrics = says(page(60_000.0))
    async with chain(engine) as c:
        await until(lambda: c.proxy.engines.engines[0].elsewhere == 60_000)
        assert (await c.ask(chat(0))).status == 200


async def test_our_own_requests_are_not_others() -> None:
    """Neither while they run, one of them for several answers, nor where the engine tells late that they are over."""
    puppet = Puppet()
    puppet.metrics = says(page(0.0))
    async with chain(puppet) as c:
        (engine,) = c.proxy.engines.engines
        clients = [await c.connect() for _ in range(2)]
        clients[0].send(chat(0))
        clients[1].send(post(CHAT | {"n": 3}))
        calls = [await puppet.call(), await puppet.call()]
        puppet.metrics = says(page(3.0, 1.0))
        await looked_at(puppet)
        assert (engine.running, engine.answers, engine.elsewhere) == (2, 4, 0)
        puppet.metrics = says(page(5.0))
        await until(lambda: engine.elsewhere == 1)
        puppet.metrics = says(page(0.0))
        for call, client in zip(calls, clients, strict=True):
            call.end(HI)
            assert (await client.answer()).status == 200
        assert (engine.running, engine.answers) == (0, 0)


async def silent(request: EngineRequest, writer: asyncio.StreamWriter) -> None:
    await asyncio.Event().wait()


async def endless(request: EngineRequest, writer: asyncio.StreamWriter) -> None:
    """100 MB, of which each MB would do."""
    writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    for _ in range(100):
        writer.write(chunked(b"vllm:num_requests_running 7\n" + b"#" * 1_000_000 + b"\n"))
        await writer.drain()
    writer.write(b"0\r\n\r\n")


WORTHLESS: dict[str, Handler] = {
    "none": says(json_answer({}, "404 Not Found")),
    "refused": says(page(7.0).replace(b"200 OK", b"401 No")),
    "broken": says(page(7.0).replace(b"200 OK", b"500 Oh")),
    "nothing within the time": silent,
    "a head and no more": says(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n"),
    "closed": says(close=True),
    "cut": says(page(7.0)[:-5], close=True),
    "no HTTP": says(b"vllm:num_requests_running 7\r\n\r\n", close=True),
    "another page": says(json_answer({"num_requests_running": 7})),
    "huge": says(page("1e308")),
    "negative": says(page(7.0, "-5")),
    "no number": says(page("NaN")),
    "too long": says(page(7.0, more=discovery.METRICS_BYTES_MAX)),
    "100 MB": endless,
}


@pytest.mark.parametrize("kind", WORTHLESS)
async def test_what_cannot_be_read_changes_nothing(
    kind: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(discovery, "FETCH_S", 0.2)
    odd, other = RawEngine(says(HI)), RawEngine(says(HI))
    odd.metrics = says(page(4.0))
    async with chain(odd, other) as c:
        engine: Engine = c.proxy.engines.engines[0]
        await until(lambda: engine.elsewhere == 4)
        caplog.clear()
        odd.metrics = WORTHLESS[kind]
        asked = len(odd.health_requests)
        await until(lambda: engine.elsewhere == 0)
        await looked_at(odd, times=2)
        assert len(odd.health_requests) > asked, "all else is asked as before"
        assert (engine.elsewhere, engine.reachable, engine.failures) == (0, True, 0)
        assert (await c.ask(chat(0))).status == 200
        assert len(odd.requests) == 1
        told = [each for each in caplog.records if each.name.startswith("filature.relay")]
        assert [each for each in told if each.levelno >= logging.INFO] == []


async def test_an_engine_is_told_the_key_and_the_base_path() -> None:
    """llama.cpp's wants it there."""
    engine = RawEngine(says(HI), suffix="/base/v1")
    engine.metrics = says(page(2.0))
    async with chain(engine, engine_key="sk-engine") as c:
        await until(lambda: c.proxy.engines.engines[0].elsewhere == 2)
    asked = engine.metrics_requests[0]
    assert (asked.method, asked.path) == ("GET", "/base/metrics")
    assert asked.headers["authorization"] == "Bearer sk-engine"


# workers


@pytest.mark.parametrize("busy", [0, 1])
async def test_a_worker_whose_engine_others_use_is_avoided(busy: int) -> None:
    engines = [RawEngine(says(HI)), RawEngine(says(HI))]
    engines[busy].metrics = says(page(2.0, 3.0))
    async with network(*engines) as net:
        worker = net.workers[f"gpu{busy}"]
        await until(lambda: worker.engines.engines[0].elsewhere == 5)
        for each in net.workers.values():
            await each.links[0].tell()  # the next heartbeat
        assert (await engine_of(net, f"gpu{busy}")).elsewhere == 5
        assert (await engine_of(net, f"gpu{1 - busy}")).elsewhere == 0
        for number in range(3):
            assert (await net.chain.ask(chat(number))).status == 200
        assert [len(engine.requests) for engine in engines] == [3 * busy, 3 * (1 - busy)]
        engines[busy].metrics = says(page(0.0))
        await until(lambda: worker.engines.engines[0].elsewhere == 0)
        await worker.links[0].tell()
        assert (await engine_of(net, f"gpu{busy}")).elsewhere == 0


async def test_a_worker_is_asked_where_others_take_more_than_it_has_places() -> None:
    engine = RawEngine(says(HI))
    engine.metrics = says(page(70.0))
    async with network() as net:
        worker = await net.join("gpu", engine, max_requests=1)
        await until(lambda: worker.engines.engines[0].elsewhere == 70)
        await worker.links[0].tell()
        assert (await engine_of(net, "gpu")).elsewhere == 70
        for number in range(2):
            assert (await net.chain.ask(chat(number))).status == 200


async def test_what_a_worker_does_for_the_proxy_is_not_others() -> None:
    puppet = Puppet()
    async with network(puppet) as net:
        worker = net.workers["gpu0"]
        client = await net.chain.connect()
        client.send(post(CHAT | {"n": 3}))
        call = await puppet.call()
        puppet.metrics = says(page(3.0))
        await looked_at(puppet)
        await worker.links[0].tell()
        seen = await engine_of(net, "gpu0")
        assert (worker.standing().running, seen.elsewhere) == (3, 0)
        puppet.metrics = says(page(5.0))
        await until(lambda: worker.engines.engines[0].elsewhere == 2)
        await worker.links[0].tell()
        assert (worker.standing().running, seen.elsewhere) == (5, 2)
        call.end(HI)
        assert (await client.answer()).status == 200
