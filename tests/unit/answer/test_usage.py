"""Usage objects: what counts in them and what does not."""

from typing import Any

import orjson
import pytest

from filature.answer.usage import TOKENS_MAX, Record, Usage, count, read_record, usage_members
from filature.wire.dialect import Dialect


@pytest.mark.parametrize(
    "value", [None, -1, 1.5, TOKENS_MAX + 1, 1e300, "7", True, False, [], {}, float("nan")]
)
def test_what_is_no_count(value: Any) -> None:
    assert count(value) is None


@pytest.mark.parametrize(("value", "tokens"), [(0, 0), (7, 7), (TOKENS_MAX, TOKENS_MAX), (7.0, 7)])
def test_what_is_one(value: Any, tokens: int) -> None:
    assert count(value) == tokens


@pytest.mark.parametrize("dialect", [Dialect.CHAT, Dialect.COMPLETIONS, Dialect.EMBEDDINGS])
def test_chat_completions_and_embeddings(dialect: Dialect) -> None:
    usage: dict[str, object] = {
        "prompt_tokens": 14,
        "completion_tokens": 7,
        "prompt_tokens_details": {"cached_tokens": 3},
        "completion_tokens_details": {"reasoning_tokens": 2},
        "reasoning_tokens": 5,
    }
    assert read_record(dialect, usage) == Record(14, 3, 7, 2)
    usage["completion_tokens_details"] = None
    usage["prompt_tokens_details"] = "odd"
    assert read_record(dialect, usage) == Record(14, None, 7, 5)
    assert read_record(dialect, {}) == Record(None, None, None, None)


def test_responses() -> None:
    usage = {
        "input_tokens": 14,
        "output_tokens": 7,
        "input_tokens_details": {"cached_tokens": 3},
        "output_tokens_details": {"reasoning_tokens": 2},
        "prompt_tokens": 1,
    }
    assert read_record(Dialect.RESPONSES, usage) == Record(14, 3, 7, 2)


def test_responses_of_older_sglang_have_the_names_of_chat() -> None:
    usage: dict[str, object] = {
        "prompt_tokens": 14,
        "total_tokens": 21,
        "completion_tokens": 7,
        "prompt_tokens_details": {"cached_tokens": 3},
        "reasoning_tokens": 2,
    }
    assert read_record(Dialect.RESPONSES, usage) == Record(14, 3, 7, 2)


def test_messages() -> None:
    usage = {"input_tokens": 1, "cache_read_input_tokens": 31, "output_tokens": 8}
    assert read_record(Dialect.MESSAGES, usage) == Record(32, 31, 8, None)
    usage["cache_creation_input_tokens"] = 100
    assert read_record(Dialect.MESSAGES, usage) == Record(132, 31, 8, None)
    assert read_record(Dialect.MESSAGES, {"output_tokens": 8}) == Record(None, None, 8, None)


@pytest.mark.parametrize("dialect", [each for each in Dialect if each is not Dialect.COUNT_TOKENS])
def test_what_is_written_is_read(dialect: Dialect) -> None:
    reasons = dialect not in (Dialect.MESSAGES, Dialect.EMBEDDINGS)
    usage = Usage(14, 3, 7, 2 if reasons else 0, estimated=True)
    written = orjson.loads(b"{" + usage_members(dialect, usage) + b"}")
    assert written["estimated"] is True
    record = read_record(dialect, written)
    assert (record.prompt, record.cached, record.completion) == (14, 3, 7)
    assert (record.reasoning or 0) == usage.reasoning
