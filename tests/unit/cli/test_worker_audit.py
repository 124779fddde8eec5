"""``filature worker audit`` and ``clear``."""

import asyncio
from collections.abc import Iterator

import pytest
from tests.unit.admin.joined import Joined
from tests.unit.cli.calling import Caller, rows
from tests.unit.cli.serving import Running, serving

from filature.store.marks import SUSPENDED, Mark

AT_MS = 1_782_907_200_000


@pytest.fixture
def running(cli: Caller) -> Iterator[Running]:
    with serving(cli.folder, Joined()) as running:
        yield running


def mark(running: Running, kind: str, detail: str) -> None:
    putting = running.store.marks.put(Mark("gpu", "silk", kind, AT_MS, detail))
    asyncio.run_coroutine_threadsafe(putting, running.loop).result(20)


def test_what_is_held_against_a_worker(cli: Caller, running: Running) -> None:
    mark(running, "completion", '{"samples":8,"claimed":900,"allowed":100}')
    mark(running, "exceeded", "{}")
    marks, samples = cli.said("worker", "audit", "gpu").split("sampled")
    time = ["2026-07-01", "12:00:00"]
    assert sorted(rows(marks)) == [
        ["completion", "silk", "8", "900", "100", *time],
        ["exceeded", "silk", "-", "-", "-", *time],
    ]
    assert rows(samples) == [["completion", "silk", "8", "900", "100"]]
    assert len(cli.answer("worker", "audit", "gpu")["marks"]) == 2
    assert rows(cli.said("worker", "list"))[0][:4] == ["gpu", "ready", "completion,", "exceeded"]


def test_cleared(cli: Caller, running: Running) -> None:
    mark(running, "completion", "{}")
    mark(running, SUSPENDED, "{}")
    cli.said("worker", "disable", "gpu")
    assert cli.said("worker", "clear", "gpu") == "Nothing is held against gpu; it is ready.\n"
    assert cli.answer("worker", "clear", "gpu")["marks"] == []
    assert "not marked" in cli.said("worker", "audit", "gpu")


def test_enabled_though_marked(cli: Caller, running: Running) -> None:
    mark(running, SUSPENDED, "{}")
    assert cli.said("worker", "enable", "gpu") == "gpu gets requests again.\n"
    mark(running, "completion", "{}")
    mark(running, SUSPENDED, "{}")
    said = cli.said("worker", "enable", "gpu")
    assert "It stays marked for completion:" in said
    assert "filature worker clear gpu" in said


def test_without_a_proxy(cli: Caller) -> None:
    cli.said("worker-token", "create", "gpu")
    said = cli.said("worker", "audit", "gpu")
    assert "not marked for anything" in said
    assert "Nothing of it was sampled" in said
    assert cli.said("worker", "clear", "gpu") == "Nothing is held against gpu; it is away.\n"
    for command in ("audit", "clear"):
        assert "no worker 'nobody'" in cli.failed("worker", command, "nobody")
