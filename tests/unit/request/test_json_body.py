"""Bodies as bytes: size, nesting, what is JSON and who decides, keys given twice."""

from typing import Any

import pytest

from filature.errors import InvalidRequest, RequestTooLarge
from filature.request.json_body import (
    has_distinct_keys,
    load_object,
    refuse_duplicates,
)
from filature.request.limits import RequestLimits
from filature.wire.sse import BOM

LIMITS = RequestLimits()


def load(body: bytes, limits: RequestLimits = LIMITS) -> dict[str, Any]:
    return load_object(body, limits)[1]


def refusal(body: bytes, limits: RequestLimits = LIMITS) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as caught:
        load(body, limits)
    return caught.value


def nested(levels: int, opening: bytes = b"[", closing: bytes = b"]") -> bytes:
    """An object with so many levels, itself counted."""
    return b'{"a":' + opening * (levels - 1) + closing * (levels - 1) + b"}"


@pytest.mark.parametrize("body", [b"", b" \r\n\t "])
def test_an_empty_body(body: bytes) -> None:
    assert "empty" in refusal(body).message


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b"[]", "an empty array"),
        (b"[1]", "an array"),
        (b"null", "null"),
        (b"true", "true"),
        (b"1.5", "1.5"),
        (b'"secret"', "a string"),
    ],
)
def test_a_body_that_is_no_object(body: bytes, kind: str) -> None:
    error = refusal(body)
    assert error.message == f"The body must be a JSON object; got {kind}."
    assert error.code == "invalid_type"


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b'{"a":1',
        b'{"a":1,}',
        b'{"a":1}x',
        b'{"a":1}{}',
        b"{'a':1}",
        b'{"a":01}',
        b'{"a":+1}',
        b'{"a":.5}',
        b'{"a":"\t"}',
        b'{"a":"\\x41"}',
        b'{"a":NaN}',
        b'{"a":Infinity}',
        b'{"a":-Infinity}',
        b'{"a":1}\x00',
        b'{"a":1 /* comment */}',
        b'{"a"\xc2\xa0:1}',
        b"\xff\xfe{\x00}\x00",
    ],
)
def test_what_is_no_json_is_refused(body: bytes) -> None:
    assert refusal(body).code == "invalid_json"


@pytest.mark.parametrize("bad", [b"\xff", b"\xc0\xaf", b"\xed\xa0\x80", b"\xe2\x82"])
def test_what_is_not_utf8_is_refused_and_where(bad: bytes) -> None:
    error = refusal(b'{"a":"' + bad + b'"}')
    assert error.message == "The body is not valid UTF-8 at byte 6."


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (b'"\\ud800"', "\ud800"),
        (b'"x\\udfffy"', "x\udfffy"),
        (b'"\\udc00\\ud800"', "\udc00\ud800"),
        (b"1e999", float("inf")),
        (b"-1e999", float("-inf")),
    ],
)
def test_valid_json_that_the_fast_parser_refuses_is_read(text: bytes, value: object) -> None:
    assert load(b'{"a":' + text + b"}") == {"a": value}


def test_the_second_parser_reads_numbers_as_the_first_does() -> None:
    digits = b"1" * 30
    first = load(b'{"a":' + digits + b"}")["a"]
    second = load(b'{"a":' + digits + b',"b":"\\ud800"}')["a"]
    assert (type(first), first) == (type(second), second)
    assert load(b'{"a":' + b"9" * 100_000 + b"}") == {"a": float("inf")}


def test_a_byte_order_mark_is_taken_off() -> None:
    assert load_object(BOM + b'{"a":1}', LIMITS) == (b'{"a":1}', {"a": 1})
    assert load_object(BOM + b'{"a":"\\ud800"}', LIMITS)[0] == b'{"a":"\\ud800"}'
    assert refusal(BOM).code == "invalid_json"
    assert refusal(BOM * 2 + b"{}").code == "invalid_json"


def test_many_byte_order_marks_are_no_recursion() -> None:
    assert refusal(BOM * 5_000 + b"{}").code == "invalid_json"


# bounds


def test_the_size_limit_is_inclusive() -> None:
    limits = RequestLimits(body_bytes_max=10)
    assert load(b'{"a":1234}', limits) == {"a": 1234}
    with pytest.raises(RequestTooLarge, match="11 bytes; at most 10"):
        load(b'{"a":12345}', limits)


@pytest.mark.parametrize(("opening", "closing"), [(b"[", b"]"), (b'{"a":', b"}")])
def test_the_depth_limit_is_inclusive(opening: bytes, closing: bytes) -> None:
    if opening == b"[":
        assert load(nested(64, opening, closing))
        assert refusal(nested(65, opening, closing)).code == "too_deeply_nested"
    else:
        assert load(opening * 63 + b"{}" + closing * 63)
        assert refusal(opening * 64 + b"{}" + closing * 64).code == "too_deeply_nested"


