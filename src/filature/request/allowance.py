"""What a seller lets through the boundary beyond its rules: fields by name, media by domain. It fetches nothing."""

import re
from typing import Any, Final

FIELD: Final = re.compile(r"[A-Za-z0-9_]{1,64}")
DOMAIN: Final = re.compile(
    r"(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)*[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
)
_URL: Final = re.compile(r"https?://([A-Za-z0-9.-]{1,253})(?::[0-9]{1,5})?(?:[/?#][!-\[\]-~]*)?")
"""In a form that all readers of URLs take for the same."""
_NOTHING_FETCHED: Final = "data:,"


class Allowance:
    """``media``: domains in lower case, each with all that is below it."""

    __slots__ = ("fields", "media")

    def __init__(self, fields: frozenset[str], media: frozenset[str]) -> None:
        self.fields = fields
        self.media = media

    def without(self, fields: dict[str, Any]) -> dict[str, Any]:
        """A request's fields less what is allowed: what is left has to keep the rules."""
        left = {name: value for name, value in fields.items() if name not in self.fields}
        if self.media:
            left = {name: self._blanked(value) for name, value in left.items()}
        return left

    def allows_url(self, text: str) -> bool:
        """Whether it names a file of an allowed domain."""
        found = _URL.fullmatch(text)
        domain = "" if found is None else found.group(1).lower()
        while domain:
            if domain in self.media:
                return True
            domain = domain.partition(".")[2]
        return False

    def _blanked(self, value: Any) -> Any:
        if isinstance(value, str):
            return _NOTHING_FETCHED if self.allows_url(value) else value
        if isinstance(value, list):
            return [self._blanked(each) for each in value]
        if isinstance(value, dict):
            return {name: self._blanked(each) for name, each in value.items()}
        return value
