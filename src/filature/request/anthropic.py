"""What Messages and token counting requests may hold. Source: Anthropic API reference, "Messages"."""

from typing import Any, Final

from filature.errors import InvalidRequest
from filature.request.fields import MODEL, TEMPERATURE, content_parts, messages
from filature.request.limits import TOKENS_MAX
from filature.request.rules import (
    DialectRules,
    Fields,
    Rule,
    array_of_objects,
    array_of_strings,
    boolean,
    integer,
    json_object,
    missing,
    number,
    one_of,
    string,
    string_or_object,
)

BUDGET_MIN: Final = 1024
"""Of ``thinking.budget_tokens``."""

_ROLE: Final = one_of("user", "assistant", "system")
_BUDGET: Final = integer(1, TOKENS_MAX)
_THINKING_KIND: Final = one_of("enabled", "disabled", "adaptive", "between_tools")


def _system(value: Any, name: str) -> None:
    if type(value) is not str:
        content_parts(value, name)


def _thinking(value: Any, name: str) -> None:
    json_object(value, name)
    if value.get("budget_tokens") is not None:
        _BUDGET(value["budget_tokens"], f"{name}.budget_tokens")


def _messages_strictly(value: Any, name: str) -> None:
    for index, message in enumerate(value):
        _ROLE(message["role"], f"{name}[{index}].role")
        if message.get("content") is None:
            raise missing(f"{name}[{index}].content")


def _thinking_strictly(value: Any, name: str) -> None:
    _THINKING_KIND(value.get("type"), f"{name}.type")
    if value["type"] == "enabled":
        integer(BUDGET_MIN)(value.get("budget_tokens"), f"{name}.budget_tokens")


def _related_strictly(fields: Fields) -> None:
    thinking, allowed = fields.get("thinking"), fields.get("max_tokens")
    budget = thinking.get("budget_tokens") if thinking else None
    if budget is not None and allowed is not None and budget >= allowed:
        raise InvalidRequest(
            f"thinking.budget_tokens must be below max_tokens; got {budget} and {allowed}.",
            param="thinking.budget_tokens",
            code="invalid_value",
        )


_COUNTED: Final[dict[str, Rule]] = {
    "model": MODEL,
    "messages": messages,
    "cache_control": json_object,
    "context_management": json_object,  # of the beta API: Anthropic's command line sends it
    "output_config": json_object,
    "speed": string,
    "system": _system,
    "thinking": _thinking,
    "tool_choice": json_object,
    "tools": array_of_objects,
    "user_profile_id": string,
    "workspace_id": string,
}
_COUNTED_STRICTLY: Final[dict[str, Rule]] = {
    "messages": _messages_strictly,
    "thinking": _thinking_strictly,
}

COUNT_TOKENS: Final = DialectRules(
    required=(("model",), ("messages",)),
    rules=_COUNTED,
    strict_rules=_COUNTED_STRICTLY,
    streams=False,
)

MESSAGES: Final = DialectRules(
    required=(("model",), ("messages",), ("max_tokens",)),
    rules=_COUNTED
    | {
        "container": string_or_object,
        "diagnostics": json_object,
        "inference_geo": string,
        "max_tokens": integer(0, TOKENS_MAX),  # 0: only fill the prompt cache
        "metadata": json_object,
        "service_tier": string,
        "stop_sequences": array_of_strings,
        "stream": boolean,
        "temperature": TEMPERATURE,
        "top_k": integer(),
        "top_p": number(),
    },
    strict_rules=_COUNTED_STRICTLY
    | {
        "service_tier": one_of("auto", "standard_only"),
        "temperature": number(0, 1),
        "top_k": integer(0),
        "top_p": number(0, 1),
    },
    related_strictly=_related_strictly,
    max_tokens=("max_tokens",),
)
