"""Holds and charges: each outcome, and who has what after it."""

from collections import OrderedDict

import pytest
from tests.unit.ledger.books import ADA, GPU, a_ledger, hold, late, post, void, what_they_have

from filature.ledger.accounts import FEES, SHORTFALL, TREASURY
from filature.ledger.book import Ledger
from filature.ledger.commands import (
    ChargeLate,
    Command,
    ExpireHold,
    OpenHold,
    PostHold,
    Refund,
    TopUp,
)
from filature.ledger.decide import decide, transfer_ids_read
from filature.ledger.holds import HoldEnd
from filature.ledger.outcomes import BalanceChange, Outcome
from filature.units import NANO_MAX, AccountId, HoldId, Nano, TransferId

BOB = AccountId("client:bob")


def outcomes(ledger: Ledger, *commands: Command) -> list[Outcome]:
    return [ledger.run(command).outcome for command in commands]


def expire(id_: str, now_ms: int = 60_000) -> ExpireHold:
    return ExpireHold(HoldId(id_), now_ms)


def test_a_hold_is_set_aside_and_nothing_moves() -> None:
    ledger = a_ledger(1000)
    result = ledger.run(hold("r", 400))
    assert result.outcome is Outcome.DONE
    assert not result.effects.is_durable
    assert result.effects.changes == (BalanceChange(ADA, 0, 0, 400),)
    ada = ledger.state.accounts[ADA]
    assert (ada.balance, ada.held, ada.available) == (1000, 400, 600)


def test_a_post_pays_worker_and_fees_and_returns_the_rest() -> None:
    ledger = a_ledger(1000)
    ledger.run(hold("r", 400, fee_bp=500))
    effects = ledger.run(post("r", 310)).effects
    assert what_they_have(ledger) == {ADA: 690, GPU: 295, FEES: 15, TREASURY: -1000}
    assert ledger.state.accounts[ADA].held == 0
    assert (ledger.state.holds, ledger.state.ended) == ({}, {})
    assert effects.is_durable
    assert effects.transfer is not None
    assert [tuple(leg) for leg in effects.transfer.legs()] == [(ADA, GPU, 295), (ADA, FEES, 15)]
    assert effects.changes == (
        BalanceChange(ADA, 310, 0, -400),
        BalanceChange(GPU, 0, 295, 0),
        BalanceChange(FEES, 0, 15, 0),
    )
    assert effects.ended is not None
    assert (effects.ended.end, effects.ended.posted) == (HoldEnd.POSTED, 310)


