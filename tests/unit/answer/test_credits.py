"""Amounts as JSON numbers of credits: exact, whatever their size."""

import pytest

from filature.answer.pricing import Cost, cost_members, credits_text


@pytest.mark.parametrize(
    ("nano", "text"),
    [
        (0, b"0"),
        (1, b"0.000000001"),
        (2300, b"0.0000023"),
        (10_000_000, b"0.01"),
        (1_000_000_000, b"1"),
        (123_456_789_012_345_678, b"123456789.012345678"),
        (-1_500_000_000, b"-1.5"),
    ],
)
def test_credits_text(nano: int, text: bytes) -> None:
    assert credits_text(nano) == text


def test_cost_members_stand_behind_others() -> None:
    assert cost_members(Cost(1400, 700, 2600)) == (
        b',"prompt_total_cost":1400,"completion_total_cost":700,"total_cost":2600,"cost":0.0000026'
    )
