"""The body an engine is sent: what is changed, and that nothing else is."""

import pytest

from filature.request.limits import RequestLimits
from filature.request.parse import parse_request
from filature.request.rewrite import body_for_engine, edit_object
from filature.wire.dialect import Dialect

CHAT = Dialect.CHAT
LENIENT = RequestLimits()
CAPPED = RequestLimits(max_tokens_max=100)
# a body as a client may have written it, with its own white space, order and escapes
START = b'{ "messages" : [ {"role":"user", "content":"caf\\u00e9 \\/ 1.0"} ],\r\n  "model": "m"'


def sent(
    body: bytes,
    *,
    dialect: Dialect = CHAT,
    limits: RequestLimits = LENIENT,
    model: str = "m",
    include: bool = True,
    continuous: bool = True,
    max_tokens: int | None = None,
    both: bool = False,
) -> bytes:
    request = parse_request(dialect, body, limits)
    forwarded = body_for_engine(
        request,
        model=model,
        include_usage=include,
        continuous_usage=continuous,
        max_tokens=max_tokens,
        both_limits=both,
    )
    if forwarded == body:
        assert forwarded is request.body  # not copied
    return forwarded


def test_a_body_that_needs_no_change_is_passed_as_it_is() -> None:
    for tail in (b"}", b' , "stream" : false }\n', b',"stream":null}', b',"max_tokens":5}'):
        assert sent(START + tail) == START + tail
        assert sent(START + tail, limits=CAPPED, include=False) != b""


def test_the_models_name_is_replaced_where_it_stands() -> None:
    after = START.replace(b'"m"', b'"org/a \\"big\\" one"')
    assert sent(START + b"}", model='org/a "big" one') == after + b"}"
    # also behind a look-alike: as a value, inside a string, in a nested object
    body = b'{"x":["model"],"y":"\\"model\\":1","z":{"model":1},"model" : "m","prompt":"model"}'
    expected = body.replace(b'"model" : "m"', b'"model" : "n"')
    assert sent(body, dialect=Dialect.COMPLETIONS, model="n") == expected
    escaped = START.replace(b'"model"', b'"mod\\u0065l"')
    assert sent(escaped + b"}", model="n") == escaped.replace(b'"m"', b'"n"') + b"}"


@pytest.mark.parametrize("dialect", [Dialect.EMBEDDINGS, Dialect.RESPONSES])
def test_every_dialects_model_is_replaced(dialect: Dialect) -> None:
    assert sent(b'{"input":"x","model":"m"}', dialect=dialect, model="n") == (
        b'{"input":"x","model":"n"}'
    )


BOTH = b'{"include_usage":true,"continuous_usage_stats":true}'
ONE = b'{"include_usage":true}'


@pytest.mark.parametrize(
    ("options", "both", "one", "none"),
    [
        (b"", BOTH, ONE, None),
        (b"null", BOTH, ONE, None),
        (b"{}", BOTH, ONE, None),
        (b'{ "include_usage" : false }', BOTH, ONE, None),
        (b'{"include_usage":null}', BOTH, ONE, None),
        (b'{ "include_usage": true }', BOTH, b'{ "include_usage": true }', None),
        (
            b'{ "include_usage":true , "continuous_usage_stats":true }',
            b'{ "include_usage":true , "continuous_usage_stats":true }',
            ONE,
            None,
        ),
        (
            b'{ "x" : [1, 2] }',
            b'{ "x" : [1, 2],"include_usage":true,"continuous_usage_stats":true }',
            b'{ "x" : [1, 2],"include_usage":true }',
            b'{ "x" : [1, 2] }',
        ),
        (
            b'{"include_usage":false, "x":{}, "continuous_usage_stats":false}',
            b'{"include_usage":true, "x":{}, "continuous_usage_stats":true}',
            b'{"include_usage":true, "x":{}}',
            b'{"x":{}}',
        ),
        (
            b'{"continuous_usage_stats":true , "x":"}"}',
            b'{"continuous_usage_stats":true , "x":"}","include_usage":true}',
            b'{"x":"}","include_usage":true}',
            b'{"x":"}"}',
        ),
        (
            b'{"x":1,"include_usag\\u0065":false}',
            b'{"x":1,"include_usag\\u0065":true,"continuous_usage_stats":true}',
            b'{"x":1,"include_usag\\u0065":true}',
            b'{"x":1}',
        ),
    ],
)
def test_usage_is_asked_for_as_the_engine_can(
    options: bytes, both: bytes, one: bytes, none: bytes | None
) -> None:
    def body(value: bytes | None) -> bytes:
        if not value:
            return START + b', "stream":true }\n'
        return START + b', "stream_options": ' + value + b', "stream":true }\n'

    def added(value: bytes) -> bytes:
        if options:
            return body(value)
        return START + b', "stream":true ,"stream_options":' + value + b"}\n"

    assert sent(body(options)) == added(both)
    assert sent(body(options), continuous=False) == added(one)
    assert sent(body(options), include=False, continuous=False) == body(none)
    assert sent(body(options), include=False, continuous=True) == body(none)


