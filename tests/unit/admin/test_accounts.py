import pytest
from tests.unit.admin.api import ALICE, LATER_MS, Api, charged, rich

from filature.units import HoldId, Nano


async def test_an_account_is_opened_once(api: Api) -> None:
    opened = await api.ask("POST", "/accounts", {"name": "alice"}, 201)
    assert (opened["id"], opened["result"]) == ("client:alice", "done")
    again = await api.ask("POST", "/accounts", {"name": "alice"})
    assert again["result"] == "exists"
    worker = await api.ask("POST", "/accounts", {"name": "10.0.0.1:8000", "kind": "worker"}, 201)
    assert worker["id"] == "worker:10.0.0.1:8000"


@pytest.mark.parametrize("name", ["", "a b", "client:x", "fees", "-x", "a/b", "ä", "x" * 129])
async def test_names_that_could_be_read_in_two_ways_are_refused(api: Api, name: str) -> None:
    error = await api.refused("POST", "/accounts", {"name": name})
    assert error["param"] == "name"


async def test_amounts_are_exact_in_both_forms(api: Api) -> None:
    await rich(api, "10.000000001")
    api.store.ledger.hold(HoldId("r"), ALICE, Nano(5), 0, LATER_MS)
    shown = await api.ask("GET", "/accounts/alice")
    assert (shown["balance"], shown["balance_nano"]) == ("10.000000001", 10_000_000_001)
    assert (shown["held"], shown["held_nano"], shown["holds"]) == ("0.000000005", 5, 1)
    assert shown["available"] == "9.999999996"


async def test_a_top_up_is_done_once_by_its_id(api: Api) -> None:
    await rich(api)
    same = {"amount": "10.00", "id": "first"}
    again = await api.ask("POST", "/accounts/alice/top-up", same)
    assert (again["result"], again["account"]["balance"]) == ("exists", "10")
    for other in ({"amount": "11"}, {"amount": "10", "note": "x"}):
        error = await api.refused("POST", "/accounts/alice/top-up", other | {"id": "first"}, 409)
        assert error["code"] == "transfer_id_taken"
    without = [
        await api.ask("POST", "/accounts/alice/top-up", {"amount_nano": 1}, 201) for _ in "ab"
    ]
    assert without[0]["id"] != without[1]["id"]
    assert without[1]["account"]["balance_nano"] == 10_000_000_002


async def test_a_refund_is_of_what_is_not_held(api: Api) -> None:
    await rich(api)
    api.store.ledger.hold(HoldId("r"), ALICE, Nano(4_000_000_000), 0, LATER_MS)
    refund = {"amount": "7", "id": "back"}
    error = await api.refused("POST", "/accounts/alice/refund", refund, 409)
    assert error["code"] == "insufficient_funds"
    assert error["message"].startswith("alice has only 6 credits that no running request holds")
    done = await api.ask("POST", "/accounts/alice/refund", refund | {"amount": "6"}, 201)
    assert done["account"]["available_nano"] == 0
    assert (await api.ask("POST", "/accounts/alice/refund", refund | {"amount": "6"}))[
        "result"
    ] == "exists"


async def test_a_worker_is_paid_what_it_earned(api: Api) -> None:
    await rich(api)
    await charged(api, "r", 1_000_000_000, fee_bp=1000)
    error = await api.refused("POST", "/accounts/worker:w/payout", {"amount": "1"}, 409)
    assert error["code"] == "insufficient_funds"
    paid = await api.ask("POST", "/accounts/worker:w/payout", {"amount": "0.9"}, 201)
    assert paid["account"]["balance_nano"] == 0
    await api.refused("POST", "/accounts/worker:w/top-up", {"amount": "1"})
    assert (await api.ask("GET", "/ledger/check"))["ok"]


@pytest.mark.parametrize(
    ("body", "param", "said"),
    [
        ({"amount": 10}, "amount", "valid string"),
        ({"amount": 10.5}, "amount", "valid string"),
        ({"amount_nano": 1.5}, "amount_nano", "valid integer"),
        ({"amount_nano": True}, "amount_nano", "valid integer"),
        ({"amount_nano": "5"}, "amount_nano", "valid integer"),
        ({"amount_nano": -5}, "amount_nano", "must be 0 to"),
        ({"amount_nano": 2**63}, "amount_nano", "must be 0 to"),
        ({"amount": "-1"}, "amount", "at most nine decimals"),
        ({"amount": "1e3"}, "amount", "at most nine decimals"),
        ({"amount": "1.0000000001"}, "amount", "at most nine decimals"),
        ({"amount": "9223372037"}, "amount", "too much"),
        ({"amount": "0"}, "amount", "above zero"),
        ({"amount": "1", "amount_nano": 1}, "amount", "not both"),
        ({}, "amount", "missing"),
        ({"amount": "1", "colour": "red"}, "colour", "unknown field"),
        ({"amount": "1", "note": "two\nlines"}, "note", "printable"),
        ({"amount": "1", "note": "a\u0000b"}, "note", "printable"),
        ({"amount": "1", "id": ""}, "id", "at least 1 character"),
    ],
)
async def test_what_is_no_amount_is_refused_by_name(
    api: Api, body: dict[str, object], param: str, said: str
) -> None:
    await rich(api)
    error = await api.refused("POST", "/accounts/alice/top-up", body)
    assert error["param"] == param
    assert said in error["message"]
    assert error["type"] == "invalid_request_error"
    assert (await api.ask("GET", "/accounts/alice"))["balance"] == "10"


async def test_accounts_are_listed_in_pages(api: Api) -> None:
    for name in ("c", "a", "b"):
        await api.ask("POST", "/accounts", {"name": name}, 201)
    first = await api.ask("GET", "/accounts?kind=client&limit=2")
    assert [each["name"] for each in first["data"]] == ["a", "b"]
    assert first["has_more"]
    rest = await api.ask("GET", "/accounts?kind=client&limit=2&after=client:b")
    assert [each["name"] for each in rest["data"]] == ["c"]
    assert not rest["has_more"]
    house = [each["id"] for each in (await api.ask("GET", "/accounts"))["data"]]
    assert {"fees", "shortfall", "treasury"} < set(house)


async def test_an_unknown_account_is_404(api: Api) -> None:
    for path in ("/accounts/bob", "/accounts/worker:bob"):
        assert (await api.refused("GET", path, status=404))["code"] == "account_not_found"
    error = await api.refused("POST", "/accounts/bob/top-up", {"amount": "1"}, 404)
    assert error["code"] == "account_not_found"
