"""An engine that claims more than is possible: what is charged, shown and recorded is what is possible."""

from typing import Any

import orjson
import pytest
from tests.unit.answer.build import (
    ASKED,
    DONE,
    FORWARDED,
    STRIPPED,
    TARIFF,
    USAGE,
    chunk,
    event,
    payloads,
    postprocessor,
    role,
    usage_chunk,
)

from filature.answer.bounds import SIZES, Belief, UsageBounds, size_class, within
from filature.answer.policy import AnswerPolicy
from filature.answer.postprocessor import AnswerPostprocessor
from filature.answer.pricing import cost_of
from filature.answer.usage import Usage
from filature.wire.dialect import Dialect

LIMITS = UsageBounds(prompt=20, completion=10)
LIE = {
    "prompt_tokens": 9_000,
    "completion_tokens": 8_000,
    "total_tokens": 17_000,
    "prompt_tokens_details": {"cached_tokens": 8_500},
    "completion_tokens_details": {"reasoning_tokens": 7_000},
}
POSSIBLE = Usage(20, 20, 10, 10)
SHOWN = {
    "prompt_tokens": 20,
    "completion_tokens": 10,
    "total_tokens": 30,
    "prompt_tokens_details": {"cached_tokens": 20},
    "completion_tokens_details": {"reasoning_tokens": 10},
    "prompt_total_cost": 2,
    "completion_total_cost": 30,
    "total_cost": 32,
    "cost": 0.000000032,
}


def stream(usage: Any) -> bytes:
    text = b"".join(chunk(f"word {number}") for number in range(6))
    return role() + text + chunk(finish="stop") + usage_chunk(usage) + DONE


def put_through(
    data: bytes, policy: AnswerPolicy = ASKED, dialect: Dialect = Dialect.CHAT, **asked: Any
) -> tuple[AnswerPostprocessor, bytes]:
    answer = postprocessor(policy, dialect, **asked)
    return answer, answer.feed(data) + answer.finish(clean=True)


def test_what_is_possible_stays_as_it_is() -> None:
    usage = Usage(20, 3, 10, 2)
    assert within(usage, LIMITS, 10) is usage
    assert within(Usage(21, 3, 10, 2, estimated=True), LIMITS, 99) == Usage(20, 3, 10, 2, True)
    assert within(Usage(5, 3, 11, 2), LIMITS, 99) == Usage(5, 3, 10, 2)
    assert within(Usage(5, 3, 10, 9), LIMITS, 7) == Usage(5, 3, 7, 7)
    assert within(Usage(30, 25, 0, 0), LIMITS, 0) == Usage(20, 20, 0, 0)


def test_what_is_shown_is_what_is_possible_and_its_cost() -> None:
    answer, out = put_through(stream(LIE | {"seconds": 5}), bounds=LIMITS)
    (shown,) = [p["usage"] for p in payloads(out) if isinstance(p, dict) and p.get("usage")]
    assert shown.pop("seconds") == 5
    assert shown == SHOWN
    assert shown["total_cost"] == cost_of(POSSIBLE, TARIFF).total
    assert answer.usage == POSSIBLE
    assert cost_of(answer.usage, TARIFF) == cost_of(POSSIBLE, TARIFF)
    assert answer.exceeded


def test_an_honest_answer_is_not_touched() -> None:
    plain, unbounded = put_through(stream(USAGE))
    answer, out = put_through(stream(USAGE), bounds=LIMITS)
    assert out == unbounded
    assert answer.usage == plain.usage == Usage(14, 3, 7)
    assert not answer.exceeded
    assert not plain.exceeded


@pytest.mark.parametrize(("name", "most"), [("prompt_tokens", 20), ("completion_tokens", 10)])
def test_one_token_too_many_is_a_mark(name: str, most: int) -> None:
    assert not put_through(stream(USAGE | {name: most}), bounds=LIMITS)[0].exceeded
    assert put_through(stream(USAGE | {name: most + 1}), bounds=LIMITS)[0].exceeded


def test_without_bounds_whatever_the_engine_says_counts() -> None:
    answer, _ = put_through(stream(LIE))
    assert answer.usage == Usage(9_000, 8_500, 8_000, 7_000)
    assert not answer.exceeded


def test_the_comment_for_those_who_did_not_ask_says_what_is_possible() -> None:
    _, out = put_through(stream(LIE), STRIPPED, bounds=LIMITS)
    (comment,) = [line for line in out.split(b"\n") if line.startswith(b": filature ")]
    shown = orjson.loads(comment.removeprefix(b": filature "))["usage"]
    assert (shown["prompt_tokens"], shown["completion_tokens"]) == (20, 10)
    assert shown["total_cost"] == cost_of(POSSIBLE, TARIFF).total


