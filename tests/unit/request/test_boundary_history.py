"""What may go to a worker of the network: answers that a client sends back as the conversation so far."""

from typing import Any

import pytest
from tests.unit.request.bounded import CHAT, DATA, MESSAGES, RESPONSES, check, refused

from filature.wire.dialect import Dialect

ASKED = {"role": "user", "content": "a"}
CALL = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
RESULT = {"role": "tool", "tool_call_id": "c", "content": "b"}
VLLM = {
    "role": "assistant",
    "content": None,
    "refusal": None,
    "annotations": None,
    "audio": None,
    "function_call": None,
    "tool_calls": [CALL],
    "reasoning": None,
}
"""As vLLM answers; ``messages.append(answer.choices[0].message)`` sends it back so."""


def test_an_answer_of_vllm_may_come_back() -> None:
    check(CHAT, messages=[ASKED, VLLM, RESULT])


@pytest.mark.parametrize("name", ["audio", "parsed", "provider_specific_fields"])
def test_a_member_that_is_null_is_as_good_as_absent(name: str) -> None:
    part = {"type": "text", "text": "a", name: None}
    check(CHAT, messages=[{"role": "user", "content": [part], name: None}])
    check(MESSAGES, messages=[{"role": "user", "content": [part], name: None}])
    check(RESPONSES, input=[{"role": "user", "content": [part | {"type": "input_text"}]}])
    check(RESPONSES, input=[{"type": "function_call", "call_id": "c", "name": "f", name: None}])


@pytest.mark.parametrize("value", [False, 0, "", [], {}, {"id": "a"}])
def test_one_that_says_anything_is_not(value: Any) -> None:
    said = VLLM | {"audio": value}
    assert refused(CHAT, messages=[ASKED, said, RESULT])[0] == "messages[1].audio"


def test_what_openai_s_sdk_parsed_of_an_answer_may_come_back() -> None:
    said = {"role": "assistant", "content": '{"a":1}', "parsed": {"a": 1}}
    check(CHAT, messages=[ASKED, said, ASKED])
    text = {"type": "output_text", "text": '{"a":1}', "annotations": [], "parsed": {"a": 1}}
    call = {"type": "function_call", "call_id": "c", "name": "f", "arguments": '{"a":1}'}
    message = {"type": "message", "role": "assistant", "content": [text]}
    check(RESPONSES, input=[message, call | {"parsed_arguments": {"a": 1}}])


def test_what_anthropic_s_sdk_parsed_of_an_answer_may_come_back() -> None:
    text = {"type": "text", "text": '{"a":1}', "parsed_output": {"a": 1}}
    check(MESSAGES, messages=[ASKED, {"role": "assistant", "content": [text]}, ASKED])


def test_calls_of_tools_may_say_whence_they_came() -> None:
    caller = {"type": "direct"}
    call = {"call_id": "c", "name": "f", "namespace": "n", "async": False, "caller": caller}
    result = {"call_id": "c", "name": "f", "namespace": "n", "output": "a", "caller": caller}
    for kind, of_call in (
        ("function_call", {"arguments": "{}"}),
        ("custom_tool_call", {"input": ""}),
    ):
        check(
            RESPONSES,
            input=[call | of_call | {"type": kind}, result | {"type": f"{kind}_output"}],
        )
    use = {"type": "tool_use", "id": "t", "name": "f", "input": {}, "caller": caller}
    done = {"type": "tool_result", "tool_use_id": "t", "content": "a"}
    check(
        MESSAGES,
        messages=[
            {"role": "assistant", "content": [use | {"toolset_name": "n"}]},
            {"role": "user", "content": [done | {"toolset_name": "n"}]},
        ],
    )


# what a client asks beside it


def test_parts_may_say_up_to_where_the_prompt_is_to_be_cached() -> None:
    mark = {"prompt_cache_breakpoint": {"mode": "explicit"}}
    chat: list[dict[str, Any]] = [
        {"type": "text", "text": "a"},
        {"type": "image_url", "image_url": {"url": DATA}},
        {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}},
        {"type": "file", "file": {"file_data": DATA}},
    ]
    check(CHAT, messages=[{"role": "user", "content": [part | mark for part in chat]}])
    responses = [
        {"type": "input_text", "text": "a"},
        {"type": "input_image", "image_url": DATA},
        {"type": "input_file", "file_data": DATA},
    ]
    check(RESPONSES, input=[{"role": "user", "content": [part | mark for part in responses]}])


@pytest.mark.parametrize("dialect", [MESSAGES, Dialect.COUNT_TOKENS])
def test_a_client_may_say_what_of_its_thinking_is_kept(dialect: Dialect) -> None:
    edit = {"type": "clear_thinking_20251015", "keep": "all"}
    check(dialect, messages=[ASKED], context_management={"edits": [edit]})


def test_results_of_the_client_s_own_search_are_text() -> None:
    found = {"type": "search_result", "source": "https://a.example", "title": "t"}
    content: list[Any] = [{"type": "text", "text": "a"}]
    result = {"type": "tool_result", "tool_use_id": "t", "content": [found | {"content": content}]}
    check(MESSAGES, messages=[{"role": "user", "content": [found | {"content": content}, result]}])
    content.append({"type": "image", "source": {"type": "url", "url": "https://a.example/b.png"}})
    param, _ = refused(
        MESSAGES, messages=[{"role": "user", "content": [found | {"content": content}]}]
    )
    assert param == "messages[0].content[0].content[1].source.url"
