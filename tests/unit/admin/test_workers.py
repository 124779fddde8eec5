"""Workers over the admin API: which there are, whether they get requests, what they earned."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.unit.admin.api import NOW_MS, Api, charged, opened, rich
from tests.unit.admin.joined import Joined

from filature.admin.workers import CSV_COLUMNS
from filature.store.availability import WorkerDay

DAY_MS = 86_400_000


@pytest.fixture
def joined() -> Joined:
    return Joined()


@pytest.fixture
async def running(tmp_path: Path, joined: Joined) -> AsyncIterator[Api]:
    """The API of a proxy that runs."""
    async with opened(f"sqlite:///{tmp_path}/f.db", joined) as api:
        yield api


async def states(api: Api) -> dict[str, str]:
    return {each["name"]: each["state"] for each in (await api.ask("GET", "/workers"))["data"]}


async def test_what_a_worker_offers(running: Api) -> None:
    await running.store.prices.set("silk", prompt=1001, cached=1, completion=10**9)
    (shown,) = (await running.ask("GET", "/workers"))["data"]
    silk, linen, wool = shown.pop("models")
    assert shown == {
        "object": "worker",
        "name": "gpu",
        "state": "ready",
        "disabled": False,
        "marks": [],
        "running": 3,
        "capacity": 64,
        "tunnels": 32,
        "mean_s": 1.25,
        "failures": 2,
        "version": "9.9",
        "joined_ms": 1_782_907_200_000,
    }
    assert silk == {
        "id": "silk",
        "context_length": 4096,
        "coefficient": 1500,
        "prompt": "0.000001502",  # rounded up
        "prompt_nano": 1502,
        "completion": "1.5",
        "completion_nano": 1_500_000_000,
    }
    assert (linen["prompt"], linen["completion"]) == ("1", "2")  # of a proxy that has a default
    assert (wool["prompt"], wool["completion_nano"]) == (None, None)


async def test_those_that_are_away_are_told_of_too(running: Api) -> None:
    made = [
        await running.ask("POST", "/worker-tokens", {"worker": name}, 201)
        for name in ("zoe", "abe", "old")
    ]
    await running.ask("POST", f"/worker-tokens/{made[2]['id']}/revoke")
    await running.ask("POST", "/workers/zoe/disable")
    assert await states(running) == {"abe": "away", "gpu": "ready", "zoe": "disabled"}
    shown = (await running.ask("GET", "/workers"))["data"][0]
    assert (shown["models"], shown["joined_ms"], shown["capacity"]) == ([], None, 0)


async def test_disabled_until_enabled(running: Api, joined: Joined) -> None:
    assert (await running.ask("POST", "/workers/gpu/disable"))["state"] == "disabled"
    assert running.store.disabled_workers.names() == {"gpu"}
    assert await states(running) == {"gpu": "disabled"}
    shown = await running.ask("POST", "/workers/gpu/enable")
    assert (shown["state"], shown["disabled"]) == ("ready", False)
    assert running.store.disabled_workers.names() == set()
    assert joined.told == [("gpu", "disable"), ("gpu", "enable")]


async def test_draining_needs_the_worker_to_be_here(running: Api, joined: Joined) -> None:
    await running.ask("POST", "/worker-tokens", {"worker": "abe"}, 201)
    await running.ask("POST", "/workers/gpu/drain")
    error = await running.refused("POST", "/workers/abe/drain", status=409)
    assert error["code"] == "worker_away"
    assert joined.told == [("gpu", "drain"), ("abe", "drain")]
    assert running.store.disabled_workers.names() == set()


async def test_without_a_proxy_a_worker_can_be_disabled_and_not_drained(api: Api) -> None:
    await api.ask("POST", "/worker-tokens", {"worker": "gpu"}, 201)
    assert await states(api) == {"gpu": "away"}
    assert (await api.ask("POST", "/workers/gpu/disable"))["state"] == "disabled"
    assert (await api.ask("POST", "/workers/gpu/enable"))["state"] == "away"
    assert (await api.refused("POST", "/workers/gpu/drain", status=409))["code"] == "worker_away"


@pytest.mark.parametrize("what", ["disable", "enable", "drain"])
async def test_who_never_had_a_token_is_not_known(running: Api, joined: Joined, what: str) -> None:
    error = await running.refused("POST", f"/workers/nobody/{what}", status=404)
    assert error["code"] == "worker_not_found"
    assert joined.told == []
    assert running.store.disabled_workers.names() == set()


async def test_earnings_and_how_the_account_stands(either: Api) -> None:
    await rich(either)
    day = NOW_MS // DAY_MS
    await either.store.worker_days.add([WorkerDay("w", day, 7_200_500, 3_600_000, 2)])
    await charged(either, "r1", 1000, 1000, started_ms=NOW_MS)
    await charged(either, "r2", 500, 1000, model="linen")
    await either.ask("POST", "/payouts", {"worker": "w", "amount_nano": 300, "id": "p"}, 201)
    await either.ask("POST", "/ledger/transfers/p/correct", {"amount_nano": 100}, 201)
    earned = await either.ask("GET", "/workers/w/earnings")
    linen, silk = earned.pop("data")
    total = earned.pop("total")
    assert earned == {
        "object": "earnings",
        "worker": "w",
        "days": [{"day": "2026-07-01", "ready_s": 7200.5, "idle_s": 3600.0, "refused": 2}],
        "balance": "0.00000115",
        "balance_nano": 1350 - 200,
        "paid_out": "0.0000002",
        "paid_out_nano": 200,
    }
    assert silk == {
        "day": "2026-07-01",
        "model": "silk",
        "settled": 1,
        "voided": {},
        "prompt": 3,
        "cached": 0,
        "completion": 4,
        "reasoning": 0,
        "charged": "0.000001",
        "charged_nano": 1000,
        "fees": "0.0000001",
        "fees_nano": 100,
        "earned": "0.0000009",
        "earned_nano": 900,
    }
    assert (linen["model"], linen["earned_nano"]) == ("linen", 450)
    assert (total["settled"], total["prompt"], total["earned_nano"]) == (2, 6, 1350)
    later = await either.ask("GET", f"/workers/w/earnings?since_ms={NOW_MS + 1}")
    assert (later["data"], later["total"]["earned_nano"]) == ([], 0)
    assert later["balance_nano"] == 1150  # that is of now


async def test_an_engine_of_the_proxys_own_is_named_by_its_url(api: Api) -> None:
    await rich(api)
    await api.ask("POST", "/accounts", {"name": "http://gpu:8000", "kind": "worker"}, 201)
    path = "/workers/http%3A%2F%2Fgpu%3A8000"
    shown = await api.ask("GET", f"{path}/earnings")
    assert (shown["worker"], shown["balance_nano"]) == ("http://gpu:8000", 0)
    error = await api.refused("POST", f"{path}/disable", status=404)
    assert error["message"] == "There is no worker 'http://gpu:8000'."


async def test_earnings_as_csv(api: Api) -> None:
    await rich(api)
    await charged(api, "r1", 1000, 1000, model="=silk,é")
    answer = await api.client.get("/admin/v1/workers/w/earnings?format=csv")
    assert answer.headers["content-type"].startswith("text/csv; charset=utf-8")
    assert answer.text.splitlines() == [
        ",".join(CSV_COLUMNS),
        '2026-07-01,"\'=silk,é",1,,3,0,4,0,0.000001,1000,0.0000001,100,0.0000009,900',
    ]


async def test_earnings_of_one_that_did_nothing_and_of_nobody(api: Api) -> None:
    await api.ask("POST", "/worker-tokens", {"worker": "gpu"}, 201)
    earned = await api.ask("GET", "/workers/gpu/earnings")
    assert (earned["data"], earned["balance_nano"], earned["paid_out_nano"]) == ([], 0, 0)
    error = await api.refused("GET", "/workers/nobody/earnings", status=404)
    assert error["code"] == "worker_not_found"
