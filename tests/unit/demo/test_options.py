"""Overrides of the script, by object and by model name."""

import pytest

from filature.demo.options import (
    Fault,
    LineEnding,
    Script,
    ScriptError,
    UsagePlacement,
    override,
    override_by_name,
)


def test_an_object_overrides() -> None:
    script = override(
        Script(tokens=9),
        {"fault": "stall-pings", "after": 2, "line_ending": "cr", "usage": "every", "tps": 5},
    )
    assert script.fault is Fault.STALL_PINGS
    assert script.after == 2
    assert script.line_ending.as_bytes == b"\r"
    assert script.usage is UsagePlacement.EVERY
    assert script.tokens_per_second == 5.0
    assert script.tokens == 9


@pytest.mark.parametrize("separator", [",", ";", "+"])
def test_a_model_name_overrides(separator: str) -> None:
    pairs = separator.join(["fault=cut", "after=-1", "line-ending=crlf", "per_choice=true"])
    script = override_by_name(Script(), pairs)
    assert script.fault is Fault.CUT
    assert script.after == -1
    assert script.line_ending is LineEnding.CRLF
    assert script.per_choice is True


@pytest.mark.parametrize("pairs", ["status=503", "fault=status=503", "status=503;fault=status"])
def test_a_status_is_a_fault(pairs: str) -> None:
    script = override_by_name(Script(), pairs)
    assert (script.fault, script.status) == (Fault.STATUS, 503)


@pytest.mark.parametrize(
    "values",
    [
        {"nonsense": 1},
        {"fault": "nonsense"},
        {"tokens": "many"},
        {"tokens": -1},
        {"after": -2},
        {"tokens_per_event": 0},
        {"tps": float("inf")},
        {"per_choice": "perhaps"},
        {"usage": None},
    ],
)
def test_what_cannot_be_is_refused(values: dict[str, object]) -> None:
    with pytest.raises(ScriptError):
        override(Script(), values)


def test_pairs_need_an_equals_sign() -> None:
    with pytest.raises(ScriptError, match="name=value"):
        override_by_name(Script(), "cut")


def test_null_gives_the_default_back() -> None:
    assert override(Script(tokens=3), {"tokens": None}).tokens is None
