"""The API dialects a request can be in, as data: routes and what sets one apart from another."""

from enum import Enum
from typing import Final


class Dialect(Enum):
    """One API of one vendor. The value is the short name used in records, metrics and logs."""

    CHAT = "chat"
    COMPLETIONS = "completions"
    EMBEDDINGS = "embeddings"
    RESPONSES = "responses"
    MESSAGES = "messages"
    COUNT_TOKENS = "count_tokens"
    """Anthropic's token counter: relayed as it is, never metered."""

    @property
    def path(self) -> str:
        """The route, below the base path: ``/v1/chat/completions`` for CHAT."""
        return _PATHS[self]

    @property
    def has_choices(self) -> bool:
        """Whether answers carry ``choices`` (and so several may be asked for)."""
        return self in (Dialect.CHAT, Dialect.COMPLETIONS)

    @property
    def is_anthropic(self) -> bool:
        return self in (Dialect.MESSAGES, Dialect.COUNT_TOKENS)


_PATHS: Final = {
    Dialect.CHAT: "/v1/chat/completions",
    Dialect.COMPLETIONS: "/v1/completions",
    Dialect.EMBEDDINGS: "/v1/embeddings",
    Dialect.RESPONSES: "/v1/responses",
    Dialect.MESSAGES: "/v1/messages",
    Dialect.COUNT_TOKENS: "/v1/messages/count_tokens",
}

DIALECT_BY_PATH: Final = {path: dialect for dialect, path in _PATHS.items()}
