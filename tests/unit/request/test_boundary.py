"""What may go to a worker of the network: fields, and media only as data: URLs."""

import json
from typing import Any

import orjson
import pytest
from tests.unit.request.asking import LEAST, LENIENT, parse
from tests.unit.request.bounded import (
    CHAT,
    COMPLETIONS,
    DATA,
    EMBEDDINGS,
    EVERY,
    HTTP,
    MESSAGES,
    REMOTE,
    RESPONSES,
    check,
    in_chat,
    in_messages,
    in_responses,
    refused,
    sent,
)

from filature.errors import InvalidRequest
from filature.request.boundary import (
    DROPPED_FIELDS,
    ENGINE_FIELDS,
    NAMED_MAX,
    REFUSED_FIELDS,
    check_boundary,
)
from filature.request.cocoon import COCOON_FIELDS
from filature.request.parse import parse_request
from filature.request.rules import shown_name
from filature.wire.dialect import Dialect

# fields


@EVERY
def test_the_least_of_each_dialect_passes(dialect: Dialect) -> None:
    request = parse(dialect)
    check_boundary(request)
    assert sent(request) == request.body


VALUES: dict[str, Any] = {
    "audio": {"voice": "a", "format": "wav"},
    "best_of": 2,
    "container": "c",
    "mcp_servers": [{"type": "url", "url": HTTP, "name": "a"}],
    "modalities": ["text", "audio"],
    "prediction": {"type": "content", "content": "a"},
    "web_search_options": {},
}


@EVERY
@pytest.mark.parametrize("name", sorted(REFUSED_FIELDS))
def test_a_refused_field_is_named(dialect: Dialect, name: str) -> None:
    if name in ("background", "conversation", "previous_response_id") and dialect is RESPONSES:
        with pytest.raises(InvalidRequest) as caught:  # nobody is served that
            parse(dialect, **{name: True})
        assert caught.value.param == name
        return
    value = VALUES.get(name, "x")
    assert refused(dialect, **{name: value}) == (name, "unsupported_by_network")


@EVERY
@pytest.mark.parametrize("name", sorted(REFUSED_FIELDS))
def test_but_one_that_says_nothing_passes(dialect: Dialect, name: str) -> None:
    check(dialect, **{name: None})


@EVERY
@pytest.mark.parametrize("name", ["n_predict", "chat_template", "documents", "Audio_", "a b", "ü"])
def test_an_unknown_field_is_refused(dialect: Dialect, name: str) -> None:
    assert refused(dialect, **{name: {"a": 1}}) == (shown_name(name), "unsupported_by_network")
    check(dialect, **{name: None})


@EVERY
def test_unknown_fields_are_named_together_and_not_without_end(dialect: Dialect) -> None:
    """However many there are, and however long a client made their names."""
    unknown = {"weft": 1, "user": "a", "x" * 100_000: 1, "warp": None, "loom": 1}
    with pytest.raises(InvalidRequest) as caught:
        check(dialect, **unknown)
    weft, long, loom = caught.value.message.partition(" cannot")[0].split(", ")
    assert (weft, loom, caught.value.param) == ("weft", "loom", "weft")
    assert len(long) < 100
    with pytest.raises(InvalidRequest) as caught:
        check(dialect, **{f"unknown_{number}": 1 for number in range(100)})
    assert caught.value.message.count("unknown_") == NAMED_MAX


@EVERY
@pytest.mark.parametrize("name", ["chat_template", "tokenize", "max_length"])
def test_no_argument_of_the_templates_call_goes_in_with_its_variables(
    dialect: Dialect, name: str
) -> None:
    given = {"enable_thinking": False, name: "{{ 'x' * 100000 }}"}
    where = (f"chat_template_kwargs.{name}", "unsupported_by_network")
    assert refused(dialect, chat_template_kwargs=given) == where
    check(dialect, chat_template_kwargs={"enable_thinking": False, name: None})


