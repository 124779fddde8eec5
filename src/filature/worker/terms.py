"""What a worker asks and how much it takes, which its owner changes while it runs: by a file beside the outbox."""

from pathlib import Path
from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from filature.wire.control import CAPACITY_MAX, COEFFICIENT_MAX

TERMS_FILE: Final = "terms.json"
"""In the worker's data directory, until the worker is started anew."""
LOOK_S: Final = 1.0
OLD_PRICE_S: Final = 60.0
"""For which requests are answered that were promised an earlier, lower price."""
BYTES_MAX: Final = 4096


class Change(BaseModel):
    """What the file says; None: as the worker was started."""

    model_config = ConfigDict(extra="forbid")

    coefficient: Annotated[int, Field(ge=0, le=COEFFICIENT_MAX)] | None = None
    max_requests: Annotated[int, Field(ge=1, le=CAPACITY_MAX)] | None = None


class TermsError(ValueError):
    """The file says nothing that can be used; the message says why."""


def read_change(folder: Path) -> Change:
    """Of a file that is not there: nothing. Raises TermsError, OSError."""
    file = folder / TERMS_FILE
    if not file.exists():
        return Change()
    with file.open("rb") as opened:
        text = opened.read(BYTES_MAX)
    try:
        return Change.model_validate_json(text)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        place = ".".join(str(part) for part in first["loc"]) or "the file"
        raise TermsError(f"{file}: {place}: {first['msg']}") from None


def write_change(folder: Path, change: Change) -> None:
    """Whole or not at all. Raises OSError."""
    fresh = folder / f"{TERMS_FILE}.new"
    fresh.write_text(change.model_dump_json(exclude_none=True), encoding="utf-8")
    fresh.replace(folder / TERMS_FILE)


def forget_change(folder: Path) -> None:
    """The terms are those of the command line again. Raises OSError."""
    (folder / TERMS_FILE).unlink(missing_ok=True)


class Terms:
    """As they are now."""

    def __init__(self, coefficient: int, max_requests: int) -> None:
        self._started = (coefficient, max_requests)
        self.coefficient = coefficient
        """Thousandths of a proxy's prices."""
        self.max_requests = max_requests
        self._promised: list[tuple[float, int]] = []  # until when an earlier coefficient is taken

    def apply(self, change: Change, now: float) -> bool:
        """Whether anything became different."""
        coefficient, max_requests = self._started
        if change.coefficient is not None:
            coefficient = change.coefficient
        if change.max_requests is not None:
            max_requests = change.max_requests
        if (coefficient, max_requests) == (self.coefficient, self.max_requests):
            return False
        if coefficient > self.coefficient:
            self._promised.append((now + OLD_PRICE_S, self.coefficient))
        self.coefficient, self.max_requests = coefficient, max_requests
        return True

    def least(self, now: float) -> int:
        """The coefficient that a ticket has to promise."""
        self._promised = [each for each in self._promised if each[0] > now]
        return min([self.coefficient, *(coefficient for _, coefficient in self._promised)])
