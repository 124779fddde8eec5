"""Recognises the next text event of a stream without parsing it. It only ever says yes when sure.

Engines send hundreds of events that differ in one string, and perhaps in a usage record. From an
event that was parsed a template keeps the bytes around the string; an event that has the same
bytes there, and a JSON string of its own between them, says the same thing with another text. No
member can hide in it: everything but the string, and the record, is known byte for byte.
"""

import re
from typing import Final

import orjson

from filature.answer.edits import find_usage
from filature.answer.observer import AnswerObserver

_loads: Final = orjson.loads  # a module's attributes are looked up at each use
_STRING: Final = re.compile(rb'"[^"\\\r\n]*+(?:\\.[^"\\\r\n]*+)*+"')
_COMMA: Final = 0x2C
_LF: Final = 0x0A
_CR: Final = 0x0D
_SPACE: Final = 0x20
_BACKSLASH: Final = 0x5C
_ZERO: Final = 0x30
_DIGITS_MAX: Final = 9
"""Of a count of tokens: what has more goes through the parser, and is not believed."""


class RunningRecord:
    """The bytes around the numbers that grow in a stream's records: the completion's tokens, and the
    total if that is told."""

    __slots__ = ("_before", "_behind", "_between", "_completion_first", "_last")

    def __init__(
        self, before: bytes, between: bytes, behind: bytes, last: bytes, *, completion_first: bool
    ) -> None:
        """``before`` number ``between`` number ``behind``; without ``between`` there is one number.
        ``last`` are the digits of the completion."""
        self._before = before
        self._between = between
        self._behind = behind
        self._completion_first = completion_first
        self._last = last

    def goes_on(self, record: bytes) -> bool:
        """Whether a record says what the last one did, and no less of the completion."""
        if not record.startswith(self._before) or not record.endswith(self._behind):
            return False
        numbers = record[len(self._before) : len(record) - len(self._behind)]
        completion = numbers
        if self._between:
            first, _, second = numbers.partition(self._between)
            if not _is_number(first) or not _is_number(second):
                return False
            completion = first if self._completion_first else second
        elif not _is_number(numbers):
            return False
        last = self._last
        size = len(completion) - len(last)
        if size < 0 or (size == 0 and completion < last):
            return False
        self._last = completion
        return True


class Template:
    """The bytes around the text of one kind of event."""

    __slots__ = (
        "_closing",
        "_framing",
        "_joint",
        "_new_prefix",
        "_new_suffix",
        "_opening",
        "_prefix",
        "_running",
        "_tail",
    )

    def __init__(
        self,
        prefix: bytes,
        joint: bytes,
        tail: bytes,
        new_prefix: bytes,
        new_suffix: bytes,
        framing: int,
        running: RunningRecord | None = None,
    ) -> None:
        """``prefix`` text ``joint`` record ``tail``, the quotes belonging to the outer parts.

        Without a record, ``joint`` is empty and ``tail`` begins with the closing quote.
        ``new_prefix`` text ``new_suffix`` is what is handed out for it. ``framing``: bytes of the
        event that are not its payload. ``running``: how the record goes on, if that is known.
        """
        self._prefix = prefix
        self._running = running
        self._joint = joint
        self._tail = tail
        self._framing = framing
        self._opening = len(prefix) - 1
        self._closing = 1 - len(tail) if not joint else -len(tail)
        same = prefix == new_prefix and not joint and tail == new_suffix
        self._new_prefix = b"" if same else new_prefix
        self._new_suffix = new_suffix

    def apply(self, block: bytes, observer: AnswerObserver) -> bytes | None:
        """What to hand out for ``block``; None if the template does not fit it.

        Where nothing changes, ``block`` itself. The observer is told what was seen.
        """
        if not block.startswith(self._prefix) or not block.endswith(self._tail):
            return None
        if self._joint:
            return self._apply_with_record(block, observer)
        try:
            text = _loads(block[self._opening : self._closing])
        except orjson.JSONDecodeError:
            return None
        if not text:
            return None
        self._count(block, text, observer)
        if not self._new_prefix:
            return block
        text_as_written = block[self._opening + 1 : self._closing - 1]
        return b"%b%b%b" % (self._new_prefix, text_as_written, self._new_suffix)

    def _apply_with_record(self, block: bytes, observer: AnswerObserver) -> bytes | None:
        end = block.find(self._joint, self._opening + 1)
        if end < 0:
            return None
        told = block[end + len(self._joint) : self._closing]
        running = self._running
        record: object = None
        try:
            text = _loads(block[self._opening : end + 1])
            if running is None or not running.goes_on(told):
                record = _loads(told)
                if type(record) is not dict or _LF in told or _CR in told:
                    return None
        except orjson.JSONDecodeError:
            return None
        if not text:
            return None
        self._count(block, text, observer)
        if type(record) is dict:
            observer.recognised(record)
        else:
            observer.counted_on(told)
        return b"%b%b%b" % (self._new_prefix, block[self._opening + 1 : end], self._new_suffix)

    def _count(self, block: bytes, text: str, observer: AnswerObserver) -> None:
        observer.events += 1
        observer.payload_bytes += len(block) - self._framing
        meter = observer.meter
        meter.content_events += 1
        meter.content_bytes += len(text) if text.isascii() else len(text.encode())


