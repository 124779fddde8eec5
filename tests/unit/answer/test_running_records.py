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


@pytest.mark.parametrize("total", [True, False])
@pytest.mark.parametrize("separators", [(",", ":"), (", ", ": ")])
def test_the_largest_of_records_that_grow_and_shrink(
    total: bool, separators: tuple[str, str]
) -> None:
    counts = (1, 9, 10, 11, 4, 99, 100, 7, 100, 100)
    answer = AnswerPostprocessor(Dialect.CHAT, AnswerPolicy(strip=True), continuous=True)
    for number, count in enumerate(counts):
        fields = {"completion_tokens": count} | ({"total_tokens": 10 + count} if total else {})
        block = event(number, fields)
        payload = json.loads(block.removeprefix(b"data: "))
        out = answer.feed(b"data: " + json.dumps(payload, separators=separators).encode() + b"\n\n")
        del payload["usage"]
        assert json.loads(out.removeprefix(b"data: ")) == payload
        assert answer.usage == Usage(10, 0, max(counts[: number + 1]))


@pytest.mark.parametrize(
    "record", [b"07", b"7.0", b"-7", b"", b"7e0", b'"7"', b"1234567890", b"7 7"]
)
def test_a_number_that_is_none_is_not_taken_for_one(record: bytes) -> None:
    def block(text: bytes, count: bytes) -> bytes:
        choices = b'"choices":[{"index":0,"delta":{"content":"%b"}}]' % text
        usage = b'"usage":{"prompt_tokens":10,"total_tokens":11,"completion_tokens":%b}' % count
        return b'data: {"id":"a",%b,%b}\n\n' % (choices, usage)

    def fed(*blocks: bytes) -> AnswerPostprocessor:
        answer = AnswerPostprocessor(Dialect.CHAT, AnswerPolicy(strip=True), continuous=True)
        out = [answer.feed(block) for block in blocks]
        shown.append(out[-1])
        return answer

    shown: list[bytes] = []
    before = (block(b"x", b"1"), block(b"y", b"2"))
    recognised = fed(*before, block(b"z", record))
    parsed = fed(*before, b": no template is asked\n" + block(b"z", record))
    assert shown[0] == shown[1].removeprefix(b": no template is asked\n")
    assert recognised.usage == parsed.usage
    assert recognised.content_events == parsed.content_events


@pytest.mark.parametrize("counts", [(1, 2, 50, 7), (1, 2, 7, 50), (1, 50, 2, 7)])
def test_the_largest_of_records_of_another_shape_than_those_before(counts: tuple[int, ...]) -> None:
    answer = AnswerPostprocessor(Dialect.CHAT, AnswerPolicy(strip=True), continuous=True)
    for number, count in enumerate(counts):
        answer.feed(event(number, {"completion_tokens": count, "queued_s": number}))
    assert answer.usage == Usage(10, 0, 50)


def test_a_record_that_changes_its_prompt_while_it_grows() -> None:
    answer = AnswerPostprocessor(Dialect.CHAT, AnswerPolicy(strip=True), continuous=True)
    for number, prompt in enumerate((10, 10, 12, 10, 11), 1):
        answer.feed(event(number, {"prompt_tokens": prompt}))
    assert answer.usage == Usage(12, 0, 5)


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("before", ['"usage":', '"completion_tokens":', "}}"])
def test_a_record_that_stands_in_several_lines(before: str, end: str) -> None:
    """Then each has a name before it, and the record's own bytes are no JSON."""
    answer = AnswerPostprocessor(Dialect.CHAT, AnswerPolicy(strip=True), continuous=True)
    for number in range(1, EVENTS + 1):
        block = event(number, {}).decode()
        payload = json.loads(block.removeprefix("data: "))
        out = answer.feed(block.replace(before, f"{before}{end}data:").encode())
        del payload["usage"]
        texts = [line.removeprefix(b"data:") for line in out.splitlines()]
        assert json.loads(b"\n".join(texts)) == payload
    assert answer.usage == Usage(10, 0, EVENTS, 0)


@pytest.mark.parametrize("odd", ["0", "NaN", r'"\ud800"', "1e999"])
@pytest.mark.parametrize("before", ["", ': {"a":[,"usage":\n', ': "content":"w1"\n'])
def test_records_that_not_every_parser_takes_and_lines_that_look_like_them(
    before: str, odd: str
) -> None:
    answer = AnswerPostprocessor(Dialect.CHAT, AnswerPolicy(strip=True), continuous=True)
    for number in range(1, EVENTS + 1):
        block = before.encode() + event(number, {"x": 0}).replace(b'"x":0', f'"x":{odd}'.encode())
        payload = json.loads(event(number, {}).removeprefix(b"data: "))
        del payload["usage"]
        out = answer.feed(block)
        assert out.startswith(before.encode() + b"data: ")
        assert json.loads(out[len(before) + len("data: ") :]) == payload
    assert answer.usage == Usage(10, 0, EVENTS, 0)
    assert answer.content_bytes == EVENTS * len("w1")
