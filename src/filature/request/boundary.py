"""What a request may hold that goes to a worker of the network: somebody else's machine, with a network of its own.

Held by the proxy before it asks a worker, and by the worker before it asks its engine. All is by allow-list:
fields, parts of messages and their members. One's own engine gets unknown fields as they are.
"""

import re
from collections.abc import Callable
from typing import Any, Final

from filature.errors import InvalidRequest
from filature.request.allowance import Allowance
from filature.request.cocoon import COCOON_FIELDS
from filature.request.parse import RULES, ParsedRequest
from filature.request.rules import shown_name
from filature.wire.dialect import Dialect

DROPPED_FIELDS: Final = frozenset(
    {
        "access_programs",
        "background_options",
        "client_metadata",
        "metadata",
        "prompt_cache_key",
        "safety_identifier",
        "service_tier",
        "store",
        "user",
        "user_profile_id",
        "workspace_id",
    }
)
"""Taken out on the way: they say who asks, or speak to a service that is not there."""
ENGINE_FIELDS: Final = frozenset(
    {
        "add_generation_prompt",
        "add_special_tokens",
        "chat_template_kwargs",
        "continue_final_message",
        "guided_choice",
        "guided_grammar",
        "guided_json",
        "guided_regex",
        "ignore_eos",
        "include_reasoning",
        "length_penalty",
        "min_p",
        "min_tokens",
        "reasoning_effort",
        "repetition_penalty",
        "separate_reasoning",
        "skip_special_tokens",
        "spaces_between_special_tokens",
        "stop_token_ids",
        "structured_outputs",
        "thinking",
        "top_k",
        "truncate_prompt_tokens",
    }
)
"""Fields of engines' own that change an answer and nothing else."""
REFUSED_FIELDS: Final[dict[str, object]] = {
    "audio": None,
    "background": False,
    "best_of": 1,
    "container": None,
    "conversation": None,
    "mcp_servers": [],
    "modalities": ["text"],
    "prediction": None,
    "previous_response_id": None,
    "web_search_options": None,
}
"""Fields of the API references that cost a seller what is not metered, or reach beyond the engine; each with
the value that asks for nothing."""

NAMED_MAX: Final = 8
"""Unknown fields that one refusal names."""

_SCHEMA_FIELDS: Final = (
    "tools",
    "functions",
    "response_format",
    "text",
    "output_config",
    "guided_json",
    "structured_outputs",
    "chat_template_kwargs",
)
_HAVE_SCHEMAS: Final = frozenset(_SCHEMA_FIELDS)
TEMPLATE_CALL: Final = frozenset(
    {
        "chat_template",
        "conversation",
        "max_length",
        "padding",
        "return_assistant_tokens_mask",
        "return_dict",
        "return_tensors",
        "tokenize",
        "tokenizer_kwargs",
        "truncation",
    }
)
"""Arguments of the call to which engines give ``chat_template_kwargs``: a template of the client's own, what makes a
prompt of any length, and work that is no prompt. Source: transformers, ``apply_chat_template``."""
_TOOL_TYPES: Final = (None, "function", "custom")
"""Those that the client carries out itself."""
_PLAIN_DATA: Final = re.compile(r"(?:data:[^,]{0,256},)?[A-Za-z0-9+/=_\s-]*")

_NOT_PASSING: Final = COCOON_FIELDS | DROPPED_FIELDS | frozenset(REFUSED_FIELDS)
_PASSING: Final = {
    dialect: (frozenset(rules.rules) | ENGINE_FIELDS) - _NOT_PASSING
    for dialect, rules in RULES.items()
}
"""Fields that pass whatever their value is, but for schemas and prompts."""

Check = Callable[[Any, str], None]


