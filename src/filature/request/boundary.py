"""What a request may hold that goes to a worker of the network: somebody else's machine, with a network of its own.

Held by the proxy before it asks a worker, and by the worker before it asks its engine. One's own engine gets
unknown fields as they are.
"""

from typing import Any, Final

from filature.errors import InvalidRequest
from filature.request.cocoon import COCOON_FIELDS
from filature.request.parse import ParsedRequest

DROPPED_FIELDS: Final = frozenset(
    {"user", "metadata", "service_tier", "safety_identifier", "prompt_cache_key", "store"}
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
REFUSED_FIELDS: Final = frozenset(
    {
        "audio",
        "background",
        "best_of",
        "container",
        "conversation",
        "mcp_servers",
        "modalities",
        "prediction",
        "previous_response_id",
        "web_search_options",
    }
)
"""Fields of the API references that cost a seller what is not metered, or reach beyond the engine."""

_URLS: Final = (
    "image_url",
    "audio_url",
    "video_url",
    "file_url",
    "image",
    "audio",
    "video",
    "url",
)
"""Members of a part by which an engine may be made to fetch something."""
_TENSORS: Final = ("image_embeds", "audio_embeds", "image_pil", "file_id")
"""Members of a part that name or hold what an engine must not be made to load."""
_NESTED: Final = ("content", "output", "source", "file")
_PROMPTS: Final = ("messages", "input", "system")


def check_boundary(request: ParsedRequest) -> None:
    """Raises InvalidRequest, which names the field."""
    known = request.rules.rules
    for name, value in request.fields.items():
        if value is None or name in DROPPED_FIELDS or name in COCOON_FIELDS:
            if name == "store" and value is True:
                raise _refused("store", "nothing is stored by workers; leave it out")
            continue
        if name in REFUSED_FIELDS or not (name in known or name in ENGINE_FIELDS):
            raise _refused(name, "workers of the network do not take it")
    for name in _PROMPTS:
        _check_parts(request.fields.get(name), name)
    if request.media_parts and not request.distinct:
        raise InvalidRequest("A key occurs twice in a request with media.", code="duplicate_key")


def _check_parts(value: Any, where: str) -> None:
    if isinstance(value, list):
        for index, part in enumerate(value):
            if isinstance(part, dict):
                _check_part(part, f"{where}[{index}]")
    elif isinstance(value, dict):
        _check_part(value, where)


def _check_part(part: dict[str, Any], where: str) -> None:
    """Members that engines read; the arguments of tools are text to them and may hold anything."""
    for name in _TENSORS:
        if part.get(name) is not None:
            raise _refused(f"{where}.{name}", "send media as data: URLs")
    for name in _URLS:
        value = part.get(name)
        url = value.get("url") if isinstance(value, dict) else value
        if isinstance(url, str) and not url.startswith("data:"):
            raise InvalidRequest(
                f"{where}.{name} must be a data: URL: workers of the network fetch nothing.",
                param=f"{where}.{name}",
                code="remote_media_refused",
            )
    for name in _NESTED:
        _check_parts(part.get(name), f"{where}.{name}")


def _refused(name: str, why: str) -> InvalidRequest:
    return InvalidRequest(
        f"{name} cannot be served by a worker of the network: {why}.",
        param=name,
        code="unsupported_by_network",
    )
