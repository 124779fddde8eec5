"""What an embeddings request may hold. Source: OpenAI API reference, "Create embeddings"."""

from typing import Final

from filature.request.fields import MODEL, prompts
from filature.request.rules import DialectRules, integer, one_of, string

EMBEDDINGS: Final = DialectRules(
    required=(("model",), ("input", "messages")),  # the latter is vLLM's
    rules={
        "model": MODEL,
        "input": prompts,
        "dimensions": integer(1),
        "encoding_format": string,
        "user": string,
    },
    strict_rules={"encoding_format": one_of("float", "base64")},
    streams=False,
    prompts=("input",),
)
