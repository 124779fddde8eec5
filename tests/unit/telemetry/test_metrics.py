from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

from filature.telemetry import metric_specs as spec
from filature.telemetry.metrics import LABEL_VALUES_MAX, OTHER, Metrics
from filature.telemetry.record import UsageRecord
from filature.units import RequestId


def record(
    model: str = "m",
    outcome: str = "completed",
    *,
    total_s: float = 1.5,
    first_content_s: float | None = 0.5,
    tries: int = 1,
    estimated: bool = False,
    unprocessed_bytes: int = 0,
) -> UsageRecord:
    return UsageRecord(
        id=RequestId("req_1"),
        client_request_id=None,
        dialect="chat",
        model=model,
        engine="e",
        outcome=outcome,
        status=200,
        streamed=True,
        prompt=14,
        cached=3,
        completion=5,
        reasoning=2,
        estimated=estimated,
        prompt_cost=100,
        completion_cost=50,
        total_cost=157,
        queue_s=0.002,
        first_content_s=first_content_s,
        total_s=total_s,
        events=11,
        unprocessed_bytes=unprocessed_bytes,
        tries=tries,
    )


def registry_of(metrics: Metrics) -> CollectorRegistry:
    registry = CollectorRegistry()
    registry.register(metrics)
    return registry


def make(*models: str) -> Metrics:
    return Metrics(models=lambda: models or ("m",), engines=("e",))


CHAT = {"dialect": "chat", "model": "m"}
GEN_AI = {"gen_ai_operation_name": "chat", "gen_ai_request_model": "m", "dialect": "chat"}


def test_requests_are_counted_by_outcome() -> None:
    metrics = make()
    for outcome in ("completed", "completed", "client_gone"):
        metrics.record(record(outcome=outcome))
    read = registry_of(metrics).get_sample_value
    assert read("filature_requests_total", CHAT | {"outcome": "completed"}) == 2
    assert read("filature_requests_total", CHAT | {"outcome": "client_gone"}) == 1


def test_tokens_and_cost_are_summed_by_class_and_part() -> None:
    metrics = make()
    metrics.record(record())
    metrics.record(record())
    read = registry_of(metrics).get_sample_value
    tokens = {
        kind: read("filature_tokens_total", CHAT | {"class": kind})
        for kind in ("prompt", "cached", "completion", "reasoning")
    }
    assert tokens == {"prompt": 28, "cached": 6, "completion": 10, "reasoning": 4}
    cost = {
        part: read("filature_cost_credits_total", CHAT | {"part": part})
        for part in ("prompt", "completion", "request")
    }
    assert cost == {"prompt": 200e-9, "completion": 100e-9, "request": 14e-9}


def test_times_go_into_the_buckets_of_the_conventions() -> None:
    metrics = make()
    metrics.record(record(total_s=1.5, first_content_s=0.5))
    read = registry_of(metrics).get_sample_value
    first = "gen_ai_server_time_to_first_token_seconds"
    assert read(f"{first}_bucket", GEN_AI | {"le": "0.25"}) == 0
    assert read(f"{first}_bucket", GEN_AI | {"le": "0.5"}) == 1, "a bound belongs to its bucket"
    assert read(f"{first}_sum", GEN_AI) == 0.5
    assert read("gen_ai_server_time_per_output_token_seconds_sum", GEN_AI) == 0.25
    assert read("filature_time_per_output_event_seconds_sum", CHAT) == 0.1
    duration = GEN_AI | {"error_type": ""}
    assert read("gen_ai_server_request_duration_seconds_count", duration) == 1
    assert read("gen_ai_server_request_duration_seconds_bucket", duration | {"le": "+Inf"}) == 1


def test_a_failure_names_its_outcome_as_error_type() -> None:
    metrics = make()
    metrics.record(record(outcome="engine_stalled"))
    labels = GEN_AI | {"error_type": "engine_stalled"}
    name = "gen_ai_server_request_duration_seconds_count"
    assert registry_of(metrics).get_sample_value(name, labels) == 1


def test_models_that_no_engine_told_share_one_series() -> None:
    metrics = make("m")
    for index in range(50):
        metrics.record(record(model=f"invented-{index}"))
    read = registry_of(metrics).get_sample_value
    labels = {"dialect": "chat", "model": OTHER, "outcome": "completed"}
    assert read("filature_requests_total", labels) == 50
    assert b"invented" not in metrics.exposition(registry_of(metrics))


def test_models_with_series_of_their_own_are_bounded() -> None:
    names = [f"m{index}" for index in range(LABEL_VALUES_MAX + 10)]
    metrics = make(*names)
    for name in names:
        metrics.record(record(model=name))
    labels = {"dialect": "chat", "model": OTHER, "outcome": "completed"}
    assert registry_of(metrics).get_sample_value("filature_requests_total", labels) == 10


def test_a_model_told_late_gets_its_own_series() -> None:
    told = ["m"]
    metrics = Metrics(models=lambda: told)
    metrics.record(record(model="late"))
    told.append("late")
    metrics.record(record(model="late"))
    labels = {"dialect": "chat", "model": "late", "outcome": "completed"}
    assert registry_of(metrics).get_sample_value("filature_requests_total", labels) == 1


def test_retries_failures_and_limits() -> None:
    metrics = make()
    metrics.record(record(tries=3))
    metrics.engine_failed("e", "connect")
    metrics.engine_failed("unheard-of", "connect")
    metrics.limit_reached("connections_max")
    read = registry_of(metrics).get_sample_value
    assert read("filature_retries_total") == 2
    failures = "filature_engine_failures_total"
    assert read(failures, {"engine": "e", "reason": "connect"}) == 1
    assert read(failures, {"engine": OTHER, "reason": "connect"}) == 1
    assert read("filature_limits_reached_total", {"limit": "connections_max"}) == 1


def test_estimates_and_unprocessed_bytes() -> None:
    metrics = make()
    metrics.record(record(estimated=True, unprocessed_bytes=12))
    read = registry_of(metrics).get_sample_value
    assert read("filature_estimated_answers_total", CHAT) == 1
    assert read("filature_unprocessed_bytes_total", CHAT) == 12


def test_gauges_show_what_was_set_last_and_nothing_before() -> None:
    metrics = make()
    registry = registry_of(metrics)
    assert registry.get_sample_value("filature_open_streams") is None
    metrics.open_streams = 5
    assert registry.get_sample_value("filature_open_streams") == 5


def test_the_exposition_shows_what_the_specs_say_and_nothing_else() -> None:
    metrics = make()
    metrics.record(record(tries=2))
    metrics.engine_failed("e", "connect")
    metrics.limit_reached("x")
    for gauge in spec.GAUGES:
        setattr(metrics, gauge.name.removeprefix("filature_"), 1)
    text = metrics.exposition(registry_of(metrics)).decode()
    families = {family.name: family for family in text_string_to_metric_families(text)}
    names = {metric.name.removesuffix("_total"): metric for metric in spec.ALL}
    assert families.keys() == names.keys()
    for name, metric in names.items():
        assert families[name].type == metric.kind, name
        told = {label for sample in families[name].samples for label in sample.labels}
        assert told - {"le"} == set(metric.labels), name
