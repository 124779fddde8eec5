"""What an embeddings request may hold. Source: OpenAI API reference, "Create embeddings"."""

from typing import Any, Final

from filature.request.fields import MODEL, prompts
from filature.request.rules import DialectRules, integer, invalid, one_of, string

_NOT_JSON: Final = ("bytes", "bytes_only")
"""vLLM's, by which an answer is no document: its usage could not be read."""


def _encoding_format(value: Any, name: str) -> None:
    string(value, name)
    if value in _NOT_JSON:
        raise invalid(name, "float or base64, for answers are JSON here", value)


EMBEDDINGS: Final = DialectRules(
    required=(("model",), ("input", "messages")),  # the latter is vLLM's
    rules={
        "model": MODEL,
        "input": prompts,
        "dimensions": integer(1),
        "encoding_format": _encoding_format,
        "user": string,
    },
    strict_rules={"encoding_format": one_of("float", "base64")},
    streams=False,
    prompts=("input",),
)
