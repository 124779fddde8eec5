"""The API dialects a request can be in, as data: routes and what sets one apart from another."""

from enum import StrEnum
from typing import Final

_PATHS: Final = {
    "chat": "/v1/chat/completions",
    "completions": "/v1/completions",
    "embeddings": "/v1/embeddings",
    "responses": "/v1/responses",
    "messages": "/v1/messages",
    "count_tokens": "/v1/messages/count_tokens",
}


class Dialect(StrEnum):
    """One API of one vendor. The value is the short name used in records, metrics and logs.

    ``path`` is the route, below the engine's base path; ``has_choices``: answers carry ``choices``,
    and so several may be asked for; ``is_metered``: answers carry usage and cost something;
    ``is_anthropic``: errors have Anthropic's form.
    """

    CHAT = "chat"
    COMPLETIONS = "completions"
    EMBEDDINGS = "embeddings"
    RESPONSES = "responses"
    MESSAGES = "messages"
    COUNT_TOKENS = "count_tokens"
    """Anthropic's token counter: relayed as it is."""

    def __init__(self, value: str) -> None:
        # plain attributes, for they are read several times for each request
        self.path: str = _PATHS[value]
        self.has_choices = value in ("chat", "completions")
        self.is_metered = value != "count_tokens"
        self.is_anthropic = value in ("messages", "count_tokens")


DIALECT_BY_PATH: Final = {dialect.path: dialect for dialect in Dialect}
