"""Usage on every event: of each field the largest counts, whichever way an event was read."""

import json
from typing import Any

import pytest

from filature.answer.policy import AnswerPolicy
from filature.answer.postprocessor import AnswerPostprocessor
from filature.answer.usage import Usage
from filature.wire.dialect import Dialect

EVENTS = 6


def event(number: int, fields: dict[str, Any]) -> bytes:
    usage = {"prompt_tokens": 10, "completion_tokens": number} | fields
    choice = {"index": 0, "delta": {"content": f"w{number}"}, "finish_reason": None}
    payload = {"id": "a", "choices": [choice], "usage": usage}
    return b"data: " + json.dumps(payload, separators=(",", ":")).encode() + b"\n\n"


@pytest.mark.parametrize("at", range(1, EVENTS + 1))
@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"prompt_tokens_details": {"cached_tokens": 3}}, Usage(10, 3, EVENTS, 0)),
        ({"completion_tokens_details": {"reasoning_tokens": 1}}, Usage(10, 0, EVENTS, 1)),
        ({"reasoning_tokens": 1}, Usage(10, 0, EVENTS, 1)),
        ({"prompt_tokens": 12}, Usage(12, 0, EVENTS, 0)),
        ({"completion_tokens": 9}, Usage(10, 0, 9, 0)),
    ],
)
def test_what_one_event_says_counts_though_later_ones_do_not_say_it(
    at: int, fields: dict[str, Any], expected: Usage
) -> None:
    answer = AnswerPostprocessor(Dialect.CHAT, AnswerPolicy(strip=True), continuous=True)
    for number in range(1, EVENTS + 1):
        answer.feed(event(number, fields if number == at else {}))
    assert answer.usage == expected
