"""A simple ledger to test the real one against: lists of what happened, and everything added up anew each time.

It knows nothing of debits and credits, kinds of rows or effects. Outcomes are the real one's words.
"""

from dataclasses import dataclass, field
from typing import Literal


@dataclass
class Moved:
    """Money that moved: from whom, to whom, how much, and the operator's share of it."""

    what: str
    giver: str
    taker: str
    amount: int
    bp: int = 0
    held: int = 0
    of: str | None = None


@dataclass
class Held:
    client: str
    amount: int
    bp: int
    until: int
    state: Literal["open", "voided", "expired"] = "open"


@dataclass
class Model:
    """``moved`` by id, in order. The first ``safe`` of them are on disk."""

    names: set[str] = field(default_factory=set)
    moved: dict[str, Moved] = field(default_factory=dict)
    holds: dict[str, Held] = field(default_factory=dict)
    safe: int = 0

    # What there is

    def left_of(self, id_: str) -> int:
        corrected = sum(m.amount for m in self.moved.values() if m.of == id_)
        return self.moved[id_].amount - corrected

    def share_of(self, id_: str) -> int:
        """The operator's share of what is left of a charge."""
        return self.left_of(id_) * self.moved[id_].bp // 10_000

    def balance(self, name: str) -> int:
        balance = 0
        for id_, m in self.moved.items():
            if m.what == "correction":
                continue  # what is left of the others says it
            left = self.left_of(id_)
            if m.giver == name:
                balance -= left
            if m.taker == name:
                balance += left - self.share_of(id_)
            if name == "fees":
                balance += self.share_of(id_)
        return balance

    def held(self, name: str) -> int:
        return sum(h.amount for h in self.holds.values() if h.state == "open" and h.client == name)

    # What happens

    def open(self, id_: str, client: str, amount: int, bp: int, until: int) -> str:
        content = (client, amount, bp)
        if id_ in self.moved:
            m = self.moved[id_]
            if m.what == "late":
                return "hold_expired" if (m.held, m.bp) == (amount, bp) else "conflict"
            same = m.what == "charge" and (m.giver, m.held, m.bp) == content
            return "hold_posted" if same else "conflict"
        if id_ in self.holds:
            hold = self.holds[id_]
            if (hold.client, hold.amount, hold.bp) != content:
                return "conflict"
            return "exists" if hold.state == "open" else f"hold_{hold.state}"
        if client not in self.names:
            return "unknown_account"
        if amount > self.balance(client) - self.held(client):
            return "insufficient"
        self.holds[id_] = Held(client, amount, bp, until)
        return "done"

    def post(self, id_: str, worker: str, amount: int) -> str:
        hold = self.holds.get(id_)
        if hold is None or hold.state != "open":
            return self._post_again(id_, worker, amount)
        if amount > hold.amount:
            return "exceeds_hold"
        if worker not in self.names:
            return "unknown_account"
        del self.holds[id_]
        self.moved[id_] = Moved("charge", hold.client, worker, amount, hold.bp, hold.amount)
        return "done"

    def _post_again(self, id_: str, worker: str, amount: int) -> str:
        m = self.moved.get(id_)
        if m is not None:
            same = (m.what, m.taker, m.amount) == ("charge", worker, amount)
            return "exists" if same else "conflict"
        hold = self.holds.get(id_)
        return "unknown_hold" if hold is None else f"hold_{hold.state}"

    def let_go(self, id_: str, why: Literal["voided", "expired"], now: int | None = None) -> str:
        hold = self.holds.get(id_)
        if id_ in self.moved:
            was = {"charge": "posted", "late": "expired"}.get(self.moved[id_].what)
            if was is None:
                return "conflict"
        elif hold is None:
            return "unknown_hold"
        elif hold.state == "open":
            if now is not None and now < hold.until:
                return "not_due"
            hold.state = why
            return "done"
        else:
            was = hold.state
        return "exists" if was == why else f"hold_{was}"

    def late(self, id_: str, worker: str, amount: int, held: int, bp: int) -> str:
        hold = self.holds.get(id_)
        if hold is not None and hold.state == "open":
            return "hold_open"
        new = Moved("late", "shortfall", worker, amount, bp, held)
        if id_ in self.moved:
            return "exists" if self.moved[id_] == new else "conflict"
        if hold is not None and hold.state == "voided":
            return "hold_voided"
        if amount > held:
            return "exceeds_hold"
        if worker not in self.names:
            return "unknown_account"
        self.moved[id_] = new
        return "done"

    def move(self, id_: str, new: Moved) -> str:
        """A top-up, a refund or a payout."""
        if id_ in self.moved or id_ in self.holds:
            return "exists" if self.moved.get(id_) == new else "conflict"
        for name in (new.giver, new.taker):
            if name != "treasury" and name not in self.names:
                return "unknown_account"
            if name == new.giver != "treasury" and new.amount > self.balance(name) - self.held(
                name
            ):
                return "insufficient"
        self.moved[id_] = new
        return "done"

    def correct(self, id_: str, of: str, amount: int) -> str:
        if id_ in self.moved or id_ in self.holds:
            m = self.moved.get(id_)
            same = m is not None and (m.what, m.of, m.amount) == ("correction", of, amount)
            return "exists" if same else "conflict"
        original = self.moved.get(of)
        if original is None:
            return "unknown_transfer"
        if original.what == "correction":
            return "not_correctable"
        if amount > self.left_of(of):
            return "exceeds_transfer"
        giver = original.taker
        if giver.startswith("client") and amount > self.balance(giver) - self.held(giver):
            return "insufficient"
        self.moved[id_] = Moved("correction", giver, original.giver, amount, of=of)
        return "done"

    # What survives

    def commit(self, count: int) -> None:
        self.safe = min(self.safe + count, len(self.moved))

    def crash(self) -> None:
        self.moved = dict(list(self.moved.items())[: self.safe])
        self.holds = {}
