"""The ledger, whatever happens in whatever order, against a model that adds everything up anew."""

from collections import Counter
from collections.abc import Iterable
from copy import deepcopy
from fractions import Fraction
from typing import Any

from hypothesis import event, note, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)
from tests.property.ledger_model import Model, Moved

from filature.ledger.accounts import (
    HOUSE_ACCOUNTS,
    TREASURY,
    Account,
    client_account,
    kind_of,
    worker_account,
)
from filature.ledger.book import Ledger, replay
from filature.ledger.commands import (
    ChargeLate,
    Command,
    Correct,
    ExpireHold,
    OpenAccount,
    OpenHold,
    Payout,
    PostHold,
    Refund,
    TopUp,
    VoidHold,
)
from filature.ledger.decide import decide, transfer_ids_read
from filature.ledger.holds import EndedHold, Hold
from filature.ledger.invariants import check_ledger, check_one_outcome
from filature.ledger.outcomes import Effects, Outcome
from filature.ledger.transfers import Transfer
from filature.units import AccountId, HoldId, Nano, TransferId

CLIENTS = [client_account("ada"), client_account("bob"), client_account("nobody")]
WORKERS = [worker_account("gpu"), worker_account("tpu"), worker_account("nobody")]
OPENED = [*CLIENTS[:2], *WORKERS[:2]]
ID = st.sampled_from([f"id-{n}" for n in range(24)])
CLIENT = st.sampled_from([*CLIENTS[:2] * 4, CLIENTS[2]])
WORKER = st.sampled_from([*WORKERS[:2] * 4, WORKERS[2]])
AMOUNT = st.integers(1, 30) | st.integers(1, 10**12)
PRICE = st.just(0) | AMOUNT
SHARE = st.sampled_from([0, 1, 500, 3333, 9999, 10_000])
TIME = st.integers(0, 20)
PART = st.fractions(0, 1) | st.sampled_from([Fraction(1), Fraction(999, 1000)])


class Disk:
    """A store's tables: rows in the order in which they were committed, and sums of the changes."""

    def __init__(self) -> None:
        self.accounts: dict[AccountId, Account] = {}
        self.transfers: dict[TransferId, Transfer] = {}
        self.allowed: set[TransferId] | None = None
        """What the history may be asked for: only what was announced."""
        for name in HOUSE_ACCOUNTS:
            self.open(name)

    def open(self, name: AccountId) -> None:
        kind = kind_of(name)
        assert kind is not None
        self.accounts[name] = Account(name, kind)

    def write(self, effects: Effects) -> None:
        if effects.account is not None:
            self.open(effects.account)
        if effects.transfer is not None:
            assert effects.transfer.id not in self.transfers, "the primary key is violated"
            self.transfers[effects.transfer.id] = effects.transfer
            for change in effects.changes:
                account = self.accounts[change.account]
                account.debits = Nano(account.debits + change.debits)
                account.credits = Nano(account.credits + change.credits)

    def transfer(self, transfer: TransferId) -> Transfer | None:
        assert self.allowed is None or transfer in self.allowed, "read, and not announced"
        return self.transfers.get(transfer)

    def corrections(self, transfer: TransferId) -> Iterable[Transfer]:
        assert self.allowed is None or transfer in self.allowed, "read, and not announced"
        return [each for each in self.transfers.values() if each.corrects == transfer]


