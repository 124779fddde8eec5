"""The record that a cost stands in tells the usage that it is the cost of, whatever the engine wrote there."""

from typing import Any

import orjson
import pytest
from tests.unit.answer.build import (
    ASKED,
    DONE,
    FORWARDED,
    TARIFF,
    USAGE,
    chunk,
    event,
    payloads,
    postprocessor,
    role,
    usage_chunk,
)

from filature.answer.bounds import SIZES, Belief, UsageBounds
from filature.answer.pricing import COST_KEYS, cost_of
from filature.answer.usage import Usage, read_record
from filature.wire.dialect import Dialect

UNREADABLE: list[Any] = [-5, None, 2.5, 10**12, "7", [7], {}, True]
TEXT = "some words"
ANSWERS: dict[Dialect, dict[str, Any]] = {
    Dialect.CHAT: {"choices": [{"index": 0, "message": {"content": TEXT}}]},
    Dialect.COMPLETIONS: {"choices": [{"index": 0, "text": TEXT}]},
    Dialect.EMBEDDINGS: {"data": []},
    Dialect.RESPONSES: {
        "object": "response",
        "output": [{"type": "message", "content": [{"type": "output_text", "text": TEXT}]}],
    },
    Dialect.MESSAGES: {"type": "message", "content": [{"type": "text", "text": TEXT}]},
}
PROMPT = {Dialect.RESPONSES: "input_tokens", Dialect.MESSAGES: "input_tokens"}
COMPLETION = {Dialect.RESPONSES: "output_tokens", Dialect.MESSAGES: "output_tokens"}


def told(dialect: Dialect, shown: dict[str, Any]) -> Usage:
    """What a client reads in a usage object."""
    read = read_record(dialect, shown)
    assert read.prompt is not None
    return Usage(
        read.prompt,
        read.cached or 0,
        read.completion or 0,
        read.reasoning or 0,
        shown.get("estimated", False),
    )


def document(dialect: Dialect, usage: Any, **asked: Any) -> tuple[Usage, dict[str, Any]]:
    """What is charged of a document, and the usage shown in it."""
    answer = postprocessor(FORWARDED, dialect, prompt_text_bytes=40, **asked)
    out = answer.feed(orjson.dumps(ANSWERS[dialect] | {"usage": usage})) + answer.finish(clean=True)
    shown = orjson.loads(out)["usage"]
    assert list(shown)[-4:] == list(COST_KEYS)
    assert shown["total_cost"] == cost_of(answer.usage, TARIFF).total
    return answer.usage, shown


@pytest.mark.parametrize("value", UNREADABLE)
@pytest.mark.parametrize("dialect", ANSWERS)
def test_what_is_no_count_is_replaced_by_what_is_charged(dialect: Dialect, value: Any) -> None:
    prompt = PROMPT.get(dialect, "prompt_tokens")
    completion = COMPLETION.get(dialect, "completion_tokens")
    usage, shown = document(dialect, {prompt: value, completion: value, "queued_s": 1})
    assert usage.estimated
    assert told(dialect, shown) == usage
    assert shown["queued_s"] == 1
    if dialect is not Dialect.EMBEDDINGS:
        usage, shown = document(dialect, {prompt: 9, completion: value, "estimated": False})
        assert (usage.prompt, usage.completion) == (9, 3)
        assert told(dialect, shown) == usage


@pytest.mark.parametrize("dialect", ANSWERS)
def test_a_claim_that_is_cut_is_shown_cut(dialect: Dialect) -> None:
    prompt = PROMPT.get(dialect, "prompt_tokens")
    completion = COMPLETION.get(dialect, "completion_tokens")
    said = {prompt: 900, completion: 800, "total_tokens": 1700}
    bounds = UsageBounds(20, 0 if dialect is Dialect.EMBEDDINGS else 10)
    usage, shown = document(dialect, said, bounds=bounds)
    assert (usage.prompt, usage.completion) == (20, bounds.completion)
    assert told(dialect, shown) == usage
    if dialect is not Dialect.MESSAGES:
        assert shown["total_tokens"] == usage.total
    bounds.belief = Belief(8, [0.2] * SIZES, 0.5)
    usage, shown = document(dialect, said, bounds=bounds)
    assert (usage.prompt, usage.cached) == (8, 4)
    assert told(dialect, shown) == usage
    bounds.belief = Belief(None, None, 0.5)
    possible = {prompt: 8, completion: bounds.completion, "total_tokens": 8 + bounds.completion}
    usage, shown = document(dialect, possible, bounds=bounds)
    assert (usage.prompt, usage.cached, usage.completion) == (8, 4, bounds.completion)
    assert told(dialect, shown) == usage


