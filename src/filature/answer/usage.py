"""Token counts: what a request used, and how each dialect writes it down. No arithmetic of money.

A *record* is a usage object as an engine sent it; ``read_record`` is the only reader of them.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from filature.wire.dialect import Dialect

TOKENS_MAX: Final = 1_000_000_000
"""A count above this is absurd, and so not a count: contexts are a thousand times smaller."""

# bound once: a look-up in an enumeration costs a call of Python's
_EMBEDDINGS: Final = Dialect.EMBEDDINGS
_MESSAGES: Final = Dialect.MESSAGES
_RESPONSES: Final = Dialect.RESPONSES


@dataclass(slots=True)
class Usage:
    """Tokens of one request. ``cached`` ≤ ``prompt``, ``reasoning`` ≤ ``completion``."""

    prompt: int = 0
    cached: int = 0
    completion: int = 0
    reasoning: int = 0
    estimated: bool = False
    """Whether any count was guessed because no record tells."""

    # spelt out, here and below: the __init__ that a dataclass makes is not compiled
    def __init__(
        self,
        prompt: int = 0,
        cached: int = 0,
        completion: int = 0,
        reasoning: int = 0,
        estimated: bool = False,
    ) -> None:
        self.prompt = prompt
        self.cached = cached
        self.completion = completion
        self.reasoning = reasoning
        self.estimated = estimated

    @property
    def total(self) -> int:
        """Prompt and completion; cached and reasoning are parts of them."""
        return self.prompt + self.completion


@dataclass(slots=True)
class Record:
    """The counts an engine gave; None where it gave none that can be believed."""

    prompt: int | None
    cached: int | None
    completion: int | None
    reasoning: int | None

    def __init__(
        self, prompt: int | None, cached: int | None, completion: int | None, reasoning: int | None
    ) -> None:
        self.prompt = prompt
        self.cached = cached
        self.completion = completion
        self.reasoning = reasoning


def count(value: object) -> int | None:
    """A token count, or None: missing, null, negative, fractional and absurd values are none."""
    if type(value) is int:
        return value if 0 <= value <= TOKENS_MAX else None
    if type(value) is float and value.is_integer() and 0 <= value <= TOKENS_MAX:
        return int(value)
    return None


def read_record(dialect: Dialect, usage: Mapping[str, object]) -> Record:
    """The counts in a usage object of the dialect."""
    if dialect is _MESSAGES:
        return _read_anthropic(usage)
    if dialect is _RESPONSES and ("input_tokens" in usage or "prompt_tokens" not in usage):
        # else it has chat's names, as that of whole responses of older SGLang
        return Record(
            count(usage.get("input_tokens")),
            _detail(usage.get("input_tokens_details"), "cached_tokens"),
            count(usage.get("output_tokens")),
            _detail(usage.get("output_tokens_details"), "reasoning_tokens"),
        )
    get = usage.get
    details = get("prompt_tokens_details")
    cached = None if details is None else _detail(details, "cached_tokens")
    details = get("completion_tokens_details")
    reasoning = None if details is None else _detail(details, "reasoning_tokens")
    if reasoning is None and (given := get("reasoning_tokens")) is not None:
        reasoning = count(given)
    return Record(count(get("prompt_tokens")), cached, count(get("completion_tokens")), reasoning)


def _detail(details: object, name: str) -> int | None:
    return count(details.get(name)) if isinstance(details, dict) else None


def _read_anthropic(usage: Mapping[str, object]) -> Record:
    """Anthropic's ``input_tokens`` are the ones neither read from nor written to the cache."""
    prompt = count(usage.get("input_tokens"))
    cached = count(usage.get("cache_read_input_tokens"))
    if prompt is not None:
        prompt += (cached or 0) + (count(usage.get("cache_creation_input_tokens")) or 0)
    return Record(prompt, cached, count(usage.get("output_tokens")), None)


def goes_on(earlier: Mapping[str, object], record: Mapping[str, object]) -> bool:
    """Whether a record of chat or completions says all that an earlier one of the same choice does, and no less of the
    completion.

    Of every field the largest counts, so an earlier record may be forgotten only then.
    """
    before, now = earlier.get("completion_tokens"), record.get("completion_tokens")
    return (
        type(before) is int
        and type(now) is int
        and before <= now
        and earlier.get("prompt_tokens") == record.get("prompt_tokens")
        and earlier.get("prompt_tokens_details") == record.get("prompt_tokens_details")
        and earlier.get("completion_tokens_details") == record.get("completion_tokens_details")
        and earlier.get("reasoning_tokens") == record.get("reasoning_tokens")
    )


_COMMON_COUNT_KEYS: Final = (
    "prompt_tokens",
    "prompt_tokens_details",
    "completion_tokens",
    "completion_tokens_details",
    "reasoning_tokens",
    "total_tokens",
)
COUNT_KEYS: Final = {
    Dialect.CHAT: _COMMON_COUNT_KEYS,
    Dialect.COMPLETIONS: _COMMON_COUNT_KEYS,
    Dialect.EMBEDDINGS: _COMMON_COUNT_KEYS,
    Dialect.RESPONSES: (
        "input_tokens",
        "input_tokens_details",
        "output_tokens",
        "output_tokens_details",
        *_COMMON_COUNT_KEYS,
    ),
    Dialect.MESSAGES: (
        "input_tokens",
        "cache_read_input_tokens",
        "cache_creation_input_tokens",
        "output_tokens",
    ),
}
"""What ``read_record`` reads, and what would contradict it."""


def usage_members(dialect: Dialect, usage: Usage) -> bytes:
    """The usage as members of a usage object of the dialect, no braces, no comma around them."""
    if dialect is _MESSAGES:
        # what was written to the cache is told as none: clients add it up, also what the message's beginning told of it
        text = (
            f'"input_tokens":{usage.prompt - usage.cached},"cache_creation_input_tokens":0,'
            f'"cache_read_input_tokens":{usage.cached},"output_tokens":{usage.completion}'
        )
    elif dialect is _RESPONSES:
        text = (
            f'"input_tokens":{usage.prompt},'
            f'"input_tokens_details":{{"cached_tokens":{usage.cached}}},'
            f'"output_tokens":{usage.completion},'
            f'"output_tokens_details":{{"reasoning_tokens":{usage.reasoning}}},'
            f'"total_tokens":{usage.total}'
        )
    elif dialect is _EMBEDDINGS:
        text = f'"prompt_tokens":{usage.prompt},"total_tokens":{usage.total}'
        if usage.completion:  # an engine that tells some is taken at its word
            text += f',"completion_tokens":{usage.completion}'
        if usage.cached:
            text += f',"prompt_tokens_details":{{"cached_tokens":{usage.cached}}}'
    else:
        text = (
            f'"prompt_tokens":{usage.prompt},"completion_tokens":{usage.completion},'
            f'"total_tokens":{usage.total},'
            f'"prompt_tokens_details":{{"cached_tokens":{usage.cached}}},'
            f'"completion_tokens_details":{{"reasoning_tokens":{usage.reasoning}}}'
        )
    return (text + ',"estimated":true' if usage.estimated else text).encode()
