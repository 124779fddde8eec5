"""Top-ups, refunds, payouts, corrections, accounts: each outcome, and who has what after it."""

import pytest
from tests.unit.ledger.books import ADA, GPU, a_ledger, hold, late, post, what_they_have

from filature.ledger.accounts import FEES, SHORTFALL, TREASURY, AccountKind, kind_of
from filature.ledger.commands import Command, Correct, OpenAccount, Payout, Refund, TopUp
from filature.ledger.decide import transfer_ids_read
from filature.units import NANO_MAX, AccountId, Nano, TransferId


def top_up(id_: str, amount: int, *, at_ms: int = 0, note: str = "") -> TopUp:
    return TopUp(TransferId(id_), ADA, Nano(amount), at_ms, note)


def refund(id_: str, amount: int) -> Refund:
    return Refund(TransferId(id_), ADA, Nano(amount), 0)


def payout(id_: str, amount: int) -> Payout:
    return Payout(TransferId(id_), GPU, Nano(amount), 0)


def correct(id_: str, of: str, amount: int, note: str = "") -> Correct:
    return Correct(TransferId(id_), TransferId(of), Nano(amount), 0, note)


def outcomes(*commands: Command, credit: int = 1000) -> tuple[list[str], dict[str, int]]:
    ledger = a_ledger(credit)
    said = [str(ledger.run(command).outcome) for command in commands]
    return said, what_they_have(ledger)


def test_money_comes_in_and_goes_out() -> None:
    said, balances = outcomes(top_up("a", 500), refund("b", 300))
    assert said == ["done", "done"]
    assert balances == {ADA: 1200, TREASURY: -1200}


@pytest.mark.parametrize(
    ("second", "outcome"),
    [
        (top_up("a", 500), "exists"),
        (top_up("a", 500, at_ms=77), "exists"),
        (top_up("a", 501), "conflict"),
        (top_up("a", 500, note="other"), "conflict"),
        (refund("a", 500), "conflict"),
        (correct("a", "first", 500), "conflict"),
        (TopUp(TransferId("a"), AccountId("client:bob"), Nano(500), 0), "conflict"),
    ],
)
def test_the_same_again_is_not_done_again(second: Command, outcome: str) -> None:
    assert outcomes(top_up("a", 500), second) == (
        ["done", outcome],
        {ADA: 1500, TREASURY: -1500},
    )


def test_a_refund_that_was_done_exists_even_when_nothing_is_left() -> None:
    assert outcomes(refund("a", 1000), refund("a", 1000))[0] == ["done", "exists"]


def test_what_is_held_is_not_refunded() -> None:
    said, balances = outcomes(hold("r", 600), refund("a", 401), refund("b", 400))
    assert said == ["done", "insufficient", "done"]
    assert balances[ADA] == 600


def test_a_worker_is_paid_what_it_has() -> None:
    said, balances = outcomes(hold("r", 600), post("r", 600), payout("a", 571), payout("b", 570))
    assert said == ["done", "done", "insufficient", "done"]
    assert GPU not in balances


@pytest.mark.parametrize(
    ("command", "outcome"),
    [
        (top_up("x", 0), "invalid_amount"),
        (refund("x", -1), "invalid_amount"),
        (payout("x", NANO_MAX + 1), "invalid_amount"),
        (correct("x", "first", 0), "invalid_amount"),
        (top_up("x", NANO_MAX), "overflow"),
        (TopUp(TransferId("x"), AccountId("client:bob"), Nano(1), 0), "unknown_account"),
        (TopUp(TransferId("x"), GPU, Nano(1), 0), "wrong_account"),
        (TopUp(TransferId("x"), TREASURY, Nano(1), 0), "wrong_account"),
        (TopUp(TransferId("x"), AccountId("ada"), Nano(1), 0), "wrong_account"),
        (Refund(TransferId("x"), GPU, Nano(1), 0), "wrong_account"),
        (Payout(TransferId("x"), ADA, Nano(1), 0), "wrong_account"),
        (Payout(TransferId("x"), AccountId("worker:tpu"), Nano(1), 0), "unknown_account"),
        (correct("x", "nothing", 1), "unknown_transfer"),
        (correct("x", "x", 1), "unknown_transfer"),
        (correct("x", "first", 1001), "exceeds_transfer"),
    ],
)
def test_what_cannot_be_is_refused(command: Command, outcome: str) -> None:
    assert outcomes(command) == ([outcome], {ADA: 1000, TREASURY: -1000})


