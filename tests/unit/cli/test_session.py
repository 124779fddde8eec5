"""What becomes of errors that commands do not expect."""

import errno

import typer
from typer.testing import CliRunner

from filature.cli.session import Session, command, group


def test_an_error_of_a_file_is_not_taken_for_one_of_the_output() -> None:
    def breaks(session: Session) -> None:
        """Break."""
        raise PermissionError(errno.EACCES, "Permission denied", "/some/file")

    app = typer.Typer()
    command(group(app, "things", "Things."), breaks)
    result = CliRunner().invoke(app, ["things", "breaks"])
    assert isinstance(result.exception, PermissionError)
    assert "output" not in result.stderr
