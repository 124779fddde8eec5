"""What a request can cost at most, and how much of it an account can pay: the amount to be held.

Pure arithmetic on a parsed request; balances, prices and contexts are passed in.
"""

from dataclasses import dataclass
from typing import Any, Final, NamedTuple, Protocol

from filature.request.boundary import TEMPLATE_CALL
from filature.request.parse import ParsedRequest
from filature.units import COEFFICIENT_ONE, Nano
from filature.wire.dialect import Dialect

COMPLETION_TOKENS_DEFAULT: Final = 16_384
"""Held for where neither the request nor the model's context names a smaller number."""
LEGACY_COMPLETION_TOKENS: Final = 16
"""What a completions request allows that names no number. Source: OpenAI API reference, "Create
completion". Engines differ in it: to some it means without end."""

_DIVISOR: Final = 1_000_000 * COEFFICIENT_ONE
_MESSAGES: Final = ("messages", "input", "system", "instructions")


class Prices(Protocol):
    """What is read of a tariff: see ``answer.pricing.Tariff``."""

    @property
    def prompt(self) -> int: ...
    @property
    def cached(self) -> int: ...
    @property
    def completion(self) -> int: ...
    @property
    def reasoning(self) -> int: ...
    @property
    def request(self) -> int: ...
    @property
    def coefficient(self) -> int: ...


@dataclass(frozen=True, slots=True)
class PromptRules:
    """Tokens of a prompt that are not in its text: a chat template adds some, images become some."""

    template_tokens: int = 512
    message_tokens: int = 16
    media_tokens: int = 2048


@dataclass(slots=True)
class Quote:
    """What is held for a request, and what it may become.

    ``prompt_tokens`` is over all prompts and ``completion_tokens`` over all choices: nothing above them
    is charged. ``limit`` is the number of completion tokens that each choice is allowed by the body
    the engine gets; None leaves the body as it is.
    """

    prompt_tokens: int
    completion_tokens: int
    limit: int | None
    hold: Nano
    clamped: bool

    # spelt out, for the __init__ that a dataclass makes is not compiled
    def __init__(
        self,
        prompt_tokens: int,
        completion_tokens: int,
        limit: int | None,
        hold: Nano,
        clamped: bool = False,
    ) -> None:
        self.prompt_tokens = prompt_tokens
        self.completion_tokens = completion_tokens
        self.limit = limit
        self.hold = hold
        self.clamped = clamped


class TooExpensive(NamedTuple):
    """The account cannot pay the prompt and one token of each choice, which cost ``needed``."""

    needed: Nano


def prompt_bound(request: ParsedRequest, rules: PromptRules, context_length: int | None) -> int:
    """Tokens that the prompt cannot exceed, over all prompts of the request.

    A token stands for at least one byte of text, and an id is one. No prompt is longer than the context.
    """
    text_bytes, media_parts, ids, layout_tokens = request.prompt_size
    if _is_only_ids(request):
        bound = ids
    else:
        bound = (
            text_bytes
            + layout_tokens
            + ids
            + rules.template_tokens
            + _messages(request) * rules.message_tokens
            + media_parts * rules.media_tokens
        )
        if _is_unmeasured(request.fields):
            bound += len(request.body) if context_length is None else context_length
    if context_length is not None:
        bound = min(bound, context_length * request.prompts)
    return bound


def _messages(request: ParsedRequest) -> int:
    """Messages, parts of them and prompts: what a template or a tokenizer puts a few tokens around."""
    names = request.rules.prompts
    count = request.prompts if names else 0
    for name in _MESSAGES:
        value = request.fields.get(name)
        if value is not None and name not in names:
            count += _parts(value)
    return count


def _parts(content: Any) -> int:
    """One, or as many as there are innermost entries in an array: of messages, of parts of them."""
    if type(content) is list:
        return sum(map(_parts, content))
    if type(content) is dict and type(content.get("content")) is list:
        return max(1, _parts(content["content"]))
    return 1


def _is_only_ids(request: ParsedRequest) -> bool:
    """Whether every prompt is given as token ids, so that an engine adds nothing to it."""
    text_bytes, media_parts, ids, _ = request.prompt_size
    if not ids or text_bytes or media_parts:
        return False
    for name in request.rules.prompts:
        value = request.fields.get(name)
        if value is None:
            continue
        prompts = value if type(value) is list and type(value[0]) is list else [value]
        if not all(type(prompt) is list and set(map(type, prompt)) == {int} for prompt in prompts):
            return False
    return request.fields.get("messages") is None and not _is_unmeasured(request.fields)


