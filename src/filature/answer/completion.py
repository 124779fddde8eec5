"""Is an answer whole? Error frames, end marks, finish reasons, and the verdict. It keeps no state."""

from enum import StrEnum
from typing import Final, NamedTuple

from filature.wire.dialect import Dialect

_DONE_MARKED: Final = (Dialect.CHAT, Dialect.COMPLETIONS)
# tuples, also in the observer: looked for in a set, a type that is an object raises
_END_TYPES: Final[dict[Dialect, tuple[str, ...]]] = {
    Dialect.MESSAGES: ("message_stop",),
    Dialect.RESPONSES: ("response.completed", "response.incomplete"),
}


class Failure(StrEnum):
    """Why an answer counts as failed."""

    ERROR_FRAME = "error_frame"
    """The engine said so."""
    CUT = "cut"
    """HTTP ended before the answer did."""
    EMPTY = "empty"
    """HTTP ended properly, with nothing in it."""
    UNFINISHED = "unfinished"
    """HTTP ended properly, before the answer did."""
    NOT_AN_ANSWER = "not_an_answer"
    """Not JSON where JSON had to be."""


class Verdict(NamedTuple):
    """Whether an answer was completed, and if not, why."""

    completed: bool
    reason: Failure | None = None


COMPLETED: Final = Verdict(True)


def error_in(name: bytes, payload: object) -> object:
    """The engine's error in an event (or a document, with an empty name); None if it is none.

    Known forms: an ``error`` member, an object or a string, in any dialect; an event named
    ``error``, whatever it carries; a payload of type ``error``; ``response.failed``, or a response
    whose status says so; vLLM's older ``{"object": "error", …}``; a choice that has an ``error``
    (OpenRouter), or finished with ``error`` (Mistral).
    """
    if type(payload) is not dict:
        return (payload or "error") if name == b"error" else None
    error: object = payload.get("error")
    if error:
        return error
    kind = payload.get("type")
    response = payload.get("response")
    told = response if isinstance(response, dict) else {}
    if kind == "response.failed" or told.get("status") == "failed":
        return told.get("error") or payload
    if kind == "error" or name == b"error" or payload.get("object") == "error":
        return payload
    if payload.get("object") == "response" and payload.get("status") == "failed":
        return payload
    choices = payload.get("choices")
    return _error_in_choices(choices) if type(choices) is list else None


def _error_in_choices(choices: list[object]) -> object:
    for choice in choices:
        if type(choice) is dict:
            error: object = choice.get("error")
            if error or choice.get("finish_reason") == "error":
                return error or "The engine ended its answer with an error."
    return None


def is_end_mark(dialect: Dialect, payload: dict[str, object]) -> bool:
    """Whether an event with this payload ends an answer of the dialect."""
    kinds = _END_TYPES.get(dialect)
    return kinds is not None and payload.get("type") in kinds


def has_done_mark(dialect: Dialect) -> bool:
    """Whether ``[DONE]`` ends an answer of the dialect."""
    return dialect in _DONE_MARKED
