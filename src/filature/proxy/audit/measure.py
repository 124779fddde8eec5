"""From a sample to claims that can be judged: its text counted, and recounted by a tokenizer if there is one.

It blocks: not for an event loop.
"""

import re
from typing import Final

from filature.answer.bounds import size_class
from filature.answer.content import Leaves, collect
from filature.answer.delivered import CALL, THOUGHT, delivered
from filature.proxy.audit.claims import TOLERANCE_TOKENS, Claim, Group, Kind
from filature.proxy.audit.likeness import likeness
from filature.proxy.audit.recount import Recounter
from filature.relay.watch import Sample
from filature.request.parse import ParsedRequest
from filature.wire.dialect import Dialect

_HIDING: Final = (
    "audio",
    "best_of",
    "echo",
    "ignore_eos",
    "include_reasoning",
    "logit_bias",
    "min_tokens",
    "modalities",
    "skip_special_tokens",
)
"""Fields by which an engine honestly writes any number of tokens that its text does not show."""
_SHAPING: Final = (
    "bad_words",
    "format",
    "functions",
    "grammar",
    "guided_choice",
    "guided_grammar",
    "guided_json",
    "guided_regex",
    "json_schema",
    "output_config",
    "reasoning",
    "response_format",
    "separate_reasoning",
    "structured_outputs",
    "text",
    "thinking",
    "tool_choice",
    "tools",
)
"""Fields by which it writes some more: what was asked by the same of them is compared."""
_UNHELPFUL: Final[tuple[object, ...]] = (None, [], {}, "", "none")
_PROMPT_FIELDS: Final = ("system", "instructions", "prompt", "input", "messages")
_LISTED: Final = ("prompt", "input", "messages")
HOT: Final = 1.0
"""The highest temperature at which what is written has about as many tokens as its text has when it is read."""
THOUGHT_TOKENS: Final = 10
"""Around a reasoning: its marks, which engines take out. Harmony's channels have the most."""
TEMPLATE_TOKENS: Final = 64
"""That a template adds to a prompt: others' may say less before the first message."""
TOOLS_TOKENS: Final = 256
"""That it says around tools, where it says anything of them."""
MESSAGE_TOKENS: Final = 8
"""And to each message; in embeddings, around each text: no template is."""
CACHED_PROMPT_MIN: Final = 64
"""Tokens of a prompt that is expected to be cached: engines do it in blocks."""
_CACHED_TOLD: Final = re.compile(rb'"(?:cached_tokens|cache_read_input_tokens)"\s*:\s*\d')


def hides(request: ParsedRequest) -> bool:
    """Whether honest claims for its answer may exceed the text by any number."""
    return any(request.fields.get(name) not in _UNHELPFUL for name in _HIDING)


def shape(request: ParsedRequest) -> str:
    """The fields by which honest claims may exceed the text by some."""
    fields = request.fields
    return " ".join(name for name in _SHAPING if fields.get(name) not in _UNHELPFUL)


def may_call(request: ParsedRequest) -> bool:
    """Whether it offers tools: of a call engines may show any part of what was written."""
    return any(request.fields.get(name) not in _UNHELPFUL for name in ("tools", "functions"))


Measured = list[Claim] | Exception
"""Of one sample; an exception: it could not be counted."""


def measure_all(samples: list[Sample], recounter: Recounter | None) -> list[Measured]:
    """``measure`` of each."""
    found: list[Measured] = []
    for sample in samples:
        try:
            found.append(measure(sample, recounter))
        except Exception as error:  # noqa: BLE001 - whatever it is, the others are counted
            found.append(error)
    return found


def measure(sample: Sample, recounter: Recounter | None) -> list[Claim]:
    """What was claimed for a sample that has ended."""
    assert sample.claimed is not None, "it has not ended"
    answer = b"".join(sample.answer)
    return _prompt(sample, answer, recounter) + _completion(sample, answer, recounter)


def _prompt(sample: Sample, answer: bytes, recounter: Recounter | None) -> list[Claim]:
    claimed, request = sample.claimed, sample.request
    assert claimed is not None
    size = request.prompt_text_bytes()
    if size <= 0 or request.media_parts or not claimed.prompt:
        return []
    plain = not request.fields.get("tools")
    counted = None if recounter is None else recounter.prompt(sample.model, request)
    extra = _template_tokens(request, plain=plain) if counted is None else 0
    group = Group(Kind.PROMPT, size_class(size), plain, _likeness_of_prompt(request))
    found = [Claim(group, size, claimed.prompt, counted, extra)]
    tells = _CACHED_TOLD.search(answer) is not None  # else nothing is known of a cache
    if sample.is_repeated and tells and claimed.prompt >= CACHED_PROMPT_MIN:
        group = Group(Kind.CACHED, size_class(size))
        found.append(Claim(group, claimed.prompt, claimed.cached))
    return found


def _template_tokens(request: ParsedRequest, *, plain: bool) -> int:
    """That a prompt may have beside those of its text, where it was not counted."""
    fields = request.fields
    if request.dialect is Dialect.EMBEDDINGS and fields.get("messages") is None:
        return MESSAGE_TOKENS * request.prompts
    items = [fields.get(name) for name in _LISTED]
    extra = MESSAGE_TOKENS * sum(len(each) for each in items if isinstance(each, list))
    return extra + (TEMPLATE_TOKENS if plain else TEMPLATE_TOKENS + TOOLS_TOKENS)


def _likeness_of_prompt(request: ParsedRequest) -> str:
    if request.prompt_ids:
        return "ids"
    leaves: Leaves = []
    for name in _PROMPT_FIELDS:
        collect(request.fields.get(name), leaves, name)
    return likeness("\n".join(text for _, text in leaves))


def _completion(sample: Sample, answer: bytes, recounter: Recounter | None) -> list[Claim]:
    claimed, request = sample.claimed, sample.request
    assert claimed is not None
    if not claimed.completion or not answer or hides(request):
        return []
    choices = request.n * request.prompts
    found = delivered(request.dialect, answer, choices)
    if found.has(CALL) and may_call(request):
        return []
    asked, texts = shape(request), found.texts
    extra = TOLERANCE_TOKENS * (choices - 1) + THOUGHT_TOKENS * found.has(THOUGHT)
    extra += choices * _stop_bytes(request)
    counted = None
    if not asked and recounter is not None and not _is_hot(request):
        counted = recounter.completion(sample.model, texts.values())
    if counted is None:
        extra += TOLERANCE_TOKENS
    like = f"{asked} {likeness(' '.join(texts.values()))}"
    size = max(found.text_bytes, 1)  # of an answer without a word, for which something was claimed
    group = Group(Kind.COMPLETION, size_class(size), not asked, like.strip())
    return [Claim(group, size, claimed.completion, counted, extra)]


def _stop_bytes(request: ParsedRequest) -> int:
    """Of the longest text that ends an answer and is not shown: it has no more tokens."""
    longest = 0
    for name in ("stop", "stop_sequences"):
        given = request.fields.get(name)
        for text in given if isinstance(given, list) else [given]:
            if isinstance(text, str):
                longest = max(longest, len(text.encode("utf-8", "surrogatepass")))
    return longest


def _is_hot(request: ParsedRequest) -> bool:
    temperature = request.fields.get("temperature")
    return isinstance(temperature, int | float) and temperature > HOT
