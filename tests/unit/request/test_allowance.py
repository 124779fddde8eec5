"""What a seller takes beyond the boundary's rules, and not a step more."""

from typing import Any

import orjson
import pytest

from filature.errors import InvalidRequest
from filature.request.allowance import DOMAIN, Allowance
from filature.request.boundary import check_boundary
from filature.request.limits import RequestLimits
from filature.request.parse import ParsedRequest, parse_request
from filature.wire.dialect import Dialect

ALLOWANCE = Allowance(frozenset({"priority", "best_of"}), frozenset({"pictures.example"}))


def parse(dialect: Dialect, body: Any) -> ParsedRequest:
    return parse_request(dialect, orjson.dumps(body), RequestLimits())


def chat(**more: Any) -> Any:
    return {"model": "m", "messages": [{"role": "user", "content": "a"}]} | more


def picture(url: str) -> Any:
    part = {"type": "image_url", "image_url": {"url": url}}
    return chat(messages=[{"role": "user", "content": [part]}])


@pytest.mark.parametrize(
    "body",
    [
        chat(priority=3),
        chat(best_of=2),
        picture("https://pictures.example/a.png?x=1#y"),
        picture("http://a.b.pictures.example:8080/a.png"),
        picture("https://PICTURES.example"),
        picture("data:image/png;base64,AAAA"),
    ],
)
def test_what_is_allowed(body: Any) -> None:
    request = parse(Dialect.CHAT, body)
    check_boundary(request, ALLOWANCE)
    assert request.fields == parse(Dialect.CHAT, body).fields, "it is the client's"


@pytest.mark.parametrize(
    ("body", "param"),
    [
        (chat(priority=3, kv_transfer_params={}), "kv_transfer_params"),
        (chat(previous_response_id="r"), "previous_response_id"),
        *(
            (picture(url), "messages[0].content[0].image_url.url")
            for url in (
                "https://other.example/a.png",
                "https://notpictures.example/a.png",
                "https://pictures.example.evil.example/a.png",
                "https://pictures.example@evil.example/a.png",
                "https://pictures.example:80@evil.example/a.png",
                "https://evil.example/@pictures.example",
                "https://evil.example\\@pictures.example/a.png",
                "https://pictures.example\\@evil.example/a.png",
                "https://pictures.example./a.png",
                "https://pictures.example /a.png",
                "https://pictures.example\n/a.png",
                "//pictures.example/a.png",
                "ftp://pictures.example/a.png",
                "file://pictures.example/a.png",
                "https:/pictures.example/a.png",
                "https://169.254.169.254/latest",
                "https://[::1]/a.png",
            )
        ),
    ],
)
def test_what_is_not(body: Any, param: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        check_boundary(parse(Dialect.CHAT, body), ALLOWANCE)
    assert refused.value.param == param


def test_media_of_other_dialects() -> None:
    url = "https://pictures.example/a.png"
    source = {"type": "image", "source": {"type": "url", "url": url}}
    asked = {"model": "m", "max_tokens": 5, "messages": [{"role": "user", "content": [source]}]}
    file = {"type": "input_file", "file_url": url}
    item = {"type": "message", "role": "user", "content": [file]}
    for dialect, body in (
        (Dialect.MESSAGES, asked),
        (Dialect.RESPONSES, {"model": "m", "input": [item]}),
    ):
        check_boundary(parse(dialect, body), ALLOWANCE)
        with pytest.raises(InvalidRequest, match="must be a data: URL"):
            check_boundary(parse(dialect, body))


@pytest.mark.parametrize(
    ("name", "is_one"),
    [
        ("example.com", True),
        ("a-b.example", True),
        ("localhost", True),
        ("10.0.0.1", True),
        ("https://example.com", False),
        (".example.com", False),
        ("example.com.", False),
        ("*.example.com", False),
        ("", False),
    ],
)
def test_domains(name: str, is_one: bool) -> None:
    assert (DOMAIN.fullmatch(name) is not None) is is_one
