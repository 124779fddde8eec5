"""What an exchange tells an auditor of answers that were bought from others. What is made of it is not decided here.

Not compiled: compiled objects have no weak references, by which samples are counted.
"""

from typing import Final, Protocol

from filature.answer.bounds import Belief
from filature.answer.usage import Usage
from filature.request.parse import ParsedRequest

KEPT_BYTES_MAX: Final = 4 * 1024 * 1024
"""Of one answer; a longer one is not looked at."""


class Sample:
    """An answer that was chosen to be looked at, while it comes and when it has ended."""

    __slots__ = (
        "__weakref__",
        "answer",
        "began_at",
        "claimed",
        "is_repeated",
        "kept_bytes",
        "model",
        "request",
    )

    def __init__(
        self, request: ParsedRequest, model: str, *, is_repeated: bool, began_at: float
    ) -> None:
        self.request = request
        self.model = model
        """By its own name, also where an alias was asked for."""
        self.is_repeated = is_repeated
        """The seller was sent a prompt that begins so a short while ago."""
        self.began_at = began_at
        """By the clock of whoever keeps it."""
        self.answer: list[bytes] = []
        """The engine's bytes."""
        self.kept_bytes = 0
        self.claimed: Usage | None = None
        """As its records tell it; set at the end."""

    def keep(self, payload: bytes) -> None:
        self.kept_bytes += len(payload)
        if self.kept_bytes <= KEPT_BYTES_MAX:
            self.answer.append(payload)
        else:
            self.answer.clear()

    def give_up_text(self) -> None:
        """Keep nothing of the answer, as of one that is too long: what is claimed of the prompt can be judged."""
        self.kept_bytes = KEPT_BYTES_MAX + 1
        self.answer.clear()


class Watch(Protocol):
    """Of one seller."""

    def begin(
        self, request: ParsedRequest, model: str, prefix: int
    ) -> tuple[Belief | None, Sample | None]:
        """An answer begins: what is believed of its claims, and where it is to be kept if it is to be looked at.

        ``prefix`` is equal for requests that begin alike, 0 for none. Belief None: whatever is possible.
        """

    def take(self, sample: Sample) -> None:
        """A sample that has ended, charged for."""

    def exceeded(self, request: ParsedRequest, model: str) -> None:
        """It claimed more than is possible."""
