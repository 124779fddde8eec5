"""``filature worker change``: for the worker that runs on this machine."""

from pathlib import Path

import pytest
from tests.unit.cli.calling import Caller

from filature.worker.settings import OUTBOX_FILE
from filature.worker.terms import Change, read_change


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    place = tmp_path / "worker"
    place.mkdir()
    (place / OUTBOX_FILE).touch()
    return place


def test_what_is_said_is_added_to_what_was_said(cli: Caller, folder: Path) -> None:
    said = cli.said("worker", "change", "--coefficient", "900", "--data-dir", str(folder))
    assert "coefficient 900" in said
    cli.said("worker", "change", "--max-requests", "3", "--data-dir", str(folder))
    assert read_change(folder) == Change(coefficient=900, max_requests=3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "give --coefficient"),
        (["--coefficient", "-1"], "--coefficient: "),
        (["--max-requests", "0"], "--max-requests: "),
    ],
)
def test_what_cannot_be(cli: Caller, folder: Path, options: list[str], message: str) -> None:
    assert message in cli.failed("worker", "change", *options, "--data-dir", str(folder), status=2)
    assert read_change(folder) == Change()


def test_a_folder_of_nobody_s_worker(cli: Caller, tmp_path: Path) -> None:
    options = ("--coefficient", "1", "--data-dir", str(tmp_path))
    said = cli.failed("worker", "change", *options, status=2)
    assert "is no worker's data directory" in said
    options = ("--coefficient", "1", "--data-dir", "x" * 300)
    assert "File name too long" in cli.failed("worker", "change", *options)


def test_the_folder_that_the_worker_is_told_by_its_variable(cli: Caller, folder: Path) -> None:
    cli.env["FILATURE_WORKER_DATA_DIR"] = str(folder)
    cli.said("worker", "change", "--coefficient", "900")
    assert read_change(folder) == Change(coefficient=900)
