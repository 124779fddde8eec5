r"""A request's body from bytes to a dict, within bounds on size, nesting, values and time.

orjson reads it. What orjson refuses, the standard library decides on: it takes unpaired surrogates
(``"\ud800"``, which engines take too) and numbers beyond a double's range, both valid by RFC 8259's
grammar. ``NaN`` and ``Infinity`` stay refused, and so does what is not UTF-8.
"""

import json
import re
from typing import Any, Final

import orjson

from filature.errors import InvalidRequest, RequestTooLarge
from filature.request.limits import RequestLimits
from filature.request.rules import shown, shown_name
from filature.wire.members import members
from filature.wire.sse import BOM

_loads: Final = orjson.loads  # a module's attributes are looked up at each use
_BACKSLASH: Final = 0x5C  # looked for as a number: `in` with bytes is several times as slow
_INT64_CHARS: Final = 20
"""A longer integer is read as a double, as orjson does: Python's own would take quadratic time."""

_STRING: Final = rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"?+'
"""A string, or what starts as one and never ends: nothing is looked at twice."""
_STRINGS: Final = re.compile(_STRING, re.DOTALL)
_BRACKETS: Final = re.compile(_STRING + rb"|[\[\]{}]", re.DOTALL)


def load_object(body: bytes, limits: RequestLimits) -> tuple[bytes, dict[str, Any]]:
    """The body without a byte order mark, and what it says.

    Raises RequestTooLarge, or InvalidRequest with code ``invalid_json`` or ``invalid_type``.
    """
    if len(body) > limits.body_bytes_max:
        raise RequestTooLarge(
            f"The body has {len(body)} bytes; at most {limits.body_bytes_max} are allowed."
        )
    if len(body) > limits.values_max:
        _check_values(body, limits)
    try:
        parsed = _loads(body)
    except orjson.JSONDecodeError:
        body = body.removeprefix(BOM)  # RFC 8259, 8.1: may be ignored on reading
        parsed = _second_opinion(body, limits)
    if type(parsed) is not dict:
        raise InvalidRequest(
            f"The body must be a JSON object; got {shown(parsed)}.", code="invalid_type"
        )
    # so few brackets cannot nest too deeply, wherever they stand
    if body.count(b"{") + body.count(b"[") > limits.depth_max:
        _check_depth(parsed, limits)
    return body, parsed


def has_distinct_keys(body: bytes, parsed: dict[str, Any]) -> bool:
    """Whether it is proven that no object in ``body``, which says ``parsed``, has a key twice.

    A parser keeps one of two equal keys, so that what it read has fewer strings than are written.
    Where a string may end in a backslash it is not known how many are written: nothing is proven.
    """
    quotes = body.count(b'"')
    if _BACKSLASH in body:
        if body.find(b"\\\\") >= 0:
            return False
        quotes -= body.count(b'\\"')
    return quotes == 2 * _strings_in(parsed)


def _strings_in(value: Any) -> int:
    """Keys and texts; nesting is bounded by ``load_object``."""
    if type(value) is str:
        return 1
    strings = 0
    if type(value) is dict:
        strings = len(value)
        for inner in value.values():
            strings += 1 if type(inner) is str else _strings_in(inner)
    elif type(value) is list:
        for inner in value:
            strings += 1 if type(inner) is str else _strings_in(inner)
    return strings


def refuse_duplicates(body: bytes, start: int, prefix: str, distinct: int) -> None:
    """Raise InvalidRequest when the object at ``start`` has a key twice.

    ``distinct`` is how many keys a parser found in it. Which of the values counts differs from
    parser to parser, so what was checked here need not be what the engine reads.
    """
    found = members(body, start)
    if len(found) == distinct:
        return
    seen: set[str] = set()
    for raw, _ in found:
        key = key_text(raw)
        if key in seen:
            name = prefix + shown_name(key)
            raise InvalidRequest(
                f"{name} is given twice; give it once.", param=name, code="duplicate_parameter"
            )
        seen.add(key)


def key_text(raw: bytes) -> str:
    """A key from the bytes between its quotes, escapes decoded."""
    if _BACKSLASH not in raw:
        return raw.decode()
    key: str = json.loads(f'"{raw.decode()}"')
    return key


def _check_values(body: bytes, limits: RequestLimits) -> None:
    """Commas and opening brackets, strings taken out, are as many as values or more."""
    limit = limits.values_max
    if body.count(b",") + body.count(b"[") + body.count(b"{") <= limit:
        return
    structure, strings = _STRINGS.subn(b"", body, count=limit + 1)
    values = structure.count(b",") + structure.count(b"[") + structure.count(b"{")
    if strings > limit or values > limit:
        raise InvalidRequest(
            f"The body has too many values; at most {limit} are allowed.", code="too_many_values"
        )


def _check_depth(parsed: Any, limits: RequestLimits) -> None:
    level = [parsed]
    for _ in range(limits.depth_max):
        level = [
            value
            for container in level
            for value in (container.values() if type(container) is dict else container)
            if type(value) is dict or type(value) is list
        ]
        if not level:
            return
    raise _too_deep(limits)


def _too_deep(limits: RequestLimits) -> InvalidRequest:
    return InvalidRequest(
        f"The body nests arrays and objects more than {limits.depth_max} levels deep.",
        code="too_deeply_nested",
    )


def _second_opinion(body: bytes, limits: RequestLimits) -> Any:
    """What the standard library reads in a body that orjson refused."""
    if not body.strip():
        raise InvalidRequest(
            "The body is empty; it must be a JSON object.", code="invalid_json"
        ) from None
    try:
        decoded = body.decode()
    except UnicodeDecodeError as error:
        raise InvalidRequest(
            f"The body is not valid UTF-8 at byte {error.start}.", code="invalid_json"
        ) from None
    _check_text_depth(body, limits)  # the standard library recurses
    try:
        return json.loads(decoded, parse_constant=_no_constant, parse_int=_integer)
    except json.JSONDecodeError as error:
        raise InvalidRequest(f"The body is not valid JSON: {error}.", code="invalid_json") from None
    except _Constant as error:
        raise InvalidRequest(
            f"The body is not valid JSON: {error} is not a JSON number.", code="invalid_json"
        ) from None


def _check_text_depth(body: bytes, limits: RequestLimits) -> None:
    depth = 0
    for token in _BRACKETS.finditer(body):
        byte = body[token.start()]
        if byte in b"[{":
            depth += 1
            if depth > limits.depth_max:
                raise _too_deep(limits)
        elif byte in b"]}":
            depth -= 1


class _Constant(Exception):
    """NaN, Infinity or -Infinity, which Python's parser takes and JSON has not."""


def _no_constant(constant: str) -> None:
    raise _Constant(constant)


def _integer(digits: str) -> int | float:
    return int(digits) if len(digits) <= _INT64_CHARS else float(digits)
