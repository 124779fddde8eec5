"""Concatenated JSON documents as bytes: where one ends, and what it says. It never rewrites one.

Documents follow each other with or without white space between them (newline-delimited JSON is
one case). The scan is linear however the input is cut: a byte is looked at once.
"""

import json
import re
from dataclasses import dataclass
from typing import Final

import orjson

DOCUMENT_BYTES_MAX: Final = 128 * 1024 * 1024
"""No document is kept beyond this: an embedding batch is large."""

PARSED_BYTES_MAX: Final = 2 * 1024 * 1024
"""A larger document is not turned into objects, which would take many times its size."""

_loads: Final = orjson.loads  # a module's attributes are looked up at each use
_KEYS_MAX: Final = 256  # of the top-level strings remembered for a document
_SPACES: Final = re.compile(rb"[ \t\r\n]*+")
_STRUCTURE: Final = re.compile(rb'["{}\[\]]')
_STRING_REST: Final = re.compile(rb'[^"\\]*+(?:\\.[^"\\]*+)*+', re.DOTALL)
_SCALAR: Final = re.compile(rb'[^ \t\r\n{}\[\]",:]*+')
_QUOTE: Final = 0x22


class NotJson(Exception):
    """The bytes are not a JSON document.

    ``documents`` are the whole ones before them; ``rest`` is everything that was not handed out.
    """

    def __init__(self, documents: "list[Document]", rest: bytes) -> None:
        super().__init__("not JSON")
        self.documents = documents
        self.rest = rest


class DocumentTooLarge(NotJson):
    """A document is above ``DOCUMENT_BYTES_MAX``."""


@dataclass(slots=True)
class Document:
    """One document as it came."""

    space: bytes
    """The white space before it."""
    text: bytes
    strings: list[tuple[int, int]]
    """Where the first strings directly inside it (keys, mostly) stand, quotes included."""

    # spelt out, for the __init__ that a dataclass makes is not compiled
    def __init__(self, space: bytes, text: bytes, strings: list[tuple[int, int]]) -> None:
        self.space = space
        self.text = text
        self.strings = strings


def parse_json(text: bytes) -> object:
    """The value of one JSON document. Raises ValueError.

    What orjson refuses and other parsers take (lone surrogates, NaN) is for the standard library
    to decide.
    """
    try:
        return _loads(text)
    except orjson.JSONDecodeError:
        pass
    try:
        return json.loads(text.decode())
    except RecursionError as error:
        raise ValueError("too deeply nested") from error


def dump_json(value: object) -> bytes:
    """A value that ``parse_json`` returned as text; characters that UTF-8 has no place for become ``?``."""
    try:
        return orjson.dumps(value)
    except TypeError:
        pass
    try:
        return json.dumps(value, ensure_ascii=False).encode("utf-8", "replace")
    except RecursionError:
        return b'"(too deeply nested)"'


class DocumentSplitter:
    """Cuts a stream of bytes into JSON documents. Keeps at most one unfinished document.

    That brackets and quotes match is all it knows: whether a document is valid its reader finds
    out.
    """

    __slots__ = (
        "_depth",
        "_document_bytes_max",
        "_in_string",
        "_kept",
        "_position",
        "_start",
        "_strings",
    )

    def __init__(self, document_bytes_max: int = DOCUMENT_BYTES_MAX) -> None:
        self._kept = bytearray()
        self._start = 0  # everything before it is white space
        self._position = 0  # everything before it was looked at
        self._depth = 0
        self._in_string = False
        self._strings: list[tuple[int, int]] = []
        self._document_bytes_max = document_bytes_max

    @property
    def kept_bytes(self) -> int:
        """The size of the unfinished document, with the white space before it."""
        return len(self._kept)

    def split(self, data: bytes) -> list[Document]:
        """The documents that ``data`` completes.

        Raises NotJson where something stands that cannot begin or end a document, and
        DocumentTooLarge; the splitter is then spent.
        """
        self._kept += data
        documents: list[Document] = []
        while self._advance(documents, at_end=False):
            pass
        if len(self._kept) > self._document_bytes_max:
            raise DocumentTooLarge(documents, self.take_rest())
        return documents

    def finish(self) -> list[Document]:
        """The document that only the end of the input completes (a number, say), if any."""
        documents: list[Document] = []
        self._advance(documents, at_end=True)
        return documents

    def take_space(self) -> bytes:
        """White space that is kept before whatever comes next, which is then forgotten."""
        start = self._start
        space = bytes(self._kept[:start])
        del self._kept[:start]
        self._position = max(0, self._position - start)
        self._strings = [(at - start, end and end - start) for at, end in self._strings]
        self._start = 0
        return space

    def take_rest(self) -> bytes:
        """Everything not handed out, which is then forgotten."""
        rest = bytes(self._kept)
        self._kept = bytearray()
        return rest

    def _advance(self, documents: list[Document], *, at_end: bool) -> bool:
        """Look on; True if a document ended."""
        kept = self._kept
        if self._depth == 0 and not self._in_string:
            spaces = _SPACES.match(kept, self._start)
            self._start = start = spaces.end() if spaces else 0
            if start == len(kept):
                return False
            first = kept[start]
            if first in b"{[":
                self._depth = 1
                self._position = start + 1
            elif first == _QUOTE:
                self._in_string = True
                self._strings.append((start, 0))
                self._position = start + 1
            else:
                return self._scalar(documents, start, at_end=at_end)
        end = self._end_of_document()
        if end is None:
            return False
        self._cut(documents, end)
        return True

    def _scalar(self, documents: list[Document], start: int, *, at_end: bool) -> bool:
        found = _SCALAR.match(self._kept, max(start, self._position))
        end = found.end() if found else start
        if end == start:
            raise NotJson(documents, self.take_rest())
        if end == len(self._kept) and not at_end:
            self._position = end
            return False
        self._cut(documents, end)
        return True

    def _end_of_document(self) -> int | None:
        """The offset behind the document's last byte; None if that has not come yet."""
        kept = self._kept
        position = self._position
        while True:
            if self._in_string:
                rest = _STRING_REST.match(kept, position)
                position = rest.end() if rest else position
                if position == len(kept) or kept[position] != _QUOTE:
                    break  # its end has not come, or what a last backslash escapes
                position += 1
                self._in_string = False
                if self._depth <= 1 and self._strings and self._strings[-1][1] == 0:
                    self._strings[-1] = (self._strings[-1][0], position)
                if self._depth == 0:
                    return position
            found = _STRUCTURE.search(kept, position)
            if found is None:
                position = len(kept)
                break
            position = found.end()
            mark = kept[position - 1]
            if mark == _QUOTE:
                self._in_string = True
                if self._depth == 1 and len(self._strings) < _KEYS_MAX:
                    self._strings.append((position - 1, 0))
            elif mark in b"{[":
                self._depth += 1
            else:
                self._depth -= 1
                if self._depth == 0:
                    return position
        self._position = position
        return None

    def _cut(self, documents: list[Document], end: int) -> None:
        space = self._start
        strings = [(start - space, stop - space) for start, stop in self._strings]
        text = bytes(self._kept[space:end])
        documents.append(Document(bytes(self._kept[:space]), text, strings))
        del self._kept[:end]
        self._start = self._position = 0
        self._depth = 0
        self._strings = []
