"""What the scripted back end says and how it counts: tokens, sentences, JSON that fits a schema.

A token is a run of up to six letters or digits with the blank before it, a run of white space, or
any other single character. No model counts like this; it is simple, exact, and the same everywhere.
"""

import re
import zlib
from collections.abc import Iterator
from typing import Any, Final

_TOKEN: Final = re.compile(r" ?\w{1,6}|\s+|[^\w\s]")

_SENTENCES: Final = (
    " A cocoon is one thread, wound some three hundred thousand times around a sleeping moth.",
    (
        " The reeler puts a handful of cocoons into warm water, finds their ends with a small brush "
        "and draws them through an eye, so that many weak filaments run together as one strong thread."
    ),
    " When one of them breaks, another takes its place before the thread grows thin.",
    ' Nobody who wears the cloth can tell where that was: "soie grège", the French call it.',
    " A good filature loses little: what cannot be reeled is carded and spun — 真綿 in Japan.",
    " Water at 60 °C is too cold, at 95 °C too hot; the craft is in between 🧵.",
    (
        " The ledger was kept by weight: so many kilos of cocoons in, so many of silk out,\n"
        "and the difference had to be explained at the end of each day."
    ),
)
"""Its own words, with letters beyond ASCII, an emoji, quotes and line ends among them."""


def tokens_of(text: str) -> list[str]:
    """The tokens of ``text``; joined they are ``text`` again."""
    return _TOKEN.findall(text)


def count_tokens(text: str) -> int:
    return len(_TOKEN.findall(text))


class Corpus:
    """The tokens of the sentences, to be read on from any of their beginnings, round and round."""

    def __init__(self) -> None:
        self._tokens: list[str] = []
        self._beginnings: list[int] = []
        for sentence in _SENTENCES:
            self._beginnings.append(len(self._tokens))
            self._tokens.extend(tokens_of(sentence))

    def passage(self, seed: int, count: int | None) -> list[str]:
        """``count`` tokens that depend on ``seed`` alone; None: two sentences."""
        which = seed % len(self._beginnings)
        start = self._beginnings[which]
        if count is None:
            after = self._beginnings[(which + 2) % len(self._beginnings)]
            count = (after - start) % len(self._tokens)
        rounds = (start + count) // len(self._tokens) + 1
        passage = (self._tokens * rounds)[start : start + count]
        if passage:
            passage[0] = passage[0].lstrip()
        return passage


def seed_of(*parts: object) -> int:
    """A number that depends on the parts alone, in this process and any other."""
    return zlib.crc32("\x1f".join(map(str, parts)).encode("utf-8", "replace"))


SCHEMA_DEPTH_MAX: Final = 16
"""Deeper levels become null: a schema may refer to itself."""


def example_of(schema: Any, words: Iterator[str], root: Any = None, depth: int = 0) -> Any:
    """A value that fits a JSON schema, as far as type, const, enum, default, $ref and the first of
    anyOf/oneOf/allOf say; ``words`` are what strings are made of."""
    if not isinstance(schema, dict) or depth > SCHEMA_DEPTH_MAX:
        return None
    root = schema if root is None else root
    for key in ("const", "default"):
        if key in schema:
            return schema[key]
    if isinstance(choices := schema.get("enum"), list) and choices:
        return choices[0]
    if isinstance(reference := schema.get("$ref"), str):
        return example_of(_resolve(reference, root), words, root, depth + 1)
    for key in ("anyOf", "oneOf", "allOf"):
        if isinstance(options := schema.get(key), list) and options:
            return example_of(options[0], words, root, depth + 1)
    kind = schema.get("type")
    kind = kind[0] if isinstance(kind, list) and kind else kind
    if kind == "object" or (kind is None and "properties" in schema):
        properties = schema.get("properties")
        if not isinstance(properties, dict):
            return {}
        return {name: example_of(s, words, root, depth + 1) for name, s in properties.items()}
    if kind == "array":
        count = schema.get("minItems", 1)
        count = min(count, 8) if isinstance(count, int) else 1
        return [example_of(schema.get("items", {}), words, root, depth + 1) for _ in range(count)]
    number = schema.get("minimum", 1)
    scalars: dict[Any, Any] = {"integer": number, "number": number, "boolean": True, "null": None}
    return scalars[kind] if kind in scalars else next(words)


def _resolve(reference: str, root: Any) -> Any:
    found = root
    for part in reference.removeprefix("#").strip("/").split("/"):
        found = found.get(part) if part and isinstance(found, dict) else found
    return found
