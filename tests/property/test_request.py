"""Requests: whatever the bytes, a request or a refusal; keys given twice are always found."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.property.json_text import CHARACTERS, SCALARS, VALUES, json_text, object_text
from tests.unit.request.asking import LEAST

from filature.errors import FilatureError, InvalidRequest
from filature.request.json_body import load_object
from filature.request.limits import RequestLimits
from filature.request.parse import ParsedRequest, parse_request
from filature.request.rewrite import body_for_engine
from filature.wire.dialect import Dialect
from filature.wire.envelope import error_body

LENIENT = RequestLimits()
TIGHT = RequestLimits(
    strict=True, max_tokens_max=10, depth_max=5, values_max=40, fields_max=6, n_max=3, prompts_max=2
)
NAMES = st.sampled_from(
    [
        *("model", "messages", "prompt", "input", "stream", "stream_options", "max_tokens"),
        *("max_completion_tokens", "max_output_tokens", "n", "best_of", "temperature", "thinking"),
        *("system", "tools", "tool_choice", "stop", "logit_bias", "store", "background", "text"),
        *("prompt_embeds", "n_predict", "timeout", "request_guid", "max_coefficient", "user"),
    ]
)
PLAUSIBLE = st.one_of(
    VALUES,
    st.integers(-2, 200),
    st.floats(-3, 3),
    st.lists(st.integers(-1, 9), max_size=4),
    st.lists(
        st.fixed_dictionaries(
            {}, optional={"role": SCALARS, "type": SCALARS, "content": VALUES, "id": SCALARS}
        ),
        max_size=3,
    ),
    st.fixed_dictionaries(
        {},
        optional={
            "include_usage": st.booleans() | st.none(),
            "continuous_usage_stats": st.booleans() | VALUES,
            "budget_tokens": st.integers(0, 20),
            "type": st.sampled_from(["enabled", "image", "text"]),
            "x": VALUES,
        },
    ),
)


def read(dialect: Dialect, body: bytes, limits: RequestLimits) -> ParsedRequest | None:
    """The request, or None if it was refused in a way that can be sent."""
    refusal: FilatureError
    try:
        return parse_request(dialect, body, limits)
    except FilatureError as error:
        refusal = error
    assert 400 <= refusal.status < 500
    assert refusal.message
    assert len(error_body(refusal, dialect)) < 2_000
    return None


def check(dialect: Dialect, body: bytes, limits: RequestLimits) -> None:
    request = read(dialect, body, limits)
    if request is None:
        return
    assert request.n <= request.best_of <= limits.n_max
    assert 1 <= request.prompts <= limits.prompts_max
    assert min(request.prompt_size) >= 0
    assert request.prompt_text_bytes() >= request.text_bytes
    cap = limits.max_tokens_max
    assert request.max_tokens is None or cap is None or request.max_tokens <= cap
    for usage in (True, False):
        sent = body_for_engine(request, model="n", include_usage=usage, continuous_usage=usage)
        assert json.loads(sent)["model"] == "n"


@given(st.sampled_from(Dialect), st.sampled_from([LENIENT, TIGHT]), st.binary(max_size=60))
def test_any_bytes(dialect: Dialect, limits: RequestLimits, body: bytes) -> None:
    check(dialect, body, limits)


@given(
    st.sampled_from(Dialect),
    st.sampled_from([LENIENT, TIGHT]),
    st.text(alphabet='{}[]",:\\ud8e0nmode', max_size=40),
)
def test_any_json_like_text(dialect: Dialect, limits: RequestLimits, text: str) -> None:
    check(dialect, text.encode(), limits)
    check(dialect, f'{{"model":"m","messages":[{{"role":"user"}}],{text}}}'.encode(), limits)


@given(
    st.sampled_from(Dialect),
    st.sampled_from([LENIENT, TIGHT]),
    st.dictionaries(NAMES | st.text(CHARACTERS, max_size=5), PLAUSIBLE, max_size=6),
    st.booleans(),
    st.data(),
)
def test_any_fields(
    dialect: Dialect,
    limits: RequestLimits,
    fields: dict[str, Any],
    whole: bool,
    data: st.DataObject,
) -> None:
    said = LEAST[dialect] | fields if whole else fields
    check(dialect, data.draw(json_text(said)).encode(), limits)


@given(st.data(), st.dictionaries(st.text(CHARACTERS, max_size=5), VALUES, max_size=4))
def test_what_json_says_is_what_is_read(data: st.DataObject, fields: dict[str, Any]) -> None:
    text = data.draw(json_text(fields))
    assert load_object(text.encode(), LENIENT)[1] == fields
    # the second parser, asked because of the surrogate, reads the same
    odd = text[:-1].rstrip() + ("," if fields else "") + '"odd key":"\\udc00"}'
    assert load_object(odd.encode(), LENIENT)[1] == fields | {"odd key": "\udc00"}


@given(
    st.sampled_from(Dialect),
    st.dictionaries(
        st.text(CHARACTERS, max_size=4).map("x{}".format) | st.sampled_from(["role", "content"]),
        VALUES,
        max_size=4,
    ),
    st.data(),
)
def test_a_key_given_twice_is_found(
    dialect: Dialect, more: dict[str, Any], data: st.DataObject
) -> None:
    pairs = data.draw(st.permutations([*LEAST[dialect].items(), *more.items()]))
    once = data.draw(object_text(pairs)).encode()
    assert parse_request(dialect, once, LENIENT).fields == dict(pairs)
    pairs.insert(data.draw(st.integers(0, len(pairs))), data.draw(st.sampled_from(pairs)))
    with pytest.raises(InvalidRequest) as caught:
        parse_request(dialect, data.draw(object_text(pairs)).encode(), LENIENT)
    assert caught.value.code == "duplicate_parameter"


@given(
    st.lists(
        st.tuples(
            st.sampled_from(
                ["include_usage", "continuous_usage_stats", "include_obfuscation", "x"]
            ),
            st.booleans(),
        ),
        max_size=5,
    ),
    st.data(),
)
def test_a_key_given_twice_in_stream_options_is_found(
    options: list[tuple[str, bool]], data: st.DataObject
) -> None:
    inner = data.draw(object_text(options))
    body = (
        '{"model":"m","stream":true,"prompt":"include_usage",'
        f'"stream_options" :{inner},"metadata":{{"include_usage":1}}}}'
    )
    if len(dict(options)) == len(options):
        assert parse_request(Dialect.COMPLETIONS, body.encode(), LENIENT).stream
        return
    with pytest.raises(InvalidRequest) as caught:
        parse_request(Dialect.COMPLETIONS, body.encode(), LENIENT)
    assert caught.value.code == "duplicate_parameter"
