"""How an error looks on the wire: the body before a stream, the event inside one, per dialect.

Sources: OpenAI API reference "Errors" and Responses streaming event ``error``; Anthropic API
reference "Errors" (shape, and type by status) and "Streaming: error events".
"""

from typing import Final

import orjson

from filature.errors import FilatureError
from filature.wire.dialect import Dialect

_ANTHROPIC_TYPES: Final = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    405: "invalid_request_error",
    408: "timeout_error",
    409: "invalid_request_error",
    413: "request_too_large",
    422: "invalid_request_error",
    429: "rate_limit_error",
    431: "request_too_large",
    503: "overloaded_error",
    504: "timeout_error",
}


def _openai_error(error: FilatureError) -> dict[str, str | None]:
    return {
        "message": error.message,
        "type": error.type,
        "param": error.param,
        "code": error.code,
    }


def _anthropic_error(error: FilatureError) -> dict[str, object]:
    kind = _ANTHROPIC_TYPES.get(error.status, "api_error")
    return {"type": "error", "error": {"type": kind, "message": error.message}}


def error_body(error: FilatureError, dialect: Dialect | None = None) -> bytes:
    """The JSON body of an error response; ``dialect`` None means the OpenAI envelope."""
    if dialect is not None and dialect.is_anthropic:
        return orjson.dumps(_anthropic_error(error))
    return orjson.dumps({"error": _openai_error(error)})


def error_event(error: FilatureError, dialect: Dialect, sequence_number: int = 0) -> bytes:
    """One whole server-sent event, on which the SDKs of the dialect raise.

    ``sequence_number`` is that of the Responses dialect's next event; others have none.
    The Responses event carries an ``error`` member beside its flat fields, because the openai SDKs
    raise on that and pass flat ones on as an ordinary event.
    """
    if dialect.is_anthropic:
        return b"event: error\ndata: " + orjson.dumps(_anthropic_error(error)) + b"\n\n"
    fields = _openai_error(error)
    if dialect is Dialect.RESPONSES:
        flat = {"type": "error", "sequence_number": sequence_number}
        flat |= {key: fields[key] for key in ("code", "message", "param")}
        return b"event: error\ndata: " + orjson.dumps(flat | {"error": fields}) + b"\n\n"
    return b"data: " + orjson.dumps({"error": fields}) + b"\n\n"
