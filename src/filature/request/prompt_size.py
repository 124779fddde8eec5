"""How large the prompt of a request is: what bounds it, and what an estimate of its tokens is made of.

No tokenizer: bytes of text, parts that are not text, and ids of prompts given as such.
"""

import json
from typing import Any, Final, NamedTuple
from unicodedata import normalize

import orjson

from filature.wire.dialect import Dialect

BYTES_PER_ID: Final = 4
"""Bytes of text that one token stands for, where no text was counted."""

_MEDIA: Final = frozenset(
    {
        "audio",
        "audio_url",
        "computer_screenshot",
        "container_upload",
        "document",
        "file",
        "image",
        "image_embeds",
        "image_file",
        "image_generation_call",
        "image_url",
        "input_audio",
        "input_file",
        "input_image",
        "input_video",
        "video",
        "video_url",
    }
)
"""Types of parts that are not text; where a part has no type, the member that it has instead."""
_NESTED: Final = frozenset({"content", "summary", "output"})
"""Members that hold text or parts again."""
_UNREAD: Final = frozenset({"type", "role", "id", "status", "cache_control", "signature", "phase"})
"""Members whose value no template puts into a prompt, or that stand for few tokens of it. ``encrypted_content``
is none of them: Ollama reads it as it is."""
_ROLES: Final = frozenset({"user", "assistant", "system", "developer", "tool", "function"})
"""Those that stand for few; templates write any other as it is."""

_TEXT: Final[dict[Dialect, tuple[str, ...]]] = {
    Dialect.CHAT: ("messages",),
    Dialect.COMPLETIONS: ("suffix",),
    Dialect.EMBEDDINGS: ("messages",),
    Dialect.RESPONSES: ("instructions", "input"),
    Dialect.MESSAGES: ("system", "messages"),
    Dialect.COUNT_TOKENS: ("system", "messages"),
}
"""Fields that hold text, parts, or items with text and parts in them."""
_PROMPTS: Final[dict[Dialect, tuple[str, ...]]] = {
    Dialect.COMPLETIONS: ("prompt",),
    Dialect.EMBEDDINGS: ("input",),
}
_SCHEMAS: Final[dict[Dialect, tuple[str, ...]]] = {
    Dialect.CHAT: ("tools", "functions", "response_format"),
    Dialect.RESPONSES: ("tools", "text"),
    Dialect.MESSAGES: ("tools", "output_config"),
    Dialect.COUNT_TOKENS: ("tools", "output_config"),
}
"""Fields that templates write into a prompt as JSON."""
_FOR_TEMPLATES: Final = ("documents", "chat_template_kwargs")
"""The same, of engines' own, which take them in every dialect with a template."""


class PromptSize(NamedTuple):
    """UTF-8 bytes of text, tool and schema fields; parts that are not text; token ids; and tokens of the spaces and
    lines that a template may lay JSON out with."""

    text_bytes: int
    media_parts: int
    ids: int
    layout_tokens: int


def measure_prompt(dialect: Dialect, fields: dict[str, Any]) -> PromptSize:
    """``fields`` are those of a request that passed validation; nothing here raises on them."""
    meter = _Meter()
    for name in _TEXT[dialect]:
        meter.add_content(fields.get(name))
    for name in _PROMPTS.get(dialect, ()):
        meter.add_prompts(fields.get(name))
    for name in _SCHEMAS.get(dialect, ()) + _FOR_TEMPLATES:
        if fields.get(name):
            meter.add_json(fields[name])
    return PromptSize(meter.text_bytes, meter.media_parts, meter.ids, meter.layout_tokens)


class _Meter:
    __slots__ = ("ids", "layout_tokens", "media_parts", "text_bytes")

    def __init__(self) -> None:
        self.text_bytes = 0
        self.media_parts = 0
        self.ids = 0
        self.layout_tokens = 0

    def add_text(self, text: str) -> None:
        self.text_bytes += len(text) if text.isascii() else _read_bytes(text)

    def add_json(self, value: Any) -> None:
        try:
            compact = orjson.dumps(value)
        except orjson.JSONEncodeError:  # an unpaired surrogate
            text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
            compact = text.encode("utf-8", "surrogatepass")
        self.layout_tokens += _layout_tokens(compact)
        if compact.isascii():
            self.text_bytes += len(compact)
        else:
            self.add_text(compact.decode("utf-8", "surrogatepass"))

    def add_content(self, content: Any) -> None:
        """Text, an item, or an array of either."""
        if type(content) is str:
            self.add_text(content)
        elif type(content) is list:
            for item in content:
                self.add_content(item)
        elif type(content) is dict:
            self._add_item(content)
        elif content is not None:
            self.add_json(content)

    def _add_item(self, item: dict[str, Any]) -> None:
        """A message, a part of one, or an item of Responses' input."""
        kind = item.get("type")
        if kind in _MEDIA or (kind is None and not _MEDIA.isdisjoint(item)):
            self._add_media(item)
            if "role" not in item:
                return  # else a message, whose content is read whatever stands beside it
        for name, value in item.items():
            if type(value) is str:
                if name == "arguments":  # JSON, which templates write anew
                    self.add_text(value)
                    self.layout_tokens += _layout_tokens(value.encode("utf-8", "surrogatepass"))
                elif name not in _UNREAD or _is_read(name, value, kind):
                    self.add_text(value)
            elif name in _NESTED:
                self.add_content(value)
            elif (
                (type(value) is dict or type(value) is list)
                and name not in _UNREAD
                and name not in _MEDIA
            ):
                self.add_json(value)

    def _add_media(self, part: dict[str, Any]) -> None:
        """An Anthropic document may be text; all else counts as one part whatever its size."""
        source = part.get("source")
        if part.get("type") == "document" and type(source) is dict:
            for name in ("title", "context"):
                self.add_content(part.get(name))
            if source.get("type") == "text":
                self.add_content(source.get("data"))
                return
            if source.get("type") == "content":
                self.add_content(source.get("content"))
                return
        self.media_parts += 1

    def add_prompts(self, prompts: Any) -> None:
        """A completions prompt or an embeddings input: text, token ids, or an array of those."""
        if type(prompts) is list and prompts and set(map(type, prompts)) == {int}:
            self.ids += len(prompts)
        elif type(prompts) is list:
            for prompt in prompts:
                self.add_prompts(prompt)
        elif type(prompts) is int:
            self.ids += 1
        else:
            self.add_content(prompts)


def _is_read(name: str, value: str, kind: Any) -> bool:
    """Whether a member of _UNREAD is written into a prompt all the same."""
    if name == "role":
        return value not in _ROLES
    return name == "id" and kind == "tool_use"  # a tool call's, which some templates show


def _read_bytes(text: str) -> int:
    """UTF-8 bytes that a tokenizer reads: many compose a text first, by which some characters get longer."""
    size = len(text.encode("utf-8", "surrogatepass"))
    composed = normalize("NFC", text)
    return size if composed is text else max(size, len(composed.encode("utf-8", "surrogatepass")))


def _layout_tokens(compact: bytes) -> int:
    """Of JSON without white space: at each break a line's end, an indentation and a space by itself; a space behind
    each colon."""
    count = compact.count
    breaks = count(b",") + count(b"[") + count(b"]") + count(b"{") + count(b"}")
    return 3 * breaks + count(b":")