def test_a_document() -> None:
    choice = {"index": 0, "message": {"role": "assistant", "content": "x"}, "finish_reason": "stop"}
    document = orjson.dumps({"id": "1", "choices": [choice], "usage": LIE})
    answer, out = put_through(document, bounds=LIMITS)
    assert orjson.loads(out)["usage"] == SHOWN
    assert cost_of(answer.usage, TARIFF) == cost_of(POSSIBLE, TARIFF)
    assert answer.usage == POSSIBLE
    assert answer.exceeded


def test_a_token_takes_a_byte_of_the_answer() -> None:
    choice = {"index": 0, "message": {"role": "assistant", "content": "x"}, "finish_reason": "stop"}
    document = orjson.dumps({"choices": [choice], "usage": LIE})
    answer, out = put_through(document, bounds=UsageBounds(10_000, 10_000))
    assert answer.usage.completion == len(document) < 8_000
    assert orjson.loads(out)["usage"]["total_cost"] == cost_of(answer.usage, TARIFF).total
    assert answer.exceeded


def test_so_it_does_in_a_stream() -> None:
    answer, out = put_through(stream(LIE), bounds=UsageBounds(10_000, 10_000))
    said = sum(len(line) - 6 for line in stream(LIE).split(b"\n") if line.startswith(b"data: {"))
    assert answer.usage.completion == said < 8_000
    shown = [p["usage"] for p in payloads(out) if isinstance(p, dict) and p.get("usage")]
    assert shown[-1]["total_cost"] == cost_of(answer.usage, TARIFF).total
    assert answer.exceeded


@pytest.mark.parametrize("size", [1, 7, 100])
@pytest.mark.parametrize("policy", [ASKED, STRIPPED, FORWARDED])
@pytest.mark.parametrize("bounds", [LIMITS, UsageBounds(10_000, 10_000)])
def test_at_any_split(size: int, policy: AnswerPolicy, bounds: UsageBounds) -> None:
    whole, out = put_through(stream(LIE), policy, bounds=bounds)
    answer = postprocessor(policy, bounds=bounds)
    data = stream(LIE)
    fed = b"".join(answer.feed(data[at : at + size]) for at in range(0, len(data), size))
    assert fed + answer.finish(clean=True) == out
    assert answer.usage == whole.usage


def test_what_comes_after_the_record_changes_nothing() -> None:
    """Anthropic's end mark comes after the usage that the cost was put into."""
    usage = {"input_tokens": 9_000, "output_tokens": 8_000}
    start = {"type": "message_start", "message": {"id": "1", "usage": {"input_tokens": 9_000}}}
    delta = {
        "type": "content_block_delta",
        "index": 0,
        "delta": {"type": "text_delta", "text": "hi"},
    }
    end = {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": usage}
    data = (
        event(start, "message_start")
        + event(delta, "content_block_delta")
        + event(end, "message_delta")
        + event({"type": "message_stop"}, "message_stop")
    )
    answer, out = put_through(data, FORWARDED, Dialect.MESSAGES, bounds=UsageBounds(50, 10_000))
    shown = payloads(out)[2]["usage"]
    assert (shown["input_tokens"], shown["output_tokens"]) == (50, answer.usage.completion)
    assert answer.usage.prompt == 50
    assert 100 < answer.usage.completion < len(data)
    assert shown["total_cost"] == cost_of(answer.usage, TARIFF).total
    assert answer.exceeded


def test_responses() -> None:
    usage = {"input_tokens": 9_000, "output_tokens": 8_000}
    delta = {"type": "response.output_text.delta", "delta": "hi", "sequence_number": 1}
    done = {"type": "response.completed", "response": {"id": "1", "usage": usage}}
    data = event(delta, "response.output_text.delta") + event(done, "response.completed")
    answer, out = put_through(data, FORWARDED, Dialect.RESPONSES, bounds=LIMITS)
    assert answer.usage == Usage(20, 0, 10)
    assert payloads(out)[1]["response"]["usage"]["total_cost"] == (
        cost_of(Usage(20, 0, 10), TARIFF).total
    )
    assert answer.exceeded


def test_embeddings() -> None:
    usage = {"prompt_tokens": 900, "total_tokens": 900}
    document = orjson.dumps({"data": [{"index": 0, "embedding": [0.5]}], "usage": usage})
    answer, _ = put_through(document, dialect=Dialect.EMBEDDINGS, bounds=UsageBounds(20, 0))
    assert answer.usage.prompt == 20
    assert answer.exceeded


def test_an_estimate_is_bounded_and_nobodys_fault() -> None:
    text = b"".join(chunk("many words that nobody counted ") for _ in range(9))
    answer = postprocessor(ASKED, bounds=UsageBounds(5, 20), prompt_text_bytes=1_000)
    answer.feed(role() + text)
    answer.finish(clean=False)
    assert answer.usage == Usage(5, 0, 20, estimated=True)
    assert not answer.exceeded


def test_a_stale_record_that_is_absurd_is_a_mark_too() -> None:
    answer = postprocessor(ASKED, bounds=LIMITS)
    answer.feed(role() + chunk("one", usage=LIE) + chunk("two") + chunk("three"))
    assert answer.exceeded
    assert answer.usage == Usage(20, 20, 10, 10, estimated=True)


def test_choices_add_up_before_they_are_compared() -> None:
    each = {"prompt_tokens": 9, "completion_tokens": 4}
    parts = b"".join(
        chunk("word", index=index) + chunk(index=index, finish="stop", usage=each)
        for index in range(3)
    )
    answer, _ = put_through(parts + DONE, n=3, bounds=UsageBounds(9, 12))
    assert answer.usage == Usage(9, 0, 12)
    assert not answer.exceeded
    answer, _ = put_through(parts + DONE, n=3, bounds=UsageBounds(9, 11))
    assert answer.usage.completion == 11
    assert answer.exceeded


def test_bytes_that_passed_unread_are_bytes_of_the_answer() -> None:
    answer = postprocessor(FORWARDED, bounds=UsageBounds(10, 10**6))
    answer.feed(chunk("word"))
    answer._observer.meter.unread_bytes = 4_000
    assert answer.usage.completion > 900


# What is believed ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "expected"),
    [(0, 0), (1, 1), (2, 2), (3, 2), (4, 3), (255, 8), (256, 9), (2**30, 31), (2**60, SIZES - 1)],
)
def test_classes_of_sizes(size: int, expected: int) -> None:
    assert size_class(size) == expected