def test_a_response_s_claim_in_chat_s_names_is_shown_cut_in_its_own() -> None:
    said = {"prompt_tokens": 9, "completion_tokens": 30, "total_tokens": 39}
    usage, shown = document(Dialect.RESPONSES, said, bounds=UsageBounds(20, 10))
    assert usage == told(Dialect.RESPONSES, shown) == Usage(9, 0, 10)
    assert shown.keys().isdisjoint({"prompt_tokens", "completion_tokens"})
    usage, shown = document(Dialect.RESPONSES, said, bounds=UsageBounds(20, 30))
    assert (usage.prompt, shown["prompt_tokens"], usage.estimated) == (9, 9, False)


@pytest.mark.parametrize("value", UNREADABLE)
def test_in_a_stream(value: Any) -> None:
    answer = postprocessor(ASKED, prompt_text_bytes=40)
    said = {"prompt_tokens": 9, "completion_tokens": value}
    data = role() + chunk(TEXT) + chunk(finish="stop") + usage_chunk(said) + DONE
    shown = payloads(answer.feed(data))[-2]["usage"]
    assert answer.usage == Usage(9, 0, 3, 0, estimated=True)
    assert told(Dialect.CHAT, shown) == answer.usage
    assert shown["total_tokens"] == 12


def test_the_smaller_of_two_records_does_not_stand_beside_the_cost_of_the_larger() -> None:
    answer = postprocessor(ASKED)
    smaller = USAGE | {"completion_tokens": 2, "total_tokens": 16}
    data = chunk(TEXT) + chunk(finish="stop") + usage_chunk() + usage_chunk(smaller) + DONE
    shown = [each["usage"] for each in payloads(answer.feed(data))[2:4]]
    assert answer.usage == Usage(14, 3, 7)
    assert [told(Dialect.CHAT, each) for each in shown] == [answer.usage] * 2


def test_one_record_of_several_choices_stays_what_it_is() -> None:
    answer = postprocessor(ASKED, n=2)
    said = {"prompt_tokens": 5, "completion_tokens": 2}
    data = chunk("a") + chunk("b", index=1) + usage_chunk(said) + usage_chunk(said) + DONE
    shown = [each["usage"] for each in payloads(answer.feed(data))[2:4]]
    assert answer.usage == Usage(5, 0, 4)
    assert [each["completion_tokens"] for each in shown] == [2, 2]
    cut = postprocessor(ASKED, n=2, bounds=UsageBounds(5, 1))
    shown = [each["usage"] for each in payloads(cut.feed(data))[2:4]]
    assert [each["completion_tokens"] for each in shown] == [1, 1]


def test_a_message_tells_its_prompt_at_its_beginning_or_its_end() -> None:
    def streamed(at_start: Any, at_end: Any, **asked: Any) -> tuple[Usage, dict[str, Any]]:
        answer = postprocessor(FORWARDED, Dialect.MESSAGES, prompt_text_bytes=40, **asked)
        text = {"type": "content_block_delta", "index": 0, "delta": {"text": TEXT}}
        end = {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": at_end}
        start = {"type": "message_start", "message": {"usage": at_start}}
        out = answer.feed(event(start) + event(text) + event(end))
        return answer.usage, payloads(out)[-1]["usage"]

    usage, shown = streamed({"input_tokens": 9, "cache_read_input_tokens": 4}, {"output_tokens": 3})
    assert usage == Usage(13, 4, 3)
    assert list(shown) == ["output_tokens", *COST_KEYS]
    usage, shown = streamed({"input_tokens": 9}, {"input_tokens": 0, "output_tokens": 3})
    assert told(Dialect.MESSAGES, shown) == usage == Usage(9, 0, 3)
    usage, shown = streamed({}, {"output_tokens": 3})
    assert told(Dialect.MESSAGES, shown) == usage == Usage(10, 0, 3, 0, estimated=True)
    usage, shown = streamed({"input_tokens": 90}, {"output_tokens": 3}, bounds=UsageBounds(20, 9))
    assert told(Dialect.MESSAGES, shown) == usage == Usage(20, 0, 3)
