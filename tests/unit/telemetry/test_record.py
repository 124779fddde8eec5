import orjson

from filature.telemetry.record import UsageRecord
from filature.units import RequestId


def make_record(**fields: object) -> UsageRecord:
    told: dict[str, object] = {
        "id": RequestId("req_1"),
        "client_request_id": "mine",
        "dialect": "chat",
        "model": "m",
        "engine": "e",
        "outcome": "completed",
        "status": 200,
        "streamed": True,
        "prompt": 14,
        "cached": 3,
        "completion": 7,
        "prompt_cost": 2000,
        "completion_cost": 300,
        "total_cost": 2305,
        "tries": 1,
    }
    return UsageRecord(**(told | fields))  # type: ignore[arg-type]  # a test's keyword arguments


def test_public_form_is_json_with_usage_and_cost() -> None:
    shown = orjson.loads(make_record().as_json())
    assert shown["id"] == "req_1"
    assert shown["usage"] == {
        "prompt_tokens": 14,
        "cached_tokens": 3,
        "completion_tokens": 7,
        "reasoning_tokens": 0,
        "total_tokens": 21,
        "estimated": False,
        "prompt_total_cost": 2000,
        "completion_total_cost": 300,
        "total_cost": 2305,
        "cost": 0.000002305,
    }


def test_cost_is_written_as_an_exact_decimal_beyond_what_a_float_holds() -> None:
    body = make_record(total_cost=123_456_789_012_345_678).as_json()
    assert b'"cost":123456789.012345678}' in body
