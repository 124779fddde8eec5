"""Whether stored transfers are such as a ledger writes: kinds, sides, fees, corrections. Balances are not looked at."""

from collections.abc import Container, Iterator

from filature.ledger.accounts import kind_of
from filature.ledger.transfers import CHARGES, SIDES, Transfer, TransferKind
from filature.units import BASIS_POINTS_ONE, NANO_MAX, TransferId


class TransferReader:
    """Reads transfers in the order in which they were decided, and says of each what is wrong.

    ``corrected`` has the ids of those that others correct, and no other is kept: whether ids are there twice is
    then not seen, which whoever stores them has to rule out. None: all are kept.
    """

    def __init__(self, corrected: Container[TransferId] | None = None) -> None:
        self._kept = corrected
        self._seen: dict[TransferId, Transfer] = {}
        self._corrected: dict[TransferId, tuple[int, int]] = {}
        """Per corrected transfer: how much of its amount and of its fee."""

    def read(self, transfer: Transfer) -> Iterator[str]:
        if self._kept is None or transfer.id in self._kept:
            if transfer.id in self._seen:
                yield "the id is there twice"
            self._seen[transfer.id] = transfer
        least = 0 if transfer.kind in CHARGES else 1
        if not least <= transfer.amount <= NANO_MAX:
            yield f"the amount is out of bounds: {transfer.amount}"
        if transfer.kind is TransferKind.CORRECTION:
            yield from self._read_correction(transfer)
        else:
            yield from self._read_original(transfer)

    def _read_original(self, transfer: Transfer) -> Iterator[str]:
        sides = (kind_of(transfer.debit), kind_of(transfer.credit))
        if sides != SIDES[transfer.kind]:
            yield f"a {transfer.kind} from {transfer.debit} to {transfer.credit}"
        if transfer.corrects is not None:
            yield "it corrects another and is no correction"
        if transfer.kind not in CHARGES:
            if transfer.fee or transfer.fee_bp or transfer.held:
                yield "a fee or a hold of what is no charge"
            return
        if not 0 <= transfer.fee_bp <= BASIS_POINTS_ONE:
            yield f"the fee's share is out of bounds: {transfer.fee_bp}"
        if transfer.fee != transfer.amount * transfer.fee_bp // BASIS_POINTS_ONE:
            yield f"the fee of {transfer.amount} at {transfer.fee_bp} is not {transfer.fee}"
        if transfer.amount > transfer.held:
            yield f"{transfer.amount} was charged, {transfer.held} held"

    def _read_correction(self, correction: Transfer) -> Iterator[str]:
        original = self._seen.get(correction.corrects) if correction.corrects is not None else None
        if original is None or original.kind is TransferKind.CORRECTION:
            yield f"it corrects {correction.corrects}, which is no earlier transfer"
            return
        if (correction.debit, correction.credit) != (original.credit, original.debit):
            yield "it is not the reverse of what it corrects"
        if correction.fee_bp or correction.held:
            yield "a correction has no hold"
        amount, fee = self._corrected.get(original.id, (0, 0))
        amount, fee = amount + correction.amount, fee + correction.fee
        self._corrected[original.id] = (amount, fee)
        left, fee_left = original.amount - amount, original.fee - fee
        if left < 0:
            yield f"more was corrected than {original.amount}"
        elif fee_left != left * original.fee_bp // BASIS_POINTS_ONE:
            yield f"what is left of {original.id}, {left}, has a fee of {fee_left}"
