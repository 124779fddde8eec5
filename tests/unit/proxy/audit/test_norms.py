"""What workers are expected to claim: what others do, or what was counted."""

import pytest

from filature.answer.bounds import SIZES
from filature.proxy.audit.claims import Claim, Group, Kind
from filature.proxy.audit.norms import (
    DISTANCE_MAX,
    GROUPS_MAX,
    KNOWN_MIN,
    MODELS_MAX,
    SEEN_MAX,
    SEEN_MIN,
    WORKERS_MAX,
    Norms,
)

MODEL = "silk"
GROUP = Group(Kind.COMPLETION, 7)


def told(norms: Norms, worker: str, claimed: int, group: Group = GROUP, times: int = 8) -> None:
    for _ in range(times):
        norms.add(worker, MODEL, Claim(group, 100, claimed))


def test_nothing_is_expected_of_what_was_not_seen() -> None:
    assert Norms().expected("x", MODEL, GROUP) is None
    assert Norms().by_size("x", MODEL, Kind.PROMPT, plain=True) is None
    assert not Norms().is_known(MODEL)


def test_one_other_worker_is_nobody_to_go_by() -> None:
    """It may be the odd one, or claim little on purpose."""
    norms = Norms()
    told(norms, "abe", 1)
    told(norms, "x", 25)
    assert norms.expected("x", MODEL, GROUP) is None
    told(norms, "zoe", 25, times=SEEN_MIN - 1)
    assert norms.expected("x", MODEL, GROUP) is None
    told(norms, "zoe", 25, times=1)
    assert norms.expected("x", MODEL, GROUP) == 0.25


@pytest.mark.parametrize("liar", [1, 500])
def test_one_of_others_moves_nothing_against_a_worker(liar: int) -> None:
    norms = Norms()
    for worker, claimed in (("abe", 25), ("zoe", 25), ("liar", liar)):
        told(norms, worker, claimed, times=SEEN_MAX)
    assert norms.expected("x", MODEL, GROUP) == 0.25
    assert (norms.expected("abe", MODEL, GROUP) or 0) >= 0.25


def test_of_cached_the_lesser_is_expected_in_doubt() -> None:
    norms, group = Norms(), Group(Kind.CACHED, 7)
    told(norms, "abe", 90, group)
    told(norms, "zoe", 10, group)
    assert norms.expected("x", MODEL, group) == 0.1


def test_a_busy_worker_does_not_crowd_out_others() -> None:
    norms = Norms()
    told(norms, "abe", 25)
    told(norms, "zoe", 25)
    told(norms, "busy", 500, times=20 * SEEN_MAX)
    assert norms.expected("x", MODEL, GROUP) == 0.25


def test_only_like_is_compared() -> None:
    norms = Norms()
    for worker in ("abe", "zoe"):
        told(norms, worker, 25)
    for other in (
        Group(Kind.COMPLETION, 7, plain=False),
        Group(Kind.PROMPT, 7),
        Group(Kind.COMPLETION, 7, like="han3"),
        Group(Kind.COMPLETION, 7 + DISTANCE_MAX + 1),
    ):
        assert norms.expected("x", MODEL, other) is None
    assert norms.expected("x", "linen", GROUP) is None
    assert norms.expected("x", MODEL, Group(Kind.COMPLETION, 7 - DISTANCE_MAX)) == 0.25


def test_what_was_counted_is_known_from_one_alone() -> None:
    norms = Norms()
    norms.add("x", MODEL, Claim(GROUP, 100, 500, 30))
    told(norms, "abe", 25)
    told(norms, "zoe", 25)
    assert norms.expected("x", MODEL, GROUP) == 0.3


def test_by_size_whatever_texts_are_like() -> None:
    norms = Norms()
    for worker in ("abe", "zoe"):
        told(norms, worker, 50, Group(Kind.COMPLETION, 3, like="a"))
        told(norms, worker, 20, Group(Kind.COMPLETION, 20, like="han3"))
    table = norms.by_size("x", MODEL, Kind.COMPLETION, plain=True)
    assert table is not None
    assert table == [0.5] * 12 + [0.2] * (SIZES - 12)
    assert norms.by_size("x", MODEL, Kind.COMPLETION, plain=False) is None


def test_a_model_is_known_after_some_time() -> None:
    norms = Norms()
    told(norms, "abe", 25, times=KNOWN_MIN - 1)
    assert not norms.is_known(MODEL)
    told(norms, "abe", 25, times=1)
    assert norms.is_known(MODEL)


def test_there_is_an_end_to_what_is_kept() -> None:
    norms = Norms()
    for number in range(2 * WORKERS_MAX):
        told(norms, f"w{number}", 25 if number < WORKERS_MAX else 50)
    assert norms.expected("x", MODEL, GROUP) == 0.5, "the first workers are forgotten"
    for number in range(GROUPS_MAX):
        told(norms, "abe", 25, Group(Kind.COMPLETION, 7, like=f"sort {number}"))
    assert norms.expected("x", MODEL, GROUP) is None
    for number in range(MODELS_MAX):
        norms.add("abe", f"model {number}", Claim(GROUP, 100, 9, 9))
    assert norms.by_size("x", "model 0", Kind.COMPLETION, plain=True) is not None
    assert norms.by_size("x", MODEL, Kind.COMPLETION, plain=True) is None