def test_a_charge_is_corrected_in_parts_and_the_fee_with_it() -> None:
    # At 5 % the fee of 310 is 15, of 210 10, of 201 10, of 199 9
    charged = (hold("r", 400), post("r", 310))
    said, balances = outcomes(*charged, correct("a", "r", 100))
    assert said[-1] == "done"
    assert balances == {ADA: 790, GPU: 200, FEES: 10, TREASURY: -1000}
    parts = (correct("a", "r", 100), correct("b", "r", 9), correct("c", "r", 2))
    _, balances = outcomes(*charged, *parts[:2])
    assert balances == {ADA: 799, GPU: 191, FEES: 10, TREASURY: -1000}
    _, balances = outcomes(*charged, *parts)
    assert balances == {ADA: 801, GPU: 190, FEES: 9, TREASURY: -1000}
    said, balances = outcomes(
        *charged, correct("a", "r", 100), correct("b", "r", 211), correct("c", "r", 210)
    )
    assert said[-2:] == ["exceeds_transfer", "done"]
    assert balances == {ADA: 1000, TREASURY: -1000}


def test_a_late_charge_is_corrected_towards_shortfall() -> None:
    _, balances = outcomes(late("r", 1000), correct("a", "r", 400))
    assert balances == {ADA: 1000, TREASURY: -1000, SHORTFALL: -600, GPU: 570, FEES: 30}


def test_a_worker_that_was_paid_out_owes_what_is_corrected() -> None:
    said, balances = outcomes(
        *(hold("r", 100, fee_bp=0), post("r", 100), payout("p", 100), correct("a", "r", 60)),
        *(payout("q", 1), correct("b", "p", 60), payout("s", 1)),
    )
    assert said == ["done", "done", "done", "done", "insufficient", "done", "insufficient"]
    assert balances == {ADA: 960, TREASURY: -960}


def test_a_correction_never_takes_a_client_below_what_is_held() -> None:
    said, _ = outcomes(hold("r", 600), correct("a", "first", 401), correct("b", "first", 400))
    assert said == ["done", "insufficient", "done"]


@pytest.mark.parametrize(
    ("second", "outcome"),
    [
        (correct("a", "first", 10), "exists"),
        (correct("a", "first", 11), "conflict"),
        (correct("a", "first", 10, "why"), "conflict"),
        (correct("b", "a", 1), "not_correctable"),
    ],
)
def test_corrections_are_final_and_done_once(second: Command, outcome: str) -> None:
    assert outcomes(correct("a", "first", 10), second) == (
        ["done", outcome],
        {ADA: 990, TREASURY: -990},
    )


@pytest.mark.parametrize(
    ("account", "outcome"),
    [
        ("client:bob", "done"),
        ("worker:a:b", "done"),
        ("client:ada", "exists"),
        ("treasury", "exists"),
        ("client:", "wrong_account"),
        ("client", "wrong_account"),
        ("fees:x", "wrong_account"),
        ("Client:x", "wrong_account"),
        ("", "wrong_account"),
    ],
)
def test_accounts_are_opened_by_name(account: str, outcome: str) -> None:
    assert outcomes(OpenAccount(AccountId(account)))[0] == [outcome]


@pytest.mark.parametrize("kind", list(AccountKind))
def test_every_kind_of_account_has_a_name(kind: AccountKind) -> None:
    prefixed = kind in (AccountKind.CLIENT, AccountKind.WORKER)
    assert kind_of(AccountId(f"{kind}:x" if prefixed else str(kind))) is kind


def test_what_a_decision_reads_is_told_before() -> None:
    state = a_ledger().state
    assert transfer_ids_read(state, top_up("a", 1)) == ("a",)
    assert transfer_ids_read(state, refund("a", 1)) == ("a",)
    assert transfer_ids_read(state, payout("a", 1)) == ("a",)
    assert transfer_ids_read(state, correct("a", "first", 1)) == ("a", "first")
    assert transfer_ids_read(state, OpenAccount(ADA)) == ()
