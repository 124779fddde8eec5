"""The checks find each thing that can be wrong with rows, and nothing in a sound ledger."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest
from tests.unit.ledger.books import ADA, GPU, a_ledger, hold, late, post, void

from filature.errors import InternalError
from filature.ledger.accounts import FEES, SHORTFALL, TREASURY, Account
from filature.ledger.book import replay
from filature.ledger.commands import Correct, ExpireHold, Payout
from filature.ledger.holds import EndedHold, Hold, HoldEnd
from filature.ledger.invariants import Invariant, check_ledger
from filature.ledger.outcomes import Outcome
from filature.ledger.transfers import Transfer
from filature.ledger.trial_balance import trial_balance
from filature.units import NANO_MAX, AccountId, HoldId, Nano, TransferId


@dataclass
class Rows:
    """A sound ledger as rows, to be spoilt."""

    accounts: dict[AccountId, Account]
    transfers: dict[str, Transfer]
    holds: dict[str, Hold]
    ended: list[EndedHold]

    def broken(self) -> set[tuple[Invariant, str]]:
        found = check_ledger(
            list(self.accounts.values()),
            list(self.transfers.values()),
            list(self.holds.values()),
            self.ended,
        )
        assert all(violation.message for violation in found)
        return {(violation.invariant, violation.subject) for violation in found}

    def change(self, id_: str, **fields: Any) -> None:
        self.transfers[id_] = self.transfers[id_]._replace(**fields)


@pytest.fixture
def rows() -> Rows:
    ledger = a_ledger(1000)
    ended = []
    for command in (
        *(hold("posted", 400), post("posted", 310), hold("voided", 100), void("voided")),
        *(hold("expired", 50), ExpireHold(HoldId("expired"), 60_000), late("expired", 40)),
        *(hold("open", 200), Payout(TransferId("payout"), GPU, Nano(90), 0)),
        Correct(TransferId("correction"), TransferId("posted"), Nano(100), 0),
    ):
        result = ledger.run(command)
        assert result.outcome is Outcome.DONE
        if result.effects.ended is not None:
            ended.append(result.effects.ended)
    state = ledger.state
    transfers = {str(id_): transfer for id_, transfer in state.transfers.items()}
    return Rows(state.accounts, transfers, {str(k): v for k, v in state.holds.items()}, ended)


def test_a_sound_ledger_has_no_fault(rows: Rows) -> None:
    assert rows.broken() == set()


def test_the_trial_balance_has_equal_sides_posted_and_held(rows: Rows) -> None:
    balance = trial_balance(rows.accounts.values(), rows.holds.values())
    assert balance.is_balanced
    assert [line.name for line in balance.lines] == [*sorted(rows.accounts), "open holds"]
    total = balance.total
    assert (total.held_debits, total.held_credits) == (200, 200)
    assert total.debits == total.credits == 1000 + 310 + 40 + 90 + 100
    assert not trial_balance(rows.accounts.values(), []).is_balanced


Spoil = Callable[[Rows], object]


def _account(name: AccountId, **fields: int) -> Spoil:
    def spoil(rows: Rows) -> None:
        for field, more in fields.items():
            account = rows.accounts[name]
            setattr(account, field, getattr(account, field) + more)

    return spoil


def _transfer(id_: str, **fields: Any) -> Spoil:
    return lambda rows: rows.change(id_, **fields)


def _ended(place: int, **fields: Any) -> Spoil:
    def spoil(rows: Rows) -> None:
        rows.ended[place] = replace(rows.ended[place], **fields)

    return spoil


@pytest.mark.parametrize(
    ("spoil", "found"),
    [
        # One cached total is off
        (_account(GPU, debits=1), {("BALANCES", GPU), ("SIDES_EQUAL", "ledger")}),
        (_account(FEES, credits=1), {("BALANCES", FEES), ("SIDES_EQUAL", "ledger")}),
        (_account(ADA, held=1), {("HOLDS", ADA), ("SIDES_EQUAL", "ledger")}),
        (_account(ADA, credits=-700), {("NEVER_NEGATIVE", ADA)}),
        (_account(ADA, held=591), {("NEVER_NEGATIVE", ADA)}),
        (_account(SHORTFALL, debits=1), {("CHARGES_ARRIVE", "ledger")}),
        (_account(GPU, credits=1), {("CHARGES_ARRIVE", "ledger")}),
        (_account(GPU, held=1), {("HOLDS", GPU)}),
        (_account(TREASURY, credits=NANO_MAX), {("WELL_FORMED", TREASURY)}),
        (_account(ADA, debits=NANO_MAX - 300), {("WELL_FORMED", ADA)}),
        (_account(FEES, debits=-100), {("WELL_FORMED", FEES)}),
        (lambda rows: rows.accounts.pop(GPU), {("BALANCES", GPU)}),
        (lambda rows: rows.accounts.update(x=rows.accounts[ADA]), {("WELL_FORMED", ADA)}),
        # A row that no ledger writes
        (_transfer("first", amount=0), {("WELL_FORMED", "first")}),
        (_transfer("first", amount=NANO_MAX + 1), {("WELL_FORMED", "first")}),
        (_transfer("first", credit=GPU), {("WELL_FORMED", "first")}),
        (_transfer("first", held=1), {("WELL_FORMED", "first")}),
        (_transfer("first", corrects="x"), {("WELL_FORMED", "first")}),
        (_transfer("first", amount=300), {("NEVER_NEGATIVE", ADA)}),
        (_transfer("posted", fee=16), {("WELL_FORMED", "posted")}),
        (_transfer("posted", fee_bp=10_001), {("WELL_FORMED", "posted")}),
        (_transfer("posted", held=309), {("WELL_FORMED", "posted")}),
        (
            _transfer("posted", debit=TREASURY),
            {("WELL_FORMED", "posted"), ("ONE_OUTCOME", "posted")},
        ),
        (_transfer("posted", id="payout"), {("WELL_FORMED", "payout")}),
        (_transfer("correction", amount=311), {("WELL_FORMED", "correction")}),
        (_transfer("correction", amount=311, fee=16), {("WELL_FORMED", "correction")}),
        (_transfer("correction", fee=4), {("WELL_FORMED", "correction")}),
        (_transfer("correction", credit=GPU), {("WELL_FORMED", "correction")}),
        (_transfer("correction", corrects="later"), {("WELL_FORMED", "correction")}),
        (_transfer("correction", corrects="correction"), {("WELL_FORMED", "correction")}),
        (_transfer("correction", corrects=None), {("WELL_FORMED", "correction")}),
        (_transfer("correction", held=1), {("WELL_FORMED", "correction")}),
        (lambda rows: rows.transfers.pop("payout"), {("BALANCES", GPU), ("BALANCES", TREASURY)}),
        # A request with no outcome, two, or another
        (lambda rows: rows.transfers.pop("posted"), {("ONE_OUTCOME", "posted")}),
        (lambda rows: rows.ended.append(rows.ended[0]), {("ONE_OUTCOME", "posted")}),
        (lambda rows: rows.holds.update(x=rows.ended[1].hold), {("ONE_OUTCOME", "voided")}),
        (lambda rows: rows.holds.update(x=rows.holds["open"]), {("HOLDS", "open")}),
        (_transfer("posted", id="open"), {("ONE_OUTCOME", "open")}),
        (_transfer("posted", id="voided"), {("ONE_OUTCOME", "voided")}),
        (_transfer("posted", id="expired"), {("ONE_OUTCOME", "posted")}),
        (_ended(0, end=HoldEnd.VOIDED), {("ONE_OUTCOME", "posted")}),
        (_ended(0, posted=309), {("ONE_OUTCOME", "posted")}),
        (_ended(1, posted=1), {("ONE_OUTCOME", "voided")}),
        (_ended(1, end=HoldEnd.POSTED), {("ONE_OUTCOME", "voided")}),
        (_ended(2, end=HoldEnd.VOIDED), {("ONE_OUTCOME", "expired")}),
        (
            lambda rows: rows.holds.update(
                x=Hold(HoldId("x"), AccountId("client:bob"), Nano(1), 0, 0)
            ),
            {("HOLDS", "client:bob")},
        ),
    ],
)
def test_a_fault_is_found(rows: Rows, spoil: Spoil, found: set[tuple[str, str]]) -> None:
    spoil(rows)
    assert {(Invariant[name], subject) for name, subject in found} <= rows.broken()


def test_a_ledger_is_rebuilt_from_what_is_stored(rows: Rows) -> None:
    ledger = replay(rows.accounts, rows.transfers.values())
    rows.accounts[ADA].held = Nano(0)
    assert ledger.state.accounts == rows.accounts
    assert ledger.run(post("posted", 310)).outcome is Outcome.EXISTS
    assert ledger.run(post("open", 1)).outcome is Outcome.UNKNOWN_HOLD


@pytest.mark.parametrize(
    "spoil",
    [
        lambda rows: rows.accounts.pop(GPU),
        lambda rows: rows.transfers.update(again=rows.transfers["first"]),
        _transfer("first", amount=300),
        _transfer("payout", amount=NANO_MAX),
    ],
)
def test_what_cannot_have_been_is_not_replayed(rows: Rows, spoil: Spoil) -> None:
    spoil(rows)
    with pytest.raises(InternalError, match="cannot have been"):
        replay(rows.accounts, rows.transfers.values())


@pytest.mark.parametrize("names", [[ADA, ADA], [AccountId("nobody")]])
def test_accounts_that_are_none_are_not_replayed(names: list[AccountId]) -> None:
    with pytest.raises(InternalError, match="twice or is none"):
        replay(names, [])
