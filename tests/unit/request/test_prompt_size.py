"""What a prompt measures: bytes of text, parts that are not text, token ids."""

import json
from typing import Any

import orjson
import pytest
from tests.unit.request.asking import LENIENT, parse

from filature.request.parse import parse_request
from filature.request.prompt_size import BYTES_PER_ID
from filature.wire.dialect import Dialect

CHAT, COMPLETIONS, EMBEDDINGS = Dialect.CHAT, Dialect.COMPLETIONS, Dialect.EMBEDDINGS
RESPONSES, MESSAGES, COUNT_TOKENS = Dialect.RESPONSES, Dialect.MESSAGES, Dialect.COUNT_TOKENS

TEXT = "naïve 日本 😀"
TEXT_BYTES = len(TEXT.encode())


def size(dialect: Dialect, **more: Any) -> tuple[int, int, int]:
    """Bytes of text, parts that are not text, token ids."""
    request = parse(dialect, **more)
    return request.text_bytes, request.media_parts, request.prompt_ids


def messages_size(dialect: Dialect, *messages: dict[str, Any]) -> tuple[int, int, int]:
    return size(dialect, messages=list(messages))


def layout(dialect: Dialect, **more: Any) -> int:
    """Tokens between the values of JSON."""
    return parse(dialect, **more).prompt_size.layout_tokens


@pytest.mark.parametrize("dialect", [CHAT, MESSAGES, COUNT_TOKENS, EMBEDDINGS])
def test_text_in_messages(dialect: Dialect) -> None:
    given = {"input": None} if dialect is EMBEDDINGS else {}
    messages = [
        {"role": "user", "content": TEXT},
        {"role": "assistant", "content": [{"type": "text", "text": "abc"}, "de"]},
        {"role": "user", "content": None},
    ]
    assert size(dialect, messages=messages, **given) == (TEXT_BYTES + 5, 0, 0)


def test_names_and_tools_in_messages() -> None:
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": '{"a":1}'}}
    assert messages_size(
        CHAT,
        {"role": "user", "name": "Ann", "content": "x"},
        {"role": "assistant", "reasoning_content": "hm", "refusal": "no", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "1", "content": "yes"},
    ) == (3 + 1 + 2 + 2 + len(orjson.dumps([call])) + 1 + 3, 0, 0)


@pytest.mark.parametrize("dialect", [CHAT, MESSAGES, COUNT_TOKENS])
def test_a_role_of_any_length_is_text(dialect: Dialect) -> None:
    """Templates of Llama's kind write whatever role a message has."""
    assert messages_size(dialect, {"role": TEXT, "content": "x"}) == (TEXT_BYTES + 1, 0, 0)


@pytest.mark.parametrize("beside", [{"file": None}, {"image_url": {"url": "x"}}, {"type": "image"}])
def test_a_messages_content_counts_beside_anything(beside: dict[str, Any]) -> None:
    """Engines pass over members that they do not know."""
    assert messages_size(CHAT, {"role": "user", "content": TEXT, **beside}) == (TEXT_BYTES, 1, 0)


@pytest.mark.parametrize(
    ("dialect", "name"),
    [
        (CHAT, "tools"),
        (CHAT, "functions"),
        (RESPONSES, "tools"),
        (MESSAGES, "tools"),
        (COUNT_TOKENS, "tools"),
    ],
)
def test_tools_count_as_their_json(dialect: Dialect, name: str) -> None:
    tools = [{"type": "function", "function": {"name": "f", "description": TEXT}}]
    more = size(dialect, **{name: tools})[0] - size(dialect)[0]
    assert more == len(orjson.dumps(tools))


@pytest.mark.parametrize(
    ("dialect", "name"),
    [(CHAT, "response_format"), (RESPONSES, "text"), (MESSAGES, "output_config")],
)
def test_schemas_count_as_their_json(dialect: Dialect, name: str) -> None:
    schema = {"type": "json_schema", "schema": {"properties": {"a": {"type": "number"}}}}
    more = size(dialect, **{name: schema})[0] - size(dialect)[0]
    assert more == len(orjson.dumps(schema))


