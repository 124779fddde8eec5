"""What an engine says when it fails or refuses, read from any of the forms that engines use."""

import re
from typing import Any, Final, NamedTuple

import orjson

from filature.wire.documents import dump_json

MESSAGE_CHARS_MAX: Final = 4000
"""Of an engine's message passed on to a client."""
NAME_CHARS_MAX: Final = 256
"""Of a ``code`` or ``param``, which stand in usage records and logs, too; a longer one is none."""

_CONTEXT_EXCEEDED: Final = re.compile(
    r"maximum context length|context (?:length|size|window)", re.IGNORECASE
)
"""vLLM and SGLang say it in the message alone, with the status as ``code``."""

ABOUT_THE_KEY: Final = (401, 403, 407)
"""Judgements of the key by which an engine is called: what it says of that is no client's to read."""


KEY_SHOWN: Final = "***"
"""In place of the engine's own key, wherever an engine repeats it."""


class EngineMessage(NamedTuple):
    """The members of an OpenAI error, ``code`` as a string as the API has it."""

    message: str
    param: str | None = None
    code: str | None = None
    status: int = 0
    """The HTTP status given as ``code``, as vLLM does in a stream; 0: none."""


def read_error_body(body: bytes, key: str | None = None) -> EngineMessage:
    """The error in an engine's response body; text that is not JSON is the message itself.

    ``key``: the one by which the engine was called; it stands in nothing that is returned.
    """
    try:
        parsed = orjson.loads(body)
    except orjson.JSONDecodeError:
        parsed = body.decode("utf-8", "replace").strip()
    return read_error(parsed, key)


def failure_text(told: EngineMessage, status: int, *, of_worker: bool) -> str:
    """What a client is told of an engine that answered so. A worker's words are ours, and stand alone."""
    if status in ABOUT_THE_KEY:
        return f"The engine answered {status}."
    return (
        told.message
        if of_worker and told.message
        else f"The engine answered {status}: {told.message}"
    )


def read_error(parsed: Any, key: str | None = None) -> EngineMessage:
    """The error in a parsed body or event; ``key`` as in ``read_error_body``.

    Forms seen: ``{"error": {…}}`` (vLLM, llama.cpp, Anthropic's with a ``type`` beside it),
    ``{"error": "text"}`` and ``{"detail": "text" | [{"loc": […], "msg": …}]}`` (transformers,
    FastAPI), flat ``{"object": "error", "message": …}`` (older vLLM), Responses'
    ``{"response": {"error": {…}}}``.
    """
    if isinstance(parsed, dict):
        response = parsed.get("response")
        for found in (
            parsed.get("error"),
            response.get("error") if isinstance(response, dict) else None,
            parsed.get("detail"),
        ):
            if found:
                return _sendable(_from_value(found), key)
    return _sendable(_from_value(parsed), key)


def _sendable(told: EngineMessage, key: str | None) -> EngineMessage:
    """Without the key, and no longer than what is passed on: in this order, or a part of a key would be left."""
    message = told.message.replace(key, KEY_SHOWN) if key else told.message
    return EngineMessage(
        message[:MESSAGE_CHARS_MAX], _name(told.param, key), _name(told.code, key), told.status
    )


def _from_value(value: Any) -> EngineMessage:
    if isinstance(value, str):
        return EngineMessage(value)
    if isinstance(value, list):
        return _from_validation(value)
    if isinstance(value, dict):
        message = value.get("message")
        text = message if isinstance(message, str) else _text(value)
        param, code = value.get("param"), value.get("code")
        status = code
        if value.get("type") == "exceed_context_size_error" or _CONTEXT_EXCEEDED.search(text):
            code = "context_length_exceeded"
        return EngineMessage(
            text,
            _string(param),
            _string(code),
            status if type(status) is int and 400 <= status < 600 else 0,
        )
    return EngineMessage("")


def _from_validation(entries: list[Any]) -> EngineMessage:
    """FastAPI's list of validation errors: the messages joined, the first location as ``param``."""
    messages: list[str] = []
    param: str | None = None
    for entry in entries:
        if isinstance(entry, dict):
            location = entry.get("loc")
            path = [_text(p) for p in location if p != "body"] if isinstance(location, list) else []
            where = ".".join(path)
            if path and param is None:
                param = where
            text = _text(entry.get("msg"))
            messages.append(f"{where}: {text}" if where else text)
    return EngineMessage("; ".join(messages), param)


def _string(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _name(text: str | None, key: str | None) -> str | None:
    """None where it is too long, or tells the key."""
    if text is None or len(text) > NAME_CHARS_MAX or (key and key in text):
        return None
    return text


def _text(value: Any) -> str:
    """A string as it is, anything else as JSON."""
    return value if isinstance(value, str) else dump_json(value).decode()