def test_brackets_in_strings_and_side_by_side_are_no_depth() -> None:
    assert load(b'{"a":"' + b"[{" * 500 + b'"}')
    assert load(b'{"a":[' + b"[]," * 500 + b"[]]}")
    # and for the second parser, whose nesting is measured in the text
    assert load(b'{"a":"\\ud800\\"' + b"[{" * 500 + b'"}')
    assert load(b'{"b":"\\ud800","a":[' + b"[]," * 500 + b"[]]}")


@pytest.mark.parametrize("levels", [65, 1_000, 1_030, 5_000, 200_000])
def test_deep_nesting_never_becomes_a_recursion_error(levels: int) -> None:
    for body in (
        nested(levels),
        b"[" * levels,
        b'{"a":' * levels,
        b'{"s":"\\ud800",' + nested(levels)[1:],
    ):
        assert refusal(body).code == "too_deeply_nested"


def test_depth_beyond_what_the_parsers_bear_is_no_setting() -> None:
    with pytest.raises(ValueError, match="depth_max"):
        RequestLimits(depth_max=1_000)
    deepest = RequestLimits(depth_max=200)
    assert load(nested(200), deepest)
    assert load(b'{"s":"\\ud800",' + nested(200)[1:], deepest)


@pytest.mark.parametrize("entry", [b"1", b"[]", b"{}", b'""', b'"a,b"', b'"\\"["'])
def test_the_number_of_values_is_limited(entry: bytes) -> None:
    limits = RequestLimits(values_max=100)
    few, many = (b'{"a":[' + b",".join([entry] * n) + b"]}" for n in (48, 101))
    assert len(load(few, limits)["a"]) == 48
    assert refusal(many, limits).code == "too_many_values"


def test_commas_and_brackets_in_text_are_no_values() -> None:
    limits = RequestLimits(values_max=100)
    assert load(b'{"a":"' + b",[{" * 500 + b'"}', limits)


def test_an_endless_string_is_looked_at_once() -> None:
    """Quotes that each could start a string do not make the scan start again at each."""
    limits = RequestLimits(values_max=100)
    assert refusal(b'{"a":"' + b'\\",[' * 400_000, limits).code == "invalid_json"


# duplicates


def duplicates(body: bytes) -> str | None:
    with pytest.raises(InvalidRequest) as caught:
        refuse_duplicates(body, 0, "", len(load(body)))
    assert caught.value.code == "duplicate_parameter"
    return caught.value.param


@pytest.mark.parametrize(
    ("body", "param"),
    [
        (b'{"n":1,"n":1}', "n"),
        (b'{ "n" : 1 , "m":[{"x":1,"x":2}], "n":null }', "n"),
        (b'{"n":1,"\\u006e":2}', "n"),
        (b'{"\\u006E":1,"\\u006e":2}', "n"),
        (b'{"":1,"":2}', ""),
        (b'{"a\\/b":1,"a/b":2}', "a/b"),
        (b'{"\\ud800":1,"\\ud800":2}', "\\ud800"),
        ('{"ключ":1,"ключ":2}'.encode(), "\\u043a\\u043b\\u044e\\u0447"),
    ],
)
def test_a_key_given_twice_is_named(body: bytes, param: str) -> None:
    assert duplicates(body) == param


@pytest.mark.parametrize(
    "body",
    [
        b"{}",
        b'{"n":1,"N":2,"n ":3}',
        b'{"n":{"n":1},"m":[{"n":1},{"n":2}]}',
        b'{"n":"\\"n\\":1,\\"n\\":2"}',
    ],
)
def test_no_key_is_given_twice(body: bytes) -> None:
    refuse_duplicates(body, 0, "", len(load(body)))


@pytest.mark.parametrize(
    ("body", "proven"),
    [
        (b'{"a":"b","c":["d",{"e":1}],"f":{}}', True),
        (b'{"a":"a","b":"a"}', True),
        (rb'{"a":"say \"b\"\n","\u0062":"\ud800"}', True),
        (rb'{"a":"\"","b":"\"\""}', True),
        (b'{"a":1,"a":1}', False),
        (b'{"a":"b","a":"c"}', False),
        (rb'{"a":1,"\u0061":"\""}', False),
        (b'{"a":{"b":1,"b":2}}', False),
        (b'{"a":[{"b":"c","b":[]}]}', False),
        (rb'{"a":"\\","b":1}', False),  # whether the quote is escaped is not looked at
        (rb'{"a":"\\","a":"\""}', False),
    ],
)
def test_that_keys_are_distinct_is_proven_by_the_number_of_quotes(
    body: bytes, proven: bool
) -> None:
    assert has_distinct_keys(body, load(body)) is proven
