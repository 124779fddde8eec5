"""Failures that cost an engine's time and the client nothing, rationed: first slowed, then refused.

Each adds one to its account's score, each paid answer takes one away, and the score halves with time.
Which outcomes are such failures is decided elsewhere.
"""

from collections import OrderedDict
from collections.abc import Callable
from math import ceil, log2
from typing import Final

from filature.errors import RateLimited
from filature.units import AccountId

HALF_LIFE_S: Final = 60.0
SLOWED_ABOVE: Final = 20.0
"""A score from which on requests of the account wait first."""
REFUSED_ABOVE: Final = 60.0
"""A score from which on they are refused."""
DELAY_MAX_S: Final = 5.0
ACCOUNTS_MAX: Final = 10_000
"""Accounts with a score; above it the one that failed the longest ago starts anew."""


class FreeFailures:
    """The scores of at most ``accounts_max`` accounts. ``monotonic_s`` tells the time."""

    def __init__(
        self, monotonic_s: Callable[[], float], *, accounts_max: int = ACCOUNTS_MAX
    ) -> None:
        self._monotonic_s = monotonic_s
        self._accounts_max = accounts_max
        self._scores: OrderedDict[AccountId, tuple[float, float]] = OrderedDict()

    def check(self, account: AccountId) -> float:
        """Seconds that a request waits before it is begun; up to DELAY_MAX_S. Raises RateLimited."""
        if account not in self._scores:
            return 0.0
        score = self._score(account)
        if score <= SLOWED_ABOVE:
            return 0.0
        if score <= REFUSED_ABOVE:
            return DELAY_MAX_S * (score - SLOWED_ABOVE) / (REFUSED_ABOVE - SLOWED_ABOVE)
        wait_s = max(ceil(HALF_LIFE_S * log2(score / REFUSED_ABOVE)), 1)
        error = RateLimited(
            "Too many requests of this account broke their engines, or did not wait for the first "
            f"event, and cost nothing. It is served again in {wait_s} s; answers that are paid for "
            "make up for them.",
            code="too_many_failures",
        )
        error.retry_after_s = wait_s
        raise error

    def failed(self, account: AccountId) -> None:
        """A request ended so."""
        score = self._score(account) + 1.0
        self._scores[account] = (score, self._monotonic_s())
        self._scores.move_to_end(account)
        if len(self._scores) > self._accounts_max:
            self._scores.popitem(last=False)

    def succeeded(self, account: AccountId) -> None:
        """A request of the account was completed and paid for."""
        if account not in self._scores:
            return
        score = self._score(account) - 1.0
        if score <= 0.0:
            del self._scores[account]
        else:
            self._scores[account] = (score, self._monotonic_s())

    def _score(self, account: AccountId) -> float:
        score, since = self._scores.get(account, (0.0, 0.0))
        age_s = max(self._monotonic_s() - since, 0.0)
        return float(score * 0.5 ** (age_s / HALF_LIFE_S))
