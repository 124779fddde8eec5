"""``filature worker``'s commands for operators, and what the command itself refuses."""

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tests.unit.admin.joined import Joined
from tests.unit.cli.calling import Caller, rows
from tests.unit.cli.serving import Running, serving
from tests.unit.store.working import fail, rich, serve

from filature.cli.worker import Announcement
from filature.store.availability import WorkerDay

DAY_MS = 86_400_000


@pytest.fixture
def joined() -> Joined:
    return Joined()


@pytest.fixture
def running(cli: Caller, joined: Joined) -> Iterator[Running]:
    with serving(cli.folder, joined) as running:
        yield running


def test_what_workers_offer(cli: Caller, running: Running) -> None:
    cli.said("worker-token", "create", "abe")
    cli.said("price", "set", "silk", "--in", "2", "--out", "3")
    table = cli.said("worker", "list")
    assert table.splitlines()[0].split("  ")[0] == "worker"
    time = ["2026-07-01", "12:00:00"]
    standing = ["3/64", "32", "1.25", "9.9", *time]
    assert rows(table) == [
        ["abe", "away", *["-"] * 11],
        ["gpu", "ready", "-", "silk", "4096", "1.5", "3.00", "4.50", *standing],
        ["gpu", "ready", "-", "linen", "-", "1", "1.00", "2.00", *standing],
        ["gpu", "ready", "-", "wool", "-", "1", "-", "-", *standing],
    ]
    shown = cli.answer("worker", "list")["data"]
    assert [each["name"] for each in shown] == ["abe", "gpu"]


def test_disabled_enabled_and_drained(cli: Caller, running: Running, joined: Joined) -> None:
    assert cli.said("worker", "disable", "gpu") == "gpu gets no new requests.\n"
    assert cli.answer("worker", "list")["data"][0]["state"] == "disabled"
    assert cli.answer("worker", "enable", "gpu")["state"] == "ready"
    assert "until it is started anew" in cli.said("worker", "drain", "gpu")
    assert joined.told == [("gpu", "disable"), ("gpu", "enable"), ("gpu", "drain")]
    assert "when it is started anew: it is draining" in cli.said("worker", "enable", "gpu")


def test_without_a_proxy_one_can_be_disabled_and_not_drained(cli: Caller) -> None:
    cli.begin()
    assert "There are no workers yet" in cli.said("worker", "list")
    cli.said("worker-token", "create", "gpu")
    cli.said("worker", "disable", "gpu")
    assert rows(cli.said("worker", "list"))[0][:2] == ["gpu", "disabled"]
    cli.said("worker", "enable", "gpu")
    assert rows(cli.said("worker", "list"))[0][:2] == ["gpu", "away"]
    assert "has not joined" in cli.failed("worker", "drain", "gpu")
    assert "no worker 'nobody'" in cli.failed("worker", "disable", "nobody")


def test_a_variable_that_is_set_to_nothing_is_one_that_is_not_set(
    cli: Caller, running: Running
) -> None:
    cli.env |= {"FILATURE_ADMIN_URL": "", "FILATURE_ADMIN_TOKEN": "", "FILATURE_DATABASE": ""}
    for group in ("worker", "worker-token", "account"):
        cli.said(group, "list")


def test_earnings(cli: Caller, running: Running) -> None:
    async def work() -> None:
        store = running.store
        await rich(store)
        serve(store, "r1", "gpu", 10**8, fee_bp=1000, prompt=5, completion=7)
        now_ms = store.writer.wall_ms()
        fail(store, "r2", "gpu", "engine_failed", at_ms=now_ms)
        await store.worker_days.add(
            [WorkerDay("gpu", now_ms // 86_400_000, 5_400_000, 2_700_000, 3)]
        )
        await store.ledger.flush()

    asyncio.run_coroutine_threadsafe(work(), running.loop).result(20)
    said = cli.said("worker", "earnings", "gpu", "--since", "1d")
    row = rows(said)[0]
    assert row[1:] == ["m", "1", "1", "5", "7", "0.10", "0.01", "0.09", "1", "engine_failed"]
    assert said.splitlines()[-2].split()[1:] == ["1.50", "50%", "3"]
    assert "Owed to gpu: 0.09 credits, paid out so far: 0.00" in said.splitlines()[-1]
    assert cli.answer("worker", "earnings", "gpu")["data"][0]["earned_nano"] == 9 * 10**7
    head, line = cli.said("worker", "earnings", "gpu", "--csv").splitlines()
    assert head.startswith("day,model,settled,voided,")
    assert line.split(",")[1:5] == ["m", "1", "engine_failed=1", "5"]
    said = cli.said("worker", "earnings", "gpu", "--since", "2099-01-01")
    assert said.startswith("Nothing in this time.")
    assert "--csv" in cli.failed("worker", "earnings", "gpu", "--csv", "--json", status=2)


def test_earnings_of_a_worker_that_did_nothing(cli: Caller) -> None:
    cli.said("worker-token", "create", "gpu")
    said = cli.said("worker", "earnings", "gpu")
    assert "Nothing in this time." in said
    assert "Owed to gpu: 0" in said
    assert "no worker 'nobody'" in cli.failed("worker", "earnings", "nobody")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--token", "t", "--engine", "http://e"), "--proxy: is needed"),
        (("--proxy", "ftp://x", "--token", "t", "--engine", "http://e"), "write a proxy as https"),
        (("--proxy", "http://x", "--token", "t", "--engine", "nonsense"), "http://host:port"),
        (
            ("--proxy", "http://x", "--token", "t", "--engine", "http://e", "--max-requests", "0"),
            "--max-requests",
        ),
        (("--proxy", "http://x", "list"), "subcommand"),
    ],
)
def test_what_is_wrong_with_its_options_is_said(
    cli: Caller, words: tuple[str, ...], said: str
) -> None:
    cli.env |= {name: None for name in os.environ if name.startswith("FILATURE_")}
    assert said in cli.failed("worker", *words, status=2)


@pytest.mark.parametrize("reachable", [False, True])
async def test_what_a_worker_waits_for_is_said(
    reachable: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("filature.cli.worker._ENGINE_WAIT_S", 0)
    engine = SimpleNamespace(name="http://gpu:1", reachable=reachable, models={"m": None})
    waiting: Any = SimpleNamespace(engines=SimpleNamespace(engines=[engine]))
    await Announcement()._wait(waiting)
    said = capsys.readouterr().out
    assert ("http://gpu:1; asked again and again" in said) is not reachable


def test_its_own_data_dir_is_not_the_ledgers(cli: Caller, tmp_path: Path) -> None:
    cli.said("worker-token", "create", "gpu")
    other = Caller(tmp_path / "other")
    other.begin()
    assert "There are no workers" in cli.said("worker", "list", "--data-dir", str(other.folder))
    assert rows(cli.said("worker", "list"))[0][0] == "gpu"