def check_boundary(request: ParsedRequest, allowance: Allowance | None = None) -> None:
    """Raises InvalidRequest, which names the field. ``allowance``: what this seller takes all the same."""
    fields = request.fields
    if allowance is not None:
        fields = allowance.without(fields)
    if not fields.keys() <= _PASSING[request.dialect]:
        _check_fields(request, fields)
    if not _HAVE_SCHEMAS.isdisjoint(fields):
        for name in _SCHEMA_FIELDS:
            if name in fields:
                _schema(fields[name], name)
        _tools(fields.get("tools"))
        _template_kwargs(fields.get("chat_template_kwargs"))
    for name, check in _PROMPTS[request.dialect].items():
        if fields.get(name) is not None:
            check(fields[name], name)


def _check_fields(request: ParsedRequest, fields: dict[str, Any]) -> None:
    known = request.rules.rules
    unknown: list[str] = []
    for name, value in fields.items():
        if value is None or name in COCOON_FIELDS:
            continue
        if name in DROPPED_FIELDS:
            if name == "store" and value is not False:
                raise _refused("store", "workers store nothing; leave it out")
        elif name in REFUSED_FIELDS:
            if value != REFUSED_FIELDS[name] or isinstance(value, bool) != isinstance(
                REFUSED_FIELDS[name], bool
            ):
                raise _refused(name, "workers do not take it")
        elif name not in known and name not in ENGINE_FIELDS and len(unknown) < NAMED_MAX:
            unknown.append(shown_name(name))
    if unknown:
        them = "it" if len(unknown) == 1 else "them"
        raise _refused(", ".join(unknown), f"workers do not take {them}", unknown[0])


# checks of values, by what they are


def _plain(value: Any, where: str) -> None:
    """A text, a number or a truth value."""
    if isinstance(value, dict | list):
        raise _refused(where, "it holds more than a text")


def _anything(value: Any, where: str) -> None:
    """What is text to an engine: the arguments of a tool."""


def _url(value: Any, where: str) -> None:
    if isinstance(value, dict):
        _members(value, where, {"url": _url_text, "detail": _plain, "max_dynamic_patch": _plain})
    else:
        _url_text(value, where)


def _url_text(value: Any, where: str) -> None:
    if not isinstance(value, str) or not value.startswith("data:"):
        raise InvalidRequest(
            f"{where} must be a data: URL: workers of the network fetch nothing.",
            param=where,
            code="remote_media_refused",
        )


def _data(value: Any, where: str) -> None:
    """Base64, alone or as a data: URL."""
    if not isinstance(value, str) or _PLAIN_DATA.fullmatch(value) is None:
        raise InvalidRequest(
            f"{where} must be base64: workers of the network fetch nothing.",
            param=where,
            code="remote_media_refused",
        )


def _members(value: Any, where: str, allowed: dict[str, Check]) -> None:
    if not isinstance(value, dict):
        raise _refused(where, "it must be an object")
    for name, member in value.items():
        if member is None:  # as good as absent; answers that come back as history have many such
            continue
        check = allowed.get(name)
        if check is None:
            raise _refused(f"{where}.{shown_name(name)}", "workers do not take it")
        check(member, f"{where}.{name}")


def _audio(value: Any, where: str) -> None:
    _members(value, where, {"data": _data, "format": _plain})


def _file(value: Any, where: str) -> None:
    _members(value, where, {"file_data": _data, "filename": _plain})


def _source(value: Any, where: str) -> None:
    allowed: dict[str, Check] = {"type": _plain, "media_type": _plain, "data": _data}
    if isinstance(value, dict) and value.get("type") == "text":
        allowed = {"type": _plain, "media_type": _plain, "data": _plain}
    elif isinstance(value, dict) and value.get("type") == "content":
        allowed = {"type": _plain, "content": _parts}
    elif isinstance(value, dict) and value.get("type") == "url":
        allowed = {"type": _plain, "url": _url_text}
    _members(value, where, allowed)