def test_a_field_of_another_dialect_is_refused() -> None:
    assert refused(CHAT, instructions="x")[0] == "instructions"
    assert refused(EMBEDDINGS, temperature=1)[0] == "temperature"
    assert refused(EMBEDDINGS, messages=[{"role": "user", "content": "x"}])[0] == "messages"


@EVERY
def test_engines_own_fields_that_only_change_an_answer_pass(dialect: Dialect) -> None:
    known = parse(dialect).rules.rules
    for name in ENGINE_FIELDS - known.keys():
        request = parse(dialect, **{name: {"url": HTTP}})
        check_boundary(request)
        assert sent(request) == request.body


DROPPED: dict[str, Any] = {
    "access_programs": {"cyber": "standard"},
    "background_options": {"completion_window": "soonest"},
    "client_metadata": {"x-codex-installation-id": "alice"},
    "metadata": {"user_id": "alice"},
    "prompt_cache_key": "alice",
    "safety_identifier": "alice",
    "service_tier": "auto",
    "store": False,
    "user": "alice",
    "user_profile_id": "alice",
    "workspace_id": "acme",
}


@EVERY
def test_what_says_who_asks_passes_and_is_taken_out(dialect: Dialect) -> None:
    assert DROPPED.keys() == DROPPED_FIELDS
    for name, value in DROPPED.items():
        for given in (value, None):
            request = parse(dialect, **{name: given})
            check_boundary(request)
            assert orjson.loads(sent(request)) == LEAST[dialect]
            assert sent(request, for_network=False) == request.body


@EVERY
def test_all_of_it_at_once_with_cocoons_fields(dialect: Dialect) -> None:
    cocoon = {"timeout": 5, "request_guid": "g", "max_coefficient": 7, "enable_debug": True}
    assert cocoon.keys() == COCOON_FIELDS
    request = parse(dialect, **DROPPED, **cocoon)
    check_boundary(request)
    assert orjson.loads(sent(request)) == LEAST[dialect]
    assert orjson.loads(sent(request, for_network=False)) == LEAST[dialect] | DROPPED


def test_also_where_a_key_is_written_with_escapes_or_stands_in_text() -> None:
    body = (
        b'{"us\\u0065r":"alice", "model":"m", "messages":[{"role":"user","content":"\\"user\\":1"}]'
        b' , "metadata" : {"user":"alice"} }'
    )
    request = parse_request(CHAT, body, LENIENT)
    check_boundary(request)
    assert json.loads(sent(request)) == {
        "model": "m",
        "messages": [{"role": "user", "content": '"user":1'}],
    }


@pytest.mark.parametrize("dialect", [d for d in Dialect if d is not RESPONSES])
def test_nothing_is_stored(dialect: Dialect) -> None:
    assert refused(dialect, store=True) == ("store", "unsupported_by_network")
    check(dialect, store=False)


# media


