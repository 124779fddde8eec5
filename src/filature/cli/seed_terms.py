"""An answer through the postprocessor in the seed system's terms: a price per token and multipliers, and a usage
line in adjusted tokens (``docs/from-cocoon.md``).
"""

from collections.abc import Iterable
from enum import StrEnum
from typing import TYPE_CHECKING, BinaryIO, Final

if TYPE_CHECKING:
    from filature.answer.policy import AnswerPolicy
    from filature.answer.pricing import Tariff
    from filature.answer.usage import Usage

MULTIPLIER_ONE: Final = 10_000
_ADJUST_DIVISOR: Final = 10_000_000
"""Of tokens × coefficient × multiplier: a coefficient of 1.0 is 1000."""
_MILLION: Final = 1_000_000


class Api(StrEnum):
    """The dialect of the answer."""

    CHAT = "chat"
    COMPLETIONS = "completions"
    EMBEDDINGS = "embeddings"
    RESPONSES = "responses"
    MESSAGES = "messages"


class Multipliers:
    """One for each class of tokens; 10_000 is 1.0."""

    def __init__(self, prompt: int, cached: int, completion: int, reasoning: int) -> None:
        self.prompt = prompt
        self.cached = cached
        self.completion = completion
        self.reasoning = reasoning


def tariff_of(price_per_token: int, multipliers: Multipliers, coefficient: int) -> "Tariff":
    """The seed system's prices as a tariff, exactly."""
    from filature.answer.pricing import Tariff  # noqa: PLC0415  # --help is quick

    unit = price_per_token * (_MILLION // MULTIPLIER_ONE)
    return Tariff(
        prompt=unit * multipliers.prompt,
        cached=unit * multipliers.cached,
        completion=unit * multipliers.completion,
        reasoning=unit * multipliers.reasoning,
        coefficient=coefficient,
    )


def policy_of(tariff: "Tariff", as_requested: bool) -> "AnswerPolicy":
    """Forward everything, or what a client gets that asked for nothing."""
    from filature.answer.policy import AnswerPolicy  # noqa: PLC0415  # --help is quick

    return AnswerPolicy(strip=as_requested, tariff=tariff, errors="pass")


def process(
    pieces: Iterable[bytes], sink: BinaryIO, api: Api, policy: "AnswerPolicy"
) -> tuple["Usage", int]:
    """Feed ``pieces`` through, write to ``sink``; the usage and the size of the unread tail."""
    from filature.answer.postprocessor import AnswerPostprocessor  # noqa: PLC0415  # --help is quick
    from filature.wire.dialect import Dialect  # noqa: PLC0415  # as above

    answer = AnswerPostprocessor(Dialect(api.value), policy)
    sink.writelines(answer.feed(piece) for piece in pieces)
    sink.write(answer.finish(True))
    return answer.usage, answer.unprocessed_bytes


def usage_line(usage: "Usage", multipliers: Multipliers, coefficient: int) -> str:
    """``usage: prompt=… cached=… completion=… reasoning=… total=…`` in adjusted tokens."""

    def adjusted(tokens: int, multiplier: int) -> int:
        return tokens * coefficient * multiplier // _ADJUST_DIVISOR

    counts = {
        "prompt": adjusted(usage.prompt - usage.cached, multipliers.prompt),
        "cached": adjusted(usage.cached, multipliers.cached),
        "completion": adjusted(usage.completion - usage.reasoning, multipliers.completion),
        "reasoning": adjusted(usage.reasoning, multipliers.reasoning),
    }
    shown = " ".join(f"{name}={count}" for name, count in counts.items())
    return f"usage: {shown} total={sum(counts.values())}"
