import asyncio
import re
from collections.abc import Callable
from typing import Any

import pytest
from tests.unit.admin.api import NOW_MS, Api, charged
from tests.unit.cli.calling import Caller, rows

from filature.store.store import Store


@pytest.fixture
def requests(cli: Caller) -> Callable[..., None]:
    """Has requests of Alice's stored: ``id=cost``."""
    cli.said("account", "create", "alice")
    cli.said("account", "top-up", "alice", "10")

    async def store_them(costs: dict[str, int], fields: dict[str, Any]) -> None:
        store = await Store.open(f"sqlite:///{cli.folder}/filature.db")
        for request, cost in costs.items():
            await charged(Api(store, None), request, cost, **fields)  # type: ignore[arg-type]
        await store.close()

    def call(model: str = "silk", started_ms: int = NOW_MS, **costs: int) -> None:
        asyncio.run(store_them(costs, {"model": model, "started_ms": started_ms}))

    return call


def test_requests_are_listed(cli: Caller, requests: Callable[..., None]) -> None:
    assert cli.said("usage", "list") == "There are no such requests.\n"
    requests(r1=123, r2=1_500_000_000)
    requests(r3=7, model="\x1b[31mred", started_ms=NOW_MS + 86_400_000)
    table = cli.said("usage", "list")
    assert "\x1b" not in table
    assert [row[2] for row in rows(table)] == ["r3", "r2", "r1"]
    head = ["2026-07-02", "12:00:00", "r3", "alice", "\N{REPLACEMENT CHARACTER}[31mred"]
    assert rows(table)[0][:5] == head
    assert rows(table)[1][-1] == "1.500000000"
    assert rows(table)[2][-1] == "0.000000123"
    only = cli.answer("usage", "list", "--model", "silk", "--until", "2026-07-02", "--limit", "1")
    assert [each["id"] for each in only["data"]] == ["r2"]
    cut = cli.run("usage", "list", "--limit", "2")
    assert [row[2] for row in rows(cut.stdout)] == ["r3", "r2"]
    assert "the latest 2 of more: --limit" in cut.stderr
    assert not cli.run("usage", "list", "--limit", "3").stderr
    late = cli.answer("usage", "list", "--since", "2026-07-02T00:00+00:00")
    assert [each["id"] for each in late["data"]] == ["r3"]
    assert cli.answer("usage", "list", "--account", "fees")["data"] == []
    for words in (("usage", "list"), ("usage", "sum")):
        assert "There is no account 'bob'" in cli.failed(*words, "--account", "bob")


def test_one_request(cli: Caller, requests: Callable[..., None]) -> None:
    requests(r1=123)
    shown = cli.said("usage", "show", "r1")
    assert "cost               0.000000123\n" in shown
    assert "time (UTC)         2026-07-01 12:00:00\n" in shown
    assert re.search(r"^whole answer, s    [0-9]+\.[0-9]{3}$", shown, re.MULTILINE)
    assert '"cost": 0.000000123\n' in cli.said("usage", "show", "r1", "--json")
    assert "There is no usage record" in cli.failed("usage", "show", "r2")


def test_sums(cli: Caller, requests: Callable[..., None]) -> None:
    assert cli.said("usage", "sum") == "There are no such requests.\n"
    requests(r1=1, r2=2)
    requests(r3=3, model="other", started_ms=NOW_MS + 86_400_000)
    assert rows(cli.said("usage", "sum")) == [
        ["2026-07-01", "2", "0.000000003"],
        ["2026-07-02", "1", "0.000000003"],
        ["total", "3", "0.000000006"],
    ]
    by_model = cli.answer("usage", "sum", "--by", "model", "--until", "2026-07-02")
    assert [(each["name"], each["requests"]) for each in by_model["data"]] == [("silk", 2)]
    assert cli.run("usage", "sum", "--by", "colour").exit_code == 2


def test_times_that_are_none(cli: Caller) -> None:
    cli.begin()
    assert "--since: write a time" in cli.failed("usage", "list", "--since", "now", status=2)
    assert cli.run("usage", "list", "--limit", "0").exit_code == 2
