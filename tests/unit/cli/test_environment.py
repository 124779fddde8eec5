"""What commands say on machines that lack something: a home, files that can be read, text in an argument."""

from pathlib import Path
from typing import NoReturn

import pytest
from typer.testing import CliRunner

from filature.cli.main import app

WORKER = ("worker", "--proxy", "http://p:1", "--token", "t", "--engine", "http://e:1")


def refused(*words: str, env: dict[str, str | None] | None = None, status: int = 2) -> str:
    result = CliRunner(env=env).invoke(app, words)
    assert isinstance(result.exception, SystemExit), result.exception
    assert result.exit_code == status, result.output
    assert len(result.stderr.splitlines()) == 1
    return result.stderr


@pytest.mark.parametrize(
    ("words", "status"),
    [
        (("up", "--engine", "http://e:1"), 2),
        (WORKER, 2),
        (("worker", "change", "--coefficient", "1"), 2),
        (("account", "list"), 1),
    ],
)
def test_a_user_without_a_home_is_told_what_to_give(
    monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], status: int
) -> None:
    def home() -> NoReturn:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", home)
    names = ("XDG_DATA_HOME", "FILATURE_DATA_DIR", "FILATURE_WORKER_DATA_DIR", "FILATURE_DATABASE")
    said = refused(*words, env=dict.fromkeys(names), status=status)
    assert "give a folder by --data-dir" in said
