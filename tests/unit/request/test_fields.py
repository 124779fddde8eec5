"""Each dialect's fields: what is required, of which type, and within what range."""

from typing import Any

import orjson
import pytest
from tests.unit.request.asking import LEAST, STRICT, least, parse, passes, refusal, refused

from filature.request.limits import MODEL_CHARS_MAX, TOKENS_MAX, RequestLimits
from filature.request.parse import parse_request
from filature.wire.dialect import Dialect

CHAT, COMPLETIONS, EMBEDDINGS = Dialect.CHAT, Dialect.COMPLETIONS, Dialect.EMBEDDINGS
RESPONSES, MESSAGES, COUNT_TOKENS = Dialect.RESPONSES, Dialect.MESSAGES, Dialect.COUNT_TOKENS
OPENAI_SAMPLING = (CHAT, COMPLETIONS, RESPONSES)


@pytest.mark.parametrize("limits", [RequestLimits(), STRICT], ids=["lenient", "strict"])
@pytest.mark.parametrize("dialect", Dialect)
def test_the_least_body_passes(dialect: Dialect, limits: RequestLimits) -> None:
    request = parse_request(dialect, least(dialect), limits)
    assert (request.dialect, request.model) == (dialect, "m")
    assert request.fields == LEAST[dialect]


@pytest.mark.parametrize(
    ("dialect", "name"), [(dialect, name) for dialect in Dialect for name in LEAST[dialect]]
)
def test_a_required_field_that_is_missing_or_null(dialect: Dialect, name: str) -> None:
    assert refused(dialect, **{name: None}) == (name, "missing_required_parameter")
    without = {key: value for key, value in LEAST[dialect].items() if key != name}
    error = refusal(dialect, orjson.dumps(without))
    assert (error.param, error.code) == (name, "missing_required_parameter")


def test_what_some_engines_take_instead_of_a_required_field() -> None:
    assert parse(COMPLETIONS, prompt=None, prompt_embeds="AAAA").prompts == 1
    assert parse(EMBEDDINGS, input=None, messages=LEAST[CHAT]["messages"]).prompts == 1


@pytest.mark.parametrize("dialect", Dialect)
@pytest.mark.parametrize(
    ("model", "code"),
    [
        (1, "invalid_type"),
        ({}, "invalid_type"),
        ("", "empty_string"),
        ("m" * (MODEL_CHARS_MAX + 1), "string_above_max_length"),
        ("m\x1b[2J", "invalid_value"),
        ("m\x9b2J", "invalid_value"),
    ],
)
def test_a_models_name_is_a_string_of_some_length(dialect: Dialect, model: Any, code: str) -> None:
    assert refused(dialect, model=model) == ("model", code)


def test_a_models_name_can_be_written_everywhere() -> None:
    body = b'{"model":"m\\ud800","prompt":"x"}'
    error = refusal(COMPLETIONS, body)
    assert (error.param, error.code) == ("model", "invalid_value")
    assert parse(COMPLETIONS, model="модель").model == "модель"