def ways(url: str) -> dict[str, tuple[Dialect, dict[str, Any], str]]:
    """Each way that an engine may know to send media by a URL, and the member that has it."""
    made: dict[str, tuple[Dialect, dict[str, Any], str]] = {}

    def add(way: tuple[Dialect, dict[str, Any], str], member: str) -> None:
        dialect, fields, where = way
        made[f"{dialect}-{len(made)}-{member}"] = dialect, fields, f"{where}.{member}"

    for kind in ("image_url", "video_url", "audio_url", "file_url"):
        add(in_chat({"type": kind, kind: {"url": url, "detail": "low"}}), kind)
        add(in_chat({"type": kind, kind: url}), kind)
        add(in_chat({kind: {"url": url}}), kind)  # engines tell it by its member
        add(in_chat({"type": "text", "text": "a", kind: {"url": url}}), kind)
    for kind in ("image", "audio", "video"):
        add(in_chat({"type": kind, kind: url}), kind)
        add(in_chat({"type": kind, "url": url}), "url")
    add(in_chat({"type": "image_url", "image_url": {"url": url}}, role="tool"), "image_url")
    add(in_chat({"type": "file", "file": {"file_url": url}}), "file.file_url")
    add(in_chat({"type": "file", "file": {"url": url}}), "file.url")
    add(in_responses({"type": "input_image", "image_url": url}), "image_url")
    add(in_responses({"type": "input_file", "file_url": url}), "file_url")
    add(in_responses({"type": "input_video", "video_url": url}), "video_url")
    for kind in ("function_call_output", "custom_tool_call_output"):
        output = [{"type": "input_image", "image_url": url}]
        item = {"type": kind, "call_id": "c", "output": output}
        add((RESPONSES, {"input": [item]}, "input[0]"), "output[0].image_url")
    shot = {"type": "computer_screenshot", "image_url": url}
    shown = {"type": "computer_call_output", "call_id": "c", "output": shot}
    add((RESPONSES, {"input": [shown]}, "input[0]"), "output.image_url")
    image = {"type": "image", "source": {"type": "url", "url": url}}
    document = {"type": "document", "source": {"type": "url", "url": url}}
    inside: dict[str, Any] = {"type": "document"}
    inside["source"] = {"type": "content", "content": [image]}
    for part, member in (
        (image, "source.url"),
        (document, "source.url"),
        (inside, "source.content[0].source.url"),
    ):
        add(in_messages(part), member)
        result = {"type": "tool_result", "tool_use_id": "t", "content": [part]}
        add(in_messages(result), f"content[0].{member}")
        add((MESSAGES, {"system": [part]}, "system[0]"), member)
    return made


WAYS = sorted(ways(""))


