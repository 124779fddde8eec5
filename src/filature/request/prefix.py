"""What requests that begin alike have in common, as a number: they are sent where their beginning is cached."""

import zlib
from typing import Any, Final

from filature.request.parse import ParsedRequest
from filature.wire.dialect import Dialect

PREFIX_BYTES_MAX: Final = 4096
_FIRST: Final = {
    Dialect.CHAT: "messages",
    Dialect.COMPLETIONS: "prompt",
    Dialect.RESPONSES: "input",
    Dialect.MESSAGES: "messages",
}
"""Where a prompt begins, behind ``instructions`` and ``system``."""
_ATTRIBUTION: Final = "x-anthropic-billing-header:"
"""How the first part of a system prompt of Anthropic's command line begins, which has another hash in each request;
engines leave it out of what they cache."""


def prefix_of(request: ParsedRequest, account: str) -> int:
    """Equal for requests of one account for one model whose system prompt and first user message are
    the same, as far as their first PREFIX_BYTES_MAX bytes; 0 where there is nothing to go by."""
    name = _FIRST.get(request.dialect)
    if name is None:
        return 0
    fields = request.fields
    text = bytearray()
    for leading in ("instructions", "system"):
        _add(fields.get(leading), text)
    first = fields.get(name)
    if isinstance(first, list):
        for item in first:
            if len(text) >= PREFIX_BYTES_MAX:
                break
            _add(item, text)
            if isinstance(item, dict) and item.get("role") == "user":
                break
    else:
        _add(first, text)
    if not text:
        return 0
    return (
        zlib.crc32(text[:PREFIX_BYTES_MAX], zlib.crc32(f"{account}\0{request.model}".encode())) + 1
    )


def _add(value: Any, text: bytearray) -> None:
    """The text of a message or a part, or of a list of parts."""
    if isinstance(value, str):
        if value.startswith(_ATTRIBUTION):
            return
        text += value[:PREFIX_BYTES_MAX].encode("utf-8", "surrogatepass")
    elif isinstance(value, dict):
        for name in ("content", "text"):
            _add(value.get(name), text)
    elif isinstance(value, list):
        for part in value:
            if len(text) >= PREFIX_BYTES_MAX:
                return
            _add(part, text)