@pytest.mark.parametrize("dialect", [Dialect.RESPONSES, Dialect.MESSAGES, Dialect.EMBEDDINGS])
def test_other_dialects_are_not_asked_for_usage(dialect: Dialect) -> None:
    body = (
        b'{"model":"m","messages":[{"role":"user","content":"x"}],"input":"x",'
        b'"max_tokens":5,"stream":true,"stream_options":{"x":1}}'
    )
    assert sent(body, dialect=dialect) == body
    assert sent(body, dialect=dialect, include=False) == body


def test_nor_is_an_answer_that_is_no_stream() -> None:
    body = START + b',"stream":false,"stream_options":null}'
    assert sent(body) == body
    assert sent(body, include=False) == body


# the cap


@pytest.mark.parametrize(
    ("tail", "capped"),
    [
        (b"}", b',"max_tokens":100}'),
        (b" }\n", b' ,"max_tokens":100}\n'),
        (b',"max_tokens": null}', b',"max_tokens": 100}'),
        (b',"max_tokens": 99}', None),
        (b',"max_tokens":100}', None),
        (b',"max_tokens" :101 ,"n":1}', b',"max_tokens" :100 ,"n":1}'),
        (b',"max_completion_tokens":5}', None),
        (b',"max_completion_tokens":500}', b',"max_completion_tokens":100}'),
        (b',"max_tokens":null,"max_completion_tokens":5}', None),
        (
            b',"max_tokens":1000,"max_completion_tokens":500}',
            b',"max_tokens":100,"max_completion_tokens":100}',
        ),
        (b',"max_completion_tokens":null}', b',"max_completion_tokens":null,"max_tokens":100}'),
        # llama.cpp's own name goes before max_tokens there
        (b',"max_tokens":5,"n_predict":-1}', b',"max_tokens":5,"n_predict":100}'),
        (b',"max_tokens":5,"n_predict":101}', b',"max_tokens":5,"n_predict":100}'),
        (b',"max_tokens":5,"n_predict":1e9}', b',"max_tokens":5,"n_predict":100}'),
        (b',"max_tokens":5,"n_predict":7}', None),
        (b',"max_tokens":5,"n_predict":null}', None),
    ],
)
def test_completion_tokens_are_capped(tail: bytes, capped: bytes | None) -> None:
    assert sent(START + tail, limits=CAPPED) == START + (tail if capped is None else capped)
    assert sent(START + tail) == START + tail


def test_each_dialects_own_field_is_capped() -> None:
    assert sent(b'{"model":"m","input":"x"}', dialect=Dialect.RESPONSES, limits=CAPPED) == (
        b'{"model":"m","input":"x","max_output_tokens":100}'
    )
    assert sent(b'{"model":"m","prompt":"x"}', dialect=Dialect.COMPLETIONS, limits=CAPPED) == (
        b'{"model":"m","prompt":"x","max_tokens":100}'
    )
    embeddings = b'{"model":"m","input":"x"}'
    assert sent(embeddings, dialect=Dialect.EMBEDDINGS, limits=CAPPED) == embeddings
    count = START + b"}"
    assert sent(count, dialect=Dialect.COUNT_TOKENS, limits=CAPPED) == count


@pytest.mark.parametrize(
    ("dialect", "own", "other"),
    [
        (Dialect.COMPLETIONS, b"max_tokens", b"max_completion_tokens"),
        (Dialect.RESPONSES, b"max_output_tokens", b"max_completion_tokens"),
        (Dialect.RESPONSES, b"max_output_tokens", b"max_tokens"),
        (Dialect.MESSAGES, b"max_tokens", b"max_completion_tokens"),
    ],
)
@pytest.mark.parametrize("most", [b"101", b"-1", b"1e9", b'"x"'])
def test_another_dialects_field_is_capped(
    dialect: Dialect, own: bytes, other: bytes, most: bytes
) -> None:
    """llama.cpp takes any of them, max_completion_tokens before max_tokens."""
    body = b'{"model":"m","messages":[{"role":"user","content":"x"}],"prompt":"x","input":"x",'
    if dialect is Dialect.RESPONSES:
        body = b'{"model":"m","input":"x",'
    asked = body + b'"%b":5,"%b":%b}' % (own, other, most)
    assert sent(asked, dialect=dialect, limits=CAPPED) == body + b'"%b":5,"%b":100}' % (own, other)
    asked = body + b'"%b":5,"%b":7}' % (own, other)
    assert sent(asked, dialect=dialect, limits=CAPPED) == asked


