"""The requests recorded with real engines: each passes, or is refused for the reason given here."""

from pathlib import Path

import orjson
import pytest

from filature.errors import InvalidRequest
from filature.request.limits import RequestLimits
from filature.request.parse import parse_request
from filature.request.rewrite import body_for_engine
from filature.wire.dialect import Dialect

CAPTURES = Path(__file__).parents[2] / "data" / "captures"
REQUESTS = sorted(CAPTURES.glob("*/*.req.json"))

REFUSED = {
    "13-malformed-json": (None, "invalid_json"),
    "14-missing-messages": ("messages", "missing_required_parameter"),
    "15-empty-body": (None, "invalid_json"),
    "22-stream-options-without-stream": ("stream_options", "invalid_value"),
    "23-404": ("model", "missing_required_parameter"),
    "24-temperature-invalid": ("temperature", "decimal_below_min_value"),
    "25-wrong-type": ("messages", "invalid_type"),
    "37-max-tokens-0": ("max_tokens", "integer_below_min_value"),
}
"""Case → the refusal's ``param`` and ``code``."""


def case_of(path: Path) -> str:
    return path.name.removesuffix(".req.json")


def dialect_of(case: str) -> Dialect:
    if "chat" in case:
        return Dialect.CHAT
    if "responses" in case:
        return Dialect.RESPONSES
    if "anthropic" in case or case.endswith("zero-token-messages"):
        return Dialect.MESSAGES
    return Dialect.COMPLETIONS if "completions" in case else Dialect.CHAT


def test_requests_were_recorded_for_every_refusal() -> None:
    assert len(REQUESTS) > 80
    assert REFUSED.keys() <= {case_of(path) for path in REQUESTS}


@pytest.mark.parametrize("path", REQUESTS, ids=lambda path: f"{path.parent.name}/{case_of(path)}")
def test_a_recorded_request(path: Path) -> None:
    case, body = case_of(path), path.read_bytes()
    dialect = dialect_of(case)
    if case in REFUSED:
        with pytest.raises(InvalidRequest) as caught:
            parse_request(dialect, body, RequestLimits())
        assert (caught.value.param, caught.value.code) == REFUSED[case]
        return
    request = parse_request(dialect, body, RequestLimits())
    said = orjson.loads(body)
    assert request.model == said["model"]
    assert request.stream is said.get("stream", False)
    assert request.n == said.get("n", 1)
    assert request.prompts == (2 if "two-prompts" in case else 1)
    assert request.text_bytes > 0
    expected = dict(said)
    if request.stream and dialect.has_choices:
        expected["stream_options"] = said.get("stream_options", {}) | {"include_usage": True}
        expected["stream_options"].pop("continuous_usage_stats", None)
    sent = body_for_engine(request, model=request.model, include_usage=True, continuous_usage=False)
    assert orjson.loads(sent) == expected
