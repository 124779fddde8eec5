"""What an operator may write for an engine and its key."""

from typing import Any

import pytest
from pydantic import SecretStr, ValidationError

from filature.proxy.settings import ProxySettings
from filature.relay.engines import EngineAddress, EngineAddressError
from filature.worker.settings import WorkerSettings

WORKER = {"proxies": ["http://p:1"], "token": "t", "engines": ["http://e:1"]}


@pytest.mark.parametrize(
    "url", ["http://h:1/p\u00e4th", "http://h:1/a b", "http://h\u00f6st:1", "http://h:1/\x7f"]
)
def test_an_address_that_cannot_stand_in_a_head_is_refused(url: str) -> None:
    with pytest.raises(EngineAddressError, match="visible ASCII"):
        EngineAddress.parse(url)


@pytest.mark.parametrize("user", ["user:geheim", "geheim", ":geheim"])
def test_a_password_is_refused_and_not_repeated(user: str) -> None:
    with pytest.raises(EngineAddressError, match="no query, fragment or user") as refused:
        EngineAddress.parse(f"http://{user}@host:1/base")
    assert "geheim" not in str(refused.value)


@pytest.mark.parametrize(
    "text",
    ["http://u:geheim@h:abc", "u:geheim@h:80", '"http://u:geheim@h:80"', "http://u:geheim=@h"],
)
def test_nor_is_one_in_what_is_no_address(text: str) -> None:
    with pytest.raises(EngineAddressError) as refused:
        EngineAddress.parse(text)
    assert "geheim" not in str(refused.value)


def settings(kind: str, key: str) -> Any:
    if kind == "proxy":
        return ProxySettings(engine_key=SecretStr(key))
    return WorkerSettings(**WORKER, engine_key=SecretStr(key))  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["proxy", "worker"])
def test_a_key_read_from_a_file_ends_before_the_end_of_its_line(kind: str) -> None:
    key = settings(kind, " sk-1\r\n").engine_key
    assert key.get_secret_value() == "sk-1"


@pytest.mark.parametrize("kind", ["proxy", "worker"])
@pytest.mark.parametrize("key", ["a\r\nx-evil: b", "a b", "\u00e9"])
def test_a_key_that_cannot_be_sent_is_refused(kind: str, key: str) -> None:
    with pytest.raises(ValidationError, match="visible ASCII") as refused:
        settings(kind, key)
    assert key not in refused.value.errors()[0]["msg"]
