"""How a request can end: exactly one of these, named in its usage record and its metric."""

from enum import StrEnum
from typing import Final

from filature.errors import EngineError, EngineTimeout, FilatureError, RequestError, RouteMissing

CLIENT_CLOSED: Final = 499
"""The status in the record of an answer that nobody was there to take; nginx's number."""
_CHARGED: Final = ("completed", "client_gone", "client_stalled", "client_timeout", "reported")


class Outcome(StrEnum):
    """See ``docs/money.md``, "Who pays"."""

    COMPLETED = "completed"
    CLIENT_GONE = "client_gone"
    CLIENT_STALLED = "client_stalled"
    """The client stopped reading past its deadline."""
    CLIENT_TIMEOUT = "client_timeout"
    """The request's own ``timeout`` ran out."""
    ENGINE_FAILED = "engine_failed"
    """Before the first content, on every engine tried."""
    ENGINE_FAILED_MIDSTREAM = "engine_failed_midstream"
    ENGINE_STALLED = "engine_stalled"
    REFUSED_BY_ENGINE = "refused_by_engine"
    REFUSED = "refused"
    """By us: nothing was asked of an engine."""
    NO_ENGINE = "no_engine"
    DRAINED = "drained"
    NOT_SETTLED = "not_settled"
    """Complete, but its charge could not be stored in time: the client was told that it failed."""
    REPORTED = "reported"
    """The proxy died in the middle of it, and the worker's report said what was used."""
    REPLAYED = "replayed"
    """The answer of an earlier request with the same Idempotency-Key was given again."""
    REPLACED = "replaced"
    """The proxy died in the middle of it, and a retry with the same Idempotency-Key ran in its place."""

    def __init__(self, value: str) -> None:
        self.is_charged = value in _CHARGED
        """Whether the client pays for the usage up to the end."""


def outcome_of(error: FilatureError) -> Outcome:
    """Of a request that ends with ``error`` before its client saw any of an answer."""
    if isinstance(error, EngineTimeout):
        return Outcome.ENGINE_STALLED
    if isinstance(error, RouteMissing):
        return Outcome.REFUSED_BY_ENGINE
    if isinstance(error, EngineError):
        return Outcome.ENGINE_FAILED
    if isinstance(error, RequestError):
        return Outcome.REFUSED
    return Outcome.NO_ENGINE
