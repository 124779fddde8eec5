import asyncio
import csv
import io
import json
import tracemalloc
from functools import partial
from typing import Any

import pytest
from sqlalchemy import Connection, insert, text, update
from tests.unit.admin.api import ALICE, LATER_MS, Api, charged, rich, usage_row

from filature.admin.checking import _check_stored
from filature.ledger.accounts import worker_account
from filature.ledger.outcomes import Outcome
from filature.store.batch import Batch
from filature.store.schema import ledger_accounts, transfers
from filature.units import HoldId, Nano


def _add(rows: list[dict[str, Any]], connection: Connection) -> None:
    connection.execute(insert(transfers), rows)


class TestCheck:
    async def test_a_sound_ledger(self, api: Api) -> None:
        await rich(api)
        await charged(api, "r", 1000, fee_bp=1000)
        api.store.ledger.hold(HoldId("open"), ALICE, Nano(5), 0, LATER_MS)
        report = await api.ask("GET", "/ledger/check")
        assert report["ok"]
        counted = (
            report["accounts"],
            report["transfers"],
            report["holds"],
            report["usage_records"],
        )
        assert counted == (5, 2, 1, 1)

    @pytest.mark.parametrize(
        ("damage", "subject"),
        [
            ("UPDATE transfers SET amount = 999 WHERE id = 'r'", "r"),
            ("UPDATE ledger_accounts SET credits = credits + 1 WHERE id = 'fees'", "fees"),
            (
                "UPDATE ledger_accounts SET debits = debits - 1 WHERE id = 'client:alice'",
                str(ALICE),
            ),
            ("DELETE FROM transfers WHERE id = 'r'", "r"),
            ("UPDATE usage_records SET total_cost = 999", "r"),
            ("UPDATE usage_records SET account = 'client:bob'", "r"),
            ("UPDATE usage_records SET outcome = 'engine_failed_midstream'", "r"),
            ("DELETE FROM ledger_accounts WHERE id = 'shortfall'", "shortfall"),
        ],
    )
    async def test_damage_is_found(self, api: Api, damage: str, subject: str) -> None:
        await rich(api)
        await charged(api, "r", 1000, fee_bp=1000)
        await api.store.writer.execute(text(damage))
        report = await api.ask("GET", "/ledger/check")
        assert not report["ok"]
        assert subject in [each["subject"] for each in report["violations"]]

    async def test_a_large_ledger_is_not_held_in_memory(self, api: Api) -> None:
        """A million transfers took 0.6 GB, in the process that serves."""
        await rich(api, "1")
        await charged(api, "r", 1000)
        note = "x" * 1000
        rows = [
            {"id": f"t{number}", "kind": "top-up", "debit": "treasury", "credit": ALICE}
            | {"amount": 1, "at_ms": 1, "fee": 0, "fee_bp": 0, "held": 0, "note": note}
            for number in range(20_000)
        ]
        await api.store.writer.call(partial(_add, rows))
        for side, account in (("debits", "treasury"), ("credits", ALICE)):
            moved = {side: text(f"{side} + {len(rows)}")}
            which = ledger_accounts.c.id == account
            await api.store.writer.execute(update(ledger_accounts).where(which).values(moved))
        del rows
        tracemalloc.start()
        try:
            stored = await api.store.reader.read(_check_stored)
            _, most = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert (stored.transfers, stored.violations) == (20_002, [])
        assert most < 10_000_000, "of 20 MB in notes alone"

    async def test_a_hold_that_is_open_and_charged_is_found(self, api: Api) -> None:
        await rich(api)
        await charged(api, "r", 1000)
        assert api.store.ledger.hold(HoldId("r"), ALICE, Nano(5), 0, LATER_MS) is Outcome.DONE
        report = await api.ask("GET", "/ledger/check")
        assert [(each["subject"], each["message"]) for each in report["violations"]] == [
            ("r", "open and charged")
        ]

    async def test_memory_that_is_ahead_of_what_is_stored_is_found(self, api: Api) -> None:
        await rich(api)
        api.store.ledger.state.accounts[ALICE].credits = Nano(10_000_000_001)
        report = await api.ask("GET", "/ledger/check")
        assert sorted({each["invariant"] for each in report["violations"]}, reverse=True) == [
            "debits equal credits",
            "cached balances equal recomputed ones",
        ]

    async def test_an_open_hold_that_was_charged_is_found(self, api: Api) -> None:
        await rich(api)
        await charged(api, "r", 10)
        await api.store.writer.execute(text("UPDATE transfers SET id = 'open' WHERE id = 'r'"))
        api.store.ledger.hold(HoldId("open"), ALICE, Nano(5), 0, LATER_MS)
        report = await api.ask("GET", "/ledger/check")
        found = {(each["subject"], each["message"]) for each in report["violations"]}
        assert ("open", "open and charged") in found

    async def test_corrections_and_reversals_are_no_violations(self, api: Api) -> None:
        await rich(api)
        await charged(api, "r", 1000, fee_bp=1000)
        await api.ask("POST", "/ledger/transfers/r/correct", {"amount_nano": 300}, 201)
        ledger = api.store.ledger
        ledger.hold(HoldId("s"), ALICE, Nano(50), 0, LATER_MS)
        ledger.settle(HoldId("s"), worker_account("w"), Nano(50), usage_row("s", 50), None)
        ledger.reverse(HoldId("s"), Nano(50), usage_row("s", 0), "not told")
        await ledger.flush()
        report = await api.ask("GET", "/ledger/check")
        assert report["violations"] == []

    async def test_it_is_sound_at_every_moment_of_work(self, either: Api) -> None:
        await rich(either)

        async def work() -> None:
            for number in range(300):
                await charged(either, f"r{number}", 1000 + number, fee_bp=700)

        task = asyncio.create_task(work())
        checks = 0
        while not task.done() or not checks:
            report = await either.ask("GET", "/ledger/check")
            assert report["violations"] == []
            checks += 1
        await task
        assert (await either.ask("GET", "/ledger/check"))["transfers"] == 301

    async def test_while_nothing_can_be_stored_it_says_so(self, api: Api) -> None:
        api.store.writer.failing = "the disk is full"
        error = await api.refused("GET", "/ledger/check", status=503)
        assert "the disk is full" in error["message"]
        api.store.writer.failing = None


