"""Who waits for room: in which order, how many, and that nobody waits for ever."""

import asyncio
from collections import deque

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from filature.relay.waiting import (
    LOOKED_AT,
    WAITING_MAX,
    WAITING_PER_ACCOUNT_MAX,
    WaitingRoom,
)


class Places:
    """Free places of a model, and who took one, in order."""

    def __init__(self) -> None:
        self.free = 0
        self.taken: list[str] = []


class Request:
    """Takes a free place, unless it is picky: then it takes none."""

    def __init__(self, name: str, places: Places, *, picky: bool = False) -> None:
        self.name = name
        self.picky = picky
        self.tries = 0
        self._places = places

    def try_again(self) -> bool:
        self.tries += 1
        if self.picky or not self._places.free:
            return False
        self._places.free -= 1
        self._places.taken.append(self.name)
        return True


async def free(room: WaitingRoom, places: Places, number: int = 1) -> list[str]:
    """Who took the places."""
    places.free += number
    before = len(places.taken)
    room.freed()
    await asyncio.sleep(0)
    return places.taken[before:]


def enter(
    room: WaitingRoom, places: Places, names: str, *, model: str = "m", picky: bool = False
) -> list[Request]:
    """Requests by ``names``, each with the account as its first letter: ``a1 a2 b1``."""
    requests = [Request(name, places, picky=picky) for name in names.split()]
    for request in requests:
        assert room.enter(model, request.name[0], request)
    return requests


# turns


async def test_within_an_account_who_came_first_goes_first() -> None:
    room, places = WaitingRoom(), Places()
    enter(room, places, "a1 a2 a3")
    assert await free(room, places) == ["a1"]
    assert await free(room, places, 2) == ["a2", "a3"]
    assert await free(room, places) == []


@pytest.mark.parametrize("at_once", [1, 2, 3, 7])
async def test_accounts_take_turns_however_much_they_ask_for(at_once: int) -> None:
    room, places = WaitingRoom(), Places()
    enter(room, places, "a1 a2 a3 a4 b1 c1 b2")
    taken: list[str] = []
    while room.count:
        taken += await free(room, places, at_once)
    assert taken == ["a1", "b1", "c1", "a2", "b2", "a3", "a4"]


async def test_who_comes_back_stands_behind_who_waits() -> None:
    room, places = WaitingRoom(), Places()
    enter(room, places, "a1 b1 c1")
    assert await free(room, places) == ["a1"]
    enter(room, places, "a2")
    assert await free(room, places, 3) == ["b1", "c1", "a2"]


async def test_a_modest_account_waits_for_one_turn_of_each_other() -> None:
    room, places = WaitingRoom(), Places()
    for number in range(100):
        enter(room, places, f"a{number} b{number}")
    enter(room, places, "z")
    assert await free(room, places, 3) == ["a0", "b0", "z"]


async def test_a_model_s_queue_does_not_block_another_s() -> None:
    room, busy, idle = WaitingRoom(), Places(), Places()
    enter(room, busy, "a1 b1", model="busy")
    enter(room, idle, "a2 b2", model="idle")
    assert await free(room, idle, 2) == ["a2", "b2"]
    assert room.waits_for("busy")
    assert not room.waits_for("idle")
    assert await free(room, busy, 2) == ["a1", "b1"]


async def test_models_that_share_a_worker_take_turns() -> None:
    room, shared = WaitingRoom(), Places()
    enter(room, shared, "a0", model="greedy")
    enter(room, shared, "b0", model="modest")
    for number in range(1, 100):  # the one queue is never empty
        enter(room, shared, f"a{number}", model="greedy")
        await free(room, shared)
    assert "b0" in shared.taken


# who is asked


async def test_an_account_s_first_ones_are_asked_whether_they_have_room() -> None:
    room, places = WaitingRoom(), Places()
    picky = enter(room, places, " ".join(f"a{n}" for n in range(LOOKED_AT - 1)), picky=True)
    enter(room, places, "a-last b")
    assert await free(room, places) == ["a-last"]
    assert await free(room, places) == ["b"]
    assert room.count == len(picky)


async def test_but_no_more_than_so_many_of_them() -> None:
    room, places = WaitingRoom(), Places()
    picky = enter(room, places, " ".join(f"a{n}" for n in range(LOOKED_AT)), picky=True)
    (behind,) = enter(room, places, "a-last")
    enter(room, places, "b")
    assert await free(room, places, 2) == ["b"]
    assert behind.tries == 0
    room.leave("m", "a", picky[3])
    assert await free(room, places, 0) == ["a-last"]


async def test_one_look_serves_for_all_that_was_freed_before_it() -> None:
    room, places = WaitingRoom(), Places()
    (waits,) = enter(room, places, "a")
    for _ in range(5):
        room.freed()
    assert waits.tries == 0  # not from within whatever frees
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert waits.tries == 1
    assert await free(room, places) == ["a"]  # and later ones are looked for again


def test_when_nobody_waits_nothing_is_planned() -> None:
    room = WaitingRoom()
    room.freed()  # without a running loop it could not be
    (gone,) = enter(room, Places(), "a")
    room.leave("m", "a", gone)
    room.freed()


class Leaves(Request):
    """Takes others along when it is asked."""

    def __init__(self, name: str, room: WaitingRoom, places: Places) -> None:
        super().__init__(name, places)
        self._room = room
        self.others: list[Request] = []

    def try_again(self) -> bool:
        for other in self.others:
            self._room.leave("m", other.name[0], other)
        return super().try_again()


