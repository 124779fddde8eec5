"""The Web Platform Tests' event streams: read as they say, and seen alike before and after the postprocessor."""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from tests.conformance.recorded import DECODERS, bytewise, seen_by_the_standard

from filature.answer.policy import AnswerPolicy
from filature.answer.postprocessor import AnswerPostprocessor
from filature.answer.pricing import Tariff
from filature.wire.dialect import Dialect
from filature.wire.sse import BOM, EventSplitter, parse_event

CASES: Final[list[dict[str, Any]]] = json.loads(
    (Path(__file__).parents[1] / "data/conformance/wpt-sse.json").read_text("utf-8")
)["cases"]
BODIES: Final = {case["id"]: case["bytes"].encode("latin1") for case in CASES}
EXPECTED: Final = {case["id"]: [(kind, data) for kind, data in case["expected"]] for case in CASES}
TARIFF: Final = Tariff(prompt=1, cached=1, completion=1, reasoning=1)
POLICIES: Final = {
    "forward": AnswerPolicy(tariff=TARIFF, errors="pass"),
    "as_requested": AnswerPolicy(strip=True, tariff=TARIFF),
    "held": AnswerPolicy(strip=True, tariff=TARIFF, hold_until_content=True),
}


def cuts(body: bytes) -> Iterator[Iterable[bytes]]:
    """In one piece, byte by byte, and cut in two at any byte."""
    yield [body]
    yield bytewise(body)
    for at in range(1, len(body)):
        yield [body[:at], body[at:]]


def dispatched(pieces: Iterable[bytes]) -> list[tuple[str, str]]:
    """What the splitter and the reader of blocks make of a stream; they leave its mark to others."""
    splitter = EventSplitter()
    events = [parse_event(block) for piece in pieces for block in splitter.split(piece)]
    return [
        (event.name.decode() or "message", event.data.decode("utf-8", "replace"))
        for event in events
        if event.data is not None
    ]


def test_all_cases_are_here() -> None:
    assert len(BODIES) == len(CASES) == 18


@pytest.mark.parametrize("case", BODIES)
def test_the_tests_own_decoder(case: str) -> None:
    assert [event[:2] for event in seen_by_the_standard(BODIES[case])] == EXPECTED[case]


@pytest.mark.parametrize("case", BODIES)
def test_blocks_say_what_is_expected(case: str) -> None:
    for pieces in cuts(BODIES[case].removeprefix(BOM)):
        assert dispatched(pieces) == EXPECTED[case]


@pytest.mark.parametrize("case", BODIES)
def test_blocks_joined_are_the_stream(case: str) -> None:
    for pieces in cuts(BODIES[case]):
        splitter = EventSplitter()
        blocks = [block for piece in pieces for block in splitter.split(piece)]
        assert b"".join(blocks) + splitter.take_rest() == BODIES[case]


@pytest.mark.parametrize("clean", [True, False], ids=["clean", "cut"])
@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("case", BODIES)
def test_seen_alike_before_and_after(case: str, policy: str, clean: bool) -> None:
    body = BODIES[case]
    outs = set()
    for pieces in cuts(body):
        answer = AnswerPostprocessor(Dialect.CHAT, POLICIES[policy])
        outs.add(b"".join([answer.feed(piece) for piece in pieces]) + answer.finish(clean))
    assert len(outs) == 1
    after = outs.pop()
    if POLICIES[policy].hold_until_content:
        # none of these says anything a client of ours waits for, so another engine may be asked,
        # unless it does not begin as an event stream does
        assert after in (b"", body)
        assert not after or body.startswith(BOM * 2)
        return
    assert [event[:2] for event in seen_by_the_standard(after)] == EXPECTED[case]
    if not body.startswith(BOM):
        for decoder in DECODERS.values():  # the SDKs' do not know the mark
            assert decoder(after) == decoder(body)
    if clean:
        assert after in (body, body.removeprefix(BOM))