@pytest.mark.parametrize(
    ("belief", "believed"),
    [
        (Belief(None, None, 0.0), Usage(100, 10, 50, 40)),
        (Belief(60, None, 0.0), Usage(60, 10, 50, 40)),
        (Belief(5, None, 0.0), Usage(5, 5, 50, 40)),
        (Belief(500, [9.0] * SIZES, 0.0), Usage(100, 10, 50, 40)),  # never more than was claimed
        (Belief(None, [0.25] * SIZES, 0.0), Usage(100, 10, 26, 26)),
        (Belief(None, [0.0] * SIZES, 0.0), Usage(100, 10, 0, 0)),
        (Belief(None, None, 0.05), Usage(100, 10, 50, 40)),
        (Belief(None, None, 0.755), Usage(100, 76, 50, 40)),
        (Belief(60, None, 1.0), Usage(60, 60, 50, 40)),
    ],
)
def test_what_is_believed_of_a_claim(belief: Belief, believed: Usage) -> None:
    assert belief.of(Usage(100, 10, 50, 40), 101) == believed


def test_guesses_stay_guesses() -> None:
    assert Belief(1, None, 0.0).of(Usage(2, 0, 3, 0, estimated=True), 9).estimated


@pytest.mark.parametrize("size", [0, 1, 101, 5000])
def test_short_texts_have_a_ratio_of_their_own(size: int) -> None:
    table = [float(each) for each in range(SIZES)]
    found = Belief(None, table, 0.0).of(Usage(1, 0, 10**9), size)
    assert found.completion == size * size_class(size)


def test_an_answer_is_charged_as_believed_and_its_claim_is_kept() -> None:
    text_bytes = len("".join(f"word {number}" for number in range(6)))
    belief = Belief(4, [0.25] * SIZES, 0.5)
    told = {"prompt_tokens": 9, "completion_tokens": 30, "total_tokens": 39}
    bounds = UsageBounds(prompt=20, completion=100, belief=belief)
    answer, out = put_through(stream(told), bounds=bounds)
    believed = Usage(4, 2, -(-text_bytes // 4), 0)
    assert answer.usage == believed
    assert answer.usage_claimed == Usage(9, 0, 30, 0)
    assert not answer.exceeded
    shown = payloads(out)[-2]["usage"]
    assert (shown["prompt_tokens"], shown["completion_tokens"]) == (4, believed.completion)
    assert shown["prompt_tokens_details"] == {"cached_tokens": 2}
    assert shown["total_cost"] == cost_of(believed, TARIFF).total


def test_what_is_our_own_guess_is_no_claim() -> None:
    """Nothing was told: of the text there are as many events as there were, of the prompt nothing."""
    data = role() + chunk("a long word, or several of them") + chunk(finish="stop") + DONE
    answer, _ = put_through(data, prompt_text_bytes=400)
    assert answer.usage == Usage(100, 0, 8, 0, estimated=True)
    assert answer.usage_claimed == Usage(0, 0, 1, 0, estimated=True)
