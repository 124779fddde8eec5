"""Errors on the wire: each dialect's own form, before a stream and inside one."""

import orjson
import pytest

from filature import errors
from filature.errors import FilatureError, InvalidRequest, ModelNotFound, RateLimited
from filature.wire.dialect import Dialect
from filature.wire.envelope import error_body, error_event

OPENAI_DIALECTS = [dialect for dialect in Dialect if not dialect.is_anthropic]
ANTHROPIC_DIALECTS = [Dialect.MESSAGES, Dialect.COUNT_TOKENS]


def every_error() -> list[FilatureError]:
    made: list[FilatureError] = []
    for error in vars(errors).values():
        if not (isinstance(error, type) and issubclass(error, FilatureError)):
            continue
        if error is errors.MethodNotAllowed:
            made.append(errors.MethodNotAllowed("no", allow="GET"))
        elif error is errors.EngineRefused:
            made.append(errors.EngineRefused("no", status=422))
        else:
            made.append(error("no"))
    return made


def event_lines(event: bytes) -> tuple[list[bytes], bytes]:
    """The lines before the data, and the data."""
    assert event.endswith(b"\n\n")
    *fields, data = event[:-2].split(b"\n")
    assert data.startswith(b"data: ")
    return fields, data.removeprefix(b"data: ")


@pytest.mark.parametrize("dialect", [None, *OPENAI_DIALECTS])
def test_the_openai_envelope_has_all_four_members(dialect: Dialect | None) -> None:
    error = InvalidRequest("n is wrong", param="n", code="invalid_type")
    assert orjson.loads(error_body(error, dialect)) == {
        "error": {
            "message": "n is wrong",
            "type": "invalid_request_error",
            "param": "n",
            "code": "invalid_type",
        }
    }


def test_what_is_not_known_is_null() -> None:
    told = orjson.loads(error_body(InvalidRequest("wrong")))["error"]
    assert (told["param"], told["code"]) == (None, None)


@pytest.mark.parametrize("dialect", ANTHROPIC_DIALECTS)
@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (InvalidRequest("no"), "invalid_request_error"),
        (errors.AuthenticationFailed("no"), "authentication_error"),
        (errors.InsufficientQuota("no"), "billing_error"),
        (errors.PermissionDenied("no"), "permission_error"),
        (ModelNotFound("no"), "not_found_error"),
        (errors.RequestTooLarge("no"), "request_too_large"),
        (RateLimited("no"), "rate_limit_error"),
        (errors.EngineFailed("no"), "api_error"),
        (errors.EngineTimeout("no"), "timeout_error"),
        (errors.Unavailable("no"), "overloaded_error"),
        (errors.InternalError("no"), "api_error"),
    ],
)
def test_anthropics_envelope_names_the_type_by_status(
    dialect: Dialect, error: FilatureError, kind: str
) -> None:
    body = orjson.loads(error_body(error, dialect))
    assert body == {"type": "error", "error": {"type": kind, "message": "no"}}


@pytest.mark.parametrize("dialect", Dialect)
@pytest.mark.parametrize("error", every_error(), ids=lambda error: type(error).__name__)
def test_codes_and_types_are_strings_in_every_form(error: FilatureError, dialect: Dialect) -> None:
    _, data = event_lines(error_event(error, dialect))
    for text in (error_body(error, dialect), data):
        told = orjson.loads(text)["error"]
        assert isinstance(told["type"], str)
        assert told["message"] == "no"
        assert isinstance(told.get("code"), str | None)


@pytest.mark.parametrize("dialect", [Dialect.CHAT, Dialect.COMPLETIONS, Dialect.EMBEDDINGS])
def test_the_openai_event_is_unnamed_and_holds_the_envelope(dialect: Dialect) -> None:
    error = ModelNotFound("no such model", param="model")
    fields, data = event_lines(error_event(error, dialect))
    assert fields == []
    assert data == error_body(error, dialect)


def test_anthropics_event_is_named() -> None:
    """Its SDK passes an unnamed one over."""
    error = RateLimited("slow down")
    fields, data = event_lines(error_event(error, Dialect.MESSAGES))
    assert fields == [b"event: error"]
    assert data == error_body(error, Dialect.MESSAGES)


def test_the_responses_event_is_flat_with_an_error_member_beside() -> None:
    error = RateLimited("slow down")
    fields, data = event_lines(error_event(error, Dialect.RESPONSES, sequence_number=7))
    assert fields == [b"event: error"]
    told = orjson.loads(data)
    assert told["type"] == "error"
    assert told["sequence_number"] == 7
    assert (told["code"], told["message"]) == ("rate_limit_exceeded", "slow down")
    assert told["param"] is None
    assert told["error"] == orjson.loads(error_body(error))["error"]


@pytest.mark.parametrize("dialect", Dialect)
def test_a_message_with_line_ends_stays_one_data_line(dialect: Dialect) -> None:
    error = InvalidRequest('two\nlines\r and "quotes" – naïve')
    _, data = event_lines(error_event(error, dialect))
    assert orjson.loads(data)["error"]["message"] == error.message