@pytest.mark.parametrize(
    ("tail", "capped"),
    [
        (b',"max_tokens":50}', b',"max_tokens":50}'),
        (b',"max_tokens":500}', b',"max_tokens":100}'),
        (
            b',"max_tokens":500, "thinking":{"type":"enabled", "budget_tokens": 400 }}',
            b',"max_tokens":100, "thinking":{"type":"disabled"}}',
        ),
        (
            b',"max_tokens":500,"thinking":{"type":"enabled","budget_tokens":99}}',
            b',"max_tokens":100,"thinking":{"type":"enabled","budget_tokens":99}}',
        ),
        (
            b',"max_tokens":500,"thinking":{"type":"disabled"}}',
            b',"max_tokens":100,"thinking":{"type":"disabled"}}',
        ),
    ],
)
def test_anthropics_thinking_stays_below_the_cap(tail: bytes, capped: bytes) -> None:
    assert sent(START + tail, dialect=Dialect.MESSAGES, limits=CAPPED) == START + capped


@pytest.mark.parametrize(
    ("max_tokens", "budget", "capped"),
    [
        (5000, b"4000", b"4000"),
        (4000, b"4000", b"3999"),
        (1025, b"4000", b"1024"),
        (1025, b"1024", b"1024"),
        (1024, b"4000", None),
        (1, b"1024", None),
    ],
)
def test_a_thinking_budget_below_the_least_one_turns_thinking_off(
    max_tokens: int, budget: bytes, capped: bytes | None
) -> None:
    body = b'{"messages":[{"role":"user","content":"x"}],"model":"m","max_tokens":%d,"thinking":%b}'
    enabled = b'{"type":"enabled","budget_tokens":%b}'
    given = body % (9000, enabled % budget)
    thinking = b'{"type":"disabled"}' if capped is None else enabled % capped
    told = sent(given, dialect=Dialect.MESSAGES, max_tokens=max_tokens)
    assert told == body % (max_tokens, thinking)


# the number for one request


@pytest.mark.parametrize(
    ("tail", "expected"),
    [
        (b"}", b',"max_tokens":25}'),
        (b',"max_tokens":500}', b',"max_tokens":25}'),
        (b',"max_tokens":25}', None),
        (b',"max_tokens":5}', None),
        (
            b',"max_tokens":500,"max_completion_tokens":400}',
            b',"max_tokens":25,"max_completion_tokens":25}',
        ),
        (b',"max_completion_tokens":400}', b',"max_completion_tokens":25}'),
        (b',"max_completion_tokens":5}', None),
        (b',"max_tokens":500,"n_predict":-1}', b',"max_tokens":25,"n_predict":25}'),
        (b',"max_tokens":9,"min_tokens":500}', b',"max_tokens":9,"min_tokens":25}'),
        (b',"max_tokens":9,"min_tokens":5}', None),
        (b',"max_tokens":9,"min_tokens":null}', None),
        (b',"max_tokens":9,"ignore_eos":true}', None),
    ],
)
def test_a_request_has_a_number_of_its_own(tail: bytes, expected: bytes | None) -> None:
    wanted = START + (tail if expected is None else expected)
    assert sent(START + tail, max_tokens=25) == wanted
    # the smaller of it and the setting's counts
    assert sent(START + tail, max_tokens=25, limits=CAPPED) == wanted
    assert sent(START + tail, max_tokens=2**31 - 1, limits=CAPPED) == sent(
        START + tail, limits=CAPPED
    )


@pytest.mark.parametrize(
    ("tail", "expected"),
    [
        (b"}", b',"max_tokens":25}'),
        (b',"max_tokens":5}', b',"max_tokens":5}'),
        (b',"max_completion_tokens":5}', b',"max_completion_tokens":5,"max_tokens":5}'),
        (b',"max_completion_tokens":40}', b',"max_completion_tokens":25,"max_tokens":25}'),
        (
            b',"max_tokens":null,"max_completion_tokens":5}',
            b',"max_tokens":5,"max_completion_tokens":5}',
        ),
        (
            b',"max_tokens":7,"max_completion_tokens":5}',
            b',"max_tokens":7,"max_completion_tokens":5}',
        ),
    ],
)
def test_by_both_names_for_an_engine_that_takes_both(tail: bytes, expected: bytes) -> None:
    assert sent(START + tail, max_tokens=25, both=True) == START + expected


def test_by_both_names_where_the_number_is_somebody_elses_to_bound() -> None:
    told = START + b',"max_completion_tokens":500,"max_tokens":500}'
    assert sent(START + b',"max_completion_tokens":500}', both=True) == told
    assert sent(told, both=True) == told
    assert sent(START + b"}", both=True) == START + b"}"


