"""What commands say on machines that lack something: a home, files that can be read, text in an argument."""

import io
import os
import ssl
import subprocess
import sys
from pathlib import Path
from typing import Final, NoReturn

import pytest
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)
from typer.testing import CliRunner

import filature
from filature.cli.main import app
from filature.proxy.certificate import Certificate

TLS: Final = Path(__file__).parents[2] / "data" / "tls"
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


@pytest.mark.parametrize("setting", ["tls_cert", "tls_key", "engine_ca"])
def test_a_file_that_this_user_may_not_read_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, setting: str
) -> None:
    """By the variable: of an option's file it is looked at before."""
    file = tmp_path / "file.pem"
    file.touch()
    files = dict.fromkeys(("FILATURE_TLS_CERT", "FILATURE_TLS_KEY"), str(TLS / "cert.pem"))
    env = files | {f"FILATURE_{setting}".upper(): str(file)}
    may = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: path != file and may(path, mode))
    said = refused("up", "--engine", "http://e:1", env=dict(env))
    option = setting.replace("_", "-")
    assert said == f"filature up: --{option}: {file} may not be read by this user\n"


def test_an_encrypted_key_that_nobody_can_be_asked_for_is_told_so(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    key = load_pem_private_key((TLS / "key.pem").read_bytes(), None)
    encrypted = tmp_path / "key.pem"
    form = (Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret"))
    encrypted.write_bytes(key.private_bytes(*form))
    with pytest.raises(ssl.SSLError, match="the key has a passphrase"):
        Certificate(TLS / "cert.pem", encrypted)


@pytest.mark.parametrize(
    "words",
    [
        ("account", "create", "m\udce4x"),
        ("account", "show", "m\udce4x"),
        ("usage", "list", "--model", "m\udce4x"),
        ("price", "alias", "a", "m\udce4x"),
    ],
)
def test_bytes_that_are_no_text_are_refused(tmp_path: Path, words: tuple[str, ...]) -> None:
    env = {"FILATURE_DATA_DIR": str(tmp_path), "FILATURE_ADMIN_URL": None}
    assert CliRunner(env=env).invoke(app, ["db", "upgrade"]).exit_code == 0
    assert "is no text in this locale" in refused(*words, env=dict(env))


@pytest.mark.parametrize(
    "tls", [(), ("--tls-cert", TLS / "cert.pem", "--tls-key", TLS / "key.pem")]
)
@pytest.mark.parametrize("host", ["a\x01b", "a..b"])
def test_a_host_that_is_no_address_is_named(
    tmp_path: Path, host: str, tls: tuple[str | Path, ...]
) -> None:
    words = ["proxy", "--host", host, "--port", "0", "--data-dir", str(tmp_path), *map(str, tls)]
    environment = os.environ | {"PYTHONPATH": str(Path(filature.__file__).parents[1])}
    command = [sys.executable, "-m", "filature", *words]
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 1
    assert f"filature proxy: cannot listen: {host!r} is no address here: " in done.stderr


def test_a_variable_that_is_no_setting_is_named() -> None:
    """And those that are one are not."""
    env = {
        "FILATURE_KEYLES": "false",
        "FILATURE_WORKER_TOKN": "t",
        "FILATURE_ADMIN_URL": "http://a",
    }
    env |= {"FILATURE_WORKER_TOKEN": "t", "FILATURE_HOST": "127.0.0.1"}
    result = CliRunner(env=env).invoke(app, ["up", "--engine", "nothing"])
    assert result.exit_code == 2
    *named, _ = result.stderr.splitlines()
    unknown = ["FILATURE_KEYLES", "FILATURE_WORKER_TOKN"]
    assert named == [f"filature up: {name} is no setting: see docs/settings.md" for name in unknown]
