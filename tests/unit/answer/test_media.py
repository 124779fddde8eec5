"""Sounds and pictures in an answer: content, whose bytes are no text."""

from typing import Any

import orjson
import pytest
from tests.unit.answer.build import DONE, HEAD, HELD, STRIPPED, chunk, event, role

from filature.answer.postprocessor import AnswerPostprocessor
from filature.wire.dialect import Dialect

ENCODED = "AAAA" * 10_000
PICTURE = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{ENCODED}"}}


def delta(**members: Any) -> bytes:
    return event(HEAD | {"choices": [{"index": 0, "delta": members, "finish_reason": None}]})


MEDIA = {
    "sound": {"audio": {"id": "a", "data": ENCODED}},
    "pictures": {"images": [PICTURE]},
    "parts": {"content": [PICTURE]},
    "a bare URL": {"content": [{"type": "image_url", "image_url": ENCODED}]},
}
EACH = pytest.mark.parametrize("said", MEDIA.values(), ids=MEDIA)


@EACH
def test_bytes_of_media_are_not_taken_for_text(said: dict[str, Any]) -> None:
    answer = AnswerPostprocessor(Dialect.CHAT, STRIPPED)
    for data in (role(), chunk("hi"), delta(**said), delta(**said), chunk(finish="stop"), DONE):
        answer.feed(data)
    answer.finish(True)
    assert answer.usage.estimated
    assert answer.usage.completion == 3, "one for each event"


@EACH
def test_nor_in_a_document(said: dict[str, Any]) -> None:
    choice = {"index": 0, "message": {"role": "assistant"} | said, "finish_reason": "stop"}
    answer = AnswerPostprocessor(Dialect.CHAT, STRIPPED)
    answer.feed(orjson.dumps(HEAD | {"choices": [choice]}))
    answer.finish(True)
    assert answer.usage.estimated
    assert answer.usage.completion == 1


@EACH
def test_but_they_are_content(said: dict[str, Any]) -> None:
    answer = AnswerPostprocessor(Dialect.CHAT, HELD)
    assert answer.feed(role()) == b""
    assert answer.feed(delta(**said)) == role() + delta(**said)
    assert answer.has_content


def test_what_is_spoken_is_text() -> None:
    answer = AnswerPostprocessor(Dialect.CHAT, STRIPPED)
    spoken = delta(audio={"id": "a", "transcript": "x" * 40})
    for data in (role(), delta(audio={"id": "a", "transcript": ""}), spoken, spoken):
        assert answer.feed(data) == data
    assert answer.usage.completion == 20
