"""Streams whose events have ids, as SDKs read them: for some, a blank line ends an event also behind a comment."""

from collections.abc import Callable

import pytest
from tests.conformance.recorded import DECODERS, STREAMS, Recording, Seen, every, process

from filature.answer.policy import AnswerPolicy


def with_ids(recording: Recording) -> bytes:
    """The same stream, each event with an id."""
    blocks = recording.body.split(b"\n\n")
    return b"\n\n".join(
        b"id: %d\n%b" % (number, block) if block.startswith((b"data", b"event")) else block
        for number, block in enumerate(blocks)
    )


@pytest.mark.parametrize("decode", [pytest.param(each, id=name) for name, each in DECODERS.items()])
@every([each for each in STREAMS if b"\n\n:" not in each.body and each.complete])
def test_what_is_told_in_a_comment_is_no_event(
    recording: Recording, decode: Callable[[bytes], list[Seen]]
) -> None:
    body = with_ids(recording)
    shown, _ = process(recording, AnswerPolicy(strip=True), [body])
    hidden, _ = process(recording, AnswerPolicy(strip=True, when_unrequested="hide"), [body])
    assert decode(shown) == decode(hidden)
    assert all(event.data for event in decode(shown))
