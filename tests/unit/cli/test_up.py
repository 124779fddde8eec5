import json
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr, ValidationError
from typer.testing import CliRunner, Result

import filature
from filature import __version__
from filature.cli.announce import authority, curl
from filature.cli.main import app
from filature.proxy.settings import ProxySettings
from filature.worker.settings import WorkerSettings


def run(*arguments: str) -> Result:
    return CliRunner(env={"FILATURE_ENGINES": None}).invoke(app, arguments)


def test_version() -> None:
    result = run("--version")
    assert (result.exit_code, result.stdout) == (0, f"filature {__version__}\n")


@pytest.mark.parametrize("command", ["up", "postprocess", "demo-engine"])
def test_help_of_each_command(command: str) -> None:
    result = run(command, "--help")
    assert result.exit_code == 0
    assert "Usage" in result.stdout


def test_a_name_that_the_locale_has_not_is_shown_all_the_same(tmp_path: Path) -> None:
    environment = os.environ | {"PYTHONIOENCODING": "latin-1", "FILATURE_DATA_DIR": str(tmp_path)}
    environment["PYTHONPATH"] = str(Path(filature.__file__).parents[1])
    command = [sys.executable, "-m", "filature", "price", "alias", "模型", "silk"]
    done = subprocess.run(command, env=environment, capture_output=True, check=False)
    assert (done.returncode, done.stdout) == (0, rb"\u6a21\u578b is silk." + b"\n"), done.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--engine", "localhost:8000"], "--engine: engine 'localhost:8000': write it as http://"),
        (["--engine", "ftp://h"], "write it as http://"),
        (["--engine", "http://h:port"], "the port is not a number"),
        (["--engine", "http://h", "--port", "70000"], "--port: "),
        (["--engine", "http://h", "--price-in", "much"], "--price-in: "),
        (["--engine", "http://h", "--price-in", "-1"], "--price-in: "),
        (["--engine", "http://h", "--price-out", "0.0000000001"], "at most nine decimals"),
        (["--engine", "http://h", "--price-in", "1e3"], "--price-in: write credits"),
        (["--engine", "http://h", "--price-in", "1e-400"], "--price-in: write credits"),
        (["--engine", "http://h", "--price-in", "+1"], "--price-in: write credits"),
        (["--engine", "http://h", "--price-in", "1_0"], "--price-in: write credits"),
        (["--engine", "http://h", "--price-in", "\N{ARABIC-INDIC DIGIT THREE}"], "--price-in: "),
        (["--engine", "http://h", "--tls-cert", "/nowhere"], "--tls-cert: there is no file"),
        (["--engine", "http://h", "--engine-ca", "/nowhere"], "--engine-ca: there is no file"),
        (["--engine", "http://h", "--engine-ca", "x" * 300], "xx: File name too long"),
    ],
)
def test_a_wrong_option_is_one_line_and_status_2(arguments: list[str], said: str) -> None:
    result = run("up", *arguments)
    assert result.exit_code == 2
    assert said in result.stderr
    assert "Traceback" not in result.output
    assert len(result.stderr.splitlines()) == 1


def test_all_wrong_options_are_named() -> None:
    result = run("up", "--engine", "nonsense", "--price-in", "-1")
    assert [line.split(": ")[1] for line in result.stderr.splitlines()] == [
        "--engine",
        "--price-in",
    ]


def test_a_wrong_setting_is_named_as_it_was_given() -> None:
    env = {"FILATURE_FEE_BP": "10001", "FILATURE_PRICE_IN": "1,5"}
    result = CliRunner().invoke(app, ["up", "--engine", "http://h"], env=env)
    assert result.exit_code == 2
    assert [line.split(": ")[1] for line in result.stderr.splitlines()] == [
        "FILATURE_PRICE_IN",
        "FILATURE_FEE_BP",
    ]


def test_a_variable_set_to_nothing_is_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for kind in (ProxySettings, WorkerSettings):
        for name in kind.model_fields:
            monkeypatch.delenv(f"{kind.model_config['env_prefix']}{name}".upper(), raising=False)
    worker: dict[str, Any] = {"token": "fil-wrk-x", "proxies": ["http://p"]}
    worker["engines"] = ["http://e"]
    proxy: dict[str, Any] = {}
    for kind, given in ((ProxySettings, proxy), (WorkerSettings, worker)):
        unset = kind(**given)
        for name in kind.model_fields:
            monkeypatch.setenv(f"{kind.model_config['env_prefix']}{name}".upper(), "")
        assert kind(**given) == unset


@pytest.mark.parametrize("name", ["host", "admin_host"])
def test_nothing_is_no_address_for_it_would_be_all_of_them(name: str) -> None:
    with pytest.raises(ValidationError, match="at least 1 character"):
        ProxySettings.model_validate({name: ""})


def test_an_admin_token_is_what_a_header_can_say() -> None:
    token = ProxySettings(admin_token=SecretStr(" secret\n")).admin_token
    assert token is not None
    assert token.get_secret_value() == "secret"
    assert ProxySettings(admin_token=SecretStr(" ")).admin_token is None
    for wrong in ("two words", "schlüssel"):
        result = CliRunner().invoke(
            app, ["up", "--engine", "http://h"], env={"FILATURE_ADMIN_TOKEN": wrong}
        )
        assert result.exit_code == 2
        assert result.stderr.startswith("filature up: FILATURE_ADMIN_TOKEN: ")
        assert wrong not in result.stderr


def test_the_curl_to_paste_is_one_shell_word_per_argument() -> None:
    words = shlex.split(curl("http://127.0.0.1:1", "it's a model", keyless=True))
    assert words[0] == "curl"
    assert words[-1] == "http://127.0.0.1:1/v1/chat/completions"
    body = json.loads(words[words.index("-d") + 1])
    assert body["model"] == "it's a model"
    assert body["stream"] is True
    assert not any("Authorization" in word for word in words)


def test_where_requests_need_a_key_the_curl_has_a_place_for_it() -> None:
    words = shlex.split(curl("http://127.0.0.1:1", "m", keyless=False))
    assert words[words.index("-H") + 1] == "Authorization: Bearer sk-fil-…"


@pytest.mark.parametrize(
    ("host", "told"),
    [
        ("0.0.0.0", "127.0.0.1:7"),
        ("::", "[::1]:7"),
        ("::1", "[::1]:7"),
        ("proxy.example", "proxy.example:7"),
    ],
)
def test_the_address_that_is_told_is_one_that_is_listened_on(host: str, told: str) -> None:
    assert authority(host, 7) == told
