"""What a running proxy has for workers beside requests: keys, statements, payout requests; and whom it gives none."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import SecretStr
from tests.unit.store.working import rich, serve

from filature.proxy import statements
from filature.proxy.app import Proxy
from filature.proxy.settings import ProxySettings
from filature.store.store import Store
from filature.wire.statement import read_keys

PREFIX = "/filature/v1"
ADMIN_TOKEN = "the-token-of-these-tests"


class Running:
    """A proxy on ports of its own. ``token``: the worker ``gpu``'s."""

    def __init__(self, proxy: Proxy, client: httpx.AsyncClient, token: str) -> None:
        self.proxy = proxy
        self.client = client
        self.token = token

    @property
    def store(self) -> Store:
        assert self.proxy.store is not None
        return self.proxy.store

    async def post(self, path: str, body: Any, status: int = 200, token: str | None = None) -> Any:
        headers = {"authorization": f"Bearer {self.token if token is None else token}"}
        answer = await self.client.post(f"{PREFIX}{path}", json=body, headers=headers)
        assert answer.status_code == status, answer.text
        return answer.json()

    async def tell(self, path: str = "/heartbeat", instance: str = "0" * 16) -> Any:
        model = {"id": "m", "context_length": 100}
        return await self.post(path, {"instance": instance, "models": [model], "capacity": 4})

    async def order(self, what: str) -> None:
        url = f"http://127.0.0.1:{self.proxy.admin_port}/admin/v1/workers/gpu/{what}"
        headers = {"authorization": f"Bearer {ADMIN_TOKEN}"}
        answer = await self.client.post(url, headers=headers)
        assert answer.status_code == 200, answer.text

    def offered(self) -> set[str]:
        """What requests can be sent to the worker for."""
        worker = self.proxy.workers.get("gpu")
        return set() if worker is None else set(worker.engine.models)


@asynccontextmanager
async def started(folder: Path) -> AsyncIterator[Running]:
    settings = ProxySettings(
        engines=[],
        port=0,
        admin_port=0,
        data_dir=folder,
        admin_token=SecretStr(ADMIN_TOKEN),
        log_level="error",
    )
    proxy = Proxy(settings)
    try:
        await proxy.start()
        assert proxy.store is not None
        secret, _ = await proxy.store.worker_tokens.create("gpu", None)
        url = f"http://127.0.0.1:{proxy.port}"
        async with httpx.AsyncClient(base_url=url, trust_env=False) as client:
            yield Running(proxy, client, secret)
    finally:
        await proxy.close()


@pytest.fixture
async def running(tmp_path: Path) -> AsyncIterator[Running]:
    async with started(tmp_path) as running:
        yield running


async def test_a_heartbeat_brings_a_statement_that_the_public_key_checks(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(statements, "LOOK_S", 0.01)
    await rich(running.store)
    serve(running.store, "r1", "gpu", 100)
    await running.store.ledger.flush()
    assert (await running.tell("/hello"))["statement"] is None
    async with asyncio.timeout(20):
        while (text := (await running.tell())["statement"]) is None:
            await asyncio.sleep(0.02)
    told = await running.client.get(f"{PREFIX}/keys")  # no token is needed
    (key,) = read_keys(told.content)
    statement = key.check(text)
    assert (statement.sub, statement.owed_nano, statement.requests) == ("gpu", 100, 1)


async def test_the_key_is_the_same_after_a_restart(tmp_path: Path) -> None:
    keys = []
    for _ in range(2):
        async with started(tmp_path) as running:
            keys.append((await running.client.get(f"{PREFIX}/keys")).json())
    assert keys[0] == keys[1]


async def test_a_payout_is_asked_for_with_the_workers_token(running: Running) -> None:
    await rich(running.store)
    serve(running.store, "r1", "gpu", 100)
    await running.store.ledger.flush()
    body = {"id": "a", "amount_nano": 60}
    await running.post("/payout-requests", body, 401, token="none")
    assert await running.store.payout_requests.list() == []
    answer = await running.post("/payout-requests", body)
    assert (answer["worker"], answer["state"]) == ("gpu", "open")
    refused = await running.post("/payout-requests", {"id": "b", "amount_nano": 41}, 409)
    assert refused["error"]["code"] == "insufficient_funds"
    (kept,) = await running.store.payout_requests.list()
    assert (kept.id, kept.worker, kept.amount) == ("a", "gpu", 60)


async def test_one_that_is_drained_gets_nothing_until_its_process_begins_anew(
    running: Running,
) -> None:
    await running.tell("/hello")
    assert running.offered() == {"m"}
    await running.order("drain")
    assert running.offered() == set()
    await running.tell()
    await running.tell("/hello")
    assert running.offered() == set()
    await running.tell("/hello", instance="1" * 16)
    assert running.offered() == {"m"}


async def test_one_that_is_disabled_gets_nothing_also_after_a_restart(tmp_path: Path) -> None:
    async with started(tmp_path) as running:
        await running.tell("/hello")
        await running.order("disable")
        assert running.offered() == set()
    async with started(tmp_path) as running:
        await running.tell("/hello", instance="1" * 16)
        assert running.offered() == set()
        await running.order("enable")
        assert running.offered() == {"m"}
    async with started(tmp_path) as running:
        await running.tell("/hello")
        assert running.offered() == {"m"}
