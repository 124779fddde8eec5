"""Short ways to write an engine's answer and to put it through."""

from typing import Any

import orjson

from filature.answer.policy import AnswerPolicy
from filature.answer.postprocessor import AnswerPostprocessor
from filature.answer.pricing import Tariff
from filature.wire.dialect import Dialect

TARIFF = Tariff(prompt=1_000_000, cached=100_000, completion=2_000_000, reasoning=3_000_000)
"""One nano-credit per prompt token, a tenth per cached one, two per completion, three per reasoning."""

HEAD = {"id": "c-1", "object": "chat.completion.chunk", "created": 7, "model": "up"}
USAGE = {
    "prompt_tokens": 14,
    "completion_tokens": 7,
    "total_tokens": 21,
    "prompt_tokens_details": {"cached_tokens": 3},
}
COSTS = {
    "prompt_total_cost": 12,  # 11 × 1 + 3 × 0.1, rounded up
    "completion_total_cost": 14,
    "total_cost": 26,
    "cost": 0.000000026,
}
"""Of ``USAGE``, as members of a usage object."""
DONE = b"data: [DONE]\n\n"
FORWARDED = AnswerPolicy(tariff=TARIFF, errors="pass")
STRIPPED = AnswerPolicy(strip=True, tariff=TARIFF)
ASKED = AnswerPolicy(strip=True, include_usage=True, tariff=TARIFF)
HELD = AnswerPolicy(strip=True, hold_until_content=True, tariff=TARIFF)


def event(payload: Any, name: str = "") -> bytes:
    """One event as an engine writes it."""
    line = f"event: {name}\n".encode() if name else b""
    return line + b"data: " + orjson.dumps(payload) + b"\n\n"


def chunk(
    text: str | None = None, *, index: int = 0, finish: str | None = None, **more: Any
) -> bytes:
    """A chat chunk with one choice."""
    delta = {} if text is None else {"content": text}
    choice = {"index": index, "delta": delta, "finish_reason": finish}
    return event(HEAD | {"choices": [choice]} | more)


def role(index: int = 0) -> bytes:
    """The chunk that an answer begins with."""
    choice = {"index": index, "delta": {"role": "assistant", "content": ""}, "finish_reason": None}
    return event(HEAD | {"choices": [choice]})


def usage_chunk(usage: Any = USAGE, **more: Any) -> bytes:
    """The chunk with no choices."""
    return event(HEAD | {"choices": [], "usage": usage} | more)


def postprocessor(
    policy: AnswerPolicy = STRIPPED, dialect: Dialect = Dialect.CHAT, **asked: Any
) -> AnswerPostprocessor:
    return AnswerPostprocessor(dialect, policy, **asked)


def payloads(out: bytes) -> list[Any]:
    """What the events say."""
    lines = [line[6:] for line in out.split(b"\n") if line.startswith(b"data: ")]
    return [line.decode() if line == b"[DONE]" else orjson.loads(line) for line in lines]
