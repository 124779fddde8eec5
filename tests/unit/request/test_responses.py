"""The Responses dialect: nothing is stored between requests, and what its input may be."""

from typing import Any

import pytest
from tests.unit.request.asking import STRICT, least, passes, refusal, refused

from filature.wire.dialect import Dialect

RESPONSES = Dialect.RESPONSES


@pytest.mark.parametrize(
    ("more", "param", "instead"),
    [
        ({"previous_response_id": "resp_1"}, "previous_response_id", "send the whole conversation"),
        ({"conversation": "conv_1"}, "conversation", "send the whole conversation"),
        ({"conversation": {"id": "conv_1"}}, "conversation", "send the whole conversation"),
        ({"background": True}, "background", "background: false"),
        ({"store": True}, "store", "store: false"),
        ({"prompt": {"id": "pmpt_1"}}, "prompt", "instructions and input"),
        ({"input": [{"type": "item_reference", "id": "msg_1"}]}, "input[0]", "the item itself"),
        ({"input": [{"id": "msg_1"}]}, "input[0]", "the item itself"),
        (
            {"input": [{"role": "user", "content": "x"}, {"type": None, "id": "rs_1"}]},
            "input[1]",
            "the item itself",
        ),
    ],
)
def test_responses_are_stateless(more: dict[str, Any], param: str, instead: str) -> None:
    error = refusal(RESPONSES, least(RESPONSES, **more))
    assert (error.param, error.code) == (param, "unsupported_parameter")
    assert instead in error.message


def test_responses_that_need_no_state_pass() -> None:
    nothing = dict.fromkeys(
        ("previous_response_id", "conversation", "background", "store", "prompt")
    )
    assert passes(RESPONSES, **nothing)
    assert passes(RESPONSES, store=False, background=False)
    items = [
        {"role": "user", "content": "x", "id": "msg_1"},
        {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "y"}]},
        {"type": "function_call", "call_id": "1", "name": "f", "arguments": "{}", "id": "fc_1"},
        {"type": "function_call_output", "call_id": "1", "output": "ok"},
        {"type": "reasoning", "id": "rs_1", "summary": []},
    ]
    assert passes(RESPONSES, STRICT, input=items)


@pytest.mark.parametrize("name", ["access_programs", "background_options", "image"])
def test_newer_fields_are_known(name: str) -> None:
    assert passes(RESPONSES, STRICT, **{name: {}})
    assert refused(RESPONSES, **{name: "x"}) == (name, "invalid_type")


@pytest.mark.parametrize(
    ("given", "param", "code"),
    [
        (1, "input", "invalid_type"),
        ({}, "input", "invalid_type"),
        ([], "input", "empty_array"),
        (["x"], "input[0]", "invalid_type"),
        ([{"type": 1}], "input[0].type", "invalid_type"),
        ([{"role": 1}], "input[0].role", "invalid_type"),
        ([{"role": "user", "content": 1}], "input[0].content", "invalid_type"),
        ([{"role": "user", "content": [1]}], "input[0].content[0]", "invalid_type"),
    ],
)
def test_responses_input_is_refused_by_its_place(given: Any, param: str, code: str) -> None:
    assert refused(RESPONSES, input=given) == (param, code)


def test_strict_responses_have_roles_of_the_api() -> None:
    assert passes(RESPONSES, input=[{"role": "tool", "content": "x"}])
    assert refused(RESPONSES, STRICT, input=[{"role": "tool", "content": "x"}])[0] == (
        "input[0].role"
    )
    assert refused(RESPONSES, STRICT, input=[{"content": "x"}])[0] == "input[0].role"


@pytest.mark.parametrize("name", ["n", "n_cmpl"])
def test_one_choice_only_by_whatever_name(name: str) -> None:
    """llama.cpp makes a chat of a response, in which these fields are heeded."""
    passes(RESPONSES, **{name: 1})
    assert refused(RESPONSES, **{name: 8}) == (name, "invalid_value")
