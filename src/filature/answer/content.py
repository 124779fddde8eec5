"""What a payload says in words: text, reasoning and tool deltas, per dialect. It keeps no state.

Found are *leaves*: (member's name, text); a medium counts as one byte. Names and ids that no model
generated are left out.
"""

from typing import Final

from filature.wire.dialect import Dialect

Leaves = list[tuple[str, str]]

# bound once: a look-up in an enumeration costs a call of Python's
_MESSAGES: Final = Dialect.MESSAGES
_RESPONSES: Final = Dialect.RESPONSES

_NOT_TEXT: Final = frozenset(
    {
        "annotations",
        "call_id",
        "citation",
        "citations",
        "encrypted_content",
        "id",
        "index",
        "item_id",
        "logprobs",
        "object",
        "role",
        "signature",
        "status",
        "type",
    }
)
_MEDIA: Final = frozenset({"audio", "images", "image_url"})
"""Sounds and pictures: their bytes are no text, and tell nothing of how many tokens they were."""
_MEDIUM: Final = ("", ".")
"""In their place."""

_DEPTH_MAX: Final = 32
"""Text nested deeper is not looked for: tool results and parts of parts are a few levels deep."""


def collect(value: object, leaves: Leaves, name: str = "", depth: int = 0) -> None:
    """Append the non-empty strings in ``value``, at any depth that answers have, and a leaf for each medium."""
    if type(value) is str:
        if value:
            leaves.append((name, value))
    elif depth > _DEPTH_MAX:
        return
    elif type(value) is dict:
        for key, inner in value.items():
            if key in _MEDIA:
                _collect_media(inner, leaves)
            elif inner is not None and key not in _NOT_TEXT:
                collect(inner, leaves, key, depth + 1)
    elif type(value) is list:
        for inner in value:
            collect(inner, leaves, name, depth + 1)


def _collect_media(value: object, leaves: Leaves) -> None:
    """What was spoken, as text; and one leaf for what can be heard or seen."""
    media = value
    if type(value) is dict:
        collect(value.get("transcript"), leaves, "transcript")
        media = value.get("data") or value.get("url")
    if media:
        leaves.append(_MEDIUM)


def text_bytes(leaves: Leaves) -> int:
    """The size of the leaves in UTF-8."""
    size = 0
    for _, text in leaves:
        size += len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))
    return size


def choice_leaves(choice: dict[str, object]) -> Leaves:
    """The text in one entry of ``choices``: a chat delta or message, or a completion's text."""
    leaves: Leaves = []
    part = choice.get("delta")
    if part is None:
        part = choice.get("message")
    if part is not None:
        collect(part, leaves)
    text = choice.get("text")
    if text is not None:
        collect(text, leaves, "text")
    return leaves


def payload_leaves(dialect: Dialect, payload: dict[str, object]) -> Leaves:
    """The text in an event's payload or a whole document of a dialect without choices."""
    leaves: Leaves = []
    kind = payload.get("type")
    if dialect is _MESSAGES:
        if kind == "content_block_delta":
            collect(payload.get("delta"), leaves)
        elif kind == "content_block_start":
            collect(payload.get("content_block"), leaves)
        elif kind == "message":
            collect(payload.get("content"), leaves)
    elif dialect is _RESPONSES:
        if type(kind) is not str:
            collect(payload.get("output"), leaves)
        elif kind.endswith(".delta"):
            collect(payload.get("delta"), leaves, "delta")
        elif kind == "response.output_item.added":
            collect(payload.get("item"), leaves)
    return leaves