@pytest.mark.parametrize("dialect", Dialect)
@pytest.mark.parametrize("name", ["documents", "chat_template_kwargs"])
def test_what_is_told_to_templates_counts_in_every_dialect(dialect: Dialect, name: str) -> None:
    told = {"custom_instructions": TEXT}
    more = size(dialect, **{name: told})[0] - size(dialect)[0]
    assert more == len(orjson.dumps(told))


MEDIA_PARTS = [
    {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 1000}},
    {"type": "input_audio", "input_audio": {"data": "A" * 1000, "format": "wav"}},
    {"type": "audio_url", "audio_url": {"url": "https://example.com/a"}},
    {"type": "video_url", "video_url": {"url": "https://example.com/a"}},
    {"type": "file", "file": {"file_data": "A" * 1000}},
    {"image_url": {"url": "data:,x"}},
]


@pytest.mark.parametrize("part", MEDIA_PARTS)
def test_media_is_counted_not_measured(part: dict[str, Any]) -> None:
    content = [{"type": "text", "text": "see"}, part, part]
    assert messages_size(CHAT, {"role": "user", "content": content}) == (3, 2, 0)


def test_anthropics_blocks() -> None:
    image = {"type": "image", "source": {"type": "base64", "data": "A" * 1000}}
    pdf = {"type": "document", "title": "t", "source": {"type": "base64", "data": "A" * 1000}}
    plain = {"type": "document", "title": "ab", "source": {"type": "text", "data": "cde"}}
    nested = {
        "type": "document",
        "source": {"type": "content", "content": [{"type": "text", "text": "fg"}, image]},
    }
    blocks = [image, pdf, plain, nested]
    assert messages_size(MESSAGES, {"role": "user", "content": blocks}) == (1 + 5 + 2, 3, 0)
    result = {"type": "tool_result", "tool_use_id": "1", "content": [image, "four"]}
    use = {"type": "tool_use", "id": "1", "name": "f", "input": {"a": 1}}
    thought = {"type": "thinking", "thinking": "hm", "signature": "A" * 1000}
    assert messages_size(
        MESSAGES,
        {"role": "assistant", "content": [thought, use]},
        {"role": "user", "content": [result]},
    ) == (2 + 1 + 1 + len(b'{"a":1}') + 1 + 4, 1, 0)


def test_anthropics_system() -> None:
    system = [{"type": "text", "text": TEXT, "cache_control": {"type": "ephemeral"}}]
    least = size(MESSAGES)[0]
    assert size(MESSAGES, system=system)[0] - least == TEXT_BYTES
    assert size(MESSAGES, system="four")[0] - least == 4


def test_thoughts_that_come_back_encrypted_may_be_read_as_they_are() -> None:
    thought = {"type": "reasoning", "summary": [], "encrypted_content": TEXT}
    least = size(RESPONSES, input=[thought | {"encrypted_content": None}])[0]
    assert size(RESPONSES, input=[thought])[0] - least == TEXT_BYTES


def test_items_of_responses() -> None:
    items = [
        {"role": "user", "content": [{"type": "input_text", "text": "abc"}]},
        {"role": "user", "content": [{"type": "input_image", "image_url": "data:" + "A" * 1000}]},
        {"type": "reasoning", "summary": [{"type": "summary_text", "text": "hm"}]},
        {"type": "function_call", "call_id": "1", "name": "f", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "1", "output": "four"},
        {"type": "function_call_output", "call_id": "1", "output": [{"type": "input_file"}]},
        {"type": "computer_call_output", "output": {"type": "computer_screenshot"}},
        {"type": "image_generation_call", "result": "A" * 1000},
    ]
    expected = 3 + 2 + (1 + 1 + 2) + (1 + 4) + 1
    assert size(RESPONSES, input=items) == (expected, 4, 0)
    assert size(RESPONSES, input="abc", instructions=TEXT) == (3 + TEXT_BYTES, 0, 0)


