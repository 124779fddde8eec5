"""From judged samples to suspicion, marks, and what is believed."""

from collections.abc import Iterable
from typing import Any

import orjson
import pytest
from tests.unit.proxy.audit.build import MODEL, request

from filature.answer.bounds import SIZES, size_class
from filature.proxy.audit.claims import JUDGED_MIN, Claim, Group, Kind
from filature.proxy.audit.norms import KNOWN_MIN, Norms
from filature.proxy.audit.standing import (
    CLEAN_AGAIN,
    CONTRADICTIONS_MAX,
    LEARN_ONE_IN,
    LEARNT_ONE_IN,
    SAMPLED_ONE_IN,
    SUSPENDED_AFTER,
    Standing,
)
from filature.wire.dialect import Dialect


def claim(claimed: int, kind: Kind = Kind.COMPLETION, counted: int | None = None) -> Claim:
    return Claim(Group(kind, size_class(100)), 100, claimed, counted)


@pytest.fixture
def norms() -> Norms:
    """Others have a quarter of a token per byte, half of it cached."""
    norms = Norms()
    for worker in ("abe", "zoe"):
        for _ in range(8):
            for kind, tokens in ((Kind.COMPLETION, 25), (Kind.PROMPT, 30), (Kind.CACHED, 50)):
                norms.add(worker, MODEL, claim(tokens, kind))
    return norms


@pytest.fixture
def standing() -> Standing:
    return Standing("x", MODEL)


def judged(standing: Standing, norms: Norms, claims: Iterable[Claim]) -> list[Kind]:
    return [kind for each in claims for kind in standing.judge([each], norms)]


def test_an_honest_worker_is_sampled_now_and_then_and_believed(
    standing: Standing, norms: Norms
) -> None:
    assert standing.one_in(norms) == LEARNT_ONE_IN
    assert judged(standing, norms, [claim(25)] * KNOWN_MIN) == []
    assert standing.one_in(norms) == SAMPLED_ONE_IN
    assert standing.belief(request(), is_repeated=True) is None


