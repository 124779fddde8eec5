"""The vocabulary that the dialects' tables of fields are written in: what a value may be.

A rule is called with a value that is not null and the field's name, and raises InvalidRequest when
the value is not allowed. Messages say what is allowed and what kind of value came, never a text of
the client's: they are logged. Codes are those of OpenAI's API where it has one.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from filature.errors import InvalidRequest

Rule = Callable[[Any, str], None]
Fields = Mapping[str, Any]

_NAME_CHARS_MAX: Final = 64
_FLOAT_MAX: Final = 1.7976931348623157e308


@dataclass(frozen=True, slots=True)
class DialectRules:
    """All that validation knows of one dialect, as data."""

    required: tuple[tuple[str, ...], ...]
    """Each a field that must be there, followed by fields that some engines take in its place."""
    rules: dict[str, Rule]
    """Every field of the API reference; the value's type and what bounds money."""
    strict_rules: dict[str, Rule] = field(default_factory=dict)
    """The API reference's other ranges, checked in strict mode after ``rules``."""
    related_strictly: Callable[[Fields], None] | None = None
    """What strict mode checks of several fields together, once each is known to be right."""
    max_tokens: tuple[str, ...] = ()
    """Fields that bound the completion; the first is the one that is set when all are missing."""
    streams: bool = True
    """Whether the dialect has ``stream``."""
    prompts: tuple[str, ...] = ()
    """Fields that hold one prompt or several."""


# errors


def invalid(name: str, expected: str, value: Any, code: str = "invalid_value") -> InvalidRequest:
    """``expected`` completes the sentence "NAME must be …"."""
    return InvalidRequest(f"{name} must be {expected}; got {shown(value)}.", param=name, code=code)


def wrong_type(name: str, expected: str, value: Any) -> InvalidRequest:
    return invalid(name, expected, value, "invalid_type")


def missing(name: str, instead: tuple[str, ...] = ()) -> InvalidRequest:
    other = "".join(f" (or {field})" for field in instead)
    return InvalidRequest(
        f"{name}{other} is required.", param=name, code="missing_required_parameter"
    )


def unknown(name: str) -> InvalidRequest:
    where = shown_name(name)
    return InvalidRequest(
        f"{where} is not a field of this API.", param=where, code="unknown_parameter"
    )


def shown(value: Any) -> str:
    """A value as a message may show it: numbers and literals themselves, anything else by kind."""
    if value is None:
        return "null"
    if value is True or value is False:
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, str):
        return "a string" if value else "an empty string"
    if isinstance(value, list):
        return "an array" if value else "an empty array"
    return "an object"


def shown_name(name: str) -> str:
    """A client's key, made safe for a message: printable ASCII, cut when long."""
    safe = name if name.isascii() and name.isprintable() else ascii(name)[1:-1]
    return safe if len(safe) <= _NAME_CHARS_MAX else safe[:_NAME_CHARS_MAX] + "…"


# rules


def boolean(value: Any, name: str) -> None:
    if value is not True and value is not False:
        raise wrong_type(name, "true or false", value)


def string(value: Any, name: str) -> None:
    if type(value) is not str:
        raise wrong_type(name, "a string", value)


def json_object(value: Any, name: str) -> None:
    if type(value) is not dict:
        raise wrong_type(name, "an object", value)


def json_array(value: Any, name: str) -> None:
    if type(value) is not list:
        raise wrong_type(name, "an array", value)


def string_or_object(value: Any, name: str) -> None:
    if type(value) is not str and type(value) is not dict:
        raise wrong_type(name, "a string or an object", value)


def object_or_array(value: Any, name: str) -> None:
    if type(value) is not dict and type(value) is not list:
        raise wrong_type(name, "an object or an array", value)


def array_of_objects(value: Any, name: str) -> None:
    json_array(value, name)
    for index, entry in enumerate(value):
        if type(entry) is not dict:
            raise wrong_type(f"{name}[{index}]", "an object", entry)


def array_of_strings(value: Any, name: str) -> None:
    json_array(value, name)
    for index, entry in enumerate(value):
        if type(entry) is not str:
            raise wrong_type(f"{name}[{index}]", "a string", entry)


def string_or_strings(value: Any, name: str) -> None:
    if type(value) is str:
        return
    if type(value) is not list:
        raise wrong_type(name, "a string or an array of strings", value)
    array_of_strings(value, name)


def integer(minimum: int | None = None, maximum: int | None = None) -> Rule:
    """A JSON integer within bounds, both inclusive; ``8.0`` is none."""
    expected = "an integer" + _bounds(minimum, maximum)

    def check(value: Any, name: str) -> None:
        if type(value) is not int:
            raise wrong_type(name, expected, value)
        if minimum is not None and value < minimum:
            raise invalid(name, expected, value, "integer_below_min_value")
        if maximum is not None and value > maximum:
            raise invalid(name, expected, value, "integer_above_max_value")

    return check


def number(minimum: float = -_FLOAT_MAX, maximum: float = _FLOAT_MAX) -> Rule:
    """A finite JSON number within bounds, both inclusive."""
    low = None if minimum == -_FLOAT_MAX else minimum
    high = None if maximum == _FLOAT_MAX else maximum
    expected = ("a finite number" if high is None else "a number") + _bounds(low, high)

    def check(value: Any, name: str) -> None:
        if type(value) is not float and type(value) is not int:
            raise wrong_type(name, expected, value)
        if value < minimum:
            raise invalid(name, expected, value, "decimal_below_min_value")
        if value > maximum:
            raise invalid(name, expected, value, "decimal_above_max_value")

    return check


def text(chars_min: int, chars_max: int) -> Rule:
    """A string of some length that a log may show: no unpaired surrogates, nothing that a terminal would obey."""
    expected = f"a string of {chars_min} to {chars_max} characters"

    def check(value: Any, name: str) -> None:
        if type(value) is not str:
            raise wrong_type(name, expected, value)
        if len(value) < chars_min:
            raise invalid(name, expected, value, "empty_string")
        if len(value) > chars_max:
            raise InvalidRequest(
                f"{name} must be {expected}; got {len(value)}.",
                param=name,
                code="string_above_max_length",
            )
        if not value.isprintable():
            raise InvalidRequest(
                f"{name} has characters that cannot be printed.", param=name, code="invalid_value"
            )

    return check


def one_of(*allowed: str) -> Rule:
    expected = "one of " + ", ".join(allowed)

    def check(value: Any, name: str) -> None:
        if value not in allowed:
            raise invalid(name, expected, value)

    return check


def array_up_to(entries_max: int, entry: Rule) -> Rule:
    """At least one entry, at most so many, each under the rule ``entry``."""

    def check(value: Any, name: str) -> None:
        json_array(value, name)
        if not value:
            raise invalid(name, "an array of at least one entry", value, "empty_array")
        if len(value) > entries_max:
            raise too_long(name, entries_max, len(value))
        for index, each in enumerate(value):
            entry(each, f"{name}[{index}]")

    return check


def too_long(name: str, entries_max: int, entries: int) -> InvalidRequest:
    return InvalidRequest(
        f"{name} must have at most {entries_max} entries; got {entries}.",
        param=name,
        code="array_above_max_length",
    )


def _bounds(minimum: float | None, maximum: float | None) -> str:
    if minimum is not None and maximum is not None:
        return f" from {minimum} to {maximum}"
    if minimum is not None:
        return f" of at least {minimum}"
    return "" if maximum is None else f" of at most {maximum}"
