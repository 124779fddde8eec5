"""The fields that Cocoon's clients add to any request. They are for us, and no engine is sent them."""

from typing import Any, Final

from filature.request.limits import GUID_CHARS_MAX
from filature.request.rules import Rule, boolean, integer, invalid, number, text

_FINITE: Final = number()


def _seconds(value: Any, name: str) -> None:
    _FINITE(value, name)
    if value <= 0:
        raise invalid(name, "a number of seconds above 0", value, "decimal_below_min_value")


COCOON_RULES: Final[dict[str, Rule]] = {
    "max_coefficient": integer(0, 2**31 - 1),
    "timeout": _seconds,
    "request_guid": text(1, GUID_CHARS_MAX),
    "enable_debug": boolean,
}
COCOON_FIELDS: Final = frozenset(COCOON_RULES)
