import csv
import io
import json
import sqlite3
from pathlib import Path

import pytest
from tests.unit.cli.calling import Caller, rows


@pytest.fixture(autouse=True)
def _alice(cli: Caller) -> None:
    cli.said("account", "create", "alice")
    cli.said("account", "top-up", "alice", "10", "--id", "first", "--note", "a, b")


def test_a_sound_ledger(cli: Caller) -> None:
    said = cli.said("ledger", "check")
    assert said == "Sound: 4 accounts, 1 transfers, 0 holds, 0 usage records.\n"
    assert cli.answer("ledger", "check")["ok"] is True


def test_a_damaged_one_is_status_1(cli: Caller) -> None:
    with sqlite3.connect(cli.folder / "filature.db") as database:
        database.execute("UPDATE transfers SET amount = amount + 1")
    database.close()
    said = cli.said("ledger", "check", status=1)
    assert said.startswith("NOT sound: 4 accounts")
    assert "cached balances equal recomputed ones" in said
    assert "client:alice" in said
    assert cli.answer("ledger", "check", status=1)["ok"] is False


def test_an_export(cli: Caller, tmp_path: Path) -> None:
    (line,) = cli.said("ledger", "export").splitlines()
    assert json.loads(line)["amount_nano"] == 10_000_000_000
    assert cli.said("ledger", "export", "--json", "--account", "fees") == ""
    file = tmp_path / "export.csv"
    assert cli.said("ledger", "export", "--format", "csv", "--output", str(file)) == ""
    (row,) = csv.DictReader(io.StringIO(file.read_text()))
    assert (row["id"], row["amount"], row["note"]) == ("first", "10", "a, b")
    assert file.stat().st_mode & 0o777 == 0o600
    assert [each.name for each in tmp_path.iterdir() if each.is_file()] == ["export.csv"]


def test_an_export_that_fails_leaves_nothing(cli: Caller, tmp_path: Path) -> None:
    file = tmp_path / "export"
    failed = cli.failed("ledger", "export", "--account", "bob", "--output", str(file))
    assert "There is no account" in failed
    assert not list(tmp_path.glob("export*"))
    nowhere = str(tmp_path / "no" / "folder")
    assert "No such file" in cli.failed("ledger", "export", "--output", nowhere)
    failed = cli.failed("ledger", "export", "--json", "--format", "csv", status=2)
    assert "give one of them" in failed


def test_the_trial_balance(cli: Caller) -> None:
    table = rows(cli.said("ledger", "balance"))
    assert table[0] == ["client:alice", "0.00", "10.00", "0.00", "0.00"]
    assert table[-1] == ["total", "10.00", "10.00", "0.00", "0.00"]
    assert cli.answer("ledger", "balance")["balanced"] is True


def test_a_correction(cli: Caller) -> None:
    correct = ("ledger", "correct", "first", "4", "--id", "mend", "--note", "typed wrong")
    said = cli.said(*correct)
    assert said == "Gave 4.00 credits back from client:alice to treasury (id mend).\n"
    assert cli.answer(*correct)["note"] == "typed wrong"
    assert cli.answer("account", "show", "alice")["balance"] == "6"
    assert "more than what is left" in cli.failed("ledger", "correct", "first", "7")
    assert "no such transfer" in cli.failed("ledger", "correct", "second", "1")
    cli.said("ledger", "check")
