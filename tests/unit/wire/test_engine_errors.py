"""What engines say when they fail, however they say it: there is always a message that can be sent on."""

from typing import Any

import pytest

from filature.errors import EngineFailed
from filature.wire.dialect import Dialect
from filature.wire.documents import dump_json
from filature.wire.engine_errors import (
    MESSAGE_CHARS_MAX,
    NAME_CHARS_MAX,
    EngineMessage,
    read_error,
    read_error_body,
)
from filature.wire.envelope import error_body


def nested(levels: int) -> Any:
    value: Any = "x"
    for _ in range(levels):
        value = [value]
    return value


@pytest.mark.parametrize(
    "error",
    [
        {"code": 10**400},
        {"message": 10**400},
        {"x": nested(400)},
        {"message": nested(900)},
        [{"msg": nested(900)}],
        [{"loc": ["body", nested(900), 10**400], "msg": 5}],
        [5, {}, {"loc": 7, "msg": None}],
        {"message": "m" * 2 * MESSAGE_CHARS_MAX, "code": "c" * 2000, "param": "p" * 2000},
    ],
)
def test_whatever_is_in_it_it_can_be_sent_on(error: Any) -> None:
    for told in (read_error(error), read_error({"error": error}), read_error({"detail": error})):
        assert len(told.message) <= MESSAGE_CHARS_MAX
        assert len(told.code or "") <= NAME_CHARS_MAX
        assert len(told.param or "") <= NAME_CHARS_MAX
        failed = EngineFailed(told.message, param=told.param, code=told.code)
        assert error_body(failed, Dialect.CHAT)


def test_a_body_that_nests_deeply() -> None:
    body = b'{"error":' + b'{"a":' * 900 + b"1" + b"}" * 902
    assert read_error_body(body).message


def test_a_validation_error_names_its_field() -> None:
    told = read_error({"detail": [{"loc": ["body", "stop", 0], "msg": "not a string"}]})
    assert told == EngineMessage("stop.0: not a string", "stop.0")


KEY = "sk-engine/own"


@pytest.mark.parametrize(
    "error",
    [
        f"no: {KEY} and {KEY}",
        {"message": f"no: {KEY} and {KEY}", "param": KEY, "code": f"bad {KEY}"},
        [{"loc": ["body", KEY], "msg": f"no: {KEY}"}],
        {"told": {KEY: [KEY]}},
        "m" * (MESSAGE_CHARS_MAX - 4) + KEY,
    ],
)
def test_the_engine_s_own_key_is_told_to_nobody(error: Any) -> None:
    for said in (error, {"error": error}, {"response": {"error": error}}, {"detail": error}):
        for told in (read_error(said, KEY), read_error_body(dump_json(said), KEY)):
            assert told.message
            assert KEY[:5] not in f"{told}"
        assert KEY[:4] in f"{read_error(said)}", "it would be"


def test_what_does_not_tell_the_key_stays() -> None:
    error = {"message": "no", "param": "stop", "code": "bad_stop"}
    assert read_error(error, KEY) == EngineMessage("no", "stop", "bad_stop") == read_error(error)
    assert read_error_body(f"oh, {KEY}!".encode(), KEY) == EngineMessage("oh, ***!")
    assert read_error_body(b"oh", "") == EngineMessage("oh")
