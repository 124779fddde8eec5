"""No honest engine is marked: the recorded answers, claimed by workers of one model in any order, are held against it.

The requests are those recorded. Nothing is recounted here: the vocabularies of the recorded models are not in the
repository, and another's would count other tokens. What others claim is the norm, as for an operator without files.
"""

import contextlib
import itertools
import random
from collections.abc import Callable, Iterable
from typing import Final, NamedTuple

import pytest
from tests.conformance.recorded import CAPTURES, RECORDINGS, Recording, process

from filature.answer.policy import AnswerPolicy
from filature.errors import FilatureError
from filature.proxy.audit.claims import JUDGED_MIN, WINDOW, Claim, Kind
from filature.proxy.audit.measure import measure
from filature.proxy.audit.norms import Norms
from filature.proxy.audit.standing import Standing
from filature.relay.watch import Sample
from filature.request.limits import RequestLimits
from filature.request.parse import ParsedRequest, parse_request

MODEL: Final = "silk"
FIRST: Final = "53-sse-ping-slow-prefill"
"""A prompt that its engine had not seen; all others had been sent before, or one that begins as they do."""


class Answered(NamedTuple):
    """A recorded answer that a proxy would have charged for."""

    case: str
    request: ParsedRequest
    claims: list[Claim]


def sample_of(recording: Recording, request: ParsedRequest, pieces: int = 1) -> Sample:
    _, answer = process(recording, AnswerPolicy(errors="pass"))
    sample = Sample(request, MODEL, is_repeated=FIRST not in recording.name, began_at=0.0)
    size = max(1, -(-len(recording.body) // pieces))
    for at in range(0, len(recording.body), size):
        sample.keep(recording.body[at : at + size])
    sample.claimed = answer.usage_claimed
    return sample


def load() -> dict[str, list[Answered]]:
    """By engine. Requests that a proxy refuses, and those that were not kept, are none."""
    found: dict[str, list[Answered]] = {}
    for recording in RECORDINGS:
        engine, _, case = recording.name.partition("/")
        with contextlib.suppress(FileNotFoundError, FilatureError):
            body = (CAPTURES / f"{recording.name}.req.json").read_bytes()
            request = parse_request(recording.dialect, body, RequestLimits())
            if recording.status == 200:
                claims = measure(sample_of(recording, request), None)
                found.setdefault(engine, []).append(Answered(case, request, claims))
    return found


ENGINES: Final = load()
Turn = tuple[int, Answered]
"""A worker, and what it answers."""


def in_turn(engines: tuple[str, ...]) -> Iterable[Turn]:
    longest = max(len(ENGINES[engine]) for engine in engines)
    for at in range(max(longest, 2 * WINDOW)):
        for worker, engine in enumerate(engines):
            yield worker, ENGINES[engine][at % len(ENGINES[engine])]


def one_after_the_other(engines: tuple[str, ...]) -> Iterable[Turn]:
    for worker, engine in enumerate(engines):
        for answered in ENGINES[engine] * (1 + 2 * WINDOW // len(ENGINES[engine])):
            yield worker, answered


def shuffled(engines: tuple[str, ...]) -> Iterable[Turn]:
    turns = list(in_turn(engines))
    random.Random(" ".join(engines)).shuffle(turns)
    return turns


def backwards(engines: tuple[str, ...]) -> Iterable[Turn]:
    return reversed(list(one_after_the_other(engines)))


ORDERS: Final[list[Callable[[tuple[str, ...]], Iterable[Turn]]]] = [
    in_turn,
    one_after_the_other,
    backwards,
    shuffled,
]


def judge(standings: list[Standing], norms: Norms, turns: Iterable[Turn]) -> int:
    """How many claims were compared with what was allowed for them."""
    for worker, answered in turns:
        standings[worker].judge(answered.claims, norms)
        assert standings[worker].belief(answered.request, is_repeated=True) is None, answered.case
    return sum(tally.samples for each in standings for tally in each.tallies.values())


def not_held_against(standing: Standing) -> None:
    assert standing.marks == set()
    assert not any(tally.is_shown for tally in standing.tallies.values())
    assert standing.over_since_mark == 0


def test_all_engines_are_there() -> None:
    assert {engine: len(found) for engine, found in ENGINES.items()} == {
        "llama-server-b11434": 31,
        "transformers-serve-5.23": 7,
        "vllm-0.32.0-cpu": 27,
    }


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize(
    "engines",
    list(itertools.product(ENGINES, repeat=3))
    + list(itertools.permutations([*ENGINES] * 2, 6))[:6],
    ids=lambda engines: " ".join(engine.partition("-")[0] for engine in engines),
)
def test_beside_others(
    engines: tuple[str, ...], order: Callable[[tuple[str, ...]], Iterable[Turn]]
) -> None:
    standings = [Standing(f"w{number}", MODEL) for number in range(len(engines))]
    assert judge(standings, Norms(), order(engines)) >= JUDGED_MIN
    for standing in standings:
        not_held_against(standing)


@pytest.mark.parametrize("engine", ENGINES)
def test_of_one_client_whose_requests_all_go_to_one_worker(engine: str) -> None:
    """The same beginnings go to the same worker: all that it is seen to do may be one case."""
    for others in itertools.combinations_with_replacement(ENGINES, 2):
        norms = Norms()
        known = [Standing("other", MODEL), Standing("another", MODEL)]
        judge(known, norms, [turn for _ in range(4) for turn in in_turn(others)])
        for answered in ENGINES[engine]:
            alone = Standing("alone", MODEL)
            judge([alone], norms, [(0, answered)] * WINDOW)
            not_held_against(alone)


@pytest.mark.parametrize("engine", ENGINES)
def test_alone(engine: str) -> None:
    standing = Standing("alone", MODEL)
    assert judge([standing], Norms(), one_after_the_other((engine,))) == 0  # nobody can tell
    not_held_against(standing)


@pytest.mark.parametrize("engine", ENGINES)
def test_ten_times_as_much_is_seen(engine: str) -> None:
    """What is above would be seen."""
    norms = Norms()
    honest = [Standing("abe", MODEL), Standing("zoe", MODEL)]
    judge(honest, norms, in_turn((engine, engine)))
    liar = Standing("liar", MODEL)
    for answered in ENGINES[engine] * (1 + WINDOW // len(ENGINES[engine])):
        more = [
            Claim(each.group, each.size, each.claimed * 10, None, each.extra)
            for each in answered.claims
            if each.group.kind is Kind.COMPLETION
        ]
        liar.judge(more, norms)
    assert liar.marks == {Kind.COMPLETION}


@pytest.mark.parametrize("pieces", [2, 7, 10_000])
def test_however_an_answer_came(pieces: int) -> None:
    for recording in RECORDINGS:
        engine, _, case = recording.name.partition("/")
        for answered in ENGINES.get(engine, ()):
            if answered.case == case:
                whole = answered.claims
                cut = measure(sample_of(recording, answered.request, pieces), None)
                assert cut == whole


def test_nothing_is_claimed_by_who_tells_nothing() -> None:
    """What is estimated of a prompt is our own guess."""
    for found in ENGINES.values():
        for answered in found:
            if answered.case == "01-chat-stream":
                prompts = [each for each in answered.claims if each.group.kind is Kind.PROMPT]
                assert bool(prompts) is (found is ENGINES["transformers-serve-5.23"])