def _is_unmeasured(fields: dict[str, Any]) -> bool:
    """Whether there is more in the prompt than its text shows, in vLLM's and SGLang's fields.

    A template of the client's own may write anything, and embeddings are no text. What is given to a
    template may also go to who fills it in.
    """
    if fields.get("chat_template") is not None or fields.get("prompt_embeds") is not None:
        return True
    given = fields.get("chat_template_kwargs")
    return type(given) is dict and any(given.get(name) is not None for name in TEMPLATE_CALL)


def quote(
    request: ParsedRequest,
    prices: Prices,
    *,
    prompt_tokens: int,
    available: int,
    context_length: int | None,
    completion_tokens_default: int = COMPLETION_TOKENS_DEFAULT,
) -> Quote | TooExpensive:
    """What has to be held. ``prompt_tokens`` is the prompt's bound, or its exact count.

    ``prices`` are the dearest that the request could be charged by. Where the account can pay the
    prompt and a part of the completion, that part is the limit.
    """
    if not request.dialect.is_metered:
        return Quote(prompt_tokens, 0, None, Nano(0))
    limit: int | None = None
    choices = per_choice = 0
    if request.rules.max_tokens:  # else such answers have no completion
        choices = request.best_of * request.prompts
        limit, per_choice = _wanted(
            request, prompt_tokens, context_length, completion_tokens_default
        )
    hold = _cost(prices, prompt_tokens, per_choice * choices)
    if hold <= available:
        return Quote(prompt_tokens, per_choice * choices, limit, hold)
    affordable = _affordable(prices, prompt_tokens, choices, available) if per_choice else 0
    if affordable < 1:
        return TooExpensive(_cost(prices, prompt_tokens, min(per_choice, 1) * choices))
    if limit is None and context_length is not None:
        # a number of ours has to fit beside the prompt, or the engine refuses it; where the bound
        # of the prompt leaves no room at all it says too little to go by
        room = context_length - prompt_tokens
        affordable = min(affordable, room) if room > 0 else affordable
    completion = affordable * choices
    hold = _cost(prices, prompt_tokens, completion)
    return Quote(prompt_tokens, completion, affordable, hold, clamped=True)


def _wanted(
    request: ParsedRequest, prompt_tokens: int, context_length: int | None, default: int
) -> tuple[int | None, int]:
    """The number for the engine, and what each choice can come to with it.

    An engine refuses a number that does not fit into its context beside the prompt, so none is made
    up where that could be: the context itself is the bound then.
    """
    asked = request.max_tokens
    endless = False
    if asked is None and request.dialect.has_choices:
        predicted = request.fields.get("n_predict")  # llama.cpp's own; below zero: without end
        endless = predicted is not None
        if type(predicted) is int and predicted > 0:
            asked = predicted
    if asked is None and request.dialect is Dialect.COMPLETIONS and not endless:
        asked = LEGACY_COMPLETION_TOKENS
    if asked is not None:
        bound = asked if context_length is None else min(asked, context_length)
        return bound, bound
    if context_length is not None and context_length - prompt_tokens < default:
        return context_length if endless else None, context_length
    return default, default


def _cost(prices: Prices, prompt_tokens: int, completion_tokens: int) -> Nano:
    """The cost of the dearest usage with so many tokens: see ``answer.pricing.cost_of``."""
    tokens = prompt_tokens * max(prices.prompt, prices.cached)
    tokens += completion_tokens * max(prices.completion, prices.reasoning)
    return Nano(prices.request - (-tokens * prices.coefficient // _DIVISOR))


def _affordable(prices: Prices, prompt_tokens: int, choices: int, available: int) -> int:
    """The most completion tokens per choice that ``available`` pays beside the prompt."""
    per_token = choices * max(prices.completion, prices.reasoning) * prices.coefficient
    left = (available - prices.request) * _DIVISOR
    left -= prompt_tokens * max(prices.prompt, prices.cached) * prices.coefficient
    # per_token is not zero: then the completion would not have been what was too dear
    return left // per_token if left > 0 and per_token else 0
