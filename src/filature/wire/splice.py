"""Edits of a JSON object's text, member by member: all else stays as it was written.

Every function takes text that a parser accepted.
"""

import re
from typing import Final

import orjson

from filature.wire.members import Member, members

_SEPARATOR: Final = re.compile(rb"[ \t\r\n]*+([,}])")
_SPACE: Final = b" \t\r\n"
_BACKSLASH: Final = 0x5C  # looked for as a number: `in` with bytes is several times as slow


def find_members(text: bytes, name: str, start: int = 0) -> list[Member]:
    """The members with that name, escapes in keys decoded, of the object at or after ``start``."""
    plain = name.encode()
    return [
        member
        for key, member in members(text, start)
        if key == plain or (_BACKSLASH in key and decoded_key(key) == name)
    ]


def without_member(text: bytes, member: Member) -> bytes:
    """The text less one member and the comma that set it apart."""
    start, end = member.key_start, member.value_end
    before = start
    while before > 0 and text[before - 1] in _SPACE:
        before -= 1
    if text[before - 1 : before] == b",":
        return text[: before - 1] + text[end:]
    separator = _SEPARATOR.match(text, end)
    if separator is not None and separator.group(1) == b",":
        return text[:start] + text[separator.end() :].lstrip(_SPACE)
    return text[:start] + text[end:]


def without_members(text: bytes, found: list[Member]) -> bytes:
    """The text less several members of one object, given in their order; in one pass, however many they are."""
    if not found:
        return text
    end = len(text)
    kept: list[bytes] = []
    for member in reversed(found[1:]):  # a comma is before each
        kept.append(text[member.value_end : end])
        end = member.key_start
        while text[end - 1] in _SPACE:
            end -= 1
        end -= 1
    kept.append(text[:end])
    kept.reverse()
    return without_member(b"".join(kept), found[0])


def with_members(text: bytes, added: bytes, object_end: int) -> bytes:
    """The text with ``added`` (members, no comma around them) last in an object.

    ``object_end`` is the offset just behind the object's ``}``.
    """
    before = object_end - 1
    while text[before - 1] in _SPACE:
        before -= 1
    comma = b"" if text[before - 1 : before] == b"{" else b","
    return text[:before] + comma + added + text[before:]


def decoded_key(key: bytes) -> str | None:
    """A raw key as text; None where it is not valid."""
    try:
        text = orjson.loads(b'"' + key + b'"')
    except orjson.JSONDecodeError:
        return None
    return text if isinstance(text, str) else None