def test_in_the_field_of_each_dialect() -> None:
    assert sent(b'{"model":"m","input":"x"}', dialect=Dialect.RESPONSES, max_tokens=25) == (
        b'{"model":"m","input":"x","max_output_tokens":25}'
    )
    assert sent(b'{"model":"m","prompt":"x"}', dialect=Dialect.COMPLETIONS, max_tokens=25) == (
        b'{"model":"m","prompt":"x","max_tokens":25}'
    )
    messages = b'{"model":"m","max_tokens":%d,"messages":[{"role":"user","content":"x"}]}'
    assert sent(messages % 500, dialect=Dialect.MESSAGES, max_tokens=25) == messages % 25
    embeddings = b'{"model":"m","input":"x"}'
    assert sent(embeddings, dialect=Dialect.EMBEDDINGS, max_tokens=25) == embeddings


# Cocoon's fields


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b'{"timeout":5,"model":"m","prompt":"x"}', b'{"model":"m","prompt":"x"}'),
        (b'{"model":"m","prompt":"x","timeout":5}', b'{"model":"m","prompt":"x"}'),
        (
            b'{ "model":"m" , "enable_debug" : null ,\n"prompt":"x" }',
            b'{ "model":"m" ,\n"prompt":"x" }',
        ),
        (
            b'{"timeout":5, "request_guid":"a,}", "model":"m","prompt":"x","enable_debug":true}',
            b'{"model":"m","prompt":"x"}',
        ),
        (
            b'{"model":"m","prompt":"timeout","metadata":{"timeout":1},"timeout":5}',
            b'{"model":"m","prompt":"timeout","metadata":{"timeout":1}}',
        ),
        (b'{"tim\\u0065out":5,"model":"m","prompt":"x"}', b'{"model":"m","prompt":"x"}'),
    ],
)
def test_cocoons_fields_are_taken_out(body: bytes, expected: bytes) -> None:
    assert sent(body, dialect=Dialect.COMPLETIONS) == expected


def test_all_edits_together() -> None:
    body = (
        b'{"timeout":5, "max_tokens" : 500, "stream":true, "model":"m",'
        b' "stream_options" : {"include_usage":false}, "prompt":"\xe2\x82\xac \\u20ac", "x":1e999 }'
    )
    assert sent(body, dialect=Dialect.COMPLETIONS, limits=CAPPED, model="n") == (
        b'{"max_tokens" : 100, "stream":true, "model":"n", "stream_options" : '
        + BOTH
        + b', "prompt":"\xe2\x82\xac \\u20ac", "x":1e999 }'
    )


def test_a_body_is_edited_anew_for_each_engine() -> None:
    request = parse_request(CHAT, START + b',"stream":true,"timeout":1}', CAPPED)
    first, second = (
        body_for_engine(request, model=model, include_usage=usage, continuous_usage=usage)
        for model, usage in (("a", True), ("b", False))
    )
    head, tail = START.replace(b'"m"', b'"%s"'), b',"stream":true%s}'
    assert first == head % b"a" + tail % (b',"stream_options":' + BOTH + b',"max_tokens":100')
    assert second == head % b"b" + tail % b',"max_tokens":100'
    assert request.body == START + b',"stream":true,"timeout":1}'


# edit_object


@pytest.mark.parametrize(
    ("text", "values", "removed", "expected"),
    [
        (b"{}", {}, set(), b"{}"),
        (b"{}", {"a": b"1"}, set(), b'{"a":1}'),
        (b"{ }", {"a": b"1", "b": b"2"}, set(), b'{"a":1,"b":2 }'),
        (b'{"a":1}', {}, {"a"}, b"{}"),
        (b'{ "a" : 1 }', {"b": b"2"}, {"a"}, b'{ "b":2 }'),
        (b'{"a":1,"b":2,"c":3}', {}, {"a", "b"}, b'{"c":3}'),
        (b'{"a":1,"b":2,"c":3}', {}, {"b", "c"}, b'{"a":1}'),
        (b'{"a":1,"b":2,"c":3}', {}, {"a", "c"}, b'{"b":2}'),
        (b'{"a":1,"b":2,"c":3}', {}, {"a", "b", "c"}, b"{}"),
        (b'{"a":1,"b":2}', {"b": b"[]", "c": b"3"}, {"a"}, b'{"b":[],"c":3}'),
        (b'{"a":1,"b":2}', {"c": b"3"}, {"b", "x"}, b'{"a":1,"c":3}'),
    ],
)
def test_edit_object(
    text: bytes, values: dict[str, bytes], removed: set[str], expected: bytes
) -> None:
    assert edit_object(text, values, removed) == expected
