"""What the ledger forgets it finds in the history, and counts once."""

from collections.abc import Iterable

from tests.unit.ledger.books import ADA, a_ledger, hold, post

from filature.ledger.commands import Correct, TopUp
from filature.ledger.transfers import Transfer
from filature.units import Nano, TransferId


class Stored:
    """A history of rows."""

    def __init__(self) -> None:
        self.rows: dict[TransferId, Transfer] = {}

    def transfer(self, transfer: TransferId) -> Transfer | None:
        return self.rows.get(transfer)

    def corrections(self, transfer: TransferId) -> Iterable[Transfer]:
        return [row for row in self.rows.values() if row.corrects == transfer]


def test_a_correction_counts_once_before_during_and_after_it_is_forgotten() -> None:
    stored = Stored()
    ledger = a_ledger(1000, history=stored)
    first = TransferId("first")
    ledger.run(Correct(TransferId("a"), first, Nano(300), 0))
    ledger.run(Correct(TransferId("b"), first, Nano(200), 0))
    assert ledger.state.corrected(first) == 500
    stored.rows.update(ledger.state.transfers)
    assert ledger.state.corrected(first) == 500
    ledger.forget([TransferId("a"), TransferId("never was")])
    assert ledger.state.corrected(first) == 500
    ledger.forget([first, TransferId("b")])
    assert ledger.state.corrected(first) == 500
    assert ledger.state.transfers == {}
    too_much = Correct(TransferId("c"), first, Nano(501), 0)
    assert ledger.run(too_much).outcome == "exceeds_transfer"


def test_what_was_forgotten_still_exists() -> None:
    stored = Stored()
    ledger = a_ledger(1000, history=stored)
    ledger.run(hold("r", 400))
    ledger.run(post("r", 300))
    stored.rows.update(ledger.state.transfers)
    ledger.forget(stored.rows)
    assert ledger.run(TopUp(TransferId("first"), ADA, Nano(1000), 5)).outcome == "exists"
    assert ledger.run(post("r", 300)).outcome == "exists"
    assert ledger.run(hold("r", 400)).outcome == "hold_posted"
