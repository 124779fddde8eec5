"""An answer in the terms that all dialects share: what back ends make and formats write."""

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum
from typing import Literal

Finish = Literal["stop", "length", "tool_calls"]


class Kind(Enum):
    """What a piece's text is."""

    TEXT = "text"
    REASONING = "reasoning"
    TOOL = "tool"
    """A piece of a tool call's arguments."""


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call as it begins; its arguments follow as pieces."""

    id: str
    name: str
    named: bool = False
    """The request named the tool; vLLM then ends with ``stop`` rather than ``tool_calls``."""


@dataclass(slots=True)
class Piece:
    """What one event carries: some text of one choice, how many tokens that was, perhaps its end."""

    choice: int = 0
    text: str = ""
    tokens: int = 0
    kind: Kind = Kind.TEXT
    call: ToolCall | None = None
    """On the first piece of a tool call."""
    finish: Finish | None = None
    stop: str | None = None
    """The stop sequence that ended the choice."""


@dataclass(slots=True)
class Counts:
    """Tokens of one request: per prompt, and per choice (choice ``i`` answers prompt ``i // n``)."""

    prompt: list[int]
    cached: list[int]
    n: int = 1
    completion: list[int] = field(default_factory=list)
    reasoning: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        choices = len(self.prompt) * self.n
        self.completion = [0] * choices
        self.reasoning = [0] * choices

    def add(self, piece: Piece) -> None:
        self.completion[piece.choice] += piece.tokens
        if piece.kind is Kind.REASONING:
            self.reasoning[piece.choice] += piece.tokens


@dataclass(slots=True)
class Choice:
    """One whole choice."""

    text: str = ""
    reasoning: str = ""
    calls: list[tuple[ToolCall, str]] = field(default_factory=list)
    """Calls with their arguments, a JSON text."""
    finish: Finish = "stop"
    stop: str | None = None


def gather(pieces: Iterable[Piece], choices: int) -> list[Choice]:
    """The choices that the pieces make up."""
    whole = [Choice() for _ in range(choices)]
    for piece in pieces:
        choice = whole[piece.choice]
        if piece.call is not None:
            choice.calls.append((piece.call, ""))
        if piece.kind is Kind.TEXT:
            choice.text += piece.text
        elif piece.kind is Kind.REASONING:
            choice.reasoning += piece.text
        else:
            call, arguments = choice.calls[-1]
            choice.calls[-1] = (call, arguments + piece.text)
        if piece.finish is not None:
            choice.finish, choice.stop = piece.finish, piece.stop
    return whole


def with_finish_apart(pieces: Iterable[Piece]) -> Iterable[Piece]:
    """The same pieces, with the finish on one of its own."""
    for piece in pieces:
        if piece.finish is None or not piece.tokens:
            yield piece
        else:
            yield dataclasses.replace(piece, finish=None, stop=None)
            yield Piece(piece.choice, finish=piece.finish, stop=piece.stop)
