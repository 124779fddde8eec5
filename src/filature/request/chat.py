"""What a chat completions request may hold. Source: OpenAI API reference, "Create chat completion"."""

from typing import Any, Final

from filature.errors import InvalidRequest
from filature.request.fields import (
    MODEL,
    PENALTY,
    TEMPERATURE,
    TOKENS,
    logit_bias_strictly,
    messages,
    stop_strictly,
    stream_options,
    stream_options_strictly,
)
from filature.request.rules import (
    DialectRules,
    Fields,
    array_of_objects,
    array_of_strings,
    array_up_to,
    boolean,
    integer,
    json_object,
    number,
    object_or_array,
    one_of,
    string,
    string_or_object,
    string_or_strings,
    text,
    wrong_type,
)

_ROLE: Final = one_of("developer", "system", "user", "assistant", "tool", "function")
_MAY_LACK_CONTENT: Final = ("assistant", "function")
_TOOL_KIND: Final = one_of("function", "custom")
_TOOL_NAME: Final = text(1, 64)
_FORMAT_KIND: Final = one_of("text", "json_object", "json_schema")


def _messages_strictly(value: Any, name: str) -> None:
    for index, message in enumerate(value):
        _ROLE(message["role"], f"{name}[{index}].role")
        if message.get("content") is None and message["role"] not in _MAY_LACK_CONTENT:
            where = f"{name}[{index}].content"
            raise wrong_type(where, "a string or an array of content parts", None)


def _tools_strictly(value: Any, name: str) -> None:
    for index, tool in enumerate(value):
        where = f"{name}[{index}]"
        kind = tool.get("type")
        _TOOL_KIND(kind, f"{where}.type")
        json_object(tool.get(kind), f"{where}.{kind}")
        _TOOL_NAME(tool[kind].get("name"), f"{where}.{kind}.name")


def _response_format_strictly(value: Any, name: str) -> None:
    _FORMAT_KIND(value.get("type"), f"{name}.type")
    if value["type"] == "json_schema":
        json_object(value.get("json_schema"), f"{name}.json_schema")


def _related_strictly(fields: Fields) -> None:
    if fields.get("top_logprobs") is not None and fields.get("logprobs") is not True:
        raise InvalidRequest(
            "top_logprobs needs logprobs: true.", param="top_logprobs", code="invalid_value"
        )


CHAT: Final = DialectRules(
    required=(("model",), ("messages",)),
    rules={
        "model": MODEL,
        "messages": messages,
        "audio": json_object,
        "frequency_penalty": number(),
        "function_call": string_or_object,
        "functions": array_of_objects,
        "logit_bias": object_or_array,  # llama.cpp takes pairs
        "logprobs": boolean,
        "max_completion_tokens": TOKENS,
        "max_tokens": TOKENS,
        "metadata": json_object,
        "modalities": array_of_strings,
        "moderation": json_object,
        "n": integer(1),
        "parallel_tool_calls": boolean,
        "prediction": json_object,
        "presence_penalty": number(),
        "prompt_cache_key": string,
        "prompt_cache_options": json_object,
        "prompt_cache_retention": string,
        "reasoning_effort": string,
        "response_format": json_object,
        "safety_identifier": string,
        "seed": integer(),
        "service_tier": string,
        "stop": string_or_strings,
        "store": boolean,
        "stream": boolean,
        "stream_options": stream_options,
        "temperature": TEMPERATURE,
        "tool_choice": string_or_object,
        "tools": array_of_objects,
        "top_logprobs": integer(),
        "top_p": number(),
        "user": string,
        "verbosity": string,
        "web_search_options": json_object,
    },
    strict_rules={
        "messages": _messages_strictly,
        "frequency_penalty": PENALTY,
        "logit_bias": logit_bias_strictly,
        "modalities": array_up_to(2, one_of("text", "audio")),
        "presence_penalty": PENALTY,
        "prompt_cache_retention": one_of("in_memory", "24h"),
        "reasoning_effort": one_of("none", "minimal", "low", "medium", "high", "xhigh", "max"),
        "response_format": _response_format_strictly,
        "seed": integer(-(2**63), 2**63 - 1),
        "service_tier": one_of("auto", "default", "flex", "scale", "priority", "fast"),
        "stop": stop_strictly,
        "stream_options": stream_options_strictly,
        "temperature": number(0, 2),
        "tools": _tools_strictly,
        "top_logprobs": integer(0, 20),
        "top_p": number(0, 1),
        "verbosity": one_of("low", "medium", "high"),
    },
    related_strictly=_related_strictly,
    max_tokens=("max_tokens", "max_completion_tokens"),
)
