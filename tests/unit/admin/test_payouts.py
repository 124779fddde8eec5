"""Payouts over the admin API: never more than was earned, and what was asked for is paid once."""

import asyncio
from typing import Any

import pytest
from tests.unit.admin.api import NOW_MS, Api, charged, rich

from filature.ledger.accounts import worker_account
from filature.ledger.commands import Payout
from filature.store.payouts import transfer_of
from filature.units import Nano

W = worker_account("w")


async def earned(api: Api, nano: int = 1000) -> None:
    await rich(api)
    await charged(api, "r1", nano)


def balance(api: Api) -> int:
    return api.store.ledger.state.accounts[W].balance


async def asked(api: Api, request: str, nano: int) -> None:
    await api.store.payout_requests.add(request, "w", Nano(nano), Nano(10**6))


async def listed(api: Api, query: str = "") -> list[Any]:
    data: list[Any] = (await api.ask("GET", f"/payouts{query}"))["data"]
    return data


async def test_a_payout_is_made_once(either: Api) -> None:
    await earned(either)
    body = {"worker": "w", "amount_nano": 600, "id": "june", "note": "invoice 7"}
    shown = await either.ask("POST", "/payouts", body, 201)
    assert shown == {
        "object": "payout",
        "id": "june",
        "request": None,
        "worker": "w",
        "state": "paid",
        "amount": "0.0000006",
        "amount_nano": 600,
        "returned": "0",
        "returned_nano": 0,
        "at": "2026-07-01T12:00:00.000Z",
        "at_ms": NOW_MS,
        "note": "invoice 7",
        "result": "done",
    }
    assert await either.ask("POST", "/payouts", body, 200) == shown | {"result": "exists"}
    error = await either.refused("POST", "/payouts", body | {"amount_nano": 5}, status=409)
    assert error["code"] == "transfer_id_taken"
    assert balance(either) == 400
    assert await listed(either) == [shown | {"result": None}]


async def test_never_more_than_the_balance(either: Api) -> None:
    await earned(either)
    body = {"worker": "worker:w", "amount": "0.000001001"}
    assert (await either.refused("POST", "/payouts", body, status=409))["param"] == "amount"
    await asked(either, "a", 1001)
    error = await either.refused("POST", "/payouts", {"request": "a"}, status=409)
    assert error["code"] == "insufficient_funds"
    assert error["message"].startswith("w has only 0.000001 credits")
    assert (await either.store.payout_requests.get("a")).state == "open"
    assert balance(either) == 1000
    await either.ask("POST", "/payouts", body | {"amount": "0.000001"}, 201)
    assert balance(either) == 0


async def test_a_request_is_paid_once(either: Api) -> None:
    await earned(either)
    await asked(either, "a", 600)
    paying = [either.client.post("/admin/v1/payouts", json={"request": "a"}) for _ in range(3)]
    answers = await asyncio.gather(*paying)
    assert sorted(each.status_code for each in answers) == [200, 200, 201]
    again = await either.ask("POST", "/payouts", {"request": "a", "note": "another"}, 200)
    assert (again["id"], again["request"], again["note"]) == (transfer_of("a"), "a", "")
    assert balance(either) == 400
    assert (await either.store.payout_requests.get("a")).state == "paid"
    error = await either.refused("POST", "/payout-requests/a/refuse", status=409)
    assert error["code"] == "payout_paid"


async def test_one_that_was_paid_before_a_crash_is_not_paid_or_refused_again(api: Api) -> None:
    await earned(api)
    await asked(api, "a", 600)
    await api.store.ledger.run(Payout(transfer_of("a"), W, Nano(600), NOW_MS, "before"))
    (shown,) = await listed(api)
    assert (shown["state"], shown["request"]) == ("paid", "a")
    error = await api.refused("POST", "/payout-requests/a/refuse", status=409)
    assert error["code"] == "payout_paid"
    assert (await api.ask("POST", "/payouts", {"request": "a"}, 200))["result"] == "exists"
    assert (await api.store.payout_requests.get("a")).state == "paid"
    assert balance(api) == 400


