"""Short ways to put a request together and to look at its refusal."""

from typing import Any

import orjson
import pytest

from filature.errors import InvalidRequest
from filature.request.limits import RequestLimits
from filature.request.parse import ParsedRequest, parse_request
from filature.wire.dialect import Dialect

LENIENT = RequestLimits()
STRICT = RequestLimits(strict=True)

MESSAGES = [{"role": "user", "content": "Say hello"}]
LEAST: dict[Dialect, dict[str, Any]] = {
    Dialect.CHAT: {"model": "m", "messages": MESSAGES},
    Dialect.COMPLETIONS: {"model": "m", "prompt": "import os"},
    Dialect.EMBEDDINGS: {"model": "m", "input": "text"},
    Dialect.RESPONSES: {"model": "m", "input": "Say hello"},
    Dialect.MESSAGES: {"model": "m", "messages": MESSAGES, "max_tokens": 8},
    Dialect.COUNT_TOKENS: {"model": "m", "messages": MESSAGES},
}
"""The least that each dialect takes."""


def least(dialect: Dialect, **more: Any) -> bytes:
    """The body with the least fields and those given."""
    return orjson.dumps(LEAST[dialect] | more)


def parse(dialect: Dialect, limits: RequestLimits = LENIENT, /, **more: Any) -> ParsedRequest:
    return parse_request(dialect, least(dialect, **more), limits)


def passes(dialect: Dialect, limits: RequestLimits = LENIENT, /, **more: Any) -> bool:
    """True; what does not pass raises, with the reason."""
    request = parse(dialect, limits, **more)
    return request.fields == LEAST[dialect] | more


def refusal(dialect: Dialect, body: bytes, limits: RequestLimits = LENIENT) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as caught:
        parse_request(dialect, body, limits)
    return caught.value


def refused(
    dialect: Dialect, limits: RequestLimits = LENIENT, /, **more: Any
) -> tuple[str | None, str | None]:
    """``param`` and ``code`` of the refusal; its message names the field."""
    error = refusal(dialect, least(dialect, **more), limits)
    assert error.param is not None
    assert error.param in error.message
    return error.param, error.code
