"""The units every layer shares. Names only: no behaviour, no I/O."""

from typing import Final, NewType

Tokens = NewType("Tokens", int)
"""A count of tokens, never negative."""

Nano = NewType("Nano", int)
"""An amount of money in nano-credits (10⁻⁹ credit), an int64."""

RequestId = NewType("RequestId", str)
"""Our own id of a request: the value of ``x-request-id`` and the key of its usage record."""

NANO_PER_CREDIT: Final = 1_000_000_000
COEFFICIENT_ONE: Final = 1000
"""A coefficient of 1.0 (a worker's multiplier on a model's price)."""
