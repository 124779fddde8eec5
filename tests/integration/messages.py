"""What engines and clients say in the tests, as bytes. No sockets."""

import json
from typing import Any, Final

# What engines say

DONE: Final = b"data: [DONE]\n\n"


def event(payload: Any, name: str | None = None) -> bytes:
    line = b"" if name is None else b"event: %b\n" % name.encode()
    return line + b"data: " + json.dumps(payload, separators=(",", ":")).encode() + b"\n\n"


def delta(
    text: str,
    *,
    finish: str | None = None,
    usage: dict[str, int] | None = None,
    role: str | None = None,
    model: str = "m",
) -> bytes:
    """One chat event in vLLM's form."""
    content = {"content": text} if role is None else {"role": role, "content": text}
    payload: dict[str, Any] = {
        "id": "c1",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": model,
        "choices": [{"index": 0, "delta": content, "finish_reason": finish}],
    }
    if usage is not None:
        payload["usage"] = usage
    return event(payload)


def tokens(prompt: int, completion: int) -> dict[str, int]:
    """A usage object as engines send it."""
    return {
        "prompt_tokens": prompt,
        "total_tokens": prompt + completion,
        "completion_tokens": completion,
    }


def cost(prompt: int, completion: int) -> int:
    """In nano-credits, at the default prices (0.20 and 0.80 credits per million tokens)."""
    return 200 * prompt + 800 * completion


def usage_event(prompt: int, completion: int) -> bytes:
    return event(
        {
            "id": "c1",
            "object": "chat.completion.chunk",
            "created": 1,
            "model": "m",
            "choices": [],
            "usage": tokens(prompt, completion),
        }
    )


def completion(text: str, prompt: int = 3, completed: int = 2, model: str = "m") -> dict[str, Any]:
    """A whole chat answer."""
    message = {"role": "assistant", "content": text}
    return {
        "id": "c1",
        "object": "chat.completion",
        "created": 1,
        "model": model,
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        "usage": tokens(prompt, completed),
    }


def chunked(payload: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(payload), payload)


STREAM_HEAD: Final = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\n"
    b"transfer-encoding: chunked\r\n\r\n"
)
LAST_CHUNK: Final = b"0\r\n\r\n"


def stream_answer(events: list[bytes]) -> bytes:
    return STREAM_HEAD + b"".join(map(chunked, events)) + LAST_CHUNK


def json_answer(payload: Any, status: str = "200 OK", headers: str = "") -> bytes:
    body = json.dumps(payload).encode()
    head = f"HTTP/1.1 {status}\r\ncontent-type: application/json\r\n{headers}"
    return f"{head}content-length: {len(body)}\r\n\r\n".encode() + body


SHORT_STREAM: Final = [delta("a"), delta("b", finish="stop"), usage_event(10, 2), DONE]
RESPONSES_STREAM: Final = [
    event(
        {"type": "response.created", "sequence_number": 0, "response": {"id": "r", "usage": None}},
        "response.created",
    ),
    event(
        {"type": "response.output_text.delta", "sequence_number": 1, "delta": "hi"},
        "response.output_text.delta",
    ),
    event(
        {
            "type": "response.completed",
            "sequence_number": 2,
            "response": {
                "id": "r",
                "usage": {"input_tokens": 10, "output_tokens": 2, "total_tokens": 12},
            },
        },
        "response.completed",
    ),
]
MESSAGES_STREAM: Final = [
    event(
        {
            "type": "message_start",
            "message": {"id": "m", "usage": {"input_tokens": 10, "output_tokens": 1}},
        },
        "message_start",
    ),
    event(
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "hi"}},
        "content_block_delta",
    ),
    event(
        {
            "type": "message_delta",
            "delta": {"stop_reason": "end_turn"},
            "usage": {"output_tokens": 2},
        },
        "message_delta",
    ),
    event({"type": "message_stop"}, "message_stop"),
]


# What clients say

CHAT: Final[dict[str, Any]] = {"model": "m", "messages": [{"role": "user", "content": "hello"}]}
STREAM: Final[dict[str, Any]] = CHAT | {"stream": True}
WITH_USAGE: Final[dict[str, Any]] = STREAM | {"stream_options": {"include_usage": True}}
RESPONSES_ASK: Final[dict[str, Any]] = {"model": "m", "input": "hello", "stream": True}
MESSAGES_ASK: Final[dict[str, Any]] = {
    "model": "m",
    "max_tokens": 9,
    "stream": True,
    "messages": [{"role": "user", "content": "hello"}],
}


def post(
    payload: Any,
    path: str = "/v1/chat/completions",
    *,
    headers: str = "",
    version: str = "1.1",
) -> bytes:
    """A POST request as bytes; ``payload`` bytes are the body, anything else becomes JSON."""
    body = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
    head = (
        f"POST {path} HTTP/{version}\r\nHost: test\r\nContent-Type: application/json\r\n{headers}"
    )
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


def get(path: str, *, method: str = "GET", headers: str = "", version: str = "1.1") -> bytes:
    return f"{method} {path} HTTP/{version}\r\nHost: test\r\n{headers}\r\n".encode()
