"""``filature worker statement verify``: what is owed, and who says so; nobody is asked."""

import json
from pathlib import Path
from typing import Any

import pytest
from tests.unit.cli.calling import Caller

from filature.wire.statement import SigningKey, Statement, key_set
from filature.worker.statements import KEYS_FILE

URL = "https://proxy.example"
KEY, OTHER = SigningKey(bytes(range(32))), SigningKey(bytes(32))


def signed(key: SigningKey = KEY) -> str:
    return key.sign(
        Statement(
            iss=key.public.issuer,
            sub="gpu",
            iat=1_782_907_200,
            earned_nano=5 * 10**9,
            paid_nano=2 * 10**9,
            corrected_nano=10**9,
            requests=12,
            seq=15,
        )
    )


@pytest.fixture
def file(tmp_path: Path) -> Path:
    pinned = {URL: key_set([KEY.public]), "https://other.example": key_set([OTHER.public])}
    (tmp_path / KEYS_FILE).write_text(json.dumps(pinned))
    file = tmp_path / "statement.jws"
    file.write_text(signed() + "\n")
    return file


def verify(cli: Caller, *words: object) -> dict[str, str]:
    said = cli.said("worker", "statement", "verify", *map(str, words))
    return dict(line.split("  ", 1) for line in said.splitlines())


def test_what_is_owed(cli: Caller, file: Path) -> None:
    shown = {name.strip(): value.strip() for name, value in verify(cli, file).items()}
    assert shown == {
        "worker": "gpu",
        "proxy": URL,
        "signed by": KEY.public.id,
        "as of (UTC)": "2026-07-01 12:00:00",
        "requests": "12",
        "earned": "5.00",
        "paid": "2.00",
        "corrected": "1.00",
        "owed": "2.00",
    }
    answer: Any = cli.answer("worker", "statement", "verify", str(file))
    assert (answer["owed_nano"], answer["proxy"], answer["seq"]) == (2 * 10**9, URL, 15)
    file.write_text(signed(OTHER))
    answer = cli.answer("worker", "statement", "verify", str(file))
    assert answer["proxy"] == "https://other.example"


def test_the_key_may_be_given(cli: Caller, file: Path, tmp_path: Path) -> None:
    (tmp_path / KEYS_FILE).unlink()
    path = tmp_path / "key.json"
    path.write_text(json.dumps(key_set([KEY.public])))
    for given in (KEY.public.x, json.dumps(KEY.public.as_jwk()), path.read_text(), path):
        assert "gpu" in verify(cli, file, "--proxy-key", given)["worker"]
    words = ("worker", "statement", "verify", str(file), "--proxy-key")
    assert "names another key" in cli.failed(*words, OTHER.public.x)
    assert "the proxy's key" in cli.failed(*words, "nothing", status=2)
    assert "give the proxy's key by --proxy-key" in cli.failed(*words[:-1], status=2)


def test_a_given_key_counts_and_not_the_pinned_one(cli: Caller, file: Path) -> None:
    words = ("worker", "statement", "verify", str(file), "--proxy-key", OTHER.public.x)
    assert "NOT a statement of this proxy" in cli.failed(*words)


def test_a_forged_one_ends_with_status_1(cli: Caller, file: Path) -> None:
    header, body, signature = signed().split(".")
    _, other_body, _ = signed(OTHER).split(".")
    for text in (
        f"{header}.{other_body}.{signature}",
        f"{header}.{body}.{signature[::-1]}",
        f"{header}.{body}.",
        signed(SigningKey(b"\1" * 32)),
        "nothing",
        "",
    ):
        file.write_text(text)
        said = cli.failed("worker", "statement", "verify", str(file))
        assert "NOT a statement of this proxy" in said


def test_what_is_not_there_is_said(cli: Caller, tmp_path: Path, file: Path) -> None:
    missing = str(tmp_path / "missing")
    said = cli.failed("worker", "statement", "verify", missing, status=2)
    assert said.endswith(f"{missing} cannot be read: No such file or directory\n")
    (tmp_path / KEYS_FILE).write_text("{")
    said = cli.failed("worker", "statement", "verify", str(file), status=2)
    assert "the proxy's key" in said
