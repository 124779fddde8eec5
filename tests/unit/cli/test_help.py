import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.unit.cli.calling import Caller

import filature

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