BOOLEANS = [
    (CHAT, ["logprobs", "parallel_tool_calls", "store", "stream"]),
    (COMPLETIONS, ["echo", "stream"]),
    (RESPONSES, ["background", "parallel_tool_calls", "store", "stream"]),
    (MESSAGES, ["stream"]),
]
NUMBERS = [
    (CHAT, ["frequency_penalty", "presence_penalty", "temperature", "top_p"]),
    (COMPLETIONS, ["frequency_penalty", "presence_penalty", "temperature", "top_p"]),
    (RESPONSES, ["temperature", "top_p"]),
    (MESSAGES, ["temperature", "top_p"]),
]
INTEGERS = [
    (CHAT, ["max_tokens", "max_completion_tokens", "n", "seed", "top_logprobs"]),
    (COMPLETIONS, ["max_tokens", "n", "best_of", "seed", "logprobs"]),
    (EMBEDDINGS, ["dimensions"]),
    (RESPONSES, ["max_output_tokens", "max_tool_calls", "top_logprobs"]),
    (MESSAGES, ["max_tokens", "top_k"]),
]
STRINGS = [
    (CHAT, ["user", "reasoning_effort", "service_tier", "prompt_cache_key", "verbosity"]),
    (COMPLETIONS, ["suffix", "user"]),
    (EMBEDDINGS, ["encoding_format", "user"]),
    (RESPONSES, ["instructions", "truncation", "user", "service_tier"]),
    (MESSAGES, ["service_tier"]),
]
OBJECTS = [
    (CHAT, ["audio", "metadata", "prediction", "response_format", "stream_options"]),
    (COMPLETIONS, ["stream_options"]),
    (RESPONSES, ["metadata", "reasoning", "text", "stream_options"]),
    (MESSAGES, ["context_management", "metadata", "thinking", "tool_choice"]),
    (COUNT_TOKENS, ["context_management", "thinking", "tool_choice"]),
]
LISTS_OF_OBJECTS = [
    (CHAT, ["tools", "functions"]),
    (RESPONSES, ["tools", "context_management"]),
    (MESSAGES, ["tools"]),
    (COUNT_TOKENS, ["tools"]),
]


def pairs(table: list[tuple[Dialect, list[str]]]) -> list[tuple[Dialect, str]]:
    return [(dialect, name) for dialect, names in table for name in names]


@pytest.mark.parametrize(("dialect", "name"), pairs(BOOLEANS))
@pytest.mark.parametrize("value", [0, 1, "true", [], {}])
def test_booleans(dialect: Dialect, name: str, value: Any) -> None:
    assert refused(dialect, **{name: value}) == (name, "invalid_type")
    assert passes(dialect, **{name: None})


@pytest.mark.parametrize(("dialect", "name"), pairs(NUMBERS))
@pytest.mark.parametrize("value", ["1", True, [1], {}])
def test_numbers(dialect: Dialect, name: str, value: Any) -> None:
    assert refused(dialect, **{name: value}) == (name, "invalid_type")
    assert passes(dialect, **{name: None})
    assert passes(dialect, **{name: 1})
    assert passes(dialect, **{name: 0.5})


@pytest.mark.parametrize(("dialect", "name"), pairs(NUMBERS))
@pytest.mark.parametrize("number", [b"1e999", b"-1e999"])
def test_numbers_are_finite(dialect: Dialect, name: str, number: bytes) -> None:
    body = least(dialect)[:-1] + b',"' + name.encode() + b'":' + number + b"}"
    assert refusal(dialect, body).param == name


@pytest.mark.parametrize(("dialect", "name"), pairs(INTEGERS))
@pytest.mark.parametrize("value", ["1", True, 1.0, 1.5, 1e30, [1], {}])
def test_integers(dialect: Dialect, name: str, value: Any) -> None:
    assert refused(dialect, **{name: value}) == (name, "invalid_type")
    if name not in LEAST[dialect]:
        assert passes(dialect, **{name: None})
    assert passes(dialect, **{name: 1})


@pytest.mark.parametrize(("dialect", "name"), pairs(STRINGS))
@pytest.mark.parametrize("value", [1, True, [], ["x"], {}])
def test_strings(dialect: Dialect, name: str, value: Any) -> None:
    assert refused(dialect, **{name: value}) == (name, "invalid_type")
    assert passes(dialect, **{name: "x"})


@pytest.mark.parametrize(("dialect", "name"), pairs(OBJECTS))
@pytest.mark.parametrize("value", [1, True, [], "x"])
def test_objects(dialect: Dialect, name: str, value: Any) -> None:
    assert refused(dialect, **{name: value}) == (name, "invalid_type")
    assert passes(dialect, **{name: None})


