"""Edits of a body: the result says what it should, and every other member's bytes survive."""

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from tests.property.json_text import CHARACTERS, SCALARS, VALUES, json_text

from filature.request.json_body import key_text
from filature.request.limits import RequestLimits
from filature.request.parse import parse_request
from filature.request.rewrite import body_for_engine, edit_object
from filature.wire.dialect import Dialect
from filature.wire.members import members

COCOON = ("max_coefficient", "timeout", "request_guid", "enable_debug")
USAGE = ("include_usage", "continuous_usage_stats")


def texts(body: bytes) -> dict[str, bytes]:
    """Each member as it is written, from its key's quote to its value's end."""
    return {key_text(raw): body[m.key_start : m.value_end] for raw, m in members(body)}


@given(
    st.dictionaries(st.text(CHARACTERS, max_size=3), VALUES, max_size=6),
    st.dictionaries(st.sampled_from("abcxyz"), SCALARS, max_size=3),
    st.data(),
)
def test_members_set_and_removed(
    before: dict[str, Any], values: dict[str, Any], data: st.DataObject
) -> None:
    removed = data.draw(st.sets(st.sampled_from([*before, "a", "q"]))) - values.keys()
    text = data.draw(json_text(before)).encode()
    edited = edit_object(
        text, {name: json.dumps(value).encode() for name, value in values.items()}, removed
    )
    kept = {key: value for key, value in before.items() if key not in removed}
    said = json.loads(edited)
    assert said == kept | values
    assert list(said) == list(kept | values)
    written = texts(text)
    for key, member in texts(edited).items():
        if key not in values:
            assert member == written[key]
    if not values and not removed & before.keys():
        assert edited == text


STREAM_OPTIONS = st.one_of(
    st.none(),
    st.fixed_dictionaries(
        {},
        optional={
            "include_usage": st.booleans() | st.none(),
            "continuous_usage_stats": st.booleans() | st.none(),
            "include_obfuscation": st.booleans(),
            "other": VALUES,
        },
    ),
)
TOKENS = st.integers(1, 200) | st.none()
FIELDS = st.fixed_dictionaries(
    {
        "model": st.sampled_from(["m", "n", 'naïve "model"']),
        "messages": st.lists(
            st.fixed_dictionaries(
                {"role": st.just("user"), "content": st.text(CHARACTERS, max_size=20)}
            ),
            min_size=1,
            max_size=2,
        ),
    },
    optional={
        "stream_options": STREAM_OPTIONS,
        "max_tokens": TOKENS,
        "max_completion_tokens": TOKENS,
        "n": st.integers(1, 3) | st.none(),
        "user": st.sampled_from(["model", "user", "stream_options", '"model":']),
        "metadata": VALUES.filter(lambda value: isinstance(value, dict)),
        "timeout": st.floats(0.5, 9) | st.none(),
        "request_guid": st.sampled_from(["a", '},"'[:1], "timeout"]),
        "enable_debug": st.booleans(),
        "extra": VALUES,
    },
)


def expected(
    fields: dict[str, Any], model: str, cap: int | None, *, include: bool, continuous: bool
) -> dict[str, Any]:
    """What an engine should read, by the documents."""
    wanted = {key: value for key, value in fields.items() if key not in COCOON}
    wanted["model"] = model
    if fields.get("stream"):
        options = dict(fields.get("stream_options") or {})
        for name, able in zip(USAGE, (include, include and continuous), strict=True):
            options.pop(name, None)
            if able:
                options[name] = True
        wanted.pop("stream_options", None)
        if options:
            wanted["stream_options"] = options
    if cap is not None:
        names = ("max_tokens", "max_completion_tokens")
        given_ = {name: fields[name] for name in names if fields.get(name) is not None}
        wanted |= {name: min(value, cap) for name, value in given_.items()} or {"max_tokens": cap}
    return wanted


@given(
    FIELDS,
    st.booleans(),
    st.sampled_from(["m", "upstream/ünnamed"]),
    st.none() | st.integers(1, 250),
    st.booleans(),
    st.booleans(),
    st.data(),
)
def test_a_body_for_an_engine(
    fields: dict[str, Any],
    stream: bool,
    model: str,
    cap: int | None,
    include: bool,
    continuous: bool,
    data: st.DataObject,
) -> None:
    if stream:
        fields = fields | {"stream": True}
    elif fields.get("stream_options") is not None:
        del fields["stream_options"]
    ordered = dict(data.draw(st.permutations(list(fields.items()))))
    body = (data.draw(json_text(ordered)) + data.draw(st.sampled_from(["", "\n"]))).encode()
    request = parse_request(Dialect.CHAT, body, RequestLimits(max_tokens_max=cap))
    sent = body_for_engine(request, model=model, include_usage=include, continuous_usage=continuous)
    wanted = expected(ordered, model, cap, include=include, continuous=continuous)
    assert json.loads(sent) == wanted
    written, rewritten = texts(body), texts(sent)
    for key, member in written.items():
        if key in wanted and wanted[key] == ordered[key]:
            assert rewritten[key] == member
    assert [key for key in rewritten if key in written] == [key for key in written if key in wanted]
    if wanted == ordered:
        assert sent is request.body
