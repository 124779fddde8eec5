"""What texts are alike: they have about as many tokens per byte, whatever the tokenizer.

Languages, scripts, numbers, indented code and long words differ by more than liars do, and all of a client's requests
may go to one worker: only like is compared with like.
"""

from bisect import bisect
from collections import Counter
from typing import Final

LOOKED_AT: Final = 4096
"""Characters from the beginning of a text."""
_SHARES: Final = (0.1, 0.25, 0.5)
"""Of characters that are no Latin letters; within each step prices per byte differ by less than twice."""
_SPACED: Final = 0.3
_WORD_LONG: Final = 24
_LETTER: Final = "a"
_SIGN: Final = "."


def likeness(text: str) -> str:
    """Equal for texts that are alike."""
    text = text[:LOOKED_AT]
    counts = Counter(map(_sort, text))
    spaces = counts.pop(" ", 0)
    visible = counts.total()
    if not visible:
        return ""
    letters = counts.pop(_LETTER, 0)
    step = bisect(_SHARES, 1 - letters / visible)
    found = _LETTER if step == 0 else f"{max(counts, key=lambda sort: counts[sort])}{step}"
    if spaces > _SPACED * len(text):
        found += " spaced"
    if sum(len(word) for word in text.split() if len(word) > _WORD_LONG) * 4 > visible:
        found += " long"
    return found


def _sort(character: str) -> str:
    """The script of a letter, roughly by Unicode's blocks."""
    code = ord(character)
    if code < 0x80:
        return _LETTER if character.isalpha() else " " if character.isspace() else _SIGN
    if code < 0x250:
        return _LETTER
    if code < 0x900:
        return f"{code >> 8:x}"  # Greek, Cyrillic, Hebrew, Arabic
    if code < 0x2000:
        return f"{code >> 7:x}"  # the scripts of India and others: a block each
    if code < 0x2E80:
        return _SIGN
    if code < 0xA4D0:
        return "han"
    return "hangul" if 0xAC00 <= code < 0xD800 else "other"
