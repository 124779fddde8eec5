"""What bodies ask, in each dialect, and what is refused."""

from typing import Any

import orjson
import pytest

from filature.demo.question import (
    MESSAGE_TOKENS,
    Question,
    RefusedError,
    check_context,
    parse_json,
    read_question,
)
from filature.wire.dialect import Dialect

HELLO = [{"role": "user", "content": "Say hello"}]
SCHEMA = {"type": "object", "properties": {}}


def read(dialect: Dialect, **body: Any) -> Question:
    return read_question(dialect, body, 2048)


def test_prompts_are_counted() -> None:
    chat = read(Dialect.CHAT, messages=HELLO)
    assert chat.prompt_tokens == [2 + 2 * MESSAGE_TOKENS]
    parts = [{"type": "text", "text": "Say "}, {"type": "text", "text": "hello"}]
    assert read(Dialect.CHAT, messages=[{"role": "user", "content": parts}]).prompts == [
        "Say hello"
    ]
    assert read(Dialect.COMPLETIONS, prompt=["a b", "c"]).prompt_tokens == [2, 1]
    assert read(Dialect.COMPLETIONS, prompt=[5, 6, 7]).prompt_tokens == [3]
    assert read(Dialect.EMBEDDINGS, input=[[5, 6], [7]]).prompt_tokens == [2, 1]
    messages = read(Dialect.MESSAGES, messages=HELLO, max_tokens=5, system="Be brief")
    assert messages.prompt_tokens == [4 + 3 * MESSAGE_TOKENS]
    counted = read(Dialect.COUNT_TOKENS, messages=HELLO, system="Be brief")
    assert counted.prompt_tokens == messages.prompt_tokens
    responses = read(Dialect.RESPONSES, input="Say hello", instructions="Be brief")
    assert responses.prompt_tokens == messages.prompt_tokens


@pytest.mark.parametrize(
    ("dialect", "body", "limit"),
    [
        (Dialect.CHAT, {"messages": HELLO, "max_tokens": 3}, 3),
        (Dialect.CHAT, {"messages": HELLO, "max_tokens": 3, "max_completion_tokens": 4}, 4),
        (Dialect.CHAT, {"messages": HELLO, "max_tokens": None}, None),
        (Dialect.COMPLETIONS, {"prompt": "x"}, 16),
        (Dialect.RESPONSES, {"input": "x", "max_output_tokens": 5}, 5),
        (Dialect.MESSAGES, {"messages": HELLO, "max_tokens": 6}, 6),
    ],
)
def test_limits_have_a_name_in_each_dialect(
    dialect: Dialect, body: dict[str, Any], limit: int | None
) -> None:
    assert read(dialect, **body).max_tokens == limit


@pytest.mark.parametrize(
    ("dialect", "tool"),
    [
        (Dialect.CHAT, {"type": "function", "function": {"name": "f", "parameters": SCHEMA}}),
        (Dialect.RESPONSES, {"type": "function", "name": "f", "parameters": SCHEMA}),
        (Dialect.MESSAGES, {"name": "f", "input_schema": SCHEMA}),
    ],
)
def test_tools_are_read_in_each_dialect(dialect: Dialect, tool: dict[str, Any]) -> None:
    asked = {"input": HELLO} if dialect is Dialect.RESPONSES else {"messages": HELLO}
    question = read(dialect, **asked, max_tokens=9, tools=[tool])
    assert [(t.name, t.parameters) for t in question.tools] == [("f", SCHEMA)]
    assert not question.ends_with_tool_result


@pytest.mark.parametrize(
    ("dialect", "body"),
    [
        (Dialect.CHAT, {"messages": [*HELLO, {"role": "tool", "content": "21"}]}),
        (
            Dialect.MESSAGES,
            {
                "messages": [
                    {"role": "user", "content": [{"type": "tool_result", "content": "21"}]},
                ],
                "max_tokens": 5,
            },
        ),
        (
            Dialect.RESPONSES,
            {"input": [*HELLO, {"type": "function_call_output", "call_id": "c", "output": "21"}]},
        ),
    ],
)
def test_a_tool_result_is_seen_in_each_dialect(dialect: Dialect, body: dict[str, Any]) -> None:
    question = read(dialect, **body)
    assert question.ends_with_tool_result
    assert question.messages[-1].text == "21"


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "body.messages"),
        ({"messages": "hi"}, "body.messages"),
        ({"messages": []}, "messages"),
        ({"messages": [{"content": "x"}]}, "body.messages.0"),
        ({"messages": HELLO, "max_tokens": 0}, "max_tokens"),
        ({"messages": HELLO, "max_tokens": 2049}, "max_tokens"),
        ({"messages": HELLO, "max_tokens": "5"}, "body.max_tokens"),
        ({"messages": HELLO, "max_tokens": 1.5}, "body.max_tokens"),
        ({"messages": HELLO, "temperature": -5}, "temperature"),
        ({"messages": HELLO, "n": 0}, "n"),
        ({"messages": HELLO, "stream": "yes"}, "body.stream"),
        ({"messages": HELLO, "stream_options": {"include_usage": True}}, "stream_options"),
        ({"messages": HELLO, "tool_choice": "required"}, "tool_choice"),
        ({"messages": HELLO, "tools": [{"type": "function"}]}, "body.tools"),
    ],
)
def test_refused_as_by_vllm(body: dict[str, Any], param: str) -> None:
    with pytest.raises(RefusedError) as refused:
        read(Dialect.CHAT, **body)
    assert refused.value.status == 400
    error = orjson.loads(refused.value.body(Dialect.CHAT))["error"]
    assert error["param"] == param
    assert error["code"] == 400
    assert error["message"]


def test_messages_need_a_limit_and_refuse_in_their_own_form() -> None:
    with pytest.raises(RefusedError) as refused:
        read(Dialect.MESSAGES, messages=HELLO)
    body = orjson.loads(refused.value.body(Dialect.MESSAGES))
    assert body["type"] == "error"
    assert body["error"]["type"] == "invalid_request_error"


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null"])
def test_bodies_that_are_no_object(body: bytes) -> None:
    with pytest.raises(RefusedError):
        parse_json(body)


def test_the_context_needs_room_for_an_answer() -> None:
    check_context(2047, 2048)
    with pytest.raises(RefusedError, match="maximum context length is 2048"):
        check_context(2048, 2048)
