import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from rich.text import Text
from tests.unit.cli.calling import Caller

import filature
from filature.cli.main import app

COMMANDS = {
    "account": {"create", "list", "show", "top-up", "refund", "payout"},
    "key": {"create", "list", "revoke"},
    "worker-token": {"create", "list", "revoke"},
    "worker": {"list", "disable", "enable", "drain", "earnings"},
    "payout": {"create", "list", "refuse"},
    "price": {"show", "set", "withdraw", "import", "alias", "unalias", "coefficient"},
    "usage": {"list", "show", "sum"},
    "ledger": {"check", "export", "balance", "correct"},
    "db": {"upgrade", "copy", "backup", "restore"},
}


@pytest.mark.parametrize("group", COMMANDS)
def test_every_command_has_help_and_the_shared_options(cli: Caller, group: str) -> None:
    shown = cli.said(group, "--help")
    for command in COMMANDS[group]:
        assert command in shown
        own = cli.said(group, command, "--help")
        for option in ("--json", "--data-dir", "--database", "--admin-url", "--admin-token"):
            assert option in own


def _texts(command: Any) -> Iterator[str]:
    """What help says of the command, of its options and of the commands below it."""
    yield command.help or ""
    for parameter in command.params:
        yield getattr(parameter, "help", None) or ""
    for below in getattr(command, "commands", {}).values():
        yield from _texts(below)


def test_no_part_of_a_help_text_is_taken_for_markup() -> None:
    texts = list(_texts(typer.main.get_command(app)))
    assert len(texts) > 100
    assert [Text.from_markup(text).plain for text in texts] == texts


def test_help_loads_none_of_the_libraries_that_take_long() -> None:
    code = (
        "import sys\n"
        "import filature.cli.main\n"
        "slow = {'fastapi', 'sqlalchemy', 'httpx', 'uvicorn', 'rich.table'}\n"
        "print(*(slow & sys.modules.keys()))"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(filature.__file__).parents[1])}
    call = [sys.executable, "-c", code]
    done = subprocess.run(call, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
