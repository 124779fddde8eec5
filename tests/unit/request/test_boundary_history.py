"""What may go to a worker of the network: answers that a client sends back as the conversation so far."""

from typing import Any

import pytest
from tests.unit.request.bounded import CHAT, MESSAGES, RESPONSES, check, refused

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
