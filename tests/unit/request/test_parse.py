"""A request as parsed: streams, usage asked for, keys given twice, what messages may tell."""

import orjson
import pytest
from tests.unit.request.asking import LENIENT, STRICT, least, parse, passes, refusal, refused

from filature.errors import RequestTooLarge
from filature.request.limits import RequestLimits
from filature.request.parse import parse_request
from filature.wire.dialect import Dialect
from filature.wire.envelope import error_body

CHAT = Dialect.CHAT
STREAMS = [Dialect.CHAT, Dialect.COMPLETIONS, Dialect.RESPONSES]
CHOICES = [Dialect.CHAT, Dialect.COMPLETIONS]
HEAD = b'{"model":"m","messages":[{"role":"user","content":"x"}]'


@pytest.mark.parametrize("dialect", [*STREAMS, Dialect.MESSAGES])
def test_streams(dialect: Dialect) -> None:
    assert parse(dialect, stream=True).stream
    assert not parse(dialect, stream=False).stream
    assert not parse(dialect, stream=None).stream
    assert not parse(dialect).stream


@pytest.mark.parametrize("dialect", [Dialect.EMBEDDINGS, Dialect.COUNT_TOKENS])
def test_dialects_without_streams(dialect: Dialect) -> None:
    assert not parse(dialect, stream=True).stream


@pytest.mark.parametrize("dialect", CHOICES)
def test_usage_asked_for(dialect: Dialect) -> None:
    def asked(**options: bool | None) -> tuple[bool, bool]:
        request = parse(dialect, stream=True, stream_options=options)
        return request.include_usage, request.continuous_usage

    assert asked() == (False, False)
    assert asked(include_usage=True) == (True, False)
    assert asked(include_usage=False, continuous_usage_stats=None) == (False, False)
    assert asked(include_usage=True, continuous_usage_stats=True) == (True, True)
    assert not parse(dialect, stream=True).include_usage
    assert not parse(dialect, stream=True, stream_options=None).include_usage


@pytest.mark.parametrize("dialect", STREAMS)
@pytest.mark.parametrize("stream", [False, None])
def test_stream_options_need_a_stream(dialect: Dialect, stream: bool | None) -> None:
    assert refused(dialect, stream_options={}, stream=stream) == (
        "stream_options",
        "invalid_value",
    )
    assert refused(dialect, stream_options={"include_usage": True})[0] == "stream_options"
    assert passes(dialect, stream_options=None, stream=stream)


@pytest.mark.parametrize("dialect", [Dialect.MESSAGES, Dialect.EMBEDDINGS])
def test_stream_options_mean_nothing_elsewhere(dialect: Dialect) -> None:
    assert passes(dialect, stream_options={"include_usage": True})
    assert not parse(dialect, stream=True, stream_options={"include_usage": True}).include_usage


@pytest.mark.parametrize("dialect", CHOICES)
def test_stream_options_are_checked_by_name(dialect: Dialect) -> None:
    def named(**options: object) -> str | None:
        return refused(dialect, stream=True, stream_options=options)[0]

    assert named(include_usage="yes") == "stream_options.include_usage"
    assert named(continuous_usage_stats=1) == "stream_options.continuous_usage_stats"
    assert named(include_obfuscation={}) == "stream_options.include_obfuscation"
    assert passes(dialect, stream=True, stream_options={"other": 1})
    strictly = refused(dialect, STRICT, stream=True, stream_options={"other": 1})
    assert strictly == ("stream_options.other", "unknown_parameter")


def test_stream_options_of_responses() -> None:
    options = {"include_obfuscation": False}
    assert passes(Dialect.RESPONSES, STRICT, stream=True, stream_options=options)
    assert refused(
        Dialect.RESPONSES, STRICT, stream=True, stream_options={"include_usage": True}
    ) == ("stream_options.include_usage", "unknown_parameter")


# completion tokens


def test_the_larger_of_two_numbers_bounds_the_completion() -> None:
    assert parse(CHAT).max_tokens is None
    assert parse(CHAT, max_tokens=5, max_completion_tokens=9).max_tokens == 9
    assert parse(CHAT, max_tokens=9, max_completion_tokens=5).max_tokens == 9
    assert parse(CHAT, max_tokens=None, max_completion_tokens=5).max_tokens == 5


@pytest.mark.parametrize(
    ("dialect", "name"),
    [
        (Dialect.CHAT, "max_tokens"),
        (Dialect.CHAT, "max_completion_tokens"),
        (Dialect.COMPLETIONS, "max_tokens"),
        (Dialect.RESPONSES, "max_output_tokens"),
        (Dialect.MESSAGES, "max_tokens"),
    ],
)
def test_the_cap_bounds_the_completion(dialect: Dialect, name: str) -> None:
    capped = RequestLimits(max_tokens_max=100)
    assert parse(dialect, capped, **{name: 99}).max_tokens == 99
    assert parse(dialect, capped, **{name: 101}).max_tokens == 100


@pytest.mark.parametrize("dialect", [*STREAMS])
def test_a_missing_number_is_the_cap(dialect: Dialect) -> None:
    assert parse(dialect, RequestLimits(max_tokens_max=100)).max_tokens == 100


@pytest.mark.parametrize("dialect", [Dialect.EMBEDDINGS, Dialect.COUNT_TOKENS])
def test_there_is_no_completion_to_cap(dialect: Dialect) -> None:
    assert parse(dialect, RequestLimits(max_tokens_max=100)).max_tokens is None


