"""Amounts and times as the admin API writes them: integers, and exact decimals as text. No float is read or written."""

import re
from datetime import UTC, datetime
from typing import Final

from filature.answer.pricing import credits_text
from filature.errors import InvalidRequest
from filature.units import DAY_MS, NANO_MAX, NANO_PER_CREDIT, Nano

CREDITS_PATTERN: Final = r"^[0-9]{1,10}(\.[0-9]{1,9})?$"
_CREDITS: Final = re.compile(CREDITS_PATTERN)


def nano_of(text: str, param: str) -> Nano:
    """Credits as a person writes them, in nano-credits. Raises InvalidRequest."""
    if not _CREDITS.fullmatch(text):
        raise InvalidRequest(
            f"{param} must be a number of credits with at most nine decimals, such as 12.50; "
            f"not {text[:40]!r}.",
            param=param,
        )
    whole, _, part = text.partition(".")
    nano = int(whole) * NANO_PER_CREDIT + int(part.ljust(9, "0"))
    if nano > NANO_MAX:
        raise InvalidRequest(f"{param} is too much: {text} credits.", param=param)
    return Nano(nano)


def amount_of(text: str | None, nano: int | None, param: str) -> Nano | None:
    """The one of ``param`` and ``param_nano`` that was given; None when neither was."""
    if text is not None and nano is not None:
        raise InvalidRequest(f"Give {param} or {param}_nano, not both.", param=param)
    if text is not None:
        return nano_of(text, param)
    if nano is None:
        return None
    if not 0 <= nano <= NANO_MAX:
        raise InvalidRequest(f"{param}_nano must be 0 to {NANO_MAX}.", param=f"{param}_nano")
    return Nano(nano)


def needed_amount(text: str | None, nano: int | None, param: str) -> Nano:
    """As ``amount_of``, of what must be given."""
    amount = amount_of(text, nano, param)
    if amount is None:
        raise InvalidRequest(f"{param} is missing: credits, such as 12.50.", param=param)
    return amount


def credits_of(nano: int) -> str:
    """Nano-credits as an exact number of credits."""
    return credits_text(nano).decode()


def both(**amounts: int) -> dict[str, int | str]:
    """Each amount twice: ``NAME_nano``, and ``NAME`` in credits."""
    shown: dict[str, int | str] = {}
    for name, nano in amounts.items():
        shown[name] = credits_of(nano)
        shown[f"{name}_nano"] = nano
    return shown


def time_of(unix_ms: int) -> str:
    """A time as RFC 3339 writes it, in UTC, to the millisecond."""
    seconds, ms = divmod(unix_ms, 1000)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{ms:03d}Z"


def day_of(number: int) -> str:
    """A day by its number since 1970, in UTC: ``2026-11-24``."""
    return f"{datetime.fromtimestamp(number * DAY_MS // 1000, UTC):%Y-%m-%d}"
