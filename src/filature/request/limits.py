"""Every bound on a request's body, by name. Values only."""

from dataclasses import dataclass
from typing import Final

MIB: Final = 1024 * 1024

TOKENS_MAX: Final = 2**31 - 1
"""Of any number of tokens asked for: engines keep them in 32 bits."""
MODEL_CHARS_MAX: Final = 256
"""Of a model's name: it goes into records, logs and messages."""
GUID_CHARS_MAX: Final = 128
"""Of ``request_guid``, which is echoed in a header."""
DEPTH_MAX_MAX: Final = 200
"""The parsers' own limits on nesting lie above this."""


@dataclass(frozen=True, slots=True)
class RequestLimits:
    """What a request may ask for; the defaults are those of the settings."""

    body_bytes_max: int = 32 * MIB
    depth_max: int = 64
    """Arrays and objects within one another, the body's own object counted."""
    values_max: int = 1_000_000
    """Values in a body: each takes up to 64 bytes of memory once parsed, whatever its text took."""
    fields_max: int = 1000
    """Members of the body's object, and of ``stream_options``."""
    n_max: int = 128
    """Of ``n`` and ``best_of``: choices per prompt."""
    prompts_max: int = 2048
    """Prompts in one completions or embeddings request; OpenAI's own limit."""
    max_tokens_max: int | None = None
    """Completion tokens per choice: larger numbers are lowered to it, a missing one is set to it."""
    strict: bool = False
    """Check the API references' ranges too, and refuse fields that they do not have."""

    def __post_init__(self) -> None:
        if not 1 <= self.depth_max <= DEPTH_MAX_MAX:
            raise ValueError(f"depth_max must be 1 to {DEPTH_MAX_MAX}")
