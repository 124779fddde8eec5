"""Edits of a payload's text by byte spans: usage out, cost in, the model's name. It decides nothing.

Every function takes the text of a JSON object that a parser accepted, and returns a text in which
all else stands as it did.
"""

import re
from collections.abc import Mapping
from typing import Final

import orjson

from filature.answer.pricing import COST_KEYS, Cost, cost_members, usage_object
from filature.answer.usage import COUNT_KEYS, Usage, usage_members
from filature.wire.dialect import Dialect
from filature.wire.documents import dump_json
from filature.wire.members import Member, member_at, members
from filature.wire.splice import (
    decoded_key,
    find_members,
    with_members,
    without_member,
    without_members,
)

_KEY: Final = b'"usage"'
_KEY_BYTES: Final = len(_KEY)
_BRACE: Final = 0x7B  # looked for as a number: `in` with bytes is several times as slow
_BACKSLASH: Final = 0x5C
_SPACE: Final = b" \t\r\n"
_BEFORE_KEY: Final = b",{" + _SPACE
_BEFORE_VALUE: Final = b":" + _SPACE
_OBJECT: Final = re.compile(rb"\{[^{}]*+(?:\{[^{}]*+\}[^{}]*+)*+\}")
_OWN_KEYS: Final = ("usage", "choices")
_WRITTEN: Final = frozenset({*COST_KEYS, "estimated"})
_SEARCHED_KEYS_MAX: Final = 16
"""An object with more keys is read once instead of searched once per key."""
_ESCAPED_LETTER: Final = re.compile(rb"\\u00[67]")


def find_usage(text: bytes, path: tuple[str, ...]) -> Member | None:
    """Where the usage object at ``path`` stands; it is known to be there and an object.

    If the key is written once and no key can hide behind escapes, it is found by its bytes.
    """
    start, value_start, value_end = _find_written(text)
    if start > 0:
        return Member(start, value_start, value_end)
    every = _walk(text, path)
    return every[-1] if every else None


def _find_written(text: bytes) -> tuple[int, int, int]:
    """A Member's offsets for the only ``"usage"`` that is written in the text; zeros if unsure.

    Quotes cannot stand in a string unescaped, so ``,"usage":{`` is a key wherever it stands. What
    follows is the whole object if its strings are closed, and no object is in it; or if a parser
    takes it, since no part of one is an object.
    """
    start = text.rfind(_KEY)
    if (
        start <= 0
        or text[start - 1] not in _BEFORE_KEY
        or _may_hide_keys(text)
        or text.find(_KEY, 0, start) >= 0
    ):
        return 0, 0, 0
    value_start = start + _KEY_BYTES
    while text[value_start] in _BEFORE_VALUE:
        value_start += 1
    value_end = text.find(b"}", value_start) + 1
    inside = text[value_start + 1 : value_end]
    if text[value_start] != _BRACE:
        return 0, 0, 0
    if _BRACE not in inside and _BACKSLASH not in inside and inside.count(b'"') % 2 == 0:
        return start, value_start, value_end
    if _BRACE in inside:
        value_end = _matching_end(text, value_start)
    try:
        orjson.loads(text[value_start:value_end])
    except orjson.JSONDecodeError:
        return 0, 0, 0  # a brace in a string of it
    return start, value_start, value_end


def without_usage(text: bytes, path: tuple[str, ...]) -> bytes:
    """The text less its usage object, however often it has one."""
    first = find_usage(text, path)
    if first is None:
        return text
    text = without_member(text, first)
    if text.find(b'usage"') >= 0 or _may_hide_keys(text):
        text = without_members(text, _walk(text, path))
    return text


def with_charge(
    text: bytes,
    path: tuple[str, ...],
    dialect: Dialect,
    told: Mapping[str, object] | None,
    usage: Usage,
    cost: Cost,
    *,
    agrees: bool,
) -> bytes:
    """The text with ``usage`` and its cost in its usage object, which says ``told`` (None: there is none yet) and keeps
    its own counts where it ``agrees``."""
    if told is None:
        return _with_usage(text, path, usage_object(dialect, usage, cost))
    if agrees:
        return _with_cost(text, path, told, cost, estimated=usage.estimated)
    # whether they are estimated the counts say themselves
    text = _with_counts(text, path, dialect, usage)
    return _with_cost(text, path, told, cost, estimated=False)


def _with_cost(
    text: bytes, path: tuple[str, ...], usage: Mapping[str, object], cost: Cost, *, estimated: bool
) -> bytes:
    """The text with the cost last in its usage object, which says ``usage``."""
    _, start, end = _find_written(text)
    if end == 0:
        member = find_usage(text, path)
        if member is None:
            return text
        _, start, end = member
    if not _WRITTEN.isdisjoint(usage):
        record = _without_cost(text[start:end], estimated=estimated)
        text = b"%b%b%b" % (text[:start], record, text[end:])
        end = start + len(record)
    added = cost_members(cost)
    if estimated:
        added = b',"estimated":true' + added
    end -= 1
    while text[end - 1] in _SPACE:
        end -= 1
    if end - 1 == start:  # nothing is in it
        added = added[1:]
    return b"%b%b%b" % (text[:end], added, text[end:])