def learn(
    block: bytes,
    data: bytes,
    written: bytes,
    new: bytes,
    start: int,
    leaf: tuple[str, str],
    *,
    stripped: bool,
) -> Template | None:
    """A template from an event that was parsed, or None where none is safe.

    ``data``, valid JSON, stands in ``block`` at ``start``, as one line; ``written`` with ``new`` there is what was
    handed out for it; ``leaf`` the only text in it; ``stripped``: a record was taken out, and nothing else was
    changed behind the text.
    """
    name = leaf[0].encode()
    old_text = _text(data, name, leaf[1])
    new_text = _text(new, name, leaf[1])
    if old_text is None or new_text is None:
        return None
    begin, end = start + old_text[0], start + old_text[1]
    prefix, suffix = block[: begin + 1], block[end - 1 :]
    new_prefix = written[: start + new_text[0] + 1]
    new_suffix = written[start + new_text[1] - 1 :]
    framing = len(block) - len(data)
    if not stripped:
        return Template(prefix, b"", suffix, new_prefix, new_suffix, framing)
    record = find_usage(data, ("usage",))
    if record is None or record.key_start < old_text[1] or data[record.key_start - 1] != _COMMA:
        return None
    told, told_end = start + record.value_start, start + record.value_end
    return Template(
        prefix,
        block[end - 1 : told],
        block[told_end:],
        new_prefix,
        new_suffix,
        framing,
        _running(block[told:told_end]),
    )


def _running(record: bytes) -> RunningRecord | None:
    """How a record goes on that has its completion's tokens, and perhaps the total, once."""
    try:
        told = _loads(record)
    except orjson.JSONDecodeError:  # what the second opinion takes: half of a surrogate pair, a NaN
        return None
    completion = _number(record, b'"completion_tokens":', told.get("completion_tokens"))
    if completion is None:
        return None
    start, end = completion
    digits = record[start:end]
    if "total_tokens" not in told:
        return RunningRecord(record[:start], b"", record[end:], digits, completion_first=True)
    total = _number(record, b'"total_tokens":', told["total_tokens"])
    if total is None:
        return None
    first, second = (completion, total) if start < total[0] else (total, completion)
    return RunningRecord(
        record[: first[0]],
        record[first[1] : second[0]],
        record[second[1] :],
        digits,
        completion_first=first is completion,
    )


def _number(record: bytes, key: bytes, value: object) -> tuple[int, int] | None:
    """Where a member's number stands; None if that is not certain."""
    start = record.find(key) + len(key)
    if type(value) is not int or record.count(key) != 1 or _BACKSLASH in record:
        return None
    while record[start] == _SPACE:
        start += 1
    digits = b"%d" % value
    end = start + len(digits)
    return (start, end) if _is_number(digits) and record[start:end] == digits else None


def _is_number(digits: bytes) -> bool:
    """Whether it is a count of tokens as JSON writes one, of a size that is believed."""
    return (
        digits.isdigit() and len(digits) <= _DIGITS_MAX and (digits[0] != _ZERO or len(digits) == 1)
    )


def _text(block: bytes, name: bytes, text: str) -> tuple[int, int] | None:
    """Where the member's string stands, quotes included; None if that is not certain."""
    for colon in (b'":', b'": '):
        key = b'"' + name + colon + b'"'
        if block.count(key) == 1:
            found = _STRING.match(block, block.index(key) + len(key) - 1)
            try:
                if found is not None and _loads(found.group()) == text:
                    return found.span()
            except orjson.JSONDecodeError:
                return None
    return None
