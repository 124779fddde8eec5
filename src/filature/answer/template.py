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
    ) -> None:
        """``prefix`` text ``joint`` record ``tail``, the quotes belonging to the outer parts.

        Without a record, ``joint`` is empty and ``tail`` begins with the closing quote.
        ``new_prefix`` text ``new_suffix`` is what is handed out for it. ``framing``: bytes of the
        event that are not its payload.
        """
        self._prefix = prefix
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
        record = None
        try:
            if self._joint:
                end = block.find(self._joint, self._opening + 1)
                if end < 0:
                    return None
                text = _loads(block[self._opening : end + 1])
                told = block[end + len(self._joint) : self._closing]
                record = _loads(told)
                if type(record) is not dict or told.find(b"\n") >= 0 or told.find(b"\r") >= 0:
                    return None
            else:
                text = _loads(block[self._opening : self._closing])
        except orjson.JSONDecodeError:
            return None
        if not text:
            return None
        observer.events += 1
        observer.payload_bytes += len(block) - self._framing
        meter = observer.meter
        meter.content_events += 1
        meter.content_bytes += len(text) if text.isascii() else len(text.encode())
        if record is not None:
            observer.recognised(record)
            return self._new_prefix + block[self._opening + 1 : end] + self._new_suffix
        if self._new_prefix:
            return (
                self._new_prefix + block[self._opening + 1 : self._closing - 1] + self._new_suffix
            )
        return block


def learn(
    block: bytes, new: bytes, leaf: tuple[str, str], framing: int, *, stripped: bool
) -> Template | None:
    """A template from an event that was parsed, or None where none is safe.

    ``new`` is what was handed out for ``block``; ``leaf`` the only text in it; ``framing``: bytes of
    it that are not its payload; ``stripped``: a record was taken out, and nothing else was changed
    behind the text.
    """
    name = leaf[0].encode()
    old_text = _text(block, name, leaf[1])
    new_text = _text(new, name, leaf[1])
    if old_text is None or new_text is None:
        return None
    start, end = old_text
    new_start, new_end = new_text
    prefix, suffix = block[: start + 1], block[end - 1 :]
    if not stripped:
        return Template(prefix, b"", suffix, new[: new_start + 1], new[new_end - 1 :], framing)
    record = find_usage(block, ("usage",))
    if record is None or record.key_start < end or block[record.key_start - 1] != _COMMA:
        return None
    return Template(
        prefix,
        block[end - 1 : record.value_start],
        block[record.value_end :],
        new[: new_start + 1],
        new[new_end - 1 :],
        framing,
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
