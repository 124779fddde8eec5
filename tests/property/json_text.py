"""JSON as clients may write it: any white space, any escapes, any order."""

import json
from typing import Any

from hypothesis import strategies as st

SPACE = st.sampled_from(["", "", "", " ", "\n", "\r\n  ", "\t "])
CHARACTERS = st.one_of(
    st.sampled_from('ab"\\/{}[],: \n\x00é日😀'),
    st.characters(codec="utf-8"),
)
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**53), 2**53),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(CHARACTERS, max_size=8),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(st.text(CHARACTERS, max_size=4), inner, max_size=3),
    ),
    max_leaves=8,
)


@st.composite
def string_text(draw: st.DrawFn, value: str) -> str:
    """A string in quotes, some of its characters escaped."""
    pieces = []
    for char in value:
        plain = json.dumps(char, ensure_ascii=False)[1:-1]
        escaped = "".join(
            f"\\u{unit:04x}"
            for unit in memoryview(char.encode("utf-16-le", "surrogatepass")).cast("H")
        )
        pieces.append(escaped if draw(st.integers(0, 9)) == 0 else plain)
    return '"' + "".join(pieces) + '"'


@st.composite
def json_text(draw: st.DrawFn, value: Any) -> str:
    """A value as text, with white space wherever it may stand around its parts."""
    if isinstance(value, dict):
        return draw(object_text(list(value.items())))
    if isinstance(value, list):
        entries = [draw(SPACE) + draw(json_text(entry)) + draw(SPACE) for entry in value]
        return "[" + (",".join(entries) or draw(SPACE)) + "]"
    if isinstance(value, str):
        return draw(string_text(value))
    return json.dumps(value)


@st.composite
def object_text(draw: st.DrawFn, pairs: list[tuple[str, Any]]) -> str:
    """An object of these members, in this order; keys may come twice."""
    entries = [
        draw(SPACE)
        + draw(string_text(key))
        + draw(SPACE)
        + ":"
        + draw(SPACE)
        + draw(json_text(value))
        + draw(SPACE)
        for key, value in pairs
    ]
    return "{" + (",".join(entries) or draw(SPACE)) + "}"
