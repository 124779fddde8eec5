"""Whatever an engine claims, what is recorded is possible, and shown with its cost."""

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from tests.property.reference import told_by
from tests.property.streams import TARIFF

from filature.answer.bounds import UsageBounds
from filature.answer.policy import AnswerPolicy
from filature.answer.postprocessor import AnswerPostprocessor
from filature.answer.pricing import cost_of
from filature.wire.dialect import Dialect

COUNTS = st.none() | st.integers(-5, 60) | st.integers(0, 10**9) | st.just(10**12) | st.just(3.5)
RECORDS = st.fixed_dictionaries(
    {},
    optional={
        "prompt_tokens": COUNTS,
        "completion_tokens": COUNTS,
        "prompt_tokens_details": st.fixed_dictionaries({}, optional={"cached_tokens": COUNTS}),
        "completion_tokens_details": st.fixed_dictionaries(
            {}, optional={"reasoning_tokens": COUNTS}
        ),
    },
)
BOUNDS = st.builds(UsageBounds, st.integers(0, 50), st.integers(0, 50) | st.just(10**6))
CHUNKS = st.lists(
    st.tuples(st.sampled_from(["", "a", "word", "日本"]), st.none() | RECORDS), max_size=8
)


def written(chunks: list[tuple[str, Any]], last: Any) -> bytes:
    """The stream of an engine that puts records where it likes."""
    events: list[Any] = []
    for text, record in chunks:
        choice = {"index": 0, "delta": {"content": text}, "finish_reason": None}
        events.append({"id": "1", "choices": [choice], "usage": record})
    finish = {"index": 0, "delta": {}, "finish_reason": "stop"}
    events.append({"id": "1", "choices": [finish]})
    events.append({"id": "1", "choices": [], "usage": last})
    lines = [f"data: {json.dumps(event)}\n\n" for event in events]
    return "".join([*lines, "data: [DONE]\n\n"]).encode()


def put_through(data: bytes, sizes: list[int], **asked: Any) -> tuple[AnswerPostprocessor, bytes]:
    policy = AnswerPolicy(strip=True, include_usage=True, tariff=TARIFF)
    answer = AnswerPostprocessor(Dialect.CHAT, policy, prompt_text_bytes=40, **asked)
    out, at = b"", 0
    for size in sizes:
        out += answer.feed(data[at : at + size])
        at += size
    return answer, out + answer.feed(data[at:]) + answer.finish(clean=True)


@given(CHUNKS, RECORDS, BOUNDS, st.lists(st.integers(1, 200), max_size=8))
def test_claims_of_a_stream(
    chunks: list[tuple[str, Any]], last: Any, bounds: UsageBounds, sizes: list[int]
) -> None:
    data = written(chunks, last)
    answer, out = put_through(data, sizes, bounds=bounds)
    usage = answer.usage
    assert usage.prompt <= bounds.prompt
    assert usage.completion <= min(bounds.completion, len(data))
    assert usage.cached <= usage.prompt
    assert usage.reasoning <= usage.completion
    shown = json.loads(out.decode().split("data: ")[-2])
    assert shown["choices"] == []
    assert shown["usage"]["total_cost"] == cost_of(usage, TARIFF).total
    assert told_by(shown["usage"]) == usage
    unbounded, plain = put_through(data, [])
    if not answer.exceeded and not unbounded.usage.estimated:
        assert usage == unbounded.usage
        assert out == plain


@given(RECORDS, BOUNDS, st.sampled_from(["", "x", "some words"]))
def test_claims_of_a_document(record: Any, bounds: UsageBounds, text: str) -> None:
    choice = {"index": 0, "message": {"content": text}, "finish_reason": "stop"}
    data = json.dumps({"id": "1", "choices": [choice], "usage": record}).encode()
    answer, out = put_through(data, [], bounds=bounds)
    assert answer.usage.prompt <= bounds.prompt
    assert answer.usage.completion <= min(bounds.completion, len(data))
    shown = json.loads(out)["usage"]
    assert told_by(shown) == answer.usage
    assert shown["total_cost"] == cost_of(answer.usage, TARIFF).total
