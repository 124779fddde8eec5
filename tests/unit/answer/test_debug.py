"""``debug`` beside the usage, for a client that asked how long each hop took."""

from typing import Any

import orjson
import pytest
from tests.unit.answer.build import (
    ASKED,
    COSTS,
    DONE,
    FORWARDED,
    HEAD,
    STRIPPED,
    TARIFF,
    USAGE,
    chunk,
    event,
    payloads,
    role,
    usage_chunk,
)

from filature.answer.policy import AnswerPolicy
from filature.answer.postprocessor import AnswerPostprocessor
from filature.wire.dialect import Dialect

TOLD = {"proxy": {"total_s": 0.5}}
MEMBER = b'"debug":' + orjson.dumps(TOLD)


def shown(data: bytes, policy: AnswerPolicy, dialect: Dialect = Dialect.CHAT, **more: Any) -> bytes:
    """An answer, whole and then at every split: they are the same."""
    outs = set()
    for cut in range(len(data)):
        answer = AnswerPostprocessor(dialect, policy, debug=lambda: MEMBER, **more)
        outs.add(answer.feed(data[:cut]) + answer.feed(data[cut:]) + answer.finish(True))
    (out,) = outs
    return out


def objects(out: bytes) -> list[Any]:
    """What the events say, less the end mark."""
    return [each for each in payloads(out) if each != "[DONE]"]


def test_in_the_usage_chunk_and_nowhere_else() -> None:
    out = objects(shown(role() + chunk("a") + chunk(finish="stop") + usage_chunk() + DONE, ASKED))
    assert [list(each) for each in out[:-1]] == [[*HEAD, "choices"]] * 3
    assert list(out[-1]) == [*HEAD, "choices", "usage", "debug"]
    assert out[-1]["usage"] == USAGE | COSTS
    assert out[-1]["debug"] == TOLD


def test_in_the_last_of_the_records_that_stand_on_each_chunk() -> None:
    policy = AnswerPolicy(strip=True, include_usage=True, continuous_usage=True, tariff=TARIFF)
    data = chunk("a", usage=USAGE) + chunk("b", finish="stop", usage=USAGE) + usage_chunk() + DONE
    assert ["debug" in each for each in objects(shown(data, policy, continuous=True))] == [
        False,
        False,
        True,
    ]


def test_in_the_chunk_that_is_made_where_the_engine_sends_none() -> None:
    out = objects(shown(chunk("a") + chunk(finish="stop") + DONE, ASKED))
    assert out[-1]["choices"] == []
    assert out[-1]["debug"] == TOLD


def test_in_the_comment_of_who_did_not_ask_for_usage() -> None:
    out = shown(chunk("a") + chunk(finish="stop") + usage_chunk() + DONE, STRIPPED)
    (comment,) = [line for line in out.splitlines() if line.startswith(b": filature ")]
    told = orjson.loads(comment.removeprefix(b": filature "))
    assert list(told) == ["usage", "debug"]
    assert told["usage"]["total_cost"] == COSTS["total_cost"]
    assert told["debug"] == TOLD
    assert out.count(b"debug") == 1


def test_not_where_usage_is_hidden() -> None:
    policy = AnswerPolicy(strip=True, when_unrequested="hide", tariff=TARIFF)
    data = chunk("a") + chunk(finish="stop") + usage_chunk() + DONE
    assert b"debug" not in shown(data, policy)


def test_in_place_of_one_that_the_engine_wrote() -> None:
    (out,) = objects(shown(usage_chunk(debug="theirs"), ASKED))[-1:]
    assert out["debug"] == TOLD
    assert b"theirs" not in shown(usage_chunk(debug="theirs") + DONE, ASKED)


def test_of_responses_beside_the_usage_in_the_response() -> None:
    used = {"input_tokens": 3, "output_tokens": 2}
    response = {"id": "r", "usage": used, "status": "completed"}
    data = event(
        {"type": "response.output_text.delta", "delta": "a", "sequence_number": 0},
        "response.output_text.delta",
    ) + event({"type": "response.completed", "response": response}, "response.completed")
    first, last = objects(shown(data, FORWARDED, Dialect.RESPONSES))
    assert "debug" not in first
    assert list(last) == ["type", "response"]
    assert list(last["response"]) == [*response, "debug"]
    assert last["response"]["debug"] == TOLD


def test_of_messages_in_the_delta_with_usage() -> None:
    data = (
        event(
            {
                "type": "message_start",
                "message": {"id": "m", "usage": {"input_tokens": 3, "output_tokens": 1}},
            },
            "message_start",
        )
        + event(
            {
                "type": "content_block_delta",
                "index": 0,
                "delta": {"type": "text_delta", "text": "a"},
            },
            "content_block_delta",
        )
        + event(
            {
                "type": "message_delta",
                "delta": {"stop_reason": "end_turn"},
                "usage": {"output_tokens": 2},
            },
            "message_delta",
        )
        + event({"type": "message_stop"}, "message_stop")
    )
    out = objects(shown(data, FORWARDED, Dialect.MESSAGES))
    assert ["debug" in each for each in out] == [False, False, True, False]
    assert list(out[2]) == ["type", "delta", "usage", "debug"]


@pytest.mark.parametrize(
    ("dialect", "document"),
    [
        (Dialect.CHAT, {"choices": [{"message": {"content": "a"}}], "usage": USAGE}),
        (Dialect.COMPLETIONS, {"choices": [{"text": "a"}]}),
        (Dialect.EMBEDDINGS, {"data": [], "usage": {"prompt_tokens": 3, "total_tokens": 3}}),
        (Dialect.RESPONSES, {"output": [], "usage": {"input_tokens": 3, "output_tokens": 2}}),
        (Dialect.MESSAGES, {"content": [], "usage": {"input_tokens": 3, "output_tokens": 2}}),
    ],
)
def test_of_a_whole_answer_at_its_top(dialect: Dialect, document: dict[str, Any]) -> None:
    told = orjson.loads(shown(orjson.dumps(document) + b"\n", FORWARDED, dialect))
    assert told["debug"] == TOLD
    assert "total_cost" in told["usage"]
    assert {"usage", "debug", *document} == set(told)


def test_a_count_of_tokens_and_an_error_stay_as_they_are() -> None:
    count, error = b'{"input_tokens":3}', b'{"error":{"message":"no"}}'
    assert shown(count, FORWARDED, Dialect.COUNT_TOKENS) == count
    assert shown(error, FORWARDED) == error