# keys given twice


@pytest.mark.parametrize(
    ("tail", "param"),
    [
        (b',"model":"n"}', "model"),
        (b',"n":1,"n":100}', "n"),
        (b', "n" : 1 , "n" :null}', "n"),
        (b',"x":1,"x":1}', "x"),
        (b',"n":1,"\\u006e":100}', "n"),
        (b',"mess\\u0061ges":[{"role":"user"}]}', "messages"),
        (b',"\\u00e9":1,"\xc3\xa9":2}', "\\xe9"),
        (b',"user":"user","user":"model"}', "user"),
    ],
)
def test_a_key_given_twice_is_refused(tail: bytes, param: str) -> None:
    error = refusal(CHAT, HEAD + tail)
    assert (error.param, error.code) == (param, "duplicate_parameter")
    assert error.message == f"{param} is given twice; give it once."


@pytest.mark.parametrize(
    "tail",
    [
        b',"user":"user"}',  # a role's value is no key
        b',"user":"\\"user\\":1"}',
        b',"tools":[{"type":"function","function":{"name":"model","n":1}}],"n":1}',
        b',"tools":[{"type":"x","model":1,"messages":2,"tools":3}]}',
        b',"metadata":{"model":"a","metadata":"b"}}',
        b',"content":1,"role":2}',
        b',"user":"caf\\u00e9 \\u0041"}',
        b',"n" : 1 }',
        b',":":1,",":2}',
        b',"":1}',
    ],
)
def test_what_only_looks_like_a_key_given_twice_passes(tail: bytes) -> None:
    body = HEAD + tail
    assert parse_request(CHAT, body, LENIENT).fields == orjson.loads(body)


@pytest.mark.parametrize("dialect", STREAMS)
@pytest.mark.parametrize(
    ("options", "key"),
    [
        (b'{"include_obfuscation":true,"include_obfuscation":false}', "include_obfuscation"),
        (b'{"include_obfuscation":true,"include\\u005fobfuscation":true}', "include_obfuscation"),
        (b'{ "x" : 1, "x" : 2 }', "x"),
    ],
)
def test_a_key_given_twice_in_stream_options(dialect: Dialect, options: bytes, key: str) -> None:
    body = least(dialect, stream=True)[:-1] + b',"stream_options":' + options + b"}"
    error = refusal(dialect, body)
    assert (error.param, error.code) == (f"stream_options.{key}", "duplicate_parameter")


def test_stream_options_elsewhere_in_the_body_are_no_duplicate() -> None:
    options = {"include_usage": True}
    request = parse(CHAT, stream=True, stream_options=options, metadata={"include_usage": "x"})
    assert request.include_usage


@pytest.mark.parametrize("key", ["Model", "MAX_TOKENS", "ſtream", "Stream_Options", "TimeOut"])
def test_a_known_key_in_another_case_is_refused(key: str) -> None:
    """Engines that ignore case would read it, unchecked."""
    error = refusal(CHAT, least(CHAT, **{key: 1}))
    assert error.code == "unknown_parameter"
    assert f"write {key.casefold()}" in error.message


# bounds


def test_a_body_above_the_limit() -> None:
    with pytest.raises(RequestTooLarge):
        parse_request(CHAT, b" " * 101, RequestLimits(body_bytes_max=100))


def test_the_number_of_fields_is_limited() -> None:
    few, many = ({f"x{i}": i for i in range(n)} for n in (998, 999))
    assert passes(CHAT, **few)
    assert refusal(CHAT, least(CHAT, **many)).code == "too_many_fields"
    options = {f"x{i}": i for i in range(1001)}
    assert refused(CHAT, stream=True, stream_options=options) == (
        "stream_options",
        "too_many_fields",
    )


def test_many_unknown_fields_are_still_searched_for_duplicates() -> None:
    body = least(CHAT, **{f"x{i}": i for i in range(100)})
    assert parse_request(CHAT, body, LENIENT).fields["x99"] == 99
    assert refusal(CHAT, body[:-1] + b',"x50":1}').param == "x50"


# what is told


@pytest.mark.parametrize(
    "body",
    [
        HEAD + b',"user":["a secret"]}',
        HEAD + b',"service_tier":"a secret"}',
        b'{"model":"m","messages":"a secret"}',
        b'{"model":"m","messages":["a secret"]}',
        b'{"model":"m","messages":[{"role":["a secret"]}]}',
        b'{"model":"m","messages":[{"role":"user","content":{"text":"a secret"}}]}',
        b'{"model":"m","messages":[{"role":"a secret","content":"x"}]}',
        b'{"a secret',
        b'"a secret"',
    ],
)
def test_a_refusal_never_repeats_a_text_of_the_client(body: bytes) -> None:
    assert "secret" not in refusal(CHAT, body, STRICT).message


def test_a_request_never_shows_its_prompt() -> None:
    assert "Say hello" not in repr(parse(CHAT, stream=True))
    assert "model='m'" in repr(parse(CHAT))


@pytest.mark.parametrize("key", [b"\\ud800", b"\\u0000\\n", "ключ".encode(), b"x" * 10_000])
def test_whatever_the_key_its_refusal_can_be_written(key: bytes) -> None:
    error = refusal(CHAT, HEAD + b',"' + key + b'":1}', STRICT)
    assert len(error_body(error)) < 400
    assert orjson.loads(error_body(error))["error"]["param"] == error.param
