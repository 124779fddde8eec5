"""Fields that several dialects share and what they may hold: messages, prompts, sampling, streams."""

from typing import Any, Final

from filature.errors import InvalidRequest
from filature.request.limits import MODEL_CHARS_MAX, TOKENS_MAX
from filature.request.rules import (
    array_of_objects,
    array_up_to,
    boolean,
    integer,
    invalid,
    json_object,
    missing,
    number,
    shown_name,
    string,
    text,
    unknown,
    wrong_type,
)

MODEL: Final = text(1, MODEL_CHARS_MAX)
TOKENS: Final = integer(1, TOKENS_MAX)
TEMPERATURE: Final = number(0)
PENALTY: Final = number(-2, 2)
STREAM_OPTIONS: Final = ("include_usage", "continuous_usage_stats", "include_obfuscation")
"""OpenAI's, and vLLM's ``continuous_usage_stats``."""

_STOPS: Final = array_up_to(4, string)
_BIAS: Final = number(-100, 100)
_TOKEN_ID_MAX: Final = 2**31 - 1


# messages


def messages(value: Any, name: str) -> None:
    """An array of objects, each with a ``role``; its ``content`` is text, parts or null."""
    if type(value) is not list:
        raise wrong_type(name, "an array of messages", value)
    if not value:
        raise invalid(name, "an array of at least one message", value, "empty_array")
    for index, message in enumerate(value):
        if type(message) is not dict:
            raise wrong_type(f"{name}[{index}]", "a message object", message)
        if type(message.get("role")) is not str:
            where = f"{name}[{index}].role"
            if message.get("role") is None:
                raise missing(where)
            raise wrong_type(where, "a string", message["role"])
        content = message.get("content")
        if type(content) is not str and content is not None:
            content_parts(content, f"{name}[{index}].content")
        if message.get("tool_calls") is not None:
            array_of_objects(message["tool_calls"], f"{name}[{index}].tool_calls")


def content_parts(value: Any, name: str) -> None:
    """Content that is not a string: an array of objects, or of strings, as some engines take."""
    if type(value) is not list:
        raise wrong_type(name, "a string, an array of content parts or null", value)
    for index, part in enumerate(value):
        if type(part) is dict:
            kind = part.get("type")
            if kind is not None and type(kind) is not str:
                raise wrong_type(f"{name}[{index}].type", "a string", kind)
        elif type(part) is not str:
            raise wrong_type(f"{name}[{index}]", "a content part object", part)


# prompts


def prompts(value: Any, name: str) -> None:
    """One prompt or several, counted by ``prompt_count``.

    A prompt is a string, an array of token ids, or what only some engines take: an array of ids
    and strings (llama.cpp), an object (text with images).
    """
    if type(value) is not list:
        if type(value) is not str and type(value) is not dict:
            raise wrong_type(name, "a string or an array of strings or token ids", value)
        return
    if not value:
        raise invalid(name, "a prompt or an array of at least one", value, "empty_array")
    if int in set(map(type, value)):
        _ids_and_text(value, name)
        return
    for index, entry in enumerate(value):
        if type(entry) is list:
            if not entry:
                raise invalid(f"{name}[{index}]", "a prompt", entry, "empty_array")
            _ids_and_text(entry, f"{name}[{index}]")
        elif type(entry) is not str and type(entry) is not dict:
            raise wrong_type(f"{name}[{index}]", "a string or an array of token ids", entry)


def _ids_and_text(value: list[Any], name: str) -> None:
    """Token ids, and perhaps strings between them."""
    if not set(map(type, value)) <= {int, str}:
        index = next(i for i, entry in enumerate(value) if type(entry) not in (int, str))
        raise wrong_type(f"{name}[{index}]", "a token id", value[index])
    ids = [entry for entry in value if type(entry) is int]
    if ids and (min(ids) < 0 or max(ids) > _TOKEN_ID_MAX):
        wrong = next(entry for entry in ids if not 0 <= entry <= _TOKEN_ID_MAX)
        where = f"{name}[{value.index(wrong)}]"
        raise invalid(where, f"a token id from 0 to {_TOKEN_ID_MAX}", wrong)


def prompt_count(value: Any) -> int:
    """How many prompts a value that passed ``prompts`` holds; an absent one holds none."""
    if value is None:
        return 0
    if type(value) is not list:
        return 1
    return 1 if any(type(entry) is int for entry in value) else len(value)


# streams and sampling


def stream_options(value: Any, name: str) -> None:
    json_object(value, name)
    for key in STREAM_OPTIONS:
        if value.get(key) is not None:
            boolean(value[key], f"{name}.{key}")


def stream_options_strictly(value: Any, name: str) -> None:
    for key in value:
        if key not in STREAM_OPTIONS:
            raise unknown(f"{name}.{key}")


def stop_strictly(value: Any, name: str) -> None:
    if type(value) is list:
        _STOPS(value, name)


def logit_bias_strictly(value: Any, name: str) -> None:
    json_object(value, name)
    for token, bias in value.items():
        if not (token.isascii() and token.isdigit()):
            raise InvalidRequest(
                f"{name} must have token ids as keys.", param=name, code="invalid_value"
            )
        _BIAS(bias, f"{name}.{shown_name(token)}")
