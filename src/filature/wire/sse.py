"""Server-sent events as blocks of bytes: where one ends and what it says. It never rewrites one.

The rules are those of WHATWG HTML 9.2.5 and 9.2.6. A *block* is everything up to and including
the blank line that ends an event, or a run of blank lines. Blocks joined give the input again,
and where they end does not depend on how the input was cut, with one exception that changes
nothing: a run of blank lines may come as several blocks.

Lines end in LF, CRLF or CR. A block that ends in CR is complete at the CR, so that no event waits
for a byte that may never come; if an LF follows, it belongs to that CR and is a block of its own
(a single LF right behind a block that ends in CR).
"""

import re
from dataclasses import dataclass
from typing import Final

EVENT_BYTES_MAX: Final = 16 * 1024 * 1024
"""No event is kept beyond this: one image or tool result fits, a runaway line does not."""

BOM: Final = b"\xef\xbb\xbf"

_BLOCK_END: Final = re.compile(rb"\n[\n\r]|\r(?:\r|\n[\n\r])")
_BLANK_LINES: Final = re.compile(rb"[\r\n]+")
_FIELD: Final = re.compile(
    rb"(?:\A|(?<=[\r\n]))(data|event|id)(?:: ?([^\r\n]*)|(?=[\r\n]|\Z))",
)
_LINE: Final = re.compile(rb"([^\r\n]*)(\r\n|\n|\r|\Z)")
_LINE_END: Final = re.compile(rb"\r\n|\n|\r")
_BLOCK_END_BYTES: Final = 3  # of the longest match of _BLOCK_END
_LINE_ENDS: Final = b"\r\n"
_LF: Final = 0x0A
_CR: Final = 0x0D  # looked for as a number: `in` with bytes is several times as slow


class EventTooLarge(Exception):
    """An event is above ``EVENT_BYTES_MAX``.

    ``blocks`` are the whole blocks before it; ``rest`` is everything that was not handed out.
    """

    def __init__(self, blocks: list[bytes], rest: bytes) -> None:
        super().__init__("event too large")
        self.blocks = blocks
        self.rest = rest


class EventSplitter:
    """Cuts a stream of bytes into blocks. Keeps at most one unfinished block."""

    __slots__ = ("_after_cr", "_event_bytes_max", "_kept")

    def __init__(self, event_bytes_max: int = EVENT_BYTES_MAX) -> None:
        self._kept = bytearray()
        self._after_cr = False
        self._event_bytes_max = event_bytes_max

    @property
    def kept_bytes(self) -> int:
        """The size of the unfinished block."""
        return len(self._kept)

    def split(self, data: bytes) -> list[bytes]:
        """The blocks that ``data`` completes. Raises EventTooLarge; the splitter is then spent."""
        if not self._kept:
            # nearly all streams: lines end in LF, which a byte search finds several times as fast
            plain = not self._after_cr and _CR not in data
            blocks, position = self._scan_plain(data) if plain else self._scan(data, 0)
            if position < len(data):
                self._kept += data[position:] if position else data
        else:
            # An end cannot begin earlier than this, or it had been found before.
            known = max(0, len(self._kept) - (_BLOCK_END_BYTES - 1))
            self._kept += data
            blocks, position = self._scan(self._kept, known)
            if position:
                del self._kept[:position]
        if len(self._kept) > self._event_bytes_max:
            raise EventTooLarge(blocks, self.take_rest())
        return blocks

    def take_rest(self) -> bytes:
        """The unfinished block, which is then forgotten."""
        rest = bytes(self._kept)
        self._kept = bytearray()
        return rest

    def _scan_plain(self, data: bytes) -> tuple[list[bytes], int]:
        """What ``_scan`` finds, in bytes without any CR."""
        blocks: list[bytes] = []
        position = 0
        while position < len(data):
            if data[position] == _LF:
                blank = _BLANK_LINES.match(data, position)
                end = blank.end() if blank else len(data)
            else:
                end = data.find(b"\n\n", position) + 2
                if end < 2:
                    break
                if end - position > self._event_bytes_max:
                    raise EventTooLarge(blocks, data[position:])
            blocks.append(data[position:end])
            position = end
        return blocks, position

    def _scan(self, text: bytes | bytearray, known: int) -> tuple[list[bytes], int]:
        """The whole blocks in ``text`` and where they end.

        No block ends before ``known`` + 2.
        """
        blocks: list[bytes] = []
        position = 0
        length = len(text)
        while position < length:
            first = text[position]
            if first in _LINE_ENDS:
                if first == _LF and self._after_cr:
                    end = position + 1
                else:
                    blank = _BLANK_LINES.match(text, position)
                    end = blank.end() if blank else length
            else:
                found = _BLOCK_END.search(text, max(position, known))
                if found is None:
                    break
                end = found.end()
                if end - position > self._event_bytes_max:
                    raise EventTooLarge(blocks, bytes(text[position:]))
            blocks.append(bytes(text[position:end]))
            self._after_cr = text[end - 1] == _CR
            position = end
        return blocks, position


