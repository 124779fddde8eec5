"""What every dialect's format offers, and how an event is written. Which events is theirs to say."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

import orjson

from filature.demo.options import Script, UsagePlacement
from filature.demo.pieces import Counts, Piece
from filature.demo.question import Question


@dataclass(slots=True)
class Reply:
    """What all events of one answer share."""

    question: Question
    script: Script
    counts: Counts
    id: str
    """Hexadecimal digits; each dialect puts its own prefix before them."""
    created: int
    """Unix time in seconds."""

    @property
    def model(self) -> str:
        return self.question.model

    @property
    def tells_usage(self) -> bool:
        return self.script.usage is not UsagePlacement.NEVER


class Format(Protocol):
    """Writes one answer. Events are whole, with their blank line; ``Reply.counts`` must be those
    including the piece when ``piece`` is called, and final when ``tail`` or ``document`` is."""

    def lead(self) -> list[bytes]:
        """The events before any content."""
        ...

    def piece(self, piece: Piece) -> list[bytes]:
        """The events that carry the piece; the last of them carries its text."""
        ...

    def tail(self) -> list[bytes]:
        """The events after all content; the last of them is the dialect's end mark."""
        ...

    def document(self, pieces: Iterable[Piece]) -> bytes:
        """The whole answer, when no stream is asked for."""
        ...

    def error(self, message: str) -> bytes:
        """The event with which an engine fails in mid-stream."""
        ...


def named_event(name: str, payload: dict[str, object], end: bytes) -> bytes:
    return b"event: %b%bdata: %b%b%b" % (name.encode(), end, orjson.dumps(payload), end, end)


ERROR_MESSAGE = "the engine failed on demand"
"""What every fault that says something says."""