@pytest.mark.parametrize(("dialect", "name"), pairs(LISTS_OF_OBJECTS))
def test_arrays_of_objects(dialect: Dialect, name: str) -> None:
    assert refused(dialect, **{name: {}}) == (name, "invalid_type")
    assert refused(dialect, **{name: [{}, "x"]}) == (f"{name}[1]", "invalid_type")
    assert passes(dialect, **{name: []})
    assert passes(dialect, **{name: [{"anything": 1}]})


@pytest.mark.parametrize("dialect", [CHAT, COMPLETIONS])
def test_stop_is_text_or_texts(dialect: Dialect) -> None:
    for stop in ("x", [], ["x", "y"], ["1"] * 9):
        assert passes(dialect, stop=stop)
    assert refused(dialect, stop=1) == ("stop", "invalid_type")
    assert refused(dialect, stop=["x", 1]) == ("stop[1]", "invalid_type")
    assert refused(dialect, STRICT, stop=["1"] * 5) == ("stop", "array_above_max_length")
    assert refused(dialect, STRICT, stop=[]) == ("stop", "empty_array")
    assert passes(dialect, STRICT, stop=["1"] * 4)


# messages


@pytest.mark.parametrize("dialect", [CHAT, MESSAGES, COUNT_TOKENS])
@pytest.mark.parametrize(
    ("messages", "param", "code"),
    [
        ("hi", "messages", "invalid_type"),
        ({}, "messages", "invalid_type"),
        ([], "messages", "empty_array"),
        (["hi"], "messages[0]", "invalid_type"),
        ([{"role": "user", "content": "x"}, None], "messages[1]", "invalid_type"),
        ([{}], "messages[0].role", "missing_required_parameter"),
        ([{"role": None, "content": "x"}], "messages[0].role", "missing_required_parameter"),
        ([{"role": 1, "content": "x"}], "messages[0].role", "invalid_type"),
        ([{"role": "user", "content": 1}], "messages[0].content", "invalid_type"),
        ([{"role": "user", "content": {}}], "messages[0].content", "invalid_type"),
        ([{"role": "user", "content": [1]}], "messages[0].content[0]", "invalid_type"),
        (
            [{"role": "user", "content": ["x", {"type": 1}]}],
            "messages[0].content[1].type",
            "invalid_type",
        ),
        (
            [{"role": "assistant", "content": None, "tool_calls": {}}],
            "messages[0].tool_calls",
            "invalid_type",
        ),
        (
            [{"role": "assistant", "tool_calls": ["x"]}],
            "messages[0].tool_calls[0]",
            "invalid_type",
        ),
    ],
)
def test_messages_are_refused_by_their_place(
    dialect: Dialect, messages: Any, param: str, code: str
) -> None:
    assert refused(dialect, messages=messages) == (param, code)