PASSING = (
    in_chat({"type": "image_url", "image_url": {"url": DATA, "detail": "low"}}),
    in_chat({"type": "image_url", "image_url": DATA}),
    in_chat({"image_url": {"url": DATA}}),
    in_chat({"type": "image_url", "image_url": {"url": DATA}}, role="tool"),
    in_chat({"type": "video_url", "video_url": {"url": DATA}}),
    in_chat({"type": "audio_url", "audio_url": {"url": DATA}}),
    in_chat({"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}}),
    in_chat({"type": "file", "file": {"file_data": DATA, "filename": "a.png"}}),
    in_responses({"type": "input_image", "image_url": DATA, "detail": "auto"}),
    in_responses({"type": "input_file", "file_data": DATA, "filename": "a.png"}),
    in_messages(
        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"}}
    ),
    in_messages(
        {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": HTTP}}
    ),
)


@pytest.mark.parametrize("way", PASSING, ids=str)
def test_media_that_are_in_the_request_pass(way: tuple[Dialect, dict[str, Any], str]) -> None:
    dialect, fields, _ = way
    request = parse(dialect, **fields)
    check_boundary(request)
    assert sent(request) == request.body


@pytest.mark.parametrize("url", REMOTE)
@pytest.mark.parametrize("way", WAYS)
def test_media_that_would_have_to_be_fetched_is_refused(way: str, url: str) -> None:
    dialect, fields, where = ways(url)[way]
    param, code = refused(dialect, **fields)
    assert code in {"remote_media_refused", "unsupported_by_network"}
    place = where.partition(".")[0] if param.endswith(".type") else where
    assert param.startswith(place)


def test_media_is_found_behind_what_passes() -> None:
    part = {"type": "image_url", "image_url": {"url": DATA}}
    bad = {"type": "image_url", "image_url": {"url": HTTP}}
    messages = [
        {"role": "system", "content": "a"},
        {"role": "user", "content": ["a", {"type": "text", "text": "a"}, part]},
        {"role": "assistant", "content": None},
        {"role": "user", "content": [part, part, bad]},
    ]
    assert refused(CHAT, messages=messages)[0] == "messages[3].content[2].image_url.url"


@pytest.mark.parametrize(
    "part",
    [
        {"type": "input_audio", "input_audio": {"data": "UklGRg==", "format": "wav"}},
        {"type": "file", "file": {"file_data": DATA, "filename": "a.pdf"}},
    ],
)
def test_media_as_base64_passes_in_chat(part: dict[str, Any]) -> None:
    dialect, fields, _ = in_chat(part)
    check(dialect, **fields)


def test_media_as_base64_passes_elsewhere() -> None:
    source = {"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="}
    text = {"type": "text", "media_type": "text/plain", "data": HTTP}
    for way in (
        in_messages({"type": "image", "source": source}, {"type": "document", "source": text}),
        in_responses({"type": "input_file", "file_data": DATA, "filename": "a.pdf"}),
    ):
        dialect, fields, _ = way
        check(dialect, **fields)


@pytest.mark.parametrize(
    ("way", "member"),
    [
        (in_chat({"type": "image_embeds", "image_embeds": "AAAA"}), "image_embeds"),
        (in_chat({"type": "audio_embeds", "audio_embeds": {"a": "AAAA"}}), "audio_embeds"),
        (in_chat({"type": "image_pil", "image_pil": "AAAA"}), "image_pil"),
        (in_chat({"type": "file", "file": {"file_id": "f"}}), "file.file_id"),
        (in_responses({"type": "input_image", "file_id": "f"}), "file_id"),
        (in_responses({"type": "input_file", "file_id": "f"}), "file_id"),
        (in_messages({"type": "container_upload", "file_id": "f"}), "file_id"),
        (
            in_messages({"type": "image", "source": {"type": "file", "file_id": "f"}}),
            "source.file_id",
        ),
    ],
)
def test_tensors_and_stored_files_are_refused(
    way: tuple[Dialect, dict[str, Any], str], member: str
) -> None:
    dialect, fields, where = way
    param, code = refused(dialect, **fields)
    assert code == "unsupported_by_network"
    assert param in {f"{where}.{member}", f"{where}.type"}


# what only looks like media


def test_text_may_hold_anything() -> None:
    text = f"see {HTTP} and file:///etc/passwd"
    for dialect, fields in (
        (CHAT, {"messages": [{"role": "user", "content": HTTP}]}),
        (COMPLETIONS, {"prompt": [HTTP, text]}),
        (EMBEDDINGS, {"input": [HTTP, text]}),
        (RESPONSES, {"input": HTTP, "instructions": text}),
        (MESSAGES, {"system": HTTP}),
    ):
        check(dialect, **fields)
    for dialect, fields, _ in (
        in_chat({"type": "text", "text": HTTP}),
        in_responses({"type": "input_text", "text": HTTP}),
        in_messages({"type": "text", "text": HTTP}),
    ):
        check(dialect, **fields)


SCHEMA = {
    "type": "object",
    "properties": {"url": {"type": "string"}, "image_url": {"default": HTTP}, "file_id": {}},
    "required": ["url", "image"],
}
ARGUMENTS = {"url": HTTP, "image": HTTP, "content": [{"image_url": HTTP}], "file_id": "f"}


def test_a_tool_s_arguments_and_schema_may_hold_anything() -> None:
    function = {"name": "fetch", "description": HTTP, "parameters": SCHEMA}
    call = {"name": "fetch", "arguments": orjson.dumps(ARGUMENTS).decode()}
    said = {"role": "assistant", "tool_calls": [{"id": "c", "type": "function", "function": call}]}
    check(
        CHAT,
        messages=[said, {"role": "tool", "tool_call_id": "c", "content": HTTP}],
        tools=[{"type": "function", "function": function}],
        response_format={"type": "json_schema", "json_schema": {"name": "a", "schema": SCHEMA}},
    )
    items: list[Any] = [{"type": "function_call", "call_id": "c"} | call]
    items.append({"type": "function_call_output", "call_id": "c", "output": HTTP})
    check(
        RESPONSES,
        input=items,
        tools=[{"type": "function"} | function],
        text={"format": {"type": "json_schema", "name": "a", "schema": SCHEMA}},
    )
    use = {"type": "tool_use", "id": "t", "name": "fetch", "input": ARGUMENTS}
    result = {"type": "tool_result", "tool_use_id": "t", "content": HTTP}
    check(
        MESSAGES,
        messages=[
            {"role": "assistant", "content": [use]},
            {"role": "user", "content": [result]},
        ],
        tools=[{"name": "fetch", "input_schema": SCHEMA}],
    )