@dataclass(slots=True)
class Event:
    """What one block says."""

    name: bytes
    """The ``event:`` field, empty where there is none."""
    data: bytes | None
    """The ``data:`` lines joined with LF; None where there is none: nothing is dispatched."""
    spans: list[tuple[int, int]]
    """Where the value of each ``data:`` line stands in the block."""
    last_id: bytes | None = None
    """The ``id:`` field; None where there is none: an earlier one goes on."""

    # spelt out, for the __init__ that a dataclass makes is not compiled
    def __init__(
        self,
        name: bytes,
        data: bytes | None,
        spans: list[tuple[int, int]],
        last_id: bytes | None = None,
    ) -> None:
        self.name = name
        self.data = data
        self.spans = spans
        self.last_id = last_id


def parse_event(block: bytes) -> Event:
    """Read one block. It may lack its blank line."""
    if block.startswith(b"data: ") and block.find(b"\n") == len(block) - 2 and _CR not in block:
        return Event(b"", block[6:-2], [(6, len(block) - 2)])
    name = b""
    last_id: bytes | None = None
    spans: list[tuple[int, int]] = []
    for field in _FIELD.finditer(block):
        value = field.group(2) or b""
        if field.group(1) == b"event":
            name = value
        elif field.group(1) == b"id":
            last_id = value
        else:
            spans.append(field.span(2) if field.group(2) is not None else (field.end(),) * 2)
    if not spans:
        return Event(name, None, spans, last_id)
    return Event(name, b"\n".join(block[start:end] for start, end in spans), spans, last_id)


def replace_data(block: bytes, event: Event, data: bytes) -> bytes:
    """The block with other data; every other line stays where it was.

    Where the event has several ``data:`` lines, the new data stands in the place of the first;
    line ends in it become ``data:`` lines of their own.
    """
    start, end = event.spans[0]
    if len(event.spans) == 1 and end > start and b"\n" not in data and b"\r" not in data:
        return block[:start] + data + block[end:]
    values = [value for value, _ in event.spans]
    passed = 0
    lines: list[bytes] = []
    for line in _LINE.finditer(block):
        if line.end() <= line.start():
            continue
        if passed == len(values) or values[passed] > line.end(1):
            lines.append(line.group())
            continue
        if passed == 0:
            lines += [b"data: " + part + line.group(2) for part in _LINE_END.split(data)]
        passed += 1
    for number in range(1, len(lines)):
        if lines[number].startswith(b"\n") and lines[number - 1].endswith(b"\r"):
            lines[number - 1] += (
                b"\n"  # or both would be one line end: what stood between them is gone
            )
    return b"".join(lines)


def terminate(tail: bytes) -> bytes:
    """An unterminated block with the blank line it lacks, in its own style of line ends."""
    for end in (b"\r\n", b"\n", b"\r"):
        if tail.endswith(end):
            return tail + end
    for end in (b"\r\n", b"\n", b"\r"):
        if end in tail:
            return tail + end * 2
    return tail + b"\n\n"
