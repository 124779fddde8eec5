"""Commands called for real on a data directory of a test's own."""

import json
from pathlib import Path
from typing import Any

from typer.testing import CliRunner, Result

from filature.cli.main import app

_PLACES = ("DATA_DIR", "DATABASE", "ADMIN_URL", "ADMIN_TOKEN", "ENGINES")


class Caller:
    """``said`` and ``answer`` are for commands that do what they are asked."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.env: dict[str, str | None] = dict.fromkeys(f"FILATURE_{name}" for name in _PLACES)
        self.env["FILATURE_DATA_DIR"] = str(folder)

    def run(self, *arguments: str) -> Result:
        result = CliRunner(env=self.env).invoke(app, arguments)
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result

    def begin(self) -> None:
        """A ledger in which nothing is yet."""
        self.said("db", "upgrade")

    def said(self, *arguments: str, status: int = 0) -> str:
        result = self.run(*arguments)
        assert result.exit_code == status, result.output
        assert not result.stderr
        return result.stdout

    def answer(self, *arguments: str, status: int = 0) -> Any:
        return json.loads(self.said(*arguments, "--json", status=status))

    def failed(self, *arguments: str, status: int = 1) -> str:
        """What is on stderr: a line, which says which command it was."""
        result = self.run(*arguments)
        assert result.exit_code == status, result.output
        assert not result.stdout
        assert len(result.stderr.splitlines()) == 1
        return result.stderr


def rows(table: str) -> list[list[str]]:
    """A plain table's lines as words, without its head."""
    return [line.split() for line in table.splitlines()[1:]]
