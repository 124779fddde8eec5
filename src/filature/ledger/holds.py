"""Holds: money set aside for a request that runs, and how that ended. They live in memory only."""

from dataclasses import dataclass
from enum import StrEnum

from filature.units import NANO_ZERO, AccountId, HoldId, Nano


@dataclass(slots=True)
class Hold:
    """An open hold: ``amount`` nano-credits of ``client`` that nothing else can use.

    Who will be paid is not known yet. ``fee_bp`` is the fee's share under which the request was
    admitted. ``expires_ms`` is on whatever clock its owner tells the time by in ``ExpireHold``; one
    that does not jump is best. A hold past it stays open until it *is* expired.
    """

    id: HoldId
    client: AccountId
    amount: Nano
    fee_bp: int
    expires_ms: int

    # spelt out, as in ``outcomes.py``
    def __init__(
        self,
        id: HoldId,  # noqa: A002
        client: AccountId,
        amount: Nano,
        fee_bp: int,
        expires_ms: int,
    ) -> None:
        self.id = id
        self.client = client
        self.amount = amount
        self.fee_bp = fee_bp
        self.expires_ms = expires_ms


class HoldEnd(StrEnum):
    """The three ends of a hold; each has exactly one."""

    POSTED = "posted"
    VOIDED = "voided"
    EXPIRED = "expired"


@dataclass(slots=True)
class EndedHold:
    """A hold and its end. ``posted`` is what was charged of it; the rest was released."""

    hold: Hold
    end: HoldEnd
    posted: Nano

    def __init__(self, hold: Hold, end: HoldEnd, posted: Nano = NANO_ZERO) -> None:
        self.hold = hold
        self.end = end
        self.posted = posted
