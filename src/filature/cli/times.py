"""Times as people write them on the command line: a date, a date with a time, or how long from now."""

import re
from datetime import UTC, datetime
from typing import Final

from filature.cli.connect import CHOICE_WRONG, CommandFailed

_SPAN: Final = re.compile(r"([0-9]{1,6})([smhd])")
_UNIT_MS: Final = {"s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}


def unix_ms(text: str | None, now_ms: int, option: str, *, ahead: bool = False) -> int | None:
    """Unix time in milliseconds of ``text``; None of None. Raises CommandFailed.

    ``90m``, ``24h`` or ``7d`` is so long ago, or ``ahead`` from now. Without an offset a time is UTC's.
    """
    if text is None:
        return None
    span = _SPAN.fullmatch(text)
    if span is not None:
        length_ms = int(span[1]) * _UNIT_MS[span[2]]
        return now_ms + length_ms if ahead else now_ms - length_ms
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        raise CommandFailed(
            f"{option}: write a time as 2026-07-01, 2026-07-01T12:00 (UTC) or 24h, 7d; "
            f"not {text!r}",
            CHOICE_WRONG,
        ) from None
    if time.tzinfo is None:
        time = time.replace(tzinfo=UTC)
    given_ms = int(time.timestamp() * 1000)
    if ahead and given_ms <= now_ms:
        raise CommandFailed(f"{option}: {text} is past", CHOICE_WRONG)
    return given_ms
