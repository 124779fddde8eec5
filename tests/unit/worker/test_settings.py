"""The worker's settings, where they are more than a name and a default."""

from typing import Any

import pytest
from pydantic import SecretStr, ValidationError

from filature.worker.settings import WorkerSettings


def settings(**more: Any) -> WorkerSettings:
    given: dict[str, Any] = {
        "proxies": ["http://p"],
        "token": SecretStr("t"),
        "engines": ["http://e"],
    }
    return WorkerSettings(**(given | more))


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:10082", ("127.0.0.1", 10082)),
        ("localhost:0", ("localhost", 0)),
        ("[::1]:65535", ("::1", 65535)),
    ],
)
def test_where_metrics_are_served(text: str, address: tuple[str, int]) -> None:
    assert settings(metrics=text).metrics_address == address


def test_nowhere_when_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    assert settings().metrics_address is None
    monkeypatch.setenv("FILATURE_WORKER_METRICS", "127.0.0.1:7")
    assert settings().metrics_address == ("127.0.0.1", 7)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "10082",
        ":10082",
        "127.0.0.1",
        "127.0.0.1:",
        "::1:80",
        "h:65536",
        "h:-1",
        "http://h:1",
        "h:1/",
    ],
)
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(ValidationError, match="write it as 127"):
        settings(metrics=text)


def test_a_proxy_that_is_named_twice_is_one() -> None:
    given = settings(proxies=["https://p/", "https://q:8443", "https://p"])
    assert given.proxies == ["https://p", "https://q:8443"]


@pytest.mark.parametrize(
    "url",
    [
        "p",
        "ftp://p",
        "https://",
        "https://p/path",
        "https://p:65536",
        "https://p:x",
        "https://p:0",
        "https://p?x=1",
        "https://p/#x",
        "https://user:secret@p",
        "https://p\u00e9re",
        "https://\u043f.example",
    ],
)
def test_what_is_no_proxy_is_refused(url: str) -> None:
    with pytest.raises(ValidationError, match="write a proxy as") as refused:
        settings(proxies=[url])
    (problem,) = refused.value.errors()
    assert "secret" not in problem["msg"]


def test_a_token_that_was_read_from_a_file_has_no_line_end() -> None:
    assert settings(token=SecretStr(" fil-wrk-x\n")).token.get_secret_value() == "fil-wrk-x"


@pytest.mark.parametrize("token", ["", " ", "a b", "a\r\nb: c", "\u2026x", "fil-wrk-\xe9"])
def test_what_cannot_be_sent_is_no_token(token: str) -> None:
    with pytest.raises(ValidationError, match="a token is") as refused:
        settings(token=SecretStr(token))
    assert not token.strip() or token not in str(refused.value)


def test_a_log_level_that_there_is_not_is_refused() -> None:
    with pytest.raises(ValidationError, match="'debug', 'info', 'warning' or 'error'"):
        settings(log_level="verbose")
