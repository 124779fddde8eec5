"""From a sample to claims that can be judged: its text counted, and recounted by a tokenizer if there is one.

It blocks: not for an event loop.
"""

from typing import Final

from filature.answer.bounds import size_class
from filature.answer.delivered import delivered
from filature.proxy.audit.claims import Claim, Group, Kind
from filature.proxy.audit.recount import Recounter
from filature.relay.watch import Sample
from filature.request.parse import ParsedRequest

_BINDING: Final = (
    "bad_words",
    "echo",
    "format",
    "functions",
    "grammar",
    "guided_choice",
    "guided_grammar",
    "guided_json",
    "guided_regex",
    "ignore_eos",
    "include_reasoning",
    "json_schema",
    "logit_bias",
    "min_tokens",
    "output_config",
    "reasoning",
    "response_format",
    "separate_reasoning",
    "skip_special_tokens",
    "stop",
    "stop_sequences",
    "stop_token_ids",
    "structured_outputs",
    "text",
    "thinking",
    "tool_choice",
    "tools",
)
"""Fields by which an engine honestly writes more tokens than its text shows."""
_UNHELPFUL: Final[tuple[object, ...]] = (None, [], {}, "", "none")
_THOUGHT: Final = ("reasoning", "reasoning_content", "thinking")
THOUGHT_TOKENS: Final = 4
"""Around a reasoning: its marks, which engines take out."""


def is_plain(request: ParsedRequest) -> bool:
    """Whether nothing in a request lets honest claims exceed the text of its answer."""
    fields = request.fields
    return all(fields.get(name) in _UNHELPFUL for name in _BINDING)


def measure(sample: Sample, recounter: Recounter | None) -> list[Claim]:
    """What was claimed for a sample that has ended."""
    claimed, request, model = sample.claimed, sample.request, sample.model
    assert claimed is not None, "it has not ended"
    found: list[Claim] = []
    size = request.prompt_text_bytes()
    if size > 0 and not request.media_parts and claimed.prompt:
        counted = None if recounter is None else recounter.prompt(model, request)
        plain = not request.fields.get("tools")
        found.append(
            Claim(Group(Kind.PROMPT, size_class(size), plain), size, claimed.prompt, counted)
        )
        if sample.is_repeated:
            found.append(
                Claim(Group(Kind.CACHED, size_class(size)), claimed.prompt, claimed.cached)
            )
    if sample.answer:
        found += _completion(sample, recounter)
    return found


def _completion(sample: Sample, recounter: Recounter | None) -> list[Claim]:
    claimed, request = sample.claimed, sample.request
    assert claimed is not None
    text = delivered(request.dialect, b"".join(sample.answer))
    size = text.text_bytes
    if not claimed.completion:
        return []
    plain = text.plain and is_plain(request)
    counted = None
    if plain and recounter is not None:
        counted = recounter.completion(sample.model, text.texts.values())
        if counted is not None:
            counted += THOUGHT_TOKENS * sum(name in _THOUGHT for _, name in text.texts)
    size = max(size, 1)  # of an answer without a word, for which something was claimed
    group = Group(Kind.COMPLETION, size_class(size), plain)
    return [Claim(group, size, claimed.completion, counted)]
