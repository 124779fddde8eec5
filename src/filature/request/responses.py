"""What a Responses request may hold. Source: OpenAI API reference, "Create a model response".

Nothing is stored here between requests, so what refers to something stored is refused, with what to
set instead. An absent ``store`` is let pass, though OpenAI's default is true: nothing depends on it.
"""

from typing import Any, Final

from filature.errors import InvalidRequest
from filature.request.fields import MODEL, TEMPERATURE, TOKENS, content_parts
from filature.request.rules import (
    DialectRules,
    Rule,
    array_of_objects,
    array_of_strings,
    boolean,
    integer,
    invalid,
    json_object,
    number,
    one_of,
    string,
    string_or_object,
    unknown,
    wrong_type,
)

_ROLE: Final = one_of("user", "assistant", "system", "developer")


def _stateless(what: str, name: str, instead: str) -> InvalidRequest:
    return InvalidRequest(
        f"{what} is not possible here: nothing is stored between requests. {instead}",
        param=name,
        code="unsupported_parameter",
    )


def _never(instead: str) -> Rule:
    """Refused whatever the value, unless it is null."""

    def check(value: Any, name: str) -> None:
        raise _stateless(name, name, instead)

    return check


def _only_false(instead: str) -> Rule:
    def check(value: Any, name: str) -> None:
        boolean(value, name)
        if value:
            raise _stateless(f"{name}: true", name, instead)

    return check


def _one_choice(value: Any, name: str) -> None:
    """No field of the API; but llama.cpp makes a chat of a request, with all that stands in it."""
    if value != 1:
        raise invalid(name, "1, for a response has one choice", value)


def _input(value: Any, name: str) -> None:
    """Text, or an array of items: messages, tool calls and their outputs, reasoning."""
    if type(value) is str:
        return
    if type(value) is not list:
        raise wrong_type(name, "a string or an array of items", value)
    if not value:
        raise invalid(name, "a string or an array of at least one item", value, "empty_array")
    for index, item in enumerate(value):
        where = f"{name}[{index}]"
        if type(item) is not dict:
            raise wrong_type(where, "an item object", item)
        kind = item.get("type")
        if kind is not None and type(kind) is not str:
            raise wrong_type(f"{where}.type", "a string", kind)
        # a reference's type may be left out: it has an id and nothing that says what it is
        if kind == "item_reference" or (kind is None and "role" not in item and "id" in item):
            raise _stateless(
                f"{where}, an item_reference,",
                where,
                "Send the item itself instead, as SDKs do when told store: false.",
            )
        role = item.get("role")
        if role is not None and type(role) is not str:
            raise wrong_type(f"{where}.role", "a string", role)
        content = item.get("content")
        if content is not None and type(content) is not str:
            content_parts(content, f"{where}.content")


def _input_strictly(value: Any, name: str) -> None:
    for index, item in enumerate(value if type(value) is list else ()):
        if item.get("type", "message") == "message":
            _ROLE(item.get("role"), f"{name}[{index}].role")


def _stream_options(value: Any, name: str) -> None:
    json_object(value, name)
    if value.get("include_obfuscation") is not None:
        boolean(value["include_obfuscation"], f"{name}.include_obfuscation")


def _stream_options_strictly(value: Any, name: str) -> None:
    for key in value:
        if key != "include_obfuscation":
            raise unknown(f"{name}.{key}")


RESPONSES: Final = DialectRules(
    required=(("model",), ("input",)),
    rules={
        "model": MODEL,
        "input": _input,
        "access_programs": json_object,
        "background": _only_false("Set background: false and wait for the answer, or stream it."),
        "background_options": json_object,
        "context_management": array_of_objects,
        "conversation": _never("Leave it out and send the whole conversation as input."),
        "image": json_object,
        "include": array_of_strings,
        "instructions": string,
        "max_output_tokens": TOKENS,
        "max_tool_calls": integer(),
        "metadata": json_object,
        "n": _one_choice,
        "n_cmpl": _one_choice,
        "moderation": json_object,
        "parallel_tool_calls": boolean,
        "previous_response_id": _never("Leave it out and send the whole conversation as input."),
        "prompt": _never("Leave it out and send its text as instructions and input."),
        "prompt_cache_key": string,
        "prompt_cache_options": json_object,
        "prompt_cache_retention": string,
        "reasoning": json_object,
        "safety_identifier": string,
        "service_tier": string,
        "store": _only_false("Set store: false."),
        "stream": boolean,
        "stream_options": _stream_options,
        "temperature": TEMPERATURE,
        "text": json_object,
        "tool_choice": string_or_object,
        "tools": array_of_objects,
        "top_logprobs": integer(),
        "top_p": number(),
        "truncation": string,
        "user": string,
    },
    strict_rules={
        "input": _input_strictly,
        "max_output_tokens": integer(16),
        "max_tool_calls": integer(1),
        "prompt_cache_retention": one_of("in_memory", "24h"),
        "service_tier": one_of("auto", "default", "flex", "scale", "priority", "fast"),
        "stream_options": _stream_options_strictly,
        "temperature": number(0, 2),
        "top_logprobs": integer(0, 20),
        "top_p": number(0, 1),
        "truncation": one_of("auto", "disabled"),
    },
    max_tokens=("max_output_tokens",),
)
