"""What workers and proxies say to each other: what is taken, and the bounds of it."""

from typing import Any

import orjson
import pytest
from pydantic import ValidationError

from filature.wire.control import (
    CAPACITY_MAX,
    COEFFICIENT_MAX,
    MODELS_MAX,
    REPORTS_MAX,
    ModelOffered,
    Report,
    Standing,
    Welcome,
    read_reports,
)
from filature.wire.ticket import TICKET_BYTES_MAX

MODEL: dict[str, Any] = {"id": "m"}
STANDING: dict[str, Any] = {"instance": "0123456789abcdef", "models": [MODEL], "capacity": 8}
REPORT: dict[str, Any] = {
    "id": "req-1",
    "ticket": "body.mac",
    "outcome": "complete",
    "prompt": 10,
    "cached": 4,
    "completion": 20,
    "reasoning": 5,
}
WELCOME: dict[str, Any] = {"worker": "gpu-1", "heartbeat_s": 5.0}
LEAST = {ModelOffered: MODEL, Standing: STANDING, Report: REPORT, Welcome: WELCOME}
Kind = type[ModelOffered] | type[Standing] | type[Report] | type[Welcome]


def read(kind: Kind, **changed: Any) -> Any:
    return kind.model_validate_json(orjson.dumps(LEAST.get(kind, {}) | changed))


def refused(kind: Kind, **changed: Any) -> set[Any]:
    """The names of what was wrong."""
    with pytest.raises(ValidationError) as caught:
        read(kind, **changed)
    return {error["loc"][0] for error in caught.value.errors()}


@pytest.mark.parametrize("kind", LEAST)
def test_the_least_of_a_message_is_taken_and_nothing_less(kind: Kind) -> None:
    least = LEAST[kind]
    assert read(kind).model_dump(exclude_unset=True) == least
    for name in least:
        without = {other: value for other, value in least.items() if other != name}
        with pytest.raises(ValidationError) as caught:
            kind.model_validate_json(orjson.dumps(without))
        assert [error["loc"] for error in caught.value.errors()] == [(name,)]


@pytest.mark.parametrize("kind", LEAST)
def test_what_a_newer_one_adds_is_passed_over(kind: Kind) -> None:
    assert read(kind, newer={"a": 1}) == read(kind)


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b'"a"', b"\xff", b"{}"])
@pytest.mark.parametrize("kind", LEAST)
def test_what_is_no_message_is_refused(kind: Kind, body: bytes) -> None:
    with pytest.raises(ValidationError):
        kind.model_validate_json(body)


BOUNDED: list[tuple[Kind, str, int, int]] = [
    (ModelOffered, "context_length", 1, 2**31),
    (ModelOffered, "coefficient", 0, COEFFICIENT_MAX),
    (Standing, "capacity", 1, CAPACITY_MAX),
    (Standing, "running", 0, CAPACITY_MAX),
    *((Report, name, 0, 2**31) for name in ("prompt", "cached", "completion", "reasoning")),
]


@pytest.mark.parametrize(("kind", "name", "least", "most"), BOUNDED)
def test_numbers_lie_within_bounds(kind: Kind, name: str, least: int, most: int) -> None:
    for value in (least, most):
        assert getattr(read(kind, **{name: value}), name) == value
    outside: list[Any] = [least - 1, most + 1, 10**18, 0.5, "many", [1], {}]
    for wrong in outside:
        assert refused(kind, **{name: wrong}) == {name}


LENGTHS: list[tuple[Kind, str, int, int]] = [
    (ModelOffered, "id", 1, 256),
    (Standing, "version", 0, 64),
    (Report, "id", 1, 256),
    (Report, "ticket", 0, TICKET_BYTES_MAX),
    (Report, "outcome", 0, 64),
]


@pytest.mark.parametrize(("kind", "name", "least", "most"), LENGTHS)
def test_texts_lie_within_bounds(kind: Kind, name: str, least: int, most: int) -> None:
    for chars in (least, most):
        assert getattr(read(kind, **{name: "é" * chars}), name) == "é" * chars
    assert refused(kind, **{name: "a" * (most + 1)}) == {name}
    if least:
        assert refused(kind, **{name: ""}) == {name}
    others: list[Any] = [1, None, ["a"], {}]
    for wrong in others:
        assert refused(kind, **{name: wrong}) == {name}


def test_so_many_models_may_be_offered() -> None:
    assert read(Standing, models=[]).models == []
    assert len(read(Standing, models=[MODEL] * MODELS_MAX).models) == MODELS_MAX
    assert refused(Standing, models=[MODEL] * (MODELS_MAX + 1)) == {"models"}
    assert refused(Standing, models=[MODEL, {"id": ""}]) == {"models"}


def test_so_many_reports_may_be_delivered_at_once() -> None:
    assert read_reports(b'{"reports":[]}') == []
    assert read_reports(delivery([REPORT] * REPORTS_MAX)) == [REPORT] * REPORTS_MAX
    with pytest.raises(ValueError, match="512"):
        read_reports(delivery([REPORT] * (REPORTS_MAX + 1)))
    for wrong in (b"", b"[]", b"{}", b"null", delivery({}), delivery([REPORT, []]), delivery(None)):
        with pytest.raises(ValueError, match=r"(?i)needed|input"):
            read_reports(wrong)


def delivery(reports: object) -> bytes:
    return orjson.dumps({"reports": reports})


@pytest.mark.parametrize(
    "instance",
    [
        "",
        "0123456789abcde",
        "0123456789abcdef0",
        "0123456789ABCDEF",
        "0123456789abcdeg",
        "0123456789abcdef\n",
        "\n0123456789abcdef",
        "٠١٢٣٤٥٦٧٨٩abcdef",
        None,
        1234567890123456,
    ],
)
def test_an_instance_is_sixteen_hexadecimal_digits(instance: Any) -> None:
    assert refused(Standing, instance=instance) == {"instance"}


@pytest.mark.parametrize("number", [b"NaN", b"Infinity", b"-Infinity", b"-1", b"1e300"])
@pytest.mark.parametrize("name", ["started_at", "total_s"])
def test_times_are_times(name: str, number: bytes) -> None:
    body = orjson.dumps(REPORT)[:-1] + b',"%b":%b}' % (name.encode(), number)
    with pytest.raises(ValidationError):
        Report.model_validate_json(body)


@pytest.mark.parametrize("created", [b"-1", b"1" + b"0" * 30])
def test_a_model_was_created_at_a_time(created: bytes) -> None:
    with pytest.raises(ValidationError):
        ModelOffered.model_validate_json(b'{"id":"m","created":%b}' % created)