def _with_counts(text: bytes, path: tuple[str, ...], dialect: Dialect, usage: Usage) -> bytes:
    """The text with other counts in its usage object: they come first, and what else it says stays."""
    member = find_usage(text, path)
    if member is None:
        return text
    _, start, end = member
    record = text[start:end]
    for key in (*COUNT_KEYS[dialect], "estimated"):
        record = without_members(record, find_members(record, key))
    rest = record[1:].lstrip(_SPACE)
    comma = b"" if rest == b"}" else b","
    counts = usage_members(dialect, usage)
    return b"%b{%b%b%b%b" % (text[:start], counts, comma, rest, text[end:])


def _without_cost(record: bytes, *, estimated: bool) -> bytes:
    """A usage object less what is going to be written into it."""
    for key in _WRITTEN:
        if key != "estimated" or estimated:
            record = without_members(record, find_members(record, key))
    return record


def _with_usage(text: bytes, path: tuple[str, ...], record: bytes) -> bytes:
    """The text with a usage object where it has none, or ``null``."""
    every = _walk(text, path)
    if every:
        last = every[-1]
        return text[: last.value_start] + record + text[last.value_end :]
    end = _end_around(text, path)
    return text if end < 0 else with_members(text, b'"usage":' + record, end)


def with_debug(text: bytes, path: tuple[str, ...], debug: bytes) -> bytes:
    """The text with ``debug`` (a member of that name) last in the object that has its usage at ``path``,
    in place of one that is there."""
    text = without_members(text, _walk(text, (*path[:-1], "debug")))
    end = _end_around(text, path)
    return text if end < 0 else with_members(text, debug, end)


def _end_around(text: bytes, path: tuple[str, ...]) -> int:
    """The offset behind the object that the member at ``path`` is in, or would be; -1: there is none."""
    if len(path) == 1:
        return len(text.rstrip(_SPACE))
    parents = _walk(text, path[:-1])
    return parents[-1].value_end if parents else -1


def with_model(text: bytes, path: tuple[str, ...], old: str, new: str) -> bytes:
    """The text with another model's name at ``path``, where ``old`` stands."""
    name, written = dump_json(old), dump_json(new)
    if text.count(b'"model"') == 1 and not _may_hide_keys(text):
        for key in (b'"model":', b'"model": '):
            start = text.find(key + name)
            if start >= 0:
                start += len(key)
                return text[:start] + written + text[start + len(name) :]
    pieces: list[bytes] = []
    position = 0
    for member in _walk(text, path):
        pieces += [text[position : member.value_start], written]
        position = member.value_end
    return b"".join([*pieces, text[position:]])


def with_extra_members(
    text: bytes, taken: Mapping[str, object], source: bytes, said: Mapping[str, object]
) -> bytes:
    """The text with the members of another object that it lacks, other than usage and choices.

    ``source`` is the other object's text and ``said`` its values; ``taken`` those of ``text``.
    """
    lacked = {key: None for key in said if key not in taken and key not in _OWN_KEYS}
    if not lacked:
        return text
    added: list[bytes] = []
    for key in lacked:
        written = _written_once(source, key) if len(lacked) <= _SEARCHED_KEYS_MAX else None
        if written is None:
            added = [
                source[member.key_start : member.value_end]
                for raw, member in members(source)
                if decoded_key(raw) in lacked
            ]
            break
        added.append(written)
    return with_members(text, b",".join(added), len(text.rstrip(_SPACE)))


def _written_once(text: bytes, key: str) -> bytes | None:
    """The member of an object that has it; None where its key may be written twice, or escaped."""
    token = b'"%b"' % key.encode("utf-8", "replace")
    start = text.find(token)
    if start < 0 or _BACKSLASH in text or text.find(token, start + 1) >= 0:
        return None
    return text[start : member_at(text, start).value_end]


def _matching_end(text: bytes, start: int) -> int:
    found = _OBJECT.match(text, start)
    return start if found is None else found.end()


def _may_hide_keys(text: bytes) -> bool:
    """Whether a key of ours could be written with escapes (an ``e`` as its number)."""
    return (
        _BACKSLASH in text and text.find(b"\\u00") >= 0 and _ESCAPED_LETTER.search(text) is not None
    )


def _walk(text: bytes, path: tuple[str, ...]) -> list[Member]:
    start = 0
    for name in path[:-1]:
        every = find_members(text, name, start)
        if not every or text[every[-1].value_start] != _BRACE:
            return []
        start = every[-1].value_start
    return find_members(text, path[-1], start)
