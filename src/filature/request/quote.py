"""What a request can cost at most, and how much of it an account can pay: the amount to be held.

Pure arithmetic on a parsed request; balances, prices and contexts are passed in.
"""

from dataclasses import dataclass
from typing import Final, NamedTuple, Protocol

from filature.request.parse import ParsedRequest
from filature.units import COEFFICIENT_ONE, Nano

COMPLETION_TOKENS_DEFAULT: Final = 16_384
"""Held for where neither the request nor the model's context names a smaller number."""
_DIVISOR: Final = 1_000_000 * COEFFICIENT_ONE


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


class Quote(NamedTuple):
    """What is held for a request, and what it may become.

    ``prompt_tokens`` is over all prompts and ``completion_tokens`` over all choices: nothing above them
    is charged. ``limit`` is the number of completion tokens that each choice is allowed by the body
    the engine gets; None leaves the body as it is.
    """

    prompt_tokens: int
    completion_tokens: int
    limit: int | None
    hold: Nano
    clamped: bool = False


class TooExpensive(NamedTuple):
    """The account cannot pay the prompt and one token of each choice, which cost ``needed``."""

    needed: Nano


def prompt_bound(request: ParsedRequest, rules: PromptRules, context_length: int | None) -> int:
    """Tokens that the prompt cannot exceed, over all prompts of the request.

    A token stands for at least one byte of text, and an id is one. No prompt is longer than the context.
    """
    text_bytes, media_parts, ids = request.prompt_size
    messages = request.fields.get("messages") or request.fields.get("input")
    count = len(messages) if isinstance(messages, list) else 1
    bound = (
        text_bytes
        + ids
        + request.prompts * rules.template_tokens
        + count * rules.message_tokens
        + media_parts * rules.media_tokens
    )
    if context_length is not None:
        bound = min(bound, context_length * request.prompts)
    return bound


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

    Where the account can pay the prompt and a part of the completion, that part is the limit.
    """
    choices = request.best_of * request.prompts
    if not request.rules.max_tokens:
        choices = 0  # such answers have no completion
    limit, per_choice = _wanted(request, prompt_tokens, context_length, completion_tokens_default)
    hold = _cost(prices, prompt_tokens, per_choice * choices)
    if hold <= available:
        return Quote(prompt_tokens, per_choice * choices, limit, hold)
    affordable = _affordable(prices, prompt_tokens, choices, available) if choices else 0
    if affordable < 1:
        return TooExpensive(_cost(prices, prompt_tokens, choices))
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
    if request.max_tokens is not None:
        bound = request.max_tokens
        if context_length is not None:
            bound = min(bound, context_length)
        return request.max_tokens, bound
    if context_length is not None and context_length - prompt_tokens < default:
        return None, context_length
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