def test_messages_that_engines_take() -> None:
    messages = [
        {"role": "system", "content": [{"type": "text", "text": "a"}]},
        {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:,x"}}]},
        {"role": "assistant", "content": None, "tool_calls": [{"id": "1", "type": "function"}]},
        {"role": "tool", "tool_call_id": "1", "content": "ok"},
        {"role": "ipython", "content": "a role that a template knows"},
        {"role": "user", "content": ["text without a type", {"text": "the same"}]},
        {"role": "assistant"},
    ]
    assert passes(CHAT, messages=messages)


def test_strict_messages_have_roles_of_the_api_and_content() -> None:
    assert refused(CHAT, STRICT, messages=[{"role": "ipython", "content": "x"}])[0] == (
        "messages[0].role"
    )
    assert refused(CHAT, STRICT, messages=[{"role": "user"}])[0] == "messages[0].content"
    assert passes(CHAT, STRICT, messages=[{"role": "assistant", "tool_calls": []}])
    assert refused(MESSAGES, STRICT, messages=[{"role": "tool", "content": "x"}])[0] == (
        "messages[0].role"
    )
    assert refused(MESSAGES, STRICT, messages=[{"role": "user"}])[0] == "messages[0].content"


def test_anthropics_system_is_text_or_blocks() -> None:
    assert passes(MESSAGES, system="be brief")
    assert passes(MESSAGES, system=[{"type": "text", "text": "be brief"}])
    assert refused(MESSAGES, system=1) == ("system", "invalid_type")
    assert refused(MESSAGES, system=[1]) == ("system[0]", "invalid_type")


def test_anthropics_thinking_budget() -> None:
    enabled = {"type": "enabled", "budget_tokens": 1024}
    assert passes(MESSAGES, STRICT, max_tokens=1025, thinking=enabled)
    assert refused(MESSAGES, STRICT, max_tokens=1024, thinking=enabled)[0] == (
        "thinking.budget_tokens"
    )
    low = {"type": "enabled", "budget_tokens": 5}
    assert passes(MESSAGES, thinking=low)
    assert refused(MESSAGES, STRICT, max_tokens=50, thinking=low)[0] == "thinking.budget_tokens"
    assert refused(MESSAGES, thinking={"budget_tokens": "x"})[0] == "thinking.budget_tokens"
    assert refused(MESSAGES, thinking={"budget_tokens": 0})[0] == "thinking.budget_tokens"


# prompts


@pytest.mark.parametrize(("dialect", "name"), [(COMPLETIONS, "prompt"), (EMBEDDINGS, "input")])
@pytest.mark.parametrize(
    ("prompt", "prompts"),
    [
        ("text", 1),
        ("", 1),
        (["a"], 1),
        (["a", "b", "c"], 3),
        ([1, 2, 3], 1),
        ([0, 2**31 - 1], 1),
        ([[1, 2], [3]], 2),
        ([[1], "text"], 2),
        ([12, "text", 34], 1),  # llama.cpp: one prompt of ids and text
        (["text", 34], 1),
        ([[12, "text"], [3]], 2),
        ([{"prompt_string": "x", "multimodal_data": []}, "y"], 2),
        ({"prompt_string": "x"}, 1),
    ],
)
def test_prompts_are_counted(dialect: Dialect, name: str, prompt: Any, prompts: int) -> None:
    assert parse(dialect, **{name: prompt}).prompts == prompts


@pytest.mark.parametrize(("dialect", "name"), [(COMPLETIONS, "prompt"), (EMBEDDINGS, "input")])
@pytest.mark.parametrize(
    ("prompt", "where", "code"),
    [
        (1, "", "invalid_type"),
        (True, "", "invalid_type"),
        ([], "", "empty_array"),
        ([[]], "[0]", "empty_array"),
        ([True], "[0]", "invalid_type"),
        ([None], "[0]", "invalid_type"),
        ([1.5], "[0]", "invalid_type"),
        ([1, 1.5], "[1]", "invalid_type"),
        ([1, True], "[1]", "invalid_type"),
        ([1, [2]], "[1]", "invalid_type"),
        (["a", None], "[1]", "invalid_type"),
        ([[1], [2, None]], "[1][1]", "invalid_type"),
        ([-1], "[0]", "invalid_value"),
        ([1, 2**31], "[1]", "invalid_value"),
        (["a", 5, -2], "[2]", "invalid_value"),
        ([[1, -1]], "[0][1]", "invalid_value"),
    ],
)
def test_prompts_are_refused_by_their_place(
    dialect: Dialect, name: str, prompt: Any, where: str, code: str
) -> None:
    assert refused(dialect, **{name: prompt}) == (name + where, code)


@pytest.mark.parametrize(("dialect", "name"), [(COMPLETIONS, "prompt"), (EMBEDDINGS, "input")])
def test_the_number_of_prompts_is_limited(dialect: Dialect, name: str) -> None:
    assert parse(dialect, **{name: ["x"] * 2048}).prompts == 2048
    assert refused(dialect, **{name: ["x"] * 2049}) == (name, "array_above_max_length")
    assert parse(dialect, **{name: [1] * 5000}).prompts == 1


def test_embedded_prompts_count_too() -> None:
    assert parse(COMPLETIONS, prompt=["a"], prompt_embeds=["AAAA", "BBBB"]).prompts == 3
    assert refused(COMPLETIONS, prompt=None, prompt_embeds=["A"] * 2049)[0] == "prompt_embeds"


# what bounds money


@pytest.mark.parametrize(
    ("dialect", "name", "least_allowed"),
    [
        (CHAT, "max_tokens", 1),
        (CHAT, "max_completion_tokens", 1),
        (COMPLETIONS, "max_tokens", 0),
        (RESPONSES, "max_output_tokens", 1),
        (MESSAGES, "max_tokens", 0),
    ],
)
def test_completion_tokens_have_bounds(dialect: Dialect, name: str, least_allowed: int) -> None:
    assert parse(dialect, **{name: least_allowed}).max_tokens == least_allowed
    assert parse(dialect, **{name: TOKENS_MAX}).max_tokens == TOKENS_MAX
    assert refused(dialect, **{name: least_allowed - 1}) == (name, "integer_below_min_value")
    assert refused(dialect, **{name: TOKENS_MAX + 1}) == (name, "integer_above_max_value")


@pytest.mark.parametrize("dialect", [CHAT, COMPLETIONS])
def test_choices_have_bounds(dialect: Dialect) -> None:
    assert (parse(dialect).n, parse(dialect).best_of) == (1, 1)
    assert (parse(dialect, n=None).n, parse(dialect, n=128).n) == (1, 128)
    assert refused(dialect, n=0) == ("n", "integer_below_min_value")
    assert refused(dialect, n=129) == ("n", "integer_above_max_value")
    assert refused(dialect, RequestLimits(n_max=2), n=3) == ("n", "integer_above_max_value")


@pytest.mark.parametrize("dialect", [CHAT, COMPLETIONS])
def test_best_of_is_never_below_n(dialect: Dialect) -> None:
    request = parse(dialect, n=2, best_of=3)
    assert (request.n, request.best_of) == (2, 3)
    assert parse(dialect, n=2).best_of == 2
    assert parse(dialect, best_of=2).n == 1
    assert parse(dialect, n=2, best_of=2).best_of == 2
    assert refused(dialect, n=3, best_of=2) == ("best_of", "invalid_value")
    assert refused(dialect, best_of=129) == ("best_of", "integer_above_max_value")
    assert refused(dialect, best_of=0) == ("best_of", "integer_below_min_value")


@pytest.mark.parametrize("dialect", [EMBEDDINGS, MESSAGES, COUNT_TOKENS])
def test_other_dialects_have_one_choice(dialect: Dialect) -> None:
    assert parse(dialect, n=5).n == 1


@pytest.mark.parametrize("dialect", [*OPENAI_SAMPLING, MESSAGES])
def test_negative_temperature(dialect: Dialect) -> None:
    assert refused(dialect, temperature=-0.1) == ("temperature", "decimal_below_min_value")
    assert refused(dialect, temperature=-5) == ("temperature", "decimal_below_min_value")
    assert passes(dialect, temperature=0)
    assert passes(dialect, temperature=7)


# strict mode


@pytest.mark.parametrize("dialect", Dialect)
def test_unknown_fields_pass_unless_strict(dialect: Dialect) -> None:
    assert passes(dialect, ignore_eos=True)
    assert refused(dialect, STRICT, ignore_eos=True) == ("ignore_eos", "unknown_parameter")
    assert refused(dialect, STRICT, ignore_eos=None) == ("ignore_eos", "unknown_parameter")


OUT_OF_RANGE = [
    *((dialect, "temperature", 2.1, 2) for dialect in OPENAI_SAMPLING),
    (MESSAGES, "temperature", 1.1, 1),
    *((dialect, "top_p", 1.1, 1) for dialect in (*OPENAI_SAMPLING, MESSAGES)),
    *((dialect, "top_p", -0.1, 0) for dialect in (*OPENAI_SAMPLING, MESSAGES)),
    *((dialect, "presence_penalty", 2.1, -2) for dialect in (CHAT, COMPLETIONS)),
    *((dialect, "frequency_penalty", -2.1, 2) for dialect in (CHAT, COMPLETIONS)),
    (COMPLETIONS, "logprobs", 6, 5),
    (COMPLETIONS, "logprobs", -1, 0),
    (RESPONSES, "top_logprobs", 21, 20),
    (RESPONSES, "max_output_tokens", 15, 16),
    (RESPONSES, "max_tool_calls", 0, 1),
    (RESPONSES, "truncation", "often", "auto"),
    (MESSAGES, "top_k", -1, 0),
    (MESSAGES, "service_tier", "flex", "auto"),
    (CHAT, "reasoning_effort", "huge", "none"),
    (CHAT, "service_tier", "gold", "auto"),
    (CHAT, "verbosity", "loud", "low"),
    (EMBEDDINGS, "encoding_format", "int8", "base64"),
    *((dialect, "seed", 2**63, -(2**63)) for dialect in (CHAT, COMPLETIONS)),
]


@pytest.mark.parametrize(("dialect", "name", "outside", "inside"), OUT_OF_RANGE)
def test_ranges_of_the_api_references(
    dialect: Dialect, name: str, outside: Any, inside: Any
) -> None:
    assert passes(dialect, **{name: outside})
    assert refused(dialect, STRICT, **{name: outside})[0] == name
    assert passes(dialect, STRICT, **{name: inside})


@pytest.mark.parametrize("given", ["bytes", "bytes_only"])
def test_embeddings_that_are_no_json_are_refused(given: str) -> None:
    """An engine that gave them was taken for a broken one."""
    assert refused(EMBEDDINGS, encoding_format=given) == ("encoding_format", "invalid_value")


def test_strict_logprobs_of_chat() -> None:
    assert passes(CHAT, top_logprobs=25)
    assert refused(CHAT, STRICT, logprobs=True, top_logprobs=21)[0] == "top_logprobs"
    assert refused(CHAT, STRICT, top_logprobs=2)[0] == "top_logprobs"
    assert passes(CHAT, STRICT, logprobs=True, top_logprobs=20)


@pytest.mark.parametrize("dialect", [CHAT, COMPLETIONS])
def test_logit_bias(dialect: Dialect) -> None:
    assert passes(dialect, logit_bias=[[2, 100]])
    assert passes(dialect, logit_bias={"hello": 500})
    assert refused(dialect, logit_bias="x")[0] == "logit_bias"
    assert passes(dialect, STRICT, logit_bias={"50256": -100})
    assert refused(dialect, STRICT, logit_bias=[[2, 100]])[0] == "logit_bias"
    assert refused(dialect, STRICT, logit_bias={"hello": 1})[0] == "logit_bias"
    assert refused(dialect, STRICT, logit_bias={"5": 101})[0] == "logit_bias.5"
    assert refused(dialect, STRICT, logit_bias={"٣": 1})[0] == "logit_bias"


def test_strict_tools_and_formats() -> None:
    tool = {"type": "function", "function": {"name": "f", "parameters": {}}}
    assert passes(CHAT, STRICT, tools=[tool, {"type": "custom", "custom": {"name": "c"}}])
    assert refused(CHAT, STRICT, tools=[{"type": "retrieval"}])[0] == "tools[0].type"
    assert refused(CHAT, STRICT, tools=[{"type": "function"}])[0] == "tools[0].function"
    unnamed = {"type": "function", "function": {}}
    assert refused(CHAT, STRICT, tools=[tool, unnamed])[0] == "tools[1].function.name"
    assert refused(CHAT, STRICT, response_format={"type": "yaml"})[0] == "response_format.type"
    schema = {"type": "json_schema"}
    assert refused(CHAT, STRICT, response_format=schema)[0] == "response_format.json_schema"
    assert passes(CHAT, STRICT, response_format=schema | {"json_schema": {"name": "x"}})
    assert refused(COMPLETIONS, STRICT, stream=True, best_of=2)[0] == "best_of"
