"""What a (legacy) completions request may hold. Source: OpenAI API reference, "Create completion"."""

from typing import Final

from filature.errors import InvalidRequest
from filature.request.fields import (
    MODEL,
    PENALTY,
    TEMPERATURE,
    logit_bias_strictly,
    prompts,
    stop_strictly,
    stream_options,
    stream_options_strictly,
)
from filature.request.limits import TOKENS_MAX
from filature.request.rules import (
    DialectRules,
    Fields,
    boolean,
    integer,
    number,
    object_or_array,
    string,
    string_or_strings,
)


def _related_strictly(fields: Fields) -> None:
    if fields.get("stream") and (fields.get("best_of") or 1) > 1:
        raise InvalidRequest(
            "best_of above 1 cannot be streamed; set stream: false.",
            param="best_of",
            code="invalid_value",
        )


COMPLETIONS: Final = DialectRules(
    required=(("model",), ("prompt", "prompt_embeds")),  # the latter is vLLM's
    rules={
        "model": MODEL,
        "prompt": prompts,
        "best_of": integer(1),
        "echo": boolean,
        "frequency_penalty": number(),
        "logit_bias": object_or_array,  # llama.cpp takes pairs
        "logprobs": integer(),
        "max_tokens": integer(0, TOKENS_MAX),
        "n": integer(1),
        "presence_penalty": number(),
        "seed": integer(),
        "stop": string_or_strings,
        "stream": boolean,
        "stream_options": stream_options,
        "suffix": string,
        "temperature": TEMPERATURE,
        "top_p": number(),
        "user": string,
    },
    strict_rules={
        "frequency_penalty": PENALTY,
        "logit_bias": logit_bias_strictly,
        "logprobs": integer(0, 5),
        "presence_penalty": PENALTY,
        "seed": integer(-(2**63), 2**63 - 1),
        "stop": stop_strictly,
        "stream_options": stream_options_strictly,
        "temperature": number(0, 2),
        "top_p": number(0, 1),
    },
    related_strictly=_related_strictly,
    max_tokens=("max_tokens",),
    prompts=("prompt", "prompt_embeds"),
)