class TestExport:
    async def test_all_transfers_as_lines_of_json(
        self, api: Api, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("filature.admin.ledger.PAGE_ROWS", 2)
        await rich(api)
        for number in range(5):
            await charged(api, f"r{number}", 1000, fee_bp=1000)
        answer = await api.client.get("/admin/v1/ledger/export")
        assert answer.headers["content-type"] == "application/jsonl"
        rows = [json.loads(line) for line in answer.text.splitlines()]
        assert [row["id"] for row in rows] == ["first", "r0", "r1", "r2", "r3", "r4"]
        assert [row["seq"] for row in rows] == sorted(row["seq"] for row in rows)
        assert (rows[1]["amount_nano"], rows[1]["amount"]) == (1000, "0.000001")
        assert (rows[1]["fee_nano"], rows[1]["held_nano"]) == (100, 1000)
        assert rows[1]["at"] == "2026-07-01T12:00:00.000Z"
        behind = await api.client.get(f"/admin/v1/ledger/export?after_seq={rows[3]['seq']}")
        assert [json.loads(line)["id"] for line in behind.text.splitlines()] == ["r3", "r4"]

    async def test_one_accounts_as_csv(self, either: Api) -> None:
        await rich(either)
        await charged(either, "r", 1000)
        await either.ask("POST", "/accounts", {"name": "bob"}, 201)
        note = {"amount": "1", "id": "b", "note": 'said "hi", twice'}
        await either.ask("POST", "/accounts/bob/top-up", note, 201)
        answer = await either.client.get("/admin/v1/ledger/export?format=csv&account=bob")
        (row,) = csv.DictReader(io.StringIO(answer.text))
        assert (row["id"], row["note"], row["credit"]) == ("b", 'said "hi", twice', "client:bob")
        assert (row["amount"], row["amount_nano"], row["corrects"]) == ("1", "1000000000", "")

    async def test_what_is_empty_has_its_header(self, api: Api) -> None:
        answer = await api.client.get("/admin/v1/ledger/export?format=csv")
        assert answer.text.count("\n") == 1
        assert answer.text.startswith("seq,id,kind,")
        await api.refused("GET", "/ledger/export?format=xml")
        await api.refused("GET", "/ledger/export?account=bob", status=404)

    async def test_it_ends_with_what_was_there_when_it_began(
        self, api: Api, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("filature.admin.ledger.PAGE_ROWS", 1)
        await rich(api)
        await charged(api, "r", 1000)
        read = api.store.reader.read
        reads = 0

        async def busy(function):  # type: ignore[no-untyped-def]
            nonlocal reads
            found = await read(function)
            reads += 1
            await charged(api, f"new{reads}", 1)
            return found

        monkeypatch.setattr(api.store.reader, "read", busy)
        answer = await api.client.get("/admin/v1/ledger/export")
        assert [json.loads(line)["id"] for line in answer.text.splitlines()] == ["first", "r"]


async def test_trial_balance(api: Api) -> None:
    await rich(api)
    await charged(api, "r", 1000, fee_bp=1000)
    api.store.ledger.hold(HoldId("open"), ALICE, Nano(5), 0, LATER_MS)
    balance = await api.ask("GET", "/ledger/balance")
    assert balance["balanced"]
    total = balance["total"]
    assert total["debits_nano"] == total["credits_nano"] == 10_000_001_000
    assert total["held_debits_nano"] == total["held_credits_nano"] == 5
    fees = next(line for line in balance["lines"] if line["name"] == "fees")
    assert (fees["credits"], fees["credits_nano"]) == ("0.0000001", 100)


async def test_a_transfer_is_corrected_once_by_its_id(api: Api) -> None:
    await rich(api)
    asked = {"amount": "4", "id": "mend"}
    done = await api.ask("POST", "/ledger/transfers/first/correct", asked, 201)
    assert (done["kind"], done["corrects"], done["amount"]) == ("correction", "first", "4")
    assert await api.ask("POST", "/ledger/transfers/first/correct", asked) == done
    more = await api.refused("POST", "/ledger/transfers/first/correct", {"amount": "7"}, 409)
    assert more["code"] == "exceeds_transfer"
    assert (await api.refused("POST", "/ledger/transfers/x/correct", {"amount": "7"}, 404))[
        "code"
    ] == "transfer_not_found"
    await api.refused("POST", "/ledger/transfers/mend/correct", {"amount": "1"})
    assert (await api.ask("GET", "/accounts/alice"))["balance"] == "6"


async def test_transfers_in_pages(api: Api) -> None:
    await rich(api)
    await charged(api, "r", 1)
    first = await api.ask("GET", "/ledger/transfers?limit=1")
    assert ([each["id"] for each in first["data"]], first["has_more"]) == (["first"], True)
    rest = await api.ask("GET", f"/ledger/transfers?after_seq={first['data'][0]['seq']}")
    assert ([each["id"] for each in rest["data"]], rest["has_more"]) == (["r"], False)
    assert (await api.ask("GET", "/ledger/transfers/r"))["amount_nano"] == 1
    await api.refused("GET", "/ledger/transfers/zzz", status=404)


def test_a_batch_without_rows_can_be_waited_for() -> None:
    """``check`` flushes when nothing waits."""
    batch = Batch()
    batch.committed.append(lambda: None)
    assert batch