async def test_a_request_that_was_refused_is_not_paid(api: Api) -> None:
    await earned(api)
    await asked(api, "a", 600)
    for _ in range(2):
        shown = await api.ask("POST", "/payout-requests/a/refuse")
        assert (shown["state"], shown["id"], shown["request"]) == ("refused", None, "a")
    error = await api.refused("POST", "/payouts", {"request": "a"}, status=409)
    assert error["code"] == "payout_refused"
    assert balance(api) == 1000
    assert [each["state"] for each in await listed(api)] == ["refused"]


async def test_payouts_and_open_requests_are_listed(api: Api) -> None:
    await earned(api)
    await asked(api, "a", 100)
    await asked(api, "b", 200)
    await api.ask("POST", "/payouts", {"request": "b"}, 201)
    await api.ask("POST", "/accounts/worker:w/payout", {"amount_nano": 5, "id": "old way"}, 201)
    await api.ask("POST", "/ledger/transfers/old way/correct", {"amount_nano": 2}, 201)
    shown = {(each["id"], each["request"]): each for each in await listed(api, "?worker=w")}
    assert {key: each["state"] for key, each in shown.items()} == {
        (None, "a"): "open",
        ("payout-request:b", "b"): "paid",
        ("old way", None): "paid",
    }
    assert shown["old way", None]["returned_nano"] == 2
    await api.ask("POST", "/accounts", {"name": "x", "kind": "worker"}, 201)
    assert await listed(api, "?worker=x") == []
    await api.refused("GET", "/payouts?worker=nobody", status=404)


async def test_a_worker_that_earned_nothing_yet(api: Api) -> None:
    body = {"worker": "gpu", "amount": "1"}
    assert (await api.refused("POST", "/payouts", body, 404))["code"] == "account_not_found"
    await api.ask("POST", "/worker-tokens", {"worker": "gpu"}, 201)
    error = await api.refused("POST", "/payouts", body, 409)
    assert (error["code"], error["message"]) == (
        "insufficient_funds",
        "gpu has earned nothing yet.",
    )
    assert await listed(api, "?worker=gpu") == []


async def test_as_csv(api: Api) -> None:
    await earned(api)
    body = {"worker": "w", "amount_nano": 600, "id": "-june", "note": "=cmd()"}
    await api.ask("POST", "/payouts", body, 201)
    answer = await api.client.get("/admin/v1/payouts?format=csv")
    assert answer.headers["content-type"].startswith("text/csv")
    assert answer.text.splitlines() == [
        "at,at_ms,id,request,worker,state,amount,amount_nano,returned,returned_nano,note",
        f"2026-07-01T12:00:00.000Z,{NOW_MS},'-june,,w,paid,0.0000006,600,0,0,'=cmd()",
    ]


@pytest.mark.parametrize(
    ("body", "param", "status"),
    [
        ({}, "worker", 400),
        ({"worker": "w"}, "amount", 400),
        ({"worker": "w", "amount": "0"}, "amount", 400),
        ({"worker": "w", "amount": "-1"}, "amount", 400),
        ({"worker": "w", "amount": "1", "amount_nano": 1}, "amount", 400),
        ({"worker": "nobody", "amount": "1"}, "account", 404),
        ({"worker": "w", "amount": "1", "id": "payout-request:a"}, "id", 400),
        ({"request": "a", "worker": "w"}, "request", 400),
        ({"request": "a", "amount_nano": 1}, "request", 400),
        ({"request": "nothing"}, "request", 404),
    ],
)
async def test_what_cannot_be_is_named(
    api: Api, body: dict[str, Any], param: str, status: int
) -> None:
    await earned(api)
    assert (await api.refused("POST", "/payouts", body, status))["param"] == param
    assert balance(api) == 1000
    await api.refused("POST", "/payout-requests/nothing/refuse", status=404)


@pytest.mark.parametrize(
    "path",
    [
        "/accounts/alice/top-up",
        "/accounts/alice/refund",
        "/accounts/worker:w/payout",
        "/ledger/transfers/r/correct",
    ],
)
async def test_nothing_else_takes_the_id_of_a_payout_that_was_asked_for(
    api: Api, path: str
) -> None:
    await rich(api)
    await charged(api, "r", 1000)
    body = {"amount_nano": 1, "id": "payout-request:a"}
    assert (await api.refused("POST", path, body))["param"] == "id"
