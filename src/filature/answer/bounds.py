"""What of a usage is possible, and what of it is believed. Nothing here knows prices."""

from math import ceil
from typing import Final

from filature.answer.usage import Usage

SIZES: Final = 32
"""Classes of sizes in bytes, by powers of two: short texts have more tokens per byte than long ones."""


def size_class(size_bytes: int) -> int:
    """From 0 to ``SIZES - 1``."""
    return min(size_bytes.bit_length(), SIZES - 1)


class Belief:
    """What is believed of a seller who was found to claim too much: as much as others of its model have.

    ``prompt``: the most prompt tokens of this request, None: any that are possible. ``per_byte``: completion tokens
    per byte of delivered text, by its size's class; None: any. ``cached``: the least share of the prompt that counts
    as cached.
    """

    __slots__ = ("cached", "per_byte", "prompt")

    def __init__(self, prompt: int | None, per_byte: list[float] | None, cached: float) -> None:
        self.prompt = prompt
        self.per_byte = per_byte
        self.cached = cached

    def of(self, usage: Usage, text_bytes: int) -> Usage:
        """What of ``usage`` is believed, for so many bytes of delivered text."""
        prompt, completion = usage.prompt, usage.completion
        if self.prompt is not None:
            prompt = min(prompt, self.prompt)
        per_byte = self.per_byte
        if per_byte is not None:
            completion = min(completion, ceil(text_bytes * per_byte[size_class(text_bytes)]))
        cached = max(usage.cached, ceil(prompt * self.cached))
        return Usage(
            prompt,
            min(cached, prompt),
            completion,
            min(usage.reasoning, completion),
            usage.estimated,
        )


class UsageBounds:
    """Tokens of one request, over all its prompts and all its choices.

    A completion also has no more tokens than its answer had bytes. ``belief`` None: what is possible is believed.
    """

    __slots__ = ("belief", "completion", "prompt")

    def __init__(self, prompt: int, completion: int, belief: Belief | None = None) -> None:
        self.prompt = prompt
        self.completion = completion
        self.belief = belief


def within(usage: Usage, bounds: UsageBounds, payload_bytes: int) -> Usage:
    """What of ``usage`` is possible; ``usage`` itself if all of it is."""
    prompt, completion = usage.prompt, usage.completion
    most = min(bounds.completion, payload_bytes)
    if prompt <= bounds.prompt and completion <= most:
        return usage
    prompt, completion = min(prompt, bounds.prompt), min(completion, most)
    return Usage(
        prompt,
        min(usage.cached, prompt),
        completion,
        min(usage.reasoning, completion),
        usage.estimated,
    )
