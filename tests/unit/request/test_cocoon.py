"""Cocoon's own fields, which any request may have: read, checked, and never an engine's."""

from typing import Any

import pytest
from tests.unit.request.asking import STRICT, parse, refused

from filature.request.limits import GUID_CHARS_MAX
from filature.wire.dialect import Dialect

CHAT = Dialect.CHAT


@pytest.mark.parametrize("dialect", Dialect)
def test_cocoons_fields_are_read_in_every_dialect(dialect: Dialect) -> None:
    request = parse(
        dialect,
        STRICT,
        max_coefficient=1500,
        timeout=2.5,
        request_guid="a-b",
        enable_debug=True,
    )
    assert request.max_coefficient == 1500
    assert request.timeout_s == 2.5
    assert request.request_guid == "a-b"
    assert request.enable_debug


def test_without_cocoons_fields() -> None:
    for request in (
        parse(CHAT),
        parse(CHAT, max_coefficient=None, timeout=None, request_guid=None, enable_debug=None),
    ):
        assert request.max_coefficient is None
        assert request.timeout_s is None
        assert request.request_guid is None
        assert request.enable_debug is False


@pytest.mark.parametrize(
    ("name", "value", "code"),
    [
        ("max_coefficient", -1, "integer_below_min_value"),
        ("max_coefficient", 1.5, "invalid_type"),
        ("max_coefficient", "1000", "invalid_type"),
        ("timeout", 0, "decimal_below_min_value"),
        ("timeout", "10", "invalid_type"),
        ("timeout", True, "invalid_type"),
        ("request_guid", 7, "invalid_type"),
        ("request_guid", "", "empty_string"),
        ("request_guid", "x" * (GUID_CHARS_MAX + 1), "string_above_max_length"),
        ("enable_debug", 1, "invalid_type"),
    ],
)
def test_cocoons_fields_are_checked(name: str, value: Any, code: str) -> None:
    assert refused(CHAT, **{name: value}) == (name, code)