def test_one_that_claims_too_much_is_suspected_then_marked_and_believed_what_others_have(
    standing: Standing, norms: Norms
) -> None:
    assert judged(standing, norms, [claim(250)]) == []
    assert standing.one_in(norms) == 1
    assert standing.belief(request(), is_repeated=False) is None
    assert judged(standing, norms, [claim(250)] * JUDGED_MIN) == [Kind.COMPLETION]
    standing.learn(norms)
    asked = request()
    belief = standing.belief(asked, is_repeated=False)
    assert belief is not None
    assert belief.per_byte == [0.25] * SIZES
    assert belief.prompt == -(-asked.prompt_text_bytes() * 3 // 10)
    assert belief.cached == 0
    repeated = standing.belief(asked, is_repeated=True)
    assert repeated is not None
    assert repeated.cached == 0.5


def test_a_suspicion_ends(standing: Standing, norms: Norms) -> None:
    judged(standing, norms, [claim(250)])
    judged(standing, norms, [claim(25)] * (CLEAN_AGAIN - 1))
    assert standing.is_suspect
    judged(standing, norms, [claim(25)])
    assert not standing.is_suspect


def test_what_is_too_much_is_no_norm_for_others(standing: Standing, norms: Norms) -> None:
    judged(standing, norms, [claim(250)] * 20)
    assert norms.expected("abe", MODEL, claim(1).group) is None  # there is zoe alone
    judged(Standing("ida", MODEL), norms, [claim(25)] * 8)
    assert norms.expected("abe", MODEL, claim(1).group) == 0.25


def test_who_goes_on_is_suspended_in_the_end(standing: Standing, norms: Norms) -> None:
    judged(standing, norms, [claim(250)] * (JUDGED_MIN + SUSPENDED_AFTER - 1))
    assert standing.over_since_mark == SUSPENDED_AFTER - 1
    judged(standing, norms, [claim(250)])
    assert standing.over_since_mark == SUSPENDED_AFTER


def test_an_engine_without_a_cache_is_neither_suspended_nor_watched_for_ever(
    standing: Standing, norms: Norms
) -> None:
    none = [claim(0, Kind.CACHED)] * (JUDGED_MIN + CLEAN_AGAIN + SUSPENDED_AFTER)
    assert judged(standing, norms, none) == [Kind.CACHED]
    assert standing.over_since_mark == 0
    assert standing.one_in(norms) > 1
    standing.learn(norms)
    assert standing.belief(request(), is_repeated=False) is None
    belief = standing.belief(request(), is_repeated=True)
    assert belief is not None
    assert (belief.prompt, belief.per_byte, belief.cached) == (None, None, 0.5)


@pytest.mark.parametrize(
    ("fields", "cut"),
    [
        ({}, True),
        ({"response_format": {"type": "text"}}, False),  # of others' of this sort nothing is known
        ({"tools": [{"type": "function", "function": {"name": "f"}}]}, False),
        ({"logit_bias": {"5": 1}}, False),
        ({"stop": ["x"]}, True),
        ({"ignore_eos": True}, False),
        ({"min_tokens": 5}, False),
        ({"stop": [], "tools": []}, True),
    ],
)
def test_what_honestly_exceeds_its_text_is_not_cut(
    standing: Standing, norms: Norms, fields: dict[str, Any], cut: bool
) -> None:
    judged(standing, norms, [claim(250)] * JUDGED_MIN)
    standing.learn(norms)
    belief = standing.belief(request(**fields), is_repeated=False)
    assert (belief is not None and belief.per_byte is not None) is cut


def test_media_are_not_counted_by_text(standing: Standing, norms: Norms) -> None:
    judged(standing, norms, [claim(250)] * JUDGED_MIN)
    standing.learn(norms)
    part = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA"}}
    asked = request(messages=[{"role": "user", "content": [part]}])
    belief = standing.belief(asked, is_repeated=False)
    assert belief is not None
    assert belief.prompt is None


@pytest.mark.parametrize(
    ("report", "kind"), [(Standing.exceeded, Kind.EXCEEDED), (Standing.contradicted, Kind.REPORT)]
)
def test_again_and_again_makes_a_mark(standing: Standing, norms: Norms, report, kind) -> None:  # type: ignore[no-untyped-def]  # an unbound method
    told = [report(standing) for _ in range(CONTRADICTIONS_MAX + 2)]
    assert told == [False] * (CONTRADICTIONS_MAX - 1) + [True, False, False]
    assert standing.marks == {kind}


@pytest.mark.parametrize("report", [Standing.exceeded, Standing.contradicted])
def test_now_and_then_in_a_long_life_makes_none(standing: Standing, norms: Norms, report) -> None:  # type: ignore[no-untyped-def]  # an unbound method
    for _ in range(10 * CONTRADICTIONS_MAX):
        assert not report(standing)
        assert standing.is_suspect
        judged(standing, norms, [claim(25)] * CLEAN_AGAIN)
    assert standing.marks == set()


def test_a_mark_learns_on(standing: Standing) -> None:
    norms = Norms()
    judged(standing, norms, [claim(250, counted=100)] * JUDGED_MIN)
    assert standing.marks == {Kind.COMPLETION}
    assert standing.belief(request(), is_repeated=False) is None  # nobody asked it to learn yet
    judged(standing, norms, [claim(250, counted=100)] * LEARN_ONE_IN)
    belief = standing.belief(request(), is_repeated=False)
    assert belief is not None
    assert belief.per_byte == [1.0] * SIZES


def test_a_mark_is_restored(standing: Standing, norms: Norms) -> None:
    judged(standing, norms, [claim(250)] * JUDGED_MIN)
    standing.learn(norms)
    later = Standing("x", MODEL)
    later.restore(Kind.COMPLETION, orjson.loads(orjson.dumps(standing.kept())))
    assert later.kept() == standing.kept()
    for asked in (request(), request(Dialect.MESSAGES)):
        before, after = (each.belief(asked, is_repeated=True) for each in (standing, later))
        assert before is not None
        assert after is not None
        assert (before.prompt, before.per_byte, before.cached) == (
            after.prompt,
            after.per_byte,
            after.cached,
        )
