"""What texts are alike: they have about as many tokens per byte, whatever the tokenizer.

Languages, scripts, numbers, indented code and long words differ by more than liars do, and all of a client's requests
may go to one worker: only like is compared with like.
"""

import re
import string
from bisect import bisect
from collections import Counter
from typing import Final

LOOKED_AT: Final = 4096
"""Characters from the beginning of a text."""
_SHARES: Final = (0.1, 0.25, 0.5)
"""Of characters that are no Latin letters; within each step prices per byte differ by less than twice."""
_SPACED: Final = 0.3
_WORD_LONG: Final = 24
_OTHERS: Final = re.compile("[^\\x00-\\x7f]")
_ASCII_LETTERS: Final = string.ascii_letters.encode("ascii")
_ASCII_SPACES: Final = b" \t\n\r\v\f\x1c\x1d\x1e\x1f"
_LETTER: Final = "a"
_SIGN: Final = "."


def likeness(text: str) -> str:
    """Equal for texts that are alike."""
    text = text[:LOOKED_AT]
    plain = text.encode("ascii", "ignore")
    letters = len(plain) - len(plain.translate(None, _ASCII_LETTERS))
    spaces = len(plain) - len(plain.translate(None, _ASCII_SPACES))
    counts = Counter({_SIGN: len(plain) - letters - spaces})
    if len(plain) < len(text):
        counts.update(map(_sort, _OTHERS.findall(text)))
        letters += counts.pop(_LETTER, 0)
    visible = letters + counts.total()
    if not visible:
        return ""
    step = bisect(_SHARES, 1 - letters / visible)
    found = _LETTER if step == 0 else f"{max(counts, key=lambda sort: counts[sort])}{step}"
    if spaces > _SPACED * len(text):
        found += " spaced"
    if sum([len(word) for word in text.split() if len(word) > _WORD_LONG]) * 4 > visible:
        found += " long"
    return found


def _sort(character: str) -> str:
    """The script of a letter that is not ASCII's, roughly by Unicode's blocks."""
    code = ord(character)
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
