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