@pytest.mark.parametrize(("dialect", "name"), [(COMPLETIONS, "prompt"), (EMBEDDINGS, "input")])
@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        (TEXT, (TEXT_BYTES, 0, 0)),
        ("", (0, 0, 0)),
        (["ab", "c"], (3, 0, 0)),
        ([1, 2, 3], (0, 0, 3)),
        ([[1, 2], [3]], (0, 0, 3)),
        ([[1], "ab"], (2, 0, 1)),
        ([12, "text", 34], (4, 0, 2)),
        ([{"prompt_string": "x", "multimodal_data": []}], (1 + len("[]"), 0, 0)),
    ],
)
def test_prompts(dialect: Dialect, name: str, prompt: Any, expected: tuple[int, int, int]) -> None:
    assert size(dialect, **{name: prompt}) == expected


def test_a_suffix_belongs_to_the_prompt() -> None:
    assert size(COMPLETIONS, prompt="ab", suffix="c")[0] == 3


def test_an_estimate_takes_ids_for_average_tokens() -> None:
    request = parse(COMPLETIONS, prompt=[[1, 2, 3], "ab"])
    assert (request.text_bytes, request.prompt_ids, request.media_parts) == (2, 3, 0)
    assert request.prompt_text_bytes() == 2 + 3 * BYTES_PER_ID


def test_unpaired_surrogates_are_measured_as_they_would_be_sent() -> None:
    body = (
        b'{"model":"m","messages":[{"role":"user","content":"a\\ud800"}],'
        b'"tools":[{"type":"\\ud800"}]}'
    )
    tools = len('[{"type":""}]') + 3
    assert parse_request(CHAT, body, LENIENT).text_bytes == 1 + 3 + tools


@pytest.mark.parametrize("odd", [1, True, 1.5, {"a": [1]}, [[["x"]]], [None, 1]])
def test_odd_members_are_measured_without_error(odd: Any) -> None:
    message = {"role": "user", "content": "x", "odd": odd}
    assert messages_size(CHAT, message)[0] >= 1
    part = {"type": "odd", "content": odd, "text": odd}
    assert messages_size(CHAT, {"role": "user", "content": [part]})[1] == 0


@pytest.mark.parametrize("dialect", [CHAT, MESSAGES, RESPONSES])
def test_a_text_in_place_of_a_role_is_text(dialect: Dialect) -> None:
    name = "input" if dialect is RESPONSES else "messages"
    messages = [{"role": "x" * 1000, "content": "a"}, {"role": "assistant", "content": "b"}]
    assert size(dialect, **{name: messages})[0] == 1000 + 2


def test_a_tool_calls_id_is_text() -> None:
    use = {"type": "tool_use", "id": "x" * 1000, "name": "f", "input": {}}
    assert messages_size(MESSAGES, {"role": "assistant", "content": [use]})[0] == 1000 + 1 + 2


@pytest.mark.parametrize(
    ("text", "read"), [("\U0001d160", 12), ("\u0958", 6), ("e\u0301", 3), ("\ud800", 3)]
)
def test_characters_that_a_tokenizer_takes_apart_count_as_what_it_reads(
    text: str, read: int
) -> None:
    body = orjson.dumps({"model": "m", "messages": [{"role": "user", "content": "?"}]})
    body = body.replace(b"?", json.dumps(text).strip('"').encode())
    assert parse_request(CHAT, body, LENIENT).text_bytes == read
    tools = [{"name": text * 10}] if text != "\ud800" else []
    more = size(CHAT, tools=tools)[0] - size(CHAT)[0]
    assert more == (len('[{"name":""}]') + 10 * read if tools else 0)


def test_json_is_laid_out_by_templates() -> None:
    numbers = {"enum": [1, 2, 3]}
    expected = 3 * len("{[,,]}") + 1
    assert layout(CHAT, response_format=numbers) == expected
    call = {"type": "function_call", "call_id": "1", "name": "f", "arguments": '{"enum":[1,2,3]}'}
    assert layout(RESPONSES, input=[call]) == expected
    use = {"type": "tool_use", "id": "1", "name": "f", "input": numbers}
    assert layout(MESSAGES, messages=[{"role": "assistant", "content": [use]}]) == expected
    assert layout(CHAT, messages=[{"role": "user", "content": '{"enum":[1,2,3]}'}]) == 0


def test_it_is_measured_once() -> None:
    request = parse(CHAT)
    assert request.prompt_size is request.prompt_size
