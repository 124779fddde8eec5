"""Who holds a key: one request at a time, also across the death of a process."""

from tests.unit.store.working import ALICE, NOW_MS, replaced

from filature.store.idempotency import KEPT_MS, Claim, Idempotency
from filature.store.store import Store
from filature.telemetry.record import UsageRecord

BODY, OTHER_BODY = bytes(32), bytes(31) + b"1"


def claim(request: str, body: bytes = BODY) -> Claim:
    return Claim(ALICE, "key", request, body)


async def claimed(idempotency: Idempotency, request: str, body: bytes = BODY) -> Claim | None:
    """What holds the key, where that is not ``request``."""
    wanted = claim(request, body)
    held = await idempotency.claim(wanted, replaced)
    return None if held is wanted else held


async def next_process(store: Store, later_ms: int = 0) -> Idempotency:
    """After the one before died."""
    idempotency = Idempotency(store.writer, lambda: NOW_MS + later_ms)
    await idempotency.recover()
    return idempotency


async def outcome_of(store: Store, request: str) -> str | None:
    stored = await store.usage.get(request)
    return None if stored is None else UsageRecord.from_log(stored[1]).outcome


async def test_a_key_is_one_request_s_until_that_has_ended(store: Store) -> None:
    idempotency = await next_process(store)
    assert await claimed(idempotency, "r") is None
    held = await claimed(idempotency, "s")
    assert held is not None
    assert (held.request_id, held.state) == ("r", "running")
    idempotency.release(claim("s"))
    await store.ledger.flush()
    assert await claimed(idempotency, "s") is not None, "it was not its own"
    idempotency.release(claim("r"))
    await store.ledger.flush()
    assert await claimed(idempotency, "s") is None


async def test_an_answer_whose_charge_is_taken_back_is_not_given_again(store: Store) -> None:
    idempotency = await next_process(store)
    assert await claimed(idempotency, "r") is None
    idempotency.settled(claim("r"), "application/json", b"{}")
    await store.ledger.flush()
    held = await claimed(idempotency, "s")
    assert held is not None
    assert (held.state, held.answer) == ("settled", b"{}")
    idempotency.release(claim("r"))
    assert await claimed(idempotency, "s") is None, "it waited until that was committed"


async def test_a_retry_takes_the_place_of_a_request_whose_process_died(store: Store) -> None:
    assert await claimed(await next_process(store), "r") is None
    for before, after in (("r", "s"), ("s", "t")):
        idempotency = await next_process(store)
        assert await claimed(idempotency, after) is None
        assert await outcome_of(store, before) == "replaced"
        await idempotency.use_up(before)
        held = await claimed(idempotency, "u")
        assert held is not None
        assert (held.request_id, held.state) == (after, "running")


async def test_a_key_is_used_up_by_a_report_that_comes_first(store: Store) -> None:
    assert await claimed(await next_process(store), "r") is None
    for _ in range(2):  # the report's own process may die, too
        idempotency = await next_process(store)
        await idempotency.use_up("r")
        held = await claimed(idempotency, "s")
        assert held is not None
        assert (held.request_id, held.state) == ("r", "settled")
    assert await outcome_of(store, "r") is None


async def test_another_body_does_not_take_its_place(store: Store) -> None:
    assert await claimed(await next_process(store), "r") is None
    idempotency = await next_process(store)
    held = await claimed(idempotency, "s", OTHER_BODY)
    assert held is not None
    assert held.body_digest == BODY
    assert await outcome_of(store, "r") is None
    assert await claimed(idempotency, "s") is None


async def test_what_was_left_is_forgotten_after_a_day(store: Store) -> None:
    assert await claimed(await next_process(store), "r") is None
    idempotency = await next_process(store, KEPT_MS)
    assert await idempotency.purge() == 0
    idempotency = await next_process(store, KEPT_MS + 1)
    assert await idempotency.purge() == 1
    assert await claimed(idempotency, "s", OTHER_BODY) is None