def _parts(value: Any, where: str) -> None:
    """A text, or parts of known types."""
    if not isinstance(value, list):
        if isinstance(value, dict):
            raise _refused(where, "it must be a text or an array of parts")
        return
    for index, part in enumerate(value):
        if not isinstance(part, str):
            _part(part, f"{where}[{index}]")


def _part(part: Any, where: str) -> None:
    kind = part.get("type") if isinstance(part, dict) else None
    if kind is None and isinstance(part, dict):
        kind = next((name for name in _UNTYPED if part.get(name) is not None), None)
    allowed = _PARTS.get(kind) if isinstance(kind, str) else None
    if allowed is None:
        raise _refused(f"{where}.type", "workers do not take parts of this type")
    _members(part, where, allowed)


def _messages(value: Any, where: str) -> None:
    if isinstance(value, list):
        for index, message in enumerate(value):
            if not _has_texts_only(message):
                _members(message, f"{where}[{index}]", _MESSAGE)


def _has_texts_only(message: Any) -> bool:
    """Of the usual message that is told at once; a text passes every check of its members."""
    if not isinstance(message, dict) or not message.keys() <= _MESSAGE.keys():
        return False
    for member in message.values():  # noqa: SIM110 - a generator costs as much as the loop
        if not isinstance(member, str):
            return False
    return True


def _items(value: Any, where: str) -> None:
    """The input of a response: a text, messages, and what came of tools."""
    if not isinstance(value, list):
        _plain(value, where)
        return
    for index, item in enumerate(value):
        place = f"{where}[{index}]"
        kind = item.get("type") if isinstance(item, dict) else None
        allowed = (
            _ITEMS.get("message" if kind is None else kind)
            if kind is None or isinstance(kind, str)
            else None
        )
        if allowed is None:
            raise _refused(f"{place}.type", "workers do not take items of this type")
        _members(item, place, allowed)


def _prompts(value: Any, where: str) -> None:
    """Texts and token ids."""
    if isinstance(value, dict):
        raise _refused(where, "it must be a text or token ids")
    if isinstance(value, list):
        for index, each in enumerate(value):
            _prompts(each, f"{where}[{index}]")


def _tools(value: Any) -> None:
    if isinstance(value, list):
        for index, tool in enumerate(value):
            if isinstance(tool, dict) and tool.get("type") not in _TOOL_TYPES:
                raise _refused(f"tools[{index}].type", "workers carry out no tools")


def _template_kwargs(value: Any) -> None:
    """A template's own variables have any name."""
    if isinstance(value, dict):
        for name, each in value.items():
            if name in TEMPLATE_CALL and each is not None:
                raise _refused(f"chat_template_kwargs.{name}", "workers do not take it")


def _schema(value: Any, where: str) -> None:
    """A schema may refer to itself only: nothing is fetched for it."""
    if isinstance(value, list):
        for index, each in enumerate(value):
            _schema(each, f"{where}[{index}]")
    elif isinstance(value, dict):
        for name, each in value.items():
            if name in ("$ref", "$dynamicRef") and not (
                isinstance(each, str) and each.startswith("#")
            ):
                if isinstance(each, dict):  # a property that is called so
                    _schema(each, f"{where}.{name}")
                    continue
                raise _refused(f"{where}.{name}", "a schema refers to itself only")
            _schema(each, f"{where}.{shown_name(name)}")


