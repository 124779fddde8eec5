"""``filature postprocess --selftest``: three known answers, what comes out of them, and a verdict."""

import io
import json
import sys
from typing import Any, Final

from filature.cli.seed_terms import (
    MULTIPLIER_ONE,
    Api,
    Multipliers,
    policy_of,
    process,
    tariff_of,
    usage_line,
)

_TEXT: Final = ("The ", "silk ", "is ", "reeled ", "into ", "one ", "thread.")
_USAGE: Final = {
    "prompt_tokens": 14,
    "completion_tokens": 7,
    "total_tokens": 21,
    "prompt_tokens_details": {"cached_tokens": 3},
}
_EXPECTED: Final = "usage: prompt=11 cached=3 completion=7 reasoning=0 total=21"
_PRICE_PER_TOKEN: Final = 100
_TOTAL_COST: Final = 2100
_COST_KEYS: Final = ("prompt_total_cost", "completion_total_cost", "total_cost", "cost")


def run() -> int:
    """Print each scenario's payload, usage and verdict; the exit status: 1 on a bug."""
    stream = _stream()
    scenarios = {
        "sse_whole_events": [event + b"\n\n" for event in stream.split(b"\n\n") if event],
        "sse_byte_split": [bytes([byte]) for byte in stream],
        "raw_json_non_stream": [_document()],
    }
    return max(_scenario(name, pieces) for name, pieces in scenarios.items())


def _scenario(name: str, pieces: list[bytes]) -> int:
    ones = Multipliers(MULTIPLIER_ONE, MULTIPLIER_ONE, MULTIPLIER_ONE, MULTIPLIER_ONE)
    sink = io.BytesIO()
    policy = policy_of(tariff_of(_PRICE_PER_TOKEN, ones, 1000), as_requested=False)
    usage, unprocessed = process(pieces, sink, Api.CHAT, policy)
    payload = sink.getvalue()
    line = usage_line(usage, ones, 1000)
    why = _what_is_wrong(b"".join(pieces), payload, line, unprocessed)
    sys.stdout.write(f"=== forwarded payload ({len(payload)} bytes) ===\n")
    sys.stdout.write(payload.decode())
    end = "" if payload.endswith(b"\n") else "\n"
    sys.stdout.write(f"{end}=== end ===\n{line}\n")
    sys.stdout.write(f"[BUG] {name}: {why}\n" if why else f"[OK] {name}\n")
    return 1 if why else 0


def _what_is_wrong(sent: bytes, payload: bytes, line: str, unprocessed: int) -> str:
    """Why the outcome is a bug; empty if it is none."""
    if unprocessed:
        return f"{unprocessed} bytes were not processed"
    if line != _EXPECTED:
        return f"expected {_EXPECTED!r}"
    before, after = _payloads(sent), _payloads(payload)
    priced = [_without_cost(each) for each in after]
    if priced != before:
        return "the content changed"
    costs = [each["usage"]["total_cost"] for each in after if each.get("usage")]
    if costs != [_TOTAL_COST]:
        return f"total_cost is {costs} instead of [{_TOTAL_COST}]"
    return ""


def _payloads(data: bytes) -> list[Any]:
    """The JSON values in a stream or a document, ``[DONE]`` as a string among them."""
    if not data.startswith(b"data:"):
        return [json.loads(data)]
    lines = [line[5:].strip() for line in data.split(b"\n") if line.startswith(b"data:")]
    return [json.loads(line) if line != b"[DONE]" else {"done": True} for line in lines]


def _without_cost(payload: Any) -> Any:
    usage = payload.get("usage")
    if not usage:
        return payload
    return payload | {"usage": {k: v for k, v in usage.items() if k not in _COST_KEYS}}


def _stream() -> bytes:
    """A chat stream in vLLM's form, with a usage chunk at its end."""
    head = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "silk"}
    events: list[dict[str, Any]] = [
        head | {"choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}}]}
    ]
    for position, text in enumerate(_TEXT):
        finish = "stop" if position == len(_TEXT) - 1 else None
        choice = {"index": 0, "delta": {"content": text}, "finish_reason": finish}
        events.append(head | {"choices": [choice]})
    events.append(head | {"choices": [], "usage": _USAGE})
    lines = [f"data: {json.dumps(event, separators=(',', ':'))}\n\n" for event in events]
    return "".join([*lines, "data: [DONE]\n\n"]).encode()


def _document() -> bytes:
    """The same answer, not streamed."""
    message = {"role": "assistant", "content": "".join(_TEXT)}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    document = {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": "silk",
        "choices": [choice],
        "usage": _USAGE,
    }
    return json.dumps(document, separators=(",", ":")).encode()
