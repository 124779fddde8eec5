"""What the tests of the boundary share: dialects, media, how they are sent, what is refused."""

from typing import Any

import pytest
from tests.unit.request.asking import parse

from filature.errors import InvalidRequest
from filature.request.boundary import (
    check_boundary,
)
from filature.request.parse import ParsedRequest
from filature.request.rewrite import body_for_engine
from filature.wire.dialect import Dialect

CHAT, COMPLETIONS, EMBEDDINGS = Dialect.CHAT, Dialect.COMPLETIONS, Dialect.EMBEDDINGS
RESPONSES, MESSAGES = Dialect.RESPONSES, Dialect.MESSAGES
EVERY = pytest.mark.parametrize("dialect", Dialect)

DATA = "data:image/png;base64,iVBORw0KGgo="
HTTP = "http://169.254.169.254/latest"
REMOTE = (
    HTTP,
    "https://example.com/a.png",
    "HTTP://example.com/a.png",
    "ftp://example.com/a.png",
    "file:///etc/passwd",
    "//example.com/a.png",
    "/etc/passwd",
    "a.png",
    "",
    "s3://bucket/a.png",
    "blob:https://example.com/1",
    " data:image/png;base64,iVBORw0KGgo=",
    "\tdata:image/png;base64,iVBORw0KGgo=",
    "\ufeffdata:image/png;base64,iVBORw0KGgo=",
    "DATA:image/png;base64,iVBORw0KGgo=",
    "Data:image/png;base64,iVBORw0KGgo=",
    "da\nta:image/png;base64,iVBORw0KGgo=",
    "data",
    "http://example.com/?data:image/png",
)


def check(dialect: Dialect, **more: Any) -> None:
    check_boundary(parse(dialect, **more))


def refused(dialect: Dialect, **more: Any) -> tuple[str, str | None]:
    """``param`` and ``code``; the message names the field."""
    with pytest.raises(InvalidRequest) as caught:
        check(dialect, **more)
    error = caught.value
    assert error.param is not None
    assert error.message.startswith(error.param)
    return error.param, error.code


def sent(request: ParsedRequest, *, for_network: bool = True) -> bytes:
    return body_for_engine(
        request, model="m", include_usage=True, continuous_usage=True, for_network=for_network
    )


def in_chat(*parts: Any, role: str = "user") -> tuple[Dialect, dict[str, Any], str]:
    return CHAT, {"messages": [{"role": role, "content": list(parts)}]}, "messages[0].content[0]"


def in_responses(*parts: Any) -> tuple[Dialect, dict[str, Any], str]:
    return RESPONSES, {"input": [{"role": "user", "content": list(parts)}]}, "input[0].content[0]"


def in_messages(*parts: Any) -> tuple[Dialect, dict[str, Any], str]:
    message = {"role": "user", "content": list(parts)}
    return MESSAGES, {"messages": [message]}, "messages[0].content[0]"
