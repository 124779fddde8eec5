"""Where a member of a JSON object stands in its text, so that an edit leaves the rest untouched.

The text is known to be valid JSON (a parser accepted it) before anything here looks at it.

Everything is linear in the length of the text. The patterns are possessive (``*+``): without that a
string of some megabytes would cost the regular expression engine gigabytes of backtracking state.
"""

import re
from typing import Final, NamedTuple

_SPACE: Final = rb"[ \t\r\n]*+"
_TEXT: Final = rb'[^"\\]*+(?:\\.[^"\\]*+)*+'
"""What stands between the quotes of a string."""

_STRING: Final = b'"' + _TEXT + b'"'
_SCALAR: Final = rb"[^ \t\r\n,\]}\[{\"]++"
"""A number or a literal: ends where its parent goes on."""

_MEMBER: Final = re.compile(
    _SPACE
    + b'"('
    + _TEXT
    + b')"'
    + _SPACE
    + b":"
    + _SPACE
    + b"("
    + _STRING
    + b"|"
    + _SCALAR
    + b")?+",
    re.DOTALL,
)
"""A member as far as its value's end; as far as its value's first bracket if it has one."""
_COMMA: Final = re.compile(_SPACE + b",")
_BRACKET: Final = re.compile(_STRING + rb"|[\[\]{}]", re.DOTALL)
"""A bracket, or a whole string so that brackets inside one are passed over."""

_QUOTE: Final = 0x22
_OPEN: Final = b"[{"


class Member(NamedTuple):
    """Offsets into the text: the key's opening quote, the value's first byte, its end."""

    key_start: int
    value_start: int
    value_end: int


def members(text: bytes, start: int = 0) -> list[tuple[bytes, Member]]:
    """All members of the object whose ``{`` stands at or after ``start``, in order.

    Keys are the raw bytes between the quotes, escapes not decoded; duplicates are kept.
    """
    found: list[tuple[bytes, Member]] = []
    position = text.index(b"{", start) + 1
    while (match := _MEMBER.match(text, position)) is not None:
        member = _member(text, match)
        found.append((match.group(1), member))
        comma = _COMMA.match(text, member.value_end)
        if comma is None:
            break
        position = comma.end()
    return found


def member_at(text: bytes, key_start: int) -> Member:
    """The member whose key's opening quote stands at ``key_start``."""
    match = _MEMBER.match(text, key_start)
    if match is None:
        raise ValueError("no member of an object starts there")
    return _member(text, match)


def _member(text: bytes, match: re.Match[bytes]) -> Member:
    value_start = match.start(2)
    if value_start >= 0:
        return Member(match.start(1) - 1, value_start, match.end())
    return Member(match.start(1) - 1, match.end(), _container_end(text, match.end()))


def _container_end(text: bytes, start: int) -> int:
    """The offset just behind the array or object whose bracket stands at ``start``."""
    depth = 0
    for token in _BRACKET.finditer(text, start):
        byte = text[token.start()]
        if byte == _QUOTE:
            continue
        depth += 1 if byte in _OPEN else -1
        if depth == 0:
            return token.end()
    raise ValueError("not valid JSON: a bracket is never closed")
