"""What ``filature db`` asks of ``store.upkeep``, which is tested by itself, and what it tells of it."""

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from tests.unit.cli.calling import Caller

from filature.errors import StoreError

POSTGRES = "postgresql://u:secret@h/d"


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[object, ...]]:
    """The calls; ``sqlite:///broken`` fails."""
    calls: list[tuple[object, ...]] = []

    def call(name: str, *arguments: object) -> None:
        if "sqlite:///broken" in arguments:
            raise StoreError("it is in use by process 7")
        calls.append((name, *arguments))

    names = ("upgrade", "copy", "backup", "restore")
    upkeep = SimpleNamespace(
        **{name: lambda *arguments, name=name: call(name, *arguments) for name in names}
    )
    monkeypatch.setitem(sys.modules, "filature.store.upkeep", upkeep)
    monkeypatch.setattr("filature.store.upkeep", upkeep, raising=False)
    return calls


def test_each_is_done_to_the_ledger_that_is_meant(
    cli: Caller, asked: list[tuple[object, ...]], tmp_path: Path
) -> None:
    own = f"sqlite:///{cli.folder}/filature.db"
    file = tmp_path / "b"
    assert cli.said("db", "upgrade") == f"{own} has this program's schema.\n"
    assert cli.said("db", "backup", str(file)) == f"Backed {own} up to {file}.\n"
    file.write_text("")
    assert "is there already" in cli.failed("db", "backup", str(file), status=2)
    cli.said("db", "restore", str(file), "--database", POSTGRES)
    said = cli.said("db", "copy", POSTGRES)
    assert "secret" not in said
    assert said.startswith(f"Copied {own} to postgresql+psycopg://u:***@h/d")
    assert asked == [
        ("upgrade", own),
        ("backup", own, file),
        ("restore", file, POSTGRES),
        ("copy", own, POSTGRES),
    ]


def test_as_json(cli: Caller, asked: list[tuple[object, ...]], tmp_path: Path) -> None:
    answer = cli.answer("db", "--database", POSTGRES, "backup", str(tmp_path / "b"))
    assert answer["database"] == "postgresql+psycopg://u:***@h/d"
    assert cli.answer("db", "upgrade")["object"] == "database"
    assert cli.answer("db", "copy", POSTGRES)["target"] == "postgresql+psycopg://u:***@h/d"
    assert len(asked) == 3


def test_what_cannot_be_done(cli: Caller, asked: list[tuple[object, ...]], tmp_path: Path) -> None:
    broken = ("--database", "sqlite:///broken")
    assert "in use by process 7" in cli.failed("db", "upgrade", *broken)
    assert "in use by process 7" in cli.failed("db", "backup", str(tmp_path / "b"), *broken)
    assert "no database's URL" in cli.failed("db", "copy", "nonsense")
    assert "there is no file" in cli.failed("db", "restore", str(tmp_path / "no"), status=2)
    for command in ("backup", "restore"):
        assert "File name too long" in cli.failed("db", command, "x" * 300, status=2)
    assert asked == []
