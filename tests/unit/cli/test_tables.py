import os
import pty
import subprocess
import sys
from decimal import Decimal
from pathlib import Path

import pytest

import filature
from filature.cli.connect import CommandFailed
from filature.cli.tables import Column, credits_text, printable, show_fields, show_json, show_table
from filature.cli.times import unix_ms

SOURCE = str(Path(filature.__file__).parents[1])
NOW_MS = 1_782_907_200_000


@pytest.mark.parametrize(
    ("nano", "text"),
    [
        (0, "0.00"),
        (1, "0.000000001"),
        (10**9, "1.00"),
        (1_500_000_000, "1.50"),
        (-2_000_000_001, "-2.000000001"),
        (2**63 - 1, "9223372036.854775807"),
    ],
)
def test_credits_are_exact(nano: int, text: str) -> None:
    assert credits_text(nano) == text


def test_amounts_of_a_column_stand_below_each_other(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [("a", 1_000_000_000, 0), ("bb", 12_345_000_000, None), ("c", None, NOW_MS)]
    show_table([Column("name"), Column("cost", "amount"), Column("at", "time")], rows)
    assert capsys.readouterr().out.splitlines() == [
        "name    cost  at",
        "a      1.000  1970-01-01 00:00:00",
        "bb    12.345  -",
        "c          -  2026-07-01 12:00:00",
    ]


def test_a_plain_table_has_one_line_a_row(capsys: pytest.CaptureFixture[str]) -> None:
    show_table([Column("name"), Column("x")], [("n" * 500, "[bold]markup[/bold] :smile:")])
    (_, row) = capsys.readouterr().out.splitlines()
    assert row == "n" * 500 + "  [bold]markup[/bold] :smile:"


def test_what_could_command_a_terminal_is_not_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert printable("a\x1b[2J\r\nb\x9b\u202e") == "a�[2J��b��"
    show_table([Column("x")], [("a\x1b[2Jb",)])
    show_fields([("x", "text", "a\x1b[2Jb"), ("name", "amount", 5), ("none", "text", None)])
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert "name  0.000000005\n" in out
    assert "none  -\n" in out


def test_json_keeps_decimals(capsys: pytest.CaptureFixture[str]) -> None:
    show_json({"cost": Decimal("0.000000001"), "n": Decimal("1E+2")})
    assert capsys.readouterr().out == '{\n  "cost": 0.000000001,\n  "n": 100\n}\n'


@pytest.mark.parametrize("length", [40, 100])
def test_in_a_terminal_a_table_has_a_ruled_head_where_it_fits(length: int) -> None:
    code = (
        "from filature.cli.tables import *\n"
        f"show_table([Column('name'), Column('cost', 'amount')], [('n' * {length}, 5)])"
    )
    reader, writer = pty.openpty()
    environment = {**os.environ, "COLUMNS": "60", "TERM": "xterm", "PYTHONPATH": SOURCE}
    subprocess.run([sys.executable, "-c", code], stdout=writer, env=environment, check=True)
    os.close(writer)
    shown = b""
    while True:
        try:
            shown += os.read(reader, 65536)
        except OSError:  # how a terminal ends
            break
    os.close(reader)
    lines = shown.decode().splitlines()
    assert any("───" in line for line in lines) is (length == 40)
    (row,) = (line for line in lines if "nn" in line)
    assert row.split() == ["n" * length, "0.000000005"]


@pytest.mark.parametrize(
    ("text", "ms"),
    [
        ("2026-07-01", NOW_MS - 12 * 3_600_000),
        ("2026-07-01T12:00", NOW_MS),
        ("2026-07-01T12:00:00Z", NOW_MS),
        ("2026-07-01T14:00+02:00", NOW_MS),
        ("90m", NOW_MS - 90 * 60_000),
        ("24h", NOW_MS - 86_400_000),
        ("7d", NOW_MS - 7 * 86_400_000),
        ("5s", NOW_MS - 5000),
        (None, None),
    ],
)
def test_times(text: str | None, ms: int | None) -> None:
    assert unix_ms(text, NOW_MS, "--since") == ms


def test_times_ahead() -> None:
    assert unix_ms("1d", NOW_MS, "--expires", ahead=True) == NOW_MS + 86_400_000
    for text in ("", "d", "1w", "-1d", "yesterday", "2026-13-01"):
        with pytest.raises(CommandFailed, match="--expires: write a time") as failed:
            unix_ms(text, NOW_MS, "--expires")
        assert failed.value.status == 2
