"""A worker's metrics: nowhere to be had, unless its settings say where."""

import asyncio
import socket

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families
from tests.integration.harness import Puppet, RawEngine, says
from tests.integration.messages import (
    CHAT,
    DONE,
    SHORT_STREAM,
    STREAM,
    STREAM_HEAD,
    chunked,
    completion,
    delta,
    json_answer,
    post,
    stream_answer,
    usage_event,
)
from tests.integration.network import network

from filature.worker.app import Worker

HERE = "127.0.0.1:0"


async def fetched(worker: Worker, path: str = "/metrics") -> httpx.Response:
    async with httpx.AsyncClient(trust_env=False) as client:
        return await client.get(f"http://127.0.0.1:{worker.metrics_port}{path}")


async def samples(worker: Worker) -> dict[str, float]:
    """By name, and the labels that tell apart what these tests look at."""
    text = (await fetched(worker)).text
    told = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            more = [sample.labels[name] for name in ("outcome", "class") if name in sample.labels]
            told[" ".join([sample.name, *more])] = sample.value
    return told


async def reached(worker: Worker, **wanted: float) -> None:
    """Until gauges, which are set at ticks, say what is wanted."""
    async with asyncio.timeout(10):
        while True:
            told = await samples(worker)
            if all(told.get(f"filature_{name}") == value for name, value in wanted.items()):
                return
            await asyncio.sleep(0.01)


async def test_what_passed_through_a_worker() -> None:
    engine = RawEngine(says(stream_answer(SHORT_STREAM)))
    async with network() as net:
        worker = await net.join("gpu0", engine, metrics=HERE, max_requests=5)
        for _ in range(3):
            assert (await net.chain.ask(post(STREAM))).body.endswith(DONE)
        told = await samples(worker)
        assert told["filature_requests_total completed"] == 3
        assert told["filature_tokens_total prompt"] == 30
        assert told["filature_tokens_total completion"] == 6
        assert told["filature_cost_credits_total"] == 0
        assert told["filature_unprocessed_bytes_total"] == 0
        assert told["gen_ai_server_time_to_first_token_seconds_count"] == 3
        assert told["filature_time_per_output_event_seconds_count"] == 3
        assert "filature_ledger_holds" not in told
        assert told["filature_engines_ready"] == 1
        await reached(
            worker,
            outbox_reports=0,
            outbox_reports_dropped=0,
            tunnels_ready=5,
            open_streams=0,
            requests_running=0,
        )
        health = (await fetched(worker, "/health")).json()
        assert health == {"status": "ok", "proxies_joined": 1, "draining": False}
        assert (await fetched(worker, "/admin/v1/accounts")).status_code == 404


async def test_what_is_under_way() -> None:
    puppet = Puppet()
    async with network() as net:
        worker = await net.join("gpu0", puppet, metrics=HERE)
        client = await net.chain.connect()
        client.send(post(STREAM))
        call = await puppet.call()
        call.send(STREAM_HEAD, chunked(delta("one")))
        await client.head()
        await reached(worker, open_streams=1, requests_running=1)
        call.end(chunked(delta("", finish="stop") + usage_event(5, 2) + DONE), b"0\r\n\r\n")
        assert b"one" in await client.chunk()
        await reached(worker, open_streams=0, requests_running=0)


async def test_reports_that_nobody_took_and_those_that_found_no_room() -> None:
    async with network() as net:
        worker = await net.join(
            "gpu0", RawEngine(says(json_answer(completion("hi")))), metrics=HERE
        )
        worker.outbox.kept_max = 2
        for number in range(3):
            worker.outbox.add("http://away", f'{{"id": "r{number}"}}')
        await reached(worker, outbox_reports=2, outbox_reports_dropped=1)


async def test_an_engine_that_failed_has_its_name_also_where_models_are_named() -> None:
    broken = RawEngine(says(json_answer({"error": {"message": "no"}}, "500 Oh")), suffix="=m:up")
    async with network() as net:
        worker = await net.join("gpu0", broken, metrics=HERE)
        assert (await net.chain.ask(post(CHAT))).status >= 500
        text = (await fetched(worker)).text
        assert f'filature_engine_failures_total{{engine="{broken.url}",reason=' in text


async def test_nothing_listens_without_being_asked() -> None:
    async with network(RawEngine(says(b""))) as net:
        worker = net.workers["gpu0"]
        assert worker.metrics_port is None
        assert worker._metrics_server is None


async def test_an_address_that_is_taken_is_an_oserror() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        async with network() as net:
            with pytest.raises(OSError, match="in use"):
                await net.join("gpu0", RawEngine(says(b"")), metrics=address)


async def test_it_listens_no_more_when_it_is_closed() -> None:
    async with network() as net:
        worker = await net.join("gpu0", RawEngine(says(b"")), metrics=HERE)
        assert (await fetched(worker, "/health")).status_code == 200
        await net.leave("gpu0")
        with pytest.raises(httpx.ConnectError):
            await fetched(worker, "/health")