async def test_who_is_asked_may_change_the_queue() -> None:
    room, places = WaitingRoom(), Places()
    first = Leaves("a1", room, places)
    assert room.enter("m", "a", first)
    a2, b1 = enter(room, places, "a2 b1")
    enter(room, places, "c1")
    first.others = [first, a2, b1]
    assert await free(room, places, 4) == ["a1", "c1"]
    assert room.count == 0


# bounds


def test_an_account_may_wait_so_often_for_a_model() -> None:
    room, places = WaitingRoom(), Places()
    waiting = [Request("a", places) for _ in range(WAITING_PER_ACCOUNT_MAX)]
    assert all(room.enter("m", "a", request) for request in waiting)
    assert not room.enter("m", "a", Request("a", places))
    assert room.count == WAITING_PER_ACCOUNT_MAX
    assert room.enter("m", "b", Request("b", places))
    assert room.enter("other", "a", Request("a", places))
    room.leave("m", "a", waiting[0])
    assert room.enter("m", "a", Request("a", places))


def test_so_many_wait_in_all() -> None:
    room, places = WaitingRoom(), Places()
    waiting = [Request("a", places) for _ in range(WAITING_MAX)]
    for number, request in enumerate(waiting):
        assert room.enter(f"m{number % 3}", f"account {number % 100}", request)
    assert not room.enter("m0", "account 0", Request("a", places))
    assert not room.enter("new", "new", Request("a", places))
    assert not room.waits_for("new")
    assert room.count == WAITING_MAX
    room.leave("m0", "account 0", waiting[0])
    assert room.enter("new", "new", Request("a", places))


# leaving


@pytest.mark.parametrize(("model", "account"), [("m", "a"), ("m", "b"), ("other", "a")])
async def test_who_does_not_wait_there_may_leave(model: str, account: str) -> None:
    room, places = WaitingRoom(), Places()
    enter(room, places, "a1 b1")
    room.leave(model, account, Request("x", places))
    assert room.count == 2
    assert await free(room, places, 2) == ["a1", "b1"]


async def test_who_leaves_is_not_asked_and_may_leave_twice() -> None:
    room, places = WaitingRoom(), Places()
    a1, a2, b1 = enter(room, places, "a1 a2 b1")
    for gone in (a1, a1, b1):
        room.leave("m", gone.name[0], gone)
    assert room.count == 1
    room.freed()
    room.leave("m", "a", a2)  # between the freeing and the look
    places.free = 3
    await asyncio.sleep(0)
    assert places.taken == []
    assert room.count == 0
    assert not room.waits_for("m")


async def test_who_was_served_may_leave() -> None:
    room, places = WaitingRoom(), Places()
    a1, _ = enter(room, places, "a1 a2")
    assert await free(room, places) == ["a1"]
    room.leave("m", "a", a1)
    assert room.count == 1
    assert await free(room, places) == ["a2"]


# against a model

ACCOUNT = st.sampled_from("abc")
MODEL = st.sampled_from("mn")


class Turns(RuleBasedStateMachine):
    """Each model has places of its own; accounts stand in a ring, each with a line behind it."""

    def __init__(self) -> None:
        super().__init__()
        self.room = WaitingRoom()
        self.places = {model: Places() for model in "mn"}
        self.rings: dict[str, deque[tuple[str, list[Request]]]] = {m: deque() for m in "mn"}
        self.taken: dict[str, list[str]] = {"m": [], "n": []}
        self.names = 0

    @rule(model=MODEL, account=ACCOUNT)
    def enters(self, model: str, account: str) -> None:
        self.names += 1
        request = Request(f"{account}{self.names}", self.places[model])
        assert self.room.enter(model, account, request)
        for owner, line in self.rings[model]:
            if owner == account:
                line.append(request)
                return
        self.rings[model].append((account, [request]))

    @precondition(lambda self: self.room.count)
    @rule(data=st.data())
    def leaves(self, data: st.DataObject) -> None:
        everyone = [
            (model, account, request)
            for model, ring in self.rings.items()
            for account, line in ring
            for request in line
        ]
        model, account, gone = data.draw(st.sampled_from(everyone))
        self.room.leave(model, account, gone)
        ring = self.rings[model]
        kept = [(owner, [each for each in line if each is not gone]) for owner, line in ring]
        self.rings[model] = deque((owner, line) for owner, line in kept if line)

    @rule(freed=st.dictionaries(MODEL, st.integers(1, 9)))
    def freed(self, freed: dict[str, int]) -> None:
        for model, number in freed.items():
            self.places[model].free += number
        asyncio.run(self.look())
        for model, places in self.places.items():
            ring = self.rings[model]
            left = places.free + len(places.taken) - len(self.taken[model])
            while left and ring:
                left -= 1
                account, line = ring.popleft()
                self.taken[model].append(line.pop(0).name)
                if line:
                    ring.append((account, line))
            assert places.free == left

    async def look(self) -> None:
        self.room.freed()
        await asyncio.sleep(0)

    @invariant()
    def the_same_were_served_and_the_same_wait(self) -> None:
        for model, ring in self.rings.items():
            assert self.places[model].taken == self.taken[model]
            assert self.room.waits_for(model) == bool(ring)
        waiting = sum(len(line) for ring in self.rings.values() for _, line in ring)
        assert self.room.count == waiting


TestTurns = Turns.TestCase
