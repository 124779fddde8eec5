"""Where a member of a JSON object stands in its text, so that an edit leaves the rest untouched.

The text is known to be valid JSON (a parser accepted it) before anything here looks at it.
"""

import re
from typing import Final, NamedTuple

_TOKEN: Final = re.compile(rb'"(?:[^"\\]|\\.)*"|[\[\]{},]', re.DOTALL)
_SPACE: Final = b" \t\r\n"
_KEY: Final = re.compile(rb'"((?:[^"\\]|\\.)*)"[ \t\r\n]*:[ \t\r\n]*', re.DOTALL)


class Member(NamedTuple):
    """Offsets into the text: the key's opening quote, the value's first byte, its end."""

    key_start: int
    value_start: int
    value_end: int


def members(text: bytes, start: int = 0) -> list[tuple[bytes, Member]]:
    """All members of the object whose ``{`` stands at or after ``start``, in order.

    Keys are the raw bytes between the quotes, escapes not decoded; duplicates are kept. Linear in
    the length of the object.
    """
    found: list[tuple[bytes, Member]] = []
    position = text.index(b"{", start) + 1
    while True:
        key = _KEY.search(text, position)
        end_of_object = _skip_space(text, position)
        if text[end_of_object : end_of_object + 1] == b"}" or key is None:
            return found
        value_end = _value_end(text, key.end())
        found.append((key.group(1), Member(key.start(), key.end(), value_end)))
        position = _skip_space(text, value_end)
        if text[position : position + 1] != b",":
            return found
        position += 1


def _skip_space(text: bytes, position: int) -> int:
    while position < len(text) and text[position] in _SPACE:
        position += 1
    return position


def _value_end(text: bytes, start: int) -> int:
    """The offset just behind the value that starts at ``start``."""
    depth = 0
    for token in _TOKEN.finditer(text, start):
        first = token.group()[0]
        if first == 0x22:  # a string
            if depth == 0:
                return token.end()
        elif first in b"[{":
            depth += 1
        elif first in b"]}":
            if depth == 0:  # a number or literal, closed by its parent's bracket
                return len(text[: token.start()].rstrip(_SPACE))
            depth -= 1
            if depth == 0:
                return token.end()
        elif depth == 0:  # a number or literal, closed by a comma
            return len(text[: token.start()].rstrip(_SPACE))
    return len(text.rstrip(_SPACE))