_CACHED: Final[dict[str, Check]] = {
    "type": _plain,
    "cache_control": _anything,
    "prompt_cache_breakpoint": _anything,
}
_TEXT: Final[dict[str, Check]] = _CACHED | {
    "text": _plain,
    "annotations": _anything,
    "citations": _anything,
    "logprobs": _anything,
    "parsed": _anything,  # of the text, by openai's SDK
    "parsed_output": _anything,  # the same, by anthropic's
}
_PARTS: Final[dict[str, dict[str, Check]]] = {
    "text": _TEXT,
    "input_text": _TEXT,
    "output_text": _TEXT,
    "summary_text": _TEXT,
    "reasoning_text": _TEXT,
    "refusal": {"type": _plain, "refusal": _plain},
    "thinking": _CACHED | {"thinking": _plain, "signature": _plain},
    "redacted_thinking": {"type": _plain, "data": _plain},
    "image_url": _CACHED | {"image_url": _url, "uuid": _plain},
    "audio_url": {"type": _plain, "audio_url": _url},
    "video_url": {"type": _plain, "video_url": _url},
    "input_audio": _CACHED | {"input_audio": _audio},
    "input_image": _CACHED | {"image_url": _url, "detail": _plain},
    "input_file": _CACHED
    | {
        "file_data": _data,
        "file_url": _url,
        "filename": _plain,
        "detail": _plain,
    },
    "file": _CACHED | {"file": _file},
    "image": _CACHED | {"source": _source},
    "document": _CACHED
    | {"source": _source, "title": _plain, "context": _plain, "citations": _anything},
    "search_result": _CACHED
    | {"source": _plain, "title": _plain, "content": _parts, "citations": _anything},
    "tool_use": _CACHED
    | {
        "id": _plain,
        "name": _plain,
        "input": _anything,
        "caller": _anything,
        "toolset_name": _plain,
    },
    "tool_result": _CACHED
    | {"tool_use_id": _plain, "content": _parts, "is_error": _plain, "toolset_name": _plain},
}
"""By the type of a part: its members."""
_UNTYPED: Final = ("text", "refusal", "image_url", "audio_url", "video_url", "input_audio", "file")
"""Members by which engines know a part that has no type."""
_MESSAGE: Final[dict[str, Check]] = {
    "role": _plain,
    "content": _parts,
    "name": _plain,
    "tool_calls": _anything,
    "tool_call_id": _plain,
    "function_call": _anything,
    "refusal": _plain,
    "reasoning": _plain,
    "reasoning_content": _plain,
    "annotations": _anything,
    "parsed": _anything,  # of the content, by openai's SDK
    "prefix": _plain,
}
_ITEM: Final[dict[str, Check]] = {"type": _plain, "id": _plain, "status": _plain}
_CALL: Final[dict[str, Check]] = _ITEM | {
    "call_id": _plain,
    "name": _plain,
    "arguments": _plain,
    "parsed_arguments": _anything,  # of these, by openai's SDK
    "input": _plain,
    "namespace": _plain,
    "async": _plain,
    "caller": _anything,
}
_RESULT: Final[dict[str, Check]] = _ITEM | {
    "call_id": _plain,
    "name": _plain,
    "namespace": _plain,
    "output": _parts,
    "caller": _anything,
}
_ITEMS: Final[dict[str, dict[str, Check]]] = {
    "message": _ITEM | {"role": _plain, "content": _parts, "phase": _plain},
    "reasoning": _ITEM | {"summary": _parts, "content": _parts, "encrypted_content": _plain},
    "function_call": _CALL,
    "custom_tool_call": _CALL,
    "function_call_output": _RESULT,
    "custom_tool_call_output": _RESULT,
}
_PROMPTS: Final[dict[Dialect, dict[str, Check]]] = {
    Dialect.CHAT: {"messages": _messages},
    Dialect.COMPLETIONS: {"prompt": _prompts, "suffix": _plain},
    Dialect.EMBEDDINGS: {"input": _prompts, "messages": _messages},
    Dialect.RESPONSES: {"input": _items, "instructions": _plain},
    Dialect.MESSAGES: {"messages": _messages, "system": _parts},
    Dialect.COUNT_TOKENS: {"messages": _messages, "system": _parts},
}


def _refused(name: str, why: str, param: str | None = None) -> InvalidRequest:
    """``name`` may be several; ``param`` is the first of them then."""
    return InvalidRequest(
        f"{name} cannot be served by a worker of the network: {why}.",
        param=name if param is None else param,
        code="unsupported_by_network",
    )
