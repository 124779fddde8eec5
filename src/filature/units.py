"""The units every layer shares. Names only: no behaviour, no I/O."""

from typing import Final, NewType

Tokens = NewType("Tokens", int)
"""A count of tokens, never negative."""

Nano = NewType("Nano", int)
"""An amount of money in nano-credits (10⁻⁹ credit), an int64."""

RequestId = NewType("RequestId", str)
"""Our own id of a request: the value of ``x-request-id`` and the key of its usage record."""

AccountId = NewType("AccountId", str)
"""The name of an account of the ledger: ``client:NAME``, ``worker:NAME``, ``fees``, ``shortfall``, ``treasury``."""

TransferId = NewType("TransferId", str)
"""Our own id of a transfer; what makes it idempotent. A charge has the id of its hold."""

HoldId = NewType("HoldId", str)
"""Our own id of a hold: that of the request it is for."""

NANO_PER_CREDIT: Final = 1_000_000_000
NANO_ZERO: Final = Nano(0)
NANO_MAX: Final = 2**63 - 1
"""The highest amount: int64's."""
BASIS_POINTS_ONE: Final = 10_000
"""A share of 1.0 in basis points."""
COEFFICIENT_ONE: Final = 1000
"""A coefficient of 1.0 (a worker's multiplier on a model's price)."""
DAY_MS: Final = 86_400_000
