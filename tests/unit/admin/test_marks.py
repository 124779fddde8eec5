"""What is held against a worker over the admin API: shown, waited for by payouts, and cleared."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.unit.admin.api import NOW_MS, Api, charged, opened, rich
from tests.unit.admin.joined import Joined

from filature.store.marks import SUSPENDED, Mark, Marks

DETAIL = '{"belief":{},"samples":8,"claimed":900,"allowed":100}'


@pytest.fixture
def joined() -> Joined:
    return Joined()


@pytest.fixture
async def running(tmp_path: Path, joined: Joined) -> AsyncIterator[Api]:
    """The API of a proxy that runs."""
    async with opened(f"sqlite:///{tmp_path}/f.db", joined) as api:
        yield api


async def mark(api: Api, kind: str, worker: str = "gpu", detail: str = DETAIL) -> None:
    model = "" if kind == SUSPENDED else "silk"
    await api.store.marks.put(Mark(worker, model, kind, NOW_MS, detail))


async def test_what_is_held_against_a_worker(running: Api) -> None:
    await mark(running, "completion")
    await mark(running, "exceeded", detail='{"belief":{}}')
    shown = await running.ask("GET", "/workers/gpu/audit")
    figures = {"samples": 8, "claimed": 900, "allowed": 100}
    nothing = dict.fromkeys(figures)
    assert shown == {
        "object": "audit",
        "worker": "gpu",
        "marks": [
            {"model": "silk", "kind": "completion", "at_ms": NOW_MS} | figures,
            {"model": "silk", "kind": "exceeded", "at_ms": NOW_MS} | nothing,
        ],
        "samples": [{"model": "silk", "kind": "completion", "marked": True} | figures],
    }
    assert (await running.ask("GET", "/workers"))["data"][0]["marks"] == ["completion", "exceeded"]


async def test_nothing_is_held_against_one(api: Api) -> None:
    await api.ask("POST", "/worker-tokens", {"worker": "gpu"}, 201)
    shown = await api.ask("GET", "/workers/gpu/audit")
    assert (shown["marks"], shown["samples"]) == ([], [])


@pytest.mark.parametrize(("method", "what"), [("GET", "audit"), ("POST", "clear")])
async def test_who_never_had_a_token_is_not_known(
    running: Api, joined: Joined, method: str, what: str
) -> None:
    error = await running.refused(method, f"/workers/nobody/{what}", status=404)
    assert error["code"] == "worker_not_found"
    assert joined.told == []


async def test_one_whose_token_was_revoked_can_be_cleared(api: Api) -> None:
    """What it is owed waits for that."""
    made = await api.ask("POST", "/worker-tokens", {"worker": "gpu"}, 201)
    await mark(api, "prompt")
    await api.ask("POST", f"/worker-tokens/{made['id']}/revoke")
    assert len((await api.ask("GET", "/workers/gpu/audit"))["marks"]) == 1
    assert (await api.ask("POST", "/workers/gpu/clear"))["marks"] == []


async def test_cleared(running: Api, joined: Joined) -> None:
    await mark(running, "completion")
    await mark(running, "prompt", "zoe")
    shown = await running.ask("POST", "/workers/gpu/clear")
    assert (shown["state"], shown["marks"]) == ("ready", [])
    assert [each.worker for each in running.store.marks.all()] == ["zoe"]
    assert joined.told == [("gpu", "forgive")]


async def test_one_that_was_suspended_is_enabled_again(running: Api, joined: Joined) -> None:
    await mark(running, "completion")
    await mark(running, SUSPENDED)
    await running.store.disabled_workers.disable("gpu")
    shown = await running.ask("POST", "/workers/gpu/clear")
    assert (shown["state"], shown["disabled"]) == ("ready", False)
    assert running.store.disabled_workers.names() == frozenset()
    assert joined.told == [("gpu", "forgive"), ("gpu", "enable")]


async def test_enabling_ends_a_suspension_and_leaves_other_marks(
    running: Api, joined: Joined
) -> None:
    await mark(running, "completion")
    await mark(running, SUSPENDED)
    await mark(running, SUSPENDED, "zoe")
    await running.store.disabled_workers.disable("gpu")
    shown = await running.ask("POST", "/workers/gpu/enable")
    assert (shown["state"], shown["marks"]) == ("ready", ["completion"])
    assert joined.told == [("gpu", "enable")]
    stored = await Marks.load(running.store.reader, running.store.writer)
    assert {(each.worker, each.kind) for each in stored.all()} == {
        ("gpu", "completion"),
        ("zoe", SUSPENDED),
    }
    assert stored.all() == running.store.marks.all()


async def test_one_that_the_operator_disabled_stays_so(running: Api, joined: Joined) -> None:
    await mark(running, "completion")
    await running.ask("POST", "/workers/gpu/disable")
    assert (await running.ask("POST", "/workers/gpu/clear"))["disabled"] is True
    assert joined.told == [("gpu", "disable"), ("gpu", "forgive")]


@pytest.mark.parametrize("kind", ["prompt", "completion", "exceeded", "report", SUSPENDED])
async def test_a_payout_waits_for_marks(api: Api, kind: str) -> None:
    await rich(api)
    await charged(api, "r1", 1000)
    await api.ask("POST", "/worker-tokens", {"worker": "w"}, 201)
    await mark(api, kind, "w")
    body = {"worker": "w", "amount_nano": 600, "id": "june"}
    error = await api.refused("POST", "/payouts", body, 409)
    assert (error["code"], error["param"]) == ("worker_marked", "worker")
    assert "filature worker audit w" in error["message"]
    assert kind in error["message"]
    await api.ask("POST", "/workers/w/clear")
    assert (await api.ask("POST", "/payouts", body, 201))["state"] == "paid"


async def test_no_other_way_to_pay_a_worker_passes_its_marks_over(api: Api) -> None:
    await rich(api)
    await charged(api, "r1", 1000)
    path, body = "/accounts/worker:w/payout", {"amount_nano": 600, "id": "june"}
    await mark(api, "completion", "w")
    assert (await api.refused("POST", path, body, 409))["code"] == "worker_marked"
    await api.store.marks.clear("w")
    await api.ask("POST", path, body, 201)
    await mark(api, "completion", "w")
    assert (await api.ask("POST", path, body, 200))["result"] == "exists"


async def test_a_payout_that_was_made_is_told_again_whatever_came_since(api: Api) -> None:
    await rich(api)
    await charged(api, "r1", 1000)
    body = {"worker": "w", "amount_nano": 600, "id": "june"}
    await api.ask("POST", "/payouts", body, 201)
    await mark(api, "prompt", "w")
    assert (await api.ask("POST", "/payouts", body, 200))["result"] == "exists"


async def test_an_engine_without_a_cache_is_paid(api: Api) -> None:
    await rich(api)
    await charged(api, "r1", 1000)
    await mark(api, "cached", "w")
    await mark(api, "prompt", "somebody-else")
    body = {"worker": "w", "amount_nano": 600, "id": "june"}
    assert (await api.ask("POST", "/payouts", body, 201))["state"] == "paid"
