"""An event stream decoder as WHATWG HTML 9.2.6 words it: slow, plain, on the whole text at once."""

import re


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