@pytest.mark.parametrize(
    ("charge", "fee_bp", "fee"),
    [
        *((1, 9999, 0), (1, 10_000, 1), (10_000, 1, 1), (9999, 1, 0), (7, 0, 0), (0, 500, 0)),
        (NANO_MAX, 9999, NANO_MAX * 9999 // 10_000),
    ],
)
def test_the_fee_is_rounded_down(charge: int, fee_bp: int, fee: int) -> None:
    ledger = a_ledger(NANO_MAX)
    assert outcomes(ledger, hold("r", charge, fee_bp=fee_bp), post("r", charge)) == ["done"] * 2
    accounts = ledger.state.accounts
    assert accounts[FEES].balance == fee
    assert accounts[GPU].balance == charge - fee


def test_holds_take_all_that_is_there_and_no_nano_more() -> None:
    ledger = a_ledger(1000)
    assert outcomes(ledger, hold("a", 600), hold("b", 401), hold("c", 400), hold("d", 1)) == [
        *("done", "insufficient", "done", "insufficient")
    ]
    assert outcomes(ledger, void("a"), hold("d", 600)) == ["done", "done"]


def test_a_post_takes_all_of_the_hold_and_no_nano_more() -> None:
    ledger = a_ledger(1000)
    asked = (hold("r", 400), post("r", 401), post("r", 400))
    assert outcomes(ledger, *asked) == ["done", "exceeds_hold", "done"]


def test_a_request_that_cost_nothing_is_settled_all_the_same() -> None:
    ledger = a_ledger(0)
    assert outcomes(ledger, hold("r", 0), post("r", 0), void("r")) == [
        "done",
        "done",
        "hold_posted",
    ]
    charge = ledger.state.transfer(TransferId("r"))
    assert charge is not None
    assert list(charge.legs()) == []


@pytest.mark.parametrize(
    ("first", "then", "outcome"),
    [
        ([], hold("r", 400), "exists"),
        ([], hold("r", 400, expires_ms=5), "exists"),
        ([], hold("r", 401), "conflict"),
        ([], hold("r", 400, fee_bp=501), "conflict"),
        ([], OpenHold(HoldId("r"), BOB, Nano(400), 500, 60_000), "conflict"),
        ([], TopUp(TransferId("r"), ADA, Nano(400), 0), "conflict"),
        ([], late("r", 1), "hold_open"),
        ([], expire("r", 59_999), "not_due"),
        ([], expire("r", 60_000), "done"),
        ([post("r", 300)], post("r", 300, at_ms=99), "exists"),
        ([post("r", 300)], post("r", 299), "conflict"),
        (
            [post("r", 300)],
            PostHold(HoldId("r"), AccountId("worker:tpu"), Nano(300), 1),
            "conflict",
        ),
        ([post("r", 300)], hold("r", 400), "hold_posted"),
        ([post("r", 300)], hold("r", 300), "conflict"),
        ([post("r", 300)], void("r"), "hold_posted"),
        ([post("r", 300)], expire("r"), "hold_posted"),
        ([post("r", 300)], OpenHold(HoldId("r"), BOB, Nano(400), 500, 60_000), "conflict"),
        ([post("r", 300)], late("r", 300, held=400), "conflict"),
        ([void("r")], void("r"), "exists"),
        ([void("r")], hold("r", 400), "hold_voided"),
        ([void("r")], hold("r", 401), "conflict"),
        ([void("r")], post("r", 1), "hold_voided"),
        ([void("r")], expire("r"), "hold_voided"),
        ([void("r")], late("r", 1), "hold_voided"),
        ([void("r")], TopUp(TransferId("r"), ADA, Nano(400), 0), "conflict"),
        ([expire("r")], expire("r"), "exists"),
        ([expire("r")], hold("r", 400), "hold_expired"),
        ([expire("r")], post("r", 1), "hold_expired"),
        ([expire("r")], void("r"), "hold_expired"),
        ([expire("r")], late("r", 1), "done"),
        ([expire("r"), late("r", 1)], late("r", 1), "exists"),
        ([expire("r"), late("r", 1)], late("r", 2), "conflict"),
        (
            [expire("r"), late("r", 1)],
            ChargeLate(HoldId("r"), AccountId("worker:tpu"), Nano(1), Nano(1000), 500, 1),
            "conflict",
        ),
        ([expire("r"), late("r", 1)], post("r", 1), "conflict"),
        ([expire("r"), late("r", 1)], hold("r", 400), "conflict"),
        ([expire("r"), late("r", 1, held=400)], hold("r", 400), "hold_expired"),
        ([expire("r"), late("r", 1)], void("r"), "hold_expired"),
    ],
)
def test_each_hold_ends_once(first: list[Command], then: Command, outcome: str) -> None:
    ledger = a_ledger(1000)
    assert outcomes(ledger, hold("r", 400), *first) == ["done"] * (1 + len(first))
    before = what_they_have(ledger)
    result = ledger.run(then)
    assert result.outcome == outcome
    if outcome != "done":
        assert what_they_have(ledger) == before
        assert not result.effects.changes


@pytest.mark.parametrize("command", [post("r", 1), void("r"), expire("r")])
def test_what_was_never_held_is_unknown(command: Command) -> None:
    assert outcomes(a_ledger(), command) == ["unknown_hold"]


def test_the_id_of_another_transfer_is_no_hold() -> None:
    asked = (hold("first", 1), post("first", 1), void("first"), expire("first"), late("first", 1))
    assert outcomes(a_ledger(), *asked) == ["conflict"] * 5
    refund = Refund(TransferId("back"), ADA, Nano(1), 0)
    assert outcomes(a_ledger(), refund, hold("back", 0, fee_bp=0)) == ["done", "conflict"]


def test_what_comes_too_late_is_borne_by_the_operator() -> None:
    ledger = a_ledger(1000)
    assert outcomes(ledger, late("r", 1001), late("r", 1000)) == ["exceeds_hold", "done"]
    assert what_they_have(ledger) == {
        ADA: 1000,
        TREASURY: -1000,
        SHORTFALL: -1000,
        GPU: 950,
        FEES: 50,
    }


@pytest.mark.parametrize(
    ("command", "outcome"),
    [
        (hold("x", -1), "invalid_amount"),
        (hold("x", NANO_MAX + 1), "invalid_amount"),
        (OpenHold(HoldId("x"), ADA, True, 0, 0), "invalid_amount"),  # type: ignore[arg-type] # is refused
        (OpenHold(HoldId("x"), ADA, 1.0, 0, 0), "invalid_amount"),  # type: ignore[arg-type] # is refused
        (hold("x", 1, fee_bp=-1), "invalid_fee"),
        (hold("x", 1, fee_bp=10_001), "invalid_fee"),
        (OpenHold(HoldId("x"), BOB, Nano(1), 0, 0), "unknown_account"),
        (OpenHold(HoldId("x"), GPU, Nano(1), 0, 0), "wrong_account"),
        (OpenHold(HoldId("x"), AccountId("treasury"), Nano(1), 0, 0), "wrong_account"),
        (post("r", -1), "invalid_amount"),
        (PostHold(HoldId("r"), AccountId("worker:tpu"), Nano(1), 1), "unknown_account"),
        (PostHold(HoldId("r"), ADA, Nano(1), 1), "wrong_account"),
        (PostHold(HoldId("r"), FEES, Nano(1), 1), "wrong_account"),
        (late("x", -1), "invalid_amount"),
        (late("x", 1, held=NANO_MAX + 1), "invalid_amount"),
        (late("x", 1, fee_bp=10_001), "invalid_fee"),
    ],
)
def test_what_makes_no_sense_is_refused(command: Command, outcome: str) -> None:
    ledger = a_ledger()
    ledger.run(hold("r", 400))
    assert outcomes(ledger, command) == [outcome]
    assert ledger.state.accounts[ADA].held == 400


def test_no_total_leaves_int64() -> None:
    ledger = a_ledger(NANO_MAX)
    assert outcomes(ledger, hold("a", NANO_MAX, fee_bp=0), post("a", NANO_MAX)) == ["done", "done"]
    # What went through an account in all its time is bounded, be there money or not
    assert outcomes(ledger, hold("b", 1)) == ["overflow"]
    assert outcomes(ledger, late("c", 1, fee_bp=0)) == ["overflow"]
    assert outcomes(ledger, late("d", 1, fee_bp=10_000)) == ["done"]
    all_of_it = late("e", NANO_MAX, held=NANO_MAX, fee_bp=10_000)
    assert outcomes(ledger, all_of_it) == ["overflow"]


def test_a_post_that_would_overflow_leaves_the_hold_open() -> None:
    ledger = a_ledger(1000)
    full = late("full", NANO_MAX, held=NANO_MAX, fee_bp=0)
    assert outcomes(ledger, full, hold("r", 1), post("r", 1)) == ["done", "done", "overflow"]
    assert ledger.state.accounts[ADA].held == 1
    assert outcomes(ledger, void("r")) == ["done"]


def test_all_that_is_due_expires() -> None:
    ledger = a_ledger()
    for name, expires_ms in (("a", 10), ("b", 11), ("c", 12)):
        ledger.run(hold(name, 1, expires_ms=expires_ms))
    ended = [result.effects.ended for result in ledger.expire(11)]
    assert [(each.hold.id, each.end) for each in ended if each] == [
        ("a", HoldEnd.EXPIRED),
        ("b", HoldEnd.EXPIRED),
    ]
    assert list(ledger.state.holds) == ["c"]


def test_ended_holds_are_remembered_up_to_a_bound() -> None:
    ledger = a_ledger(ended_holds_max=2)
    for name in "abc":
        assert outcomes(ledger, hold(name, 1), void(name)) == ["done", "done"]
    assert outcomes(ledger, void("a"), void("b"), void("c")) == ["unknown_hold", "exists", "exists"]
    # a plain dict would pass over all those forgotten before, each time
    assert isinstance(ledger.state.ended, OrderedDict)


def test_a_post_past_the_time_counts_unless_the_hold_was_expired() -> None:
    ledger = a_ledger()
    assert outcomes(ledger, hold("r", 5, expires_ms=10), post("r", 5, at_ms=99)) == ["done", "done"]


def test_posting_an_open_hold_reads_no_history() -> None:
    ledger = a_ledger()
    assert transfer_ids_read(ledger.state, hold("r", 1)) == ("r",)
    ledger.run(hold("r", 1))
    commands: list[Command] = [post("r", 1), void("r"), expire("r"), hold("r", 1), late("r", 1)]
    for command in commands:
        assert transfer_ids_read(ledger.state, command) == ()


def test_a_decision_alone_changes_nothing() -> None:
    ledger = a_ledger()
    first = decide(ledger.state, hold("r", 400))
    assert decide(ledger.state, hold("r", 400)) == first
    assert ledger.state.holds == {}
    assert ledger.state.accounts[ADA].held == 0