class LedgerMachine(RuleBasedStateMachine):
    """A ledger over a disk that commits late, and may lose what was not committed."""

    done: Bundle[Command] = Bundle("done")

    @initialize()
    def start(self) -> None:
        self.model = Model(names=set(OPENED))
        self.disk = Disk()
        self.ledger = Ledger(history=self.disk)
        self.queue: list[Effects] = []
        self.ended: list[EndedHold] = []
        self.now_ms = 0
        for name in OPENED:
            result = self.ledger.run(OpenAccount(name))
            assert result.outcome is Outcome.DONE
            self.disk.write(result.effects)
        for name in CLIENTS[:2]:
            self._run(TopUp(TransferId(f"first {name}"), name, Nano(1000), 0))
        self.commit(2, forget=True)

    # Commands. Each is given a second time later, by `again`, as it was or a little different.

    @rule(target=done, id_=ID, client=CLIENT, amount=AMOUNT)
    def top_up(self, id_: str, client: AccountId, amount: int) -> Command:
        return self._run(TopUp(TransferId(id_), client, Nano(amount), self.now_ms))

    @rule(target=done, id_=ID, client=CLIENT, amount=AMOUNT)
    def refund(self, id_: str, client: AccountId, amount: int) -> Command:
        return self._run(Refund(TransferId(id_), client, Nano(amount), self.now_ms))

    @rule(target=done, id_=ID, worker=WORKER, amount=AMOUNT)
    def pay_out(self, id_: str, worker: AccountId, amount: int) -> Command:
        return self._run(Payout(TransferId(id_), worker, Nano(amount), self.now_ms))

    @rule(target=done, id_=ID, of=ID, amount=AMOUNT)
    def correct(self, id_: str, of: str, amount: int) -> Command:
        return self._run(Correct(TransferId(id_), TransferId(of), Nano(amount), self.now_ms))

    @rule(target=done, id_=ID, client=CLIENT, amount=PRICE, bp=SHARE, lasts=TIME)
    def hold(self, id_: str, client: AccountId, amount: int, bp: int, lasts: int) -> Command:
        return self._run(OpenHold(HoldId(id_), client, Nano(amount), bp, self.now_ms + lasts))

    @rule(target=done, id_=ID, worker=WORKER, amount=PRICE)
    def post(self, id_: str, worker: AccountId, amount: int) -> Command:
        return self._run(PostHold(HoldId(id_), worker, Nano(amount), self.now_ms))

    # The same where it can succeed: most commands do.

    @rule(target=done, id_=ID, client=CLIENT, part=PART, bp=SHARE, lasts=TIME)
    def hold_what_is_there(
        self, id_: str, client: AccountId, part: Fraction, bp: int, lasts: int
    ) -> Command:
        """Up to all of it, and one nano more."""
        there = self.model.balance(client) - self.model.held(client)
        amount = int((there + 1) * part)
        return self._run(OpenHold(HoldId(id_), client, Nano(amount), bp, self.now_ms + lasts))

    @precondition(lambda self: self.ledger.state.holds)
    @rule(target=done, worker=WORKER, part=PART, which=st.integers(0, 99))
    def post_open(self, worker: AccountId, part: Fraction, which: int) -> Command:
        """Up to all of it, and one nano more."""
        hold = self._open_hold(which)
        amount = int((hold.amount + 1) * part)
        return self._run(PostHold(hold.id, worker, Nano(amount), self.now_ms))

    @precondition(lambda self: self.ledger.state.holds)
    @rule(target=done, which=st.integers(0, 99))
    def void_open(self, which: int) -> Command:
        return self._run(VoidHold(self._open_hold(which).id))

    @precondition(lambda self: self.ledger.state.holds)
    @rule(target=done, which=st.integers(0, 99), early=st.sampled_from([0, 1]))
    def expire_open(self, which: int, early: int) -> Command:
        hold = self._open_hold(which)
        return self._run(ExpireHold(hold.id, hold.expires_ms - early))

    @precondition(lambda self: self.model.moved)
    @rule(target=done, id_=ID, part=PART, which=st.integers(0, 99))
    def correct_what_was(self, id_: str, part: Fraction, which: int) -> Command:
        """Up to what is left of it, and one nano more."""
        of = list(self.model.moved)[which % len(self.model.moved)]
        amount = Nano(max(1, int((self.model.left_of(of) + 1) * part)))
        return self._run(Correct(TransferId(id_), TransferId(of), amount, self.now_ms))

    @precondition(lambda self: any(moved.bp for moved in self.model.moved.values()))
    @rule(target=done, id_=ID, part=PART, which=st.integers(0, 99))
    def correct_a_charge(self, id_: str, part: Fraction, which: int) -> Command:
        """So that its fee is split, too."""
        charges = [of for of, moved in self.model.moved.items() if moved.bp]
        of = charges[which % len(charges)]
        amount = Nano(max(1, int(self.model.left_of(of) * part)))
        return self._run(Correct(TransferId(id_), TransferId(of), amount, self.now_ms))

    def _open_hold(self, which: int) -> Hold:
        holds = list(self.ledger.state.holds.values())
        return holds[which % len(holds)]

    @rule(target=done, id_=ID)
    def void(self, id_: str) -> Command:
        return self._run(VoidHold(HoldId(id_)))

    @rule(target=done, id_=ID, later=TIME)
    def expire(self, id_: str, later: int) -> Command:
        return self._run(ExpireHold(HoldId(id_), self.now_ms + later))

    @rule(target=done, id_=ID, worker=WORKER, amount=PRICE, more=PRICE, bp=SHARE)
    def charge_late(self, id_: str, worker: AccountId, amount: int, more: int, bp: int) -> Command:
        held = Nano(amount + more)
        return self._run(ChargeLate(HoldId(id_), worker, Nano(amount), held, bp, self.now_ms))

    @rule(command=done)
    def again(self, command: Command) -> None:
        self._run(command)

    @rule(command=done, amount=PRICE, worker=WORKER, bp=SHARE, which=st.integers(0, 9))
    def again_but_different(
        self, command: Command, amount: int, worker: AccountId, bp: int, which: int
    ) -> None:
        """In one field of its content."""
        changes: dict[str, Any] = {
            "amount": amount,
            "worker": worker,
            "fee_bp": bp,
            "held": 10**12 + amount,
        }
        if isinstance(command, TopUp | Refund | Payout | Correct):
            changes["amount"] = max(1, amount)
        names = [name for name in command._fields if name in changes]
        if names:
            name = names[which % len(names)]
            self._run(command._replace(**{name: changes[name]}))

    @rule(target=done, id_=ID, client=CLIENT, worker=WORKER, part=PART, bp=SHARE)
    def serve(
        self, id_: str, client: AccountId, worker: AccountId, part: Fraction, bp: int
    ) -> Command:
        """A request from its hold to its charge."""
        self.hold_what_is_there(id_, client, part, bp, 10)
        hold = self.model.holds.get(id_)
        amount = int(hold.amount * part) if hold is not None else 0
        return self._run(PostHold(HoldId(id_), worker, Nano(amount), self.now_ms))

    @precondition(lambda self: self.model.holds)
    @rule(target=done, worker=WORKER, amount=PRICE, bp=SHARE, which=st.integers(0, 99))
    def report_late(self, worker: AccountId, amount: int, bp: int, which: int) -> Command:
        """Of a hold that is open, was voided or has expired; sometimes more than was held."""
        id_, hold = list(self.model.holds.items())[which % len(self.model.holds)]
        held = Nano(hold.amount)
        return self._run(ChargeLate(HoldId(id_), worker, Nano(amount), held, bp, self.now_ms))

    @rule(target=done, id_=ID, worker=WORKER, more=st.integers(0, 1))
    def pay_out_all(self, id_: str, worker: AccountId, more: int) -> Command:
        """All that the worker has, or one nano more."""
        amount = Nano(max(1, self.model.balance(worker) + more))
        return self._run(Payout(TransferId(id_), worker, amount, self.now_ms))

    @rule(later=TIME)
    def time_passes(self, later: int) -> None:
        self.now_ms += later
        due = {
            hold.id for hold in self.ledger.state.holds.values() if hold.expires_ms <= self.now_ms
        }
        expired = list(self.ledger.expire(self.now_ms))
        assert all(result.outcome is Outcome.DONE for result in expired)
        ended = [result.effects.ended for result in expired]
        assert {each.hold.id for each in ended if each is not None} == due
        for each in ended:
            assert each is not None
            assert self.model.let_go(each.hold.id, "expired", self.now_ms) == "done"
            self.ended.append(each)

    # The disk

    @rule(count=st.integers(1, 5), forget=st.booleans())
    def commit(self, count: int, forget: bool) -> None:
        batch, self.queue = self.queue[:count], self.queue[count:]
        for effects in batch:
            self.disk.write(effects)
        self.model.commit(count)
        if forget:
            self.ledger.forget([each.transfer.id for each in batch if each.transfer is not None])

    @rule(from_balances=st.booleans())
    def crash(self, from_balances: bool) -> None:
        """Holds and what was not committed are gone; the rest is rebuilt."""
        note(f"{len(self.queue)} transfers are lost")
        self.queue = []
        self.ended = []
        if from_balances:
            self.ledger = Ledger(deepcopy(list(self.disk.accounts.values())), history=self.disk)
        else:
            self.ledger = replay(OPENED, self.disk.transfers.values(), history=self.disk)
        self.model.crash()

    # What must be true at every moment

    @invariant()
    def balances_are_the_models(self) -> None:
        for account in self.ledger.state.accounts.values():
            if account.id != TREASURY:
                assert account.balance == self.model.balance(account.id), account
                assert account.held == self.model.held(account.id), account

    @invariant()
    def all_invariants_hold(self) -> None:
        state = self.ledger.state
        transfers = [*self.disk.transfers.values(), *(e.transfer for e in self.queue if e.transfer)]
        holds = list(state.holds.values())
        assert check_ledger(list(state.accounts.values()), transfers, holds, self.ended) == []
        assert [(each.id, each.amount, each.held, each.fee_bp) for each in transfers] == [
            (id_, moved.amount, moved.held, moved.bp) for id_, moved in self.model.moved.items()
        ]

    @invariant()
    def what_is_stored_is_sound_by_itself(self) -> None:
        stored = list(self.disk.transfers.values())
        assert check_ledger(list(self.disk.accounts.values()), stored) == []
        assert list(check_one_outcome(stored, [], [])) == []
        rebuilt = replay(OPENED, stored).state.accounts
        assert rebuilt == self.disk.accounts

    @invariant()
    def money_is_neither_made_nor_lost(self) -> None:
        accounts = self.ledger.state.accounts
        assert sum(account.balance for account in accounts.values()) == 0

    # Running a command on both

    def _run(self, command: Command) -> Command:
        before = deepcopy(self.ledger.state.accounts)
        self.disk.allowed = set(transfer_ids_read(self.ledger.state, command))
        decided = decide(self.ledger.state, command)
        assert self.ledger.state.accounts == before, "a decision changed something"
        result = self.ledger.run(command)
        self.disk.allowed = None
        assert result == decided
        event(f"{type(command).__name__}: {result.outcome}")
        note(str(result.outcome))
        assert result.outcome == self._ask_model(command), command
        effects = result.effects
        if result.outcome is not Outcome.DONE:
            assert effects == Effects()
            assert self.ledger.state.accounts == before
            return command
        assert max(Counter(change.account for change in effects.changes).values()) == 1, effects
        if effects.is_durable:
            self.queue.append(effects)
        if effects.ended is not None:
            self.ended.append(effects.ended)
        return command

    def _ask_model(self, command: Command) -> str:
        model = self.model
        match command:
            case TopUp(id=id_, client=client, amount=amount):
                return model.move(id_, Moved("top-up", TREASURY, client, amount))
            case Refund(id=id_, client=client, amount=amount):
                return model.move(id_, Moved("refund", client, TREASURY, amount))
            case Payout(id=id_, worker=worker, amount=amount):
                return model.move(id_, Moved("payout", worker, TREASURY, amount))
            case Correct(id=id_, corrects=of, amount=amount):
                return model.correct(id_, of, amount)
            case OpenHold(id=hold, client=client, amount=amount, fee_bp=bp, expires_ms=until):
                return model.open(hold, client, amount, bp, until)
            case PostHold(hold=hold, worker=worker, amount=amount):
                return model.post(hold, worker, amount)
            case VoidHold(hold=hold):
                return model.let_go(hold, "voided")
            case ExpireHold(hold=hold, now_ms=now_ms):
                return model.let_go(hold, "expired", now_ms)
            case ChargeLate(hold=hold, worker=worker, amount=amount, held=held, fee_bp=bp):
                return model.late(hold, worker, amount, held, bp)
            case _:
                raise AssertionError(command)


LedgerMachine.TestCase.settings = settings(max_examples=200, stateful_step_count=50, deadline=None)
TestLedger = LedgerMachine.TestCase
