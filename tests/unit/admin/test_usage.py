import threading
from types import SimpleNamespace

import pytest
from tests.unit.admin.api import NOW_MS, Api, charged, rich

from filature.admin import usage
from filature.telemetry.record import UsageRecord

DAY_MS = 86_400_000


async def test_records_are_shown_as_to_clients(api: Api) -> None:
    await rich(api)
    await charged(api, "r1", 123)
    shown = await api.ask("GET", "/usage/r1")
    assert (shown["id"], shown["object"], shown["account"]) == ("r1", "usage_record", "alice")
    assert shown["usage"]["total_cost"] == 123
    assert '"cost":0.000000123' in (await api.client.get("/admin/v1/usage/r1")).text
    for path in ("/usage/r2", "/usage/a%00b"):
        assert (await api.refused("GET", path, status=404))["code"] == "usage_not_found"


async def test_records_are_not_written_on_the_event_loop(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ten thousand of them took it 0.4 s, in which no answer went on."""
    await rich(api)
    await charged(api, "r1", 1)
    threads = []
    from_log = UsageRecord.from_log

    def told(line: str) -> UsageRecord:
        threads.append(threading.current_thread())
        return from_log(line)

    monkeypatch.setattr(usage, "UsageRecord", SimpleNamespace(from_log=told))
    (shown,) = (await api.ask("GET", "/usage"))["data"]
    assert shown == await api.ask("GET", "/usage/r1")
    assert threads[0] is not threading.main_thread()


async def test_the_latest_come_first_and_filters_hold(api: Api) -> None:
    await rich(api)
    await charged(api, "r1", 1)
    await charged(api, "r2", 2, started_ms=NOW_MS + 5, model="other")
    await charged(api, "r3", 3, started_ms=NOW_MS + DAY_MS)

    async def ids(query: str) -> list[str]:
        return [each["id"] for each in (await api.ask("GET", f"/usage{query}"))["data"]]

    assert await ids("") == ["r3", "r2", "r1"]
    assert await ids("?model=other&account=alice&outcome=completed") == ["r2"]
    assert await ids(f"?since_ms={NOW_MS + 5}&until_ms={NOW_MS + DAY_MS}") == ["r2"]
    for path in ("/usage?account=bob", "/usage/sums?by=day&account=bob"):
        assert (await api.refused("GET", path, status=404))["code"] == "account_not_found"
    await api.ask("POST", "/accounts", {"name": "bob"}, 201)
    assert await ids("?account=bob") == []
    for limit, has_more in ((2, True), (3, False), (4, False), (10_000, False)):
        answer = await api.ask("GET", f"/usage?limit={limit}")
        assert (len(answer["data"]), answer["has_more"]) == (min(limit, 3), has_more)
    assert (await api.refused("GET", "/usage?limit=0"))["param"] == "limit"


@pytest.mark.parametrize(
    ("path", "param"),
    [
        ("/usage?since_ms=", "since_ms"),
        ("/usage?until_ms=", "until_ms"),
        ("/usage/sums?by=day&since_ms=", "since_ms"),
        ("/usage/sums?by=day&until_ms=", "until_ms"),
        ("/ledger/transfers?after_seq=", "after_seq"),
        ("/ledger/export?after_seq=", "after_seq"),
        ("/workers/w/earnings?since_ms=", "since_ms"),
    ],
)
async def test_numbers_that_no_database_has_are_refused(api: Api, path: str, param: str) -> None:
    for number in (2**63, -(2**63) - 1, 10**30):
        assert (await api.refused("GET", f"{path}{number}"))["param"] == param


async def test_sums(api: Api) -> None:
    await rich(api)
    await charged(api, "r1", 1)
    await charged(api, "r2", 2, started_ms=NOW_MS + DAY_MS, model="other")

    async def sums(query: str) -> list[tuple[str, int, int]]:
        answer = (await api.ask("GET", f"/usage/sums{query}"))["data"]
        return [(each["name"], each["requests"], each["cost_nano"]) for each in answer]

    assert await sums("?by=account") == [("alice", 2, 3)]
    assert await sums("?by=day") == [("2026-07-01", 1, 1), ("2026-07-02", 1, 2)]
    assert await sums(f"?by=model&since_ms={NOW_MS + 1}") == [("other", 1, 2)]
    await api.ask("POST", "/accounts", {"name": "bob"}, 201)
    assert await sums("?by=outcome&account=bob") == []
    assert (await api.refused("GET", "/usage/sums?by=colour"))["param"] == "by"
