"""What is held against workers, over HTTP: their marks, and what was sampled of them."""

from dataclasses import dataclass
from typing import Any, Final, Literal, Self

import orjson
from pydantic import BaseModel, Field

from filature.errors import Conflict
from filature.store.marks import Mark, Marks

HARMLESS: Final = ("cached",)
"""Marks for which no payout waits: an engine without a cache is no liar."""


@dataclass(frozen=True, slots=True)
class ClaimFigures:
    """The latest samples of one kind: tokens claimed, and what was allowed for them."""

    model: str
    kind: str
    samples: int
    claimed: int
    allowed: int
    marked: bool


class MarkShown(BaseModel):
    """Something that is held against a worker. The figures are those of the day on which it was marked."""

    model: str = Field(description="Empty: all")
    kind: str = Field(description="prompt, completion, cached, exceeded, report or suspended")
    at_ms: int
    samples: int | None
    claimed: int | None = Field(description="Tokens in these samples, as the worker told them")
    allowed: int | None = Field(description="Tokens that were allowed for them")

    @classmethod
    def of(cls, mark: Mark) -> Self:
        detail: dict[str, Any] = orjson.loads(mark.detail)
        figures = {name: detail.get(name) for name in ("samples", "claimed", "allowed")}
        return cls(model=mark.model, kind=mark.kind, at_ms=mark.at_ms, **figures)


class AuditShown(BaseModel):
    """A worker's marks, and what was sampled of it since the proxy began."""

    object: Literal["audit"] = "audit"
    worker: str
    marks: list[MarkShown]
    samples: list[ClaimFigures]


def check_payable(marks: Marks, worker: str) -> None:
    """Whether a worker may be paid out. Raises Conflict."""
    held = sorted({mark.kind for mark in marks.of(worker) if mark.kind not in HARMLESS})
    if held:
        raise Conflict(
            f"The worker {worker} is marked ({', '.join(held)}): look at filature worker audit {worker}, and clear "
            f"it by filature worker clear {worker} before it is paid.",
            param="worker",
            code="worker_marked",
        )
