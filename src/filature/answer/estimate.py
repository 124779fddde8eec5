"""How many tokens it must have been, where no record tells. Guesses only, and the rules of them."""

from math import ceil
from typing import Final

BYTES_PER_TOKEN: Final = 4.0
"""Until the ratio of the model was seen."""

_PROMPT_BYTES_PER_TOKEN: Final = 4


def completion_tokens(events: int, text_bytes: int, bytes_per_token: float) -> int:
    """At least one token per event that carried text, at most one per byte of it."""
    return min(max(events, ceil(text_bytes / bytes_per_token)), text_bytes)


def prompt_tokens(text_bytes: int) -> int:
    """A quarter of the bytes, rounded up, at least one."""
    return max(1, -(-text_bytes // _PROMPT_BYTES_PER_TOKEN))
