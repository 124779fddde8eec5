"""What one worker claims for one model, held against what is expected. Pure: who samples, counts and acts is elsewhere.

Without a recount others' claims for as much text of the same sort are what is expected, and a claim has to be twice
that before it tells anything. With one, a claim is over if it is above the count by 2 tokens and by 1 %.
"""

from collections import deque
from enum import StrEnum
from math import ceil
from typing import Final, NamedTuple

WINDOW: Final = 32
"""Samples that are held against a worker at once, the latest."""
JUDGED_MIN: Final = 8
"""Samples before anything is said of a worker."""
TOLERANCE_TOKENS: Final = 2
TOLERANCE: Final = 0.01
"""The larger of both, of a recount."""
OTHERS_FACTOR: Final = 2.0
"""Of what others claim, where nothing was recounted."""
OVER_MIN: Final = 3
"""Of the samples, before anything is held against a worker: one may be odd whatever its size."""
ODD_FACTOR: Final = 1.25
"""Of what is allowed in all, for a worker that lies now and then."""
CACHED_FACTOR: Final = 0.5
"""Of the share that others find cached: less of it is a false miss."""


class Kind(StrEnum):
    """What a worker can be marked for."""

    PROMPT = "prompt"
    COMPLETION = "completion"
    CACHED = "cached"
    """Too little of repeated prompts; the price of cached tokens is charged all the same."""
    EXCEEDED = "exceeded"
    """More than is possible, again and again."""
    REPORT = "report"
    """Its reports say what its answers did not."""


class Group(NamedTuple):
    """Claims that can be compared. ``plain``: nothing in the request lets honest claims exceed the text."""

    kind: Kind
    size: int
    """The class of ``Claim.size``: see ``answer.bounds.size_class``."""
    plain: bool = True
    like: str = ""
    """Texts that can be compared: see ``likeness``, and what was asked of them."""


class Claim(NamedTuple):
    """Of one answer. ``size``: bytes of text; of ``CACHED`` the prompt's tokens, in the class of its bytes."""

    group: Group
    size: int
    claimed: int
    """Tokens, as the engine's records tell them."""
    counted: int | None = None
    """By tokenizer."""
    extra: int = 0
    """Tokens that honest claims may have beside those of the text: of templates, marks and ends."""


class Tally:
    """Of one kind."""

    __slots__ = ("_seen", "kind")

    def __init__(self, kind: Kind) -> None:
        self.kind = kind
        self._seen: deque[tuple[int, float, bool]] = deque(maxlen=WINDOW)  # claimed, allowed, over

    def add(self, claim: Claim, expected: float | None) -> bool | None:
        """Whether a claim is over, where so many tokens per unit of size are expected; None: nobody can tell."""
        if claim.counted is not None:
            tolerance = max(TOLERANCE_TOKENS, ceil(claim.counted * TOLERANCE))
            allowed = float(claim.counted + claim.extra + tolerance)
        elif expected is None:
            return None
        else:
            factor = CACHED_FACTOR if self.kind is Kind.CACHED else OTHERS_FACTOR
            allowed = claim.size * expected * factor + claim.extra
        less = self.kind is Kind.CACHED
        over = claim.claimed < allowed if less else claim.claimed > allowed
        self._seen.append((claim.claimed, allowed, over))
        return over

    @property
    def samples(self) -> int:
        return len(self._seen)

    @property
    def claimed(self) -> int:
        return sum(claimed for claimed, _, _ in self._seen)

    @property
    def allowed(self) -> float:
        return sum(allowed for _, allowed, _ in self._seen)

    @property
    def is_shown(self) -> bool:
        """Whether the worker claims too much: not once, but in all."""
        if len(self._seen) < JUDGED_MIN:
            return False
        claimed, allowed = self.claimed, self.allowed
        overs = sum(over for _, _, over in self._seen)
        if overs < OVER_MIN:
            return False
        if self.kind is Kind.CACHED:
            return claimed < allowed
        often = overs * 2 >= len(self._seen)
        return claimed > allowed and (often or claimed > ODD_FACTOR * allowed)
