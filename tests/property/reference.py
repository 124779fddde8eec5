"""Slow and plain readings of an answer, on its whole text at once: what the fast one is held against.

``decode`` reads an event stream as WHATWG HTML 9.2.6 words it; ``expected`` reads ``answers.md``.
"""

import json
import re
from typing import Any

from filature.answer.pricing import COST_KEYS
from filature.answer.usage import COUNT_KEYS, Usage, read_record
from filature.wire.dialect import Dialect
from filature.wire.sse import BOM, terminate


def decode(stream: bytes) -> list[tuple[str, str]]:
    """The events that are dispatched: (type, data)."""
    text = stream.decode("utf-8", "replace").removeprefix("\ufeff")
    lines = re.split("\r\n|\n|\r", text)
    events: list[tuple[str, str]] = []
    name, data = "", ""
    for line in lines[:-1]:  # what no line end follows is no line
        if not line:
            if data:
                events.append((name or "message", data.removesuffix("\n")))
            name, data = "", ""
            continue
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if field == "data":
            data += value + "\n"
        elif field == "event":
            name = value
    return events


def parsed(data: str) -> Any:
    """The payload, or the text if it is not JSON."""
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        return data


def is_record(payload: Any) -> bool:
    return isinstance(payload, dict) and isinstance(payload.get("usage"), dict)


def completed(body: bytes) -> bytes:
    """What ``finish(clean=True)`` is to make of the end: half an event that says all gets its end."""
    ended = terminate(body)
    if len(decode(ended)) > len(decode(body)):
        data = decode(ended)[-1][1]
        if data.strip(" ") == "[DONE]" or parsed(data) is not data:
            return ended
    return body


def several(text: bytes) -> list[Any]:
    """The documents in a row that can be read."""
    found: list[Any] = []
    rest = text.removeprefix(BOM).decode("utf-8", "replace").lstrip(" \t\r\n")
    while rest:
        try:
            value, end = json.JSONDecoder().raw_decode(rest)
        except (ValueError, RecursionError):
            return found
        found.append(value)
        rest = rest[end:].lstrip(" \t\r\n")
    return found


def without_cost(payload: Any) -> Any:
    """The payload less what we write into usage objects, wherever they stand: costs, and counts, which are
    the engine's where it told what is charged."""
    if not isinstance(payload, dict):
        return payload
    added = {*COST_KEYS, "estimated", *(key for keys in COUNT_KEYS.values() for key in keys)}
    return {
        key: {name: each for name, each in value.items() if name not in added}
        if key == "usage" and isinstance(value, dict)
        else without_cost(value)
        if key in ("response", "message")
        else value
        for key, value in payload.items()
    }


def told_by(record: dict[str, Any], dialect: Dialect = Dialect.CHAT) -> Usage:
    """The usage that a record says, to one who takes what is absent for none."""
    read = read_record(dialect, record)
    return Usage(
        read.prompt or 0,
        read.cached or 0,
        read.completion or 0,
        read.reasoning or 0,
        record.get("estimated", False),
    )


def expected(payloads: list[Any], *, wants_chunk: bool, wants_every: bool) -> list[Any]:
    """The payloads that a client gets: a plain reading of ``answers.md``."""
    shown: list[Any] = []
    finish_may_grow = False
    for payload in payloads:
        has_choices = isinstance(payload, dict) and bool(payload.get("choices"))
        if not is_record(payload):
            shown.append(payload)
        elif has_choices:
            kept = payload if wants_every else dict(payload)
            if not wants_every:
                del kept["usage"]
            shown.append(kept)
        elif wants_chunk:
            shown.append(payload)
        else:
            if finish_may_grow:
                left = {k: v for k, v in payload.items() if k not in ("usage", "choices")}
                shown[-1] = left | shown[-1]
            finish_may_grow = False
            continue
        finish_may_grow = has_choices and any(
            isinstance(choice, dict) and choice.get("finish_reason")
            for choice in payload["choices"]
        )
    return shown
