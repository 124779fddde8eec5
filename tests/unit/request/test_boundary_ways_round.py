"""Ways round the boundary: keys that occur twice, other names, other places."""

import json
import sys
from typing import Any

import orjson
import pytest
from tests.unit.request.asking import LENIENT, least
from tests.unit.request.bounded import (
    CHAT,
    COMPLETIONS,
    DATA,
    HTTP,
    MESSAGES,
    RESPONSES,
    check,
    in_chat,
    sent,
)

from filature.errors import InvalidRequest
from filature.request.boundary import (
    check_boundary,
)
from filature.request.parse import parse_request
from filature.wire.dialect import Dialect

# keys that occur twice


def test_where_a_key_occurs_twice_the_engine_gets_the_one_that_was_checked() -> None:
    twice = (
        b'{"model":"m","messages":[{"role":"user","content":[{"type":"image_url","image_url":'
        b'{"url":"http://example.com","url":"data:,x"}}]}]}'
    )
    request = parse_request(CHAT, twice, LENIENT)
    check_boundary(request)
    assert b"http" not in sent(request)
    assert orjson.loads(sent(request)) == request.fields
    turned = twice.replace(
        b'"url":"http://example.com","url":"data:,x"', b'"url":"data:,x","url":"http://h"'
    )
    with pytest.raises(InvalidRequest):
        check_boundary(parse_request(CHAT, turned, LENIENT))


def test_a_body_that_the_fast_parser_refuses_is_made_anew_as_well() -> None:
    body = least(CHAT).replace(b'"role":', b'"name":"a","name":"\\ud800","role":')
    request = parse_request(CHAT, body, LENIENT)
    check_boundary(request)
    assert json.loads(sent(request)) == request.fields


@pytest.mark.parametrize("number", [b"1" * 5000, b"-" + b"9" * 5000, b"1e400", b"9" * 25, b"-7"])
def test_what_is_made_anew_has_numbers_that_every_reader_knows(number: bytes) -> None:
    body = least(CHAT).replace(b'"role":', b'"name":"a","name":"\\ud800","role":')
    body = body[:-1] + b',"top_k":%b}' % number
    forwarded = sent(parse_request(CHAT, body, LENIENT))
    nearest = max(-sys.float_info.max, min(float(number), sys.float_info.max))
    assert orjson.loads(forwarded.replace(b"\\ud800", b""))["top_k"] == nearest


def test_in_text_alone_it_does_not_matter() -> None:
    twice = least(CHAT).replace(b'"role":', b'"name":"a","name":"b","role":')
    check_boundary(parse_request(CHAT, twice, LENIENT))


# ways round it


@pytest.mark.parametrize(
    "body",
    [
        b'[{"type":"image_url","image_url":{"url":"http://h"},"image_url":null,"type":"text"}]',
        b'[{"type":"image_url","image_url":{"url":"http://h"}}],"content":"a"',
    ],
    ids=["part", "content"],
)
def test_media_do_not_hide_behind_a_key_that_occurs_twice(body: bytes) -> None:
    body = b'{"model":"m","messages":[{"role":"user","content":%b}]}' % body
    request = parse_request(CHAT, body, LENIENT)
    try:
        check_boundary(request)
    except InvalidRequest:
        return
    assert b"http://h" not in sent(request)


def test_a_backslash_in_text_beside_media_passes() -> None:
    dialect, fields, _ = in_chat(
        {"type": "text", "text": "C:\\dir"}, {"type": "image_url", "image_url": {"url": DATA}}
    )
    check(dialect, **fields)


@pytest.mark.parametrize(
    "part",
    [
        {"type": "video", "video": [HTTP, HTTP]},
        {"type": "image_url", "image_url": [HTTP]},
        {"type": "image_url", "image_url": {"url": {"url": HTTP}}},
        {"type": "image_url", "image_url": {"URL": HTTP}},
        {"type": "image_url", "Image_URL": {"url": HTTP}},
        {"type": "image", "path": "/etc/passwd"},
        {"type": "input_audio", "input_audio": {"url": HTTP}},
        {"type": "input_audio", "input_audio": HTTP},
        {"type": "input_audio", "input_audio": {"data": HTTP, "format": "wav"}},
        {"type": "file", "file": {"file_data": HTTP}},
        {"type": "file", "file": HTTP},
        {"type": "image", "source": HTTP},
        {"type": "image", "source": {"type": "url", "url": [HTTP]}},
        {"type": "image", "source": {"type": "base64", "data": HTTP}},
        {"type": "video_embeds", "video_embeds": "AAAA"},
        {"type": "prompt_embeds", "prompt_embeds": "AAAA"},
    ],
    ids=str,
)
def test_no_other_way_to_name_media_passes(part: dict[str, Any]) -> None:
    dialect, fields, _ = in_chat(part)
    with pytest.raises(InvalidRequest):
        check(dialect, **fields)


IMAGES = [{"type": "image_url", "image_url": {"url": HTTP}}]


@pytest.mark.parametrize(
    ("dialect", "fields"),
    [
        (CHAT, {"messages": [{"role": "user", "Content": IMAGES}]}),
        (CHAT, {"messages": [{"role": "user", "content": "a", "images": [HTTP]}]}),
        (COMPLETIONS, {"prompt": {"prompt_string": "a", "image_url": HTTP}}),
        (COMPLETIONS, {"prompt": [{"image_url": HTTP}]}),
        (RESPONSES, {"input": [{"type": "function_call_output", "output": [IMAGES]}]}),
        (RESPONSES, {"tools": [{"type": "mcp", "server_label": "a", "server_url": HTTP}]}),
        (RESPONSES, {"tools": [{"type": "web_search"}]}),
        (MESSAGES, {"tools": [{"type": "web_fetch_20250910", "name": "web_fetch"}]}),
    ],
    ids=str,
)
def test_nothing_else_reaches_beyond_the_engine(dialect: Dialect, fields: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest):
        check(dialect, **fields)
