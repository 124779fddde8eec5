"""When a worker's claims are too much."""

import pytest

from filature.proxy.audit.claims import (
    JUDGED_MIN,
    ODD_FACTOR,
    OVER_MIN,
    WINDOW,
    Claim,
    Group,
    Kind,
    Tally,
)

COMPLETION = Group(Kind.COMPLETION, 7)
CACHED = Group(Kind.CACHED, 7)


def claims(*each: tuple[int, int]) -> Tally:
    """Claimed, counted."""
    tally = Tally(Kind.COMPLETION)
    for claimed, counted in each:
        tally.add(Claim(COMPLETION, 100, claimed, counted), None)
    return tally


@pytest.mark.parametrize(
    ("claimed", "counted", "extra", "over"),
    [
        (102, 100, 0, False),
        (103, 100, 0, True),
        (1010, 1000, 0, False),  # a hundredth is more than two
        (1011, 1000, 0, True),
        (2, 0, 0, False),
        (3, 0, 0, True),
        (112, 100, 10, False),
        (113, 100, 10, True),
        (1, 100, 0, False),  # less is the worker's own loss
    ],
)
def test_a_recount_allows_two_tokens_or_a_hundredth(
    claimed: int, counted: int, extra: int, over: bool
) -> None:
    claim = Claim(COMPLETION, 400, claimed, counted, extra)
    assert Tally(Kind.COMPLETION).add(claim, 99.0) is over  # others say nothing beside it


@pytest.mark.parametrize(("claimed", "over"), [(50, False), (51, True)])
def test_others_allow_twice_as_much(claimed: int, over: bool) -> None:
    assert Tally(Kind.PROMPT).add(Claim(COMPLETION, 100, claimed), 0.25) is over
    assert Tally(Kind.PROMPT).add(Claim(COMPLETION, 100, claimed, extra=1), 0.25) is False


@pytest.mark.parametrize(("cached", "over"), [(40, False), (39, True)])
def test_half_of_what_others_find_cached_is_enough(cached: int, over: bool) -> None:
    assert Tally(Kind.CACHED).add(Claim(CACHED, 100, cached), 0.8) is over


def test_nobody_can_tell() -> None:
    tally = Tally(Kind.COMPLETION)
    assert tally.add(Claim(COMPLETION, 1, 10**9), None) is None
    assert tally.samples == 0


def test_nothing_is_said_of_few() -> None:
    assert not claims(*[(1000, 1)] * (JUDGED_MIN - 1)).is_shown
    assert claims(*[(1000, 1)] * JUDGED_MIN).is_shown


def test_one_odd_answer_shows_nothing_whatever_its_size() -> None:
    honest = [(50, 50)] * WINDOW
    assert not claims(*honest, *[(10**6, 1)] * (OVER_MIN - 1)).is_shown
    assert claims(*honest, *[(10**6, 1)] * OVER_MIN).is_shown


def test_half_of_them_over_by_little_are_shown_and_fewer_are_not() -> None:
    assert claims(*[(100, 90), (92, 90)] * JUDGED_MIN).is_shown
    assert not claims(*[(95, 90), (90, 90), (90, 90)] * JUDGED_MIN).is_shown
    assert not claims(*[(110, 90), (92, 90), (92, 90)] * JUDGED_MIN).is_shown


def test_fewer_are_shown_where_they_are_over_by_much() -> None:
    assert claims(*[(163, 90), (92, 90), (92, 90)] * JUDGED_MIN).is_shown
    assert not claims(*[(161, 90), (92, 90), (92, 90)] * JUDGED_MIN).is_shown


def test_what_is_claimed_too_much_now_and_too_little_then_is_no_lie() -> None:
    tally = claims(*[(100, 90), (60, 90)] * JUDGED_MIN)
    assert tally.claimed <= tally.allowed * ODD_FACTOR
    assert not tally.is_shown


def test_the_latest_are_looked_at() -> None:
    tally = claims(*[(1000, 1)] * WINDOW)
    for _ in range(WINDOW):
        tally.add(Claim(COMPLETION, 100, 10, 10), None)
    assert (tally.samples, tally.claimed, tally.allowed) == (WINDOW, 10 * WINDOW, 12.0 * WINDOW)
    assert not tally.is_shown
