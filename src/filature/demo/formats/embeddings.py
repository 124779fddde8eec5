"""Embeddings: deterministic vectors of length one, as numbers or base64."""

import base64
import math
import random
from array import array
from typing import Any, Final

import orjson

from filature.demo.formats.base import Reply
from filature.demo.text import seed_of

DIMENSIONS: Final = 64


def vector_of(text: str, dimensions: int) -> list[float]:
    """The same text always has the same vector."""
    generator = random.Random(seed_of(text))  # noqa: S311  # repeatable, not secret
    values = [generator.uniform(-1.0, 1.0) for _ in range(dimensions)]
    length = math.sqrt(math.fsum(value * value for value in values)) or 1.0
    return [value / length for value in values]


def embeddings_document(reply: Reply) -> bytes:
    body = reply.question.body
    as_base64 = body.get("encoding_format") == "base64"
    dimensions = body.get("dimensions") or DIMENSIONS
    data: list[dict[str, Any]] = []
    for index, text in enumerate(reply.question.prompts):
        vector: Any = vector_of(text, dimensions)
        if as_base64:
            vector = base64.b64encode(array("f", vector).tobytes()).decode()
        data.append({"index": index, "object": "embedding", "embedding": vector})
    document: dict[str, Any] = {
        "id": f"embd-{reply.id}",
        "object": "list",
        "created": reply.created,
        "model": reply.model,
        "data": data,
    }
    if reply.tells_usage:
        tokens = sum(reply.counts.prompt)
        document["usage"] = {
            "prompt_tokens": tokens,
            "total_tokens": tokens,
            "completion_tokens": 0,
            "prompt_tokens_details": None,
        }
    return orjson.dumps(document)
