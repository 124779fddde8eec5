"""What engines' pages of metrics tell of their load."""

import pytest

from filature.wire.engine_load import LOAD_MAX, told_load

VLLM = b"""\
# HELP vllm:num_requests_running Number of requests in model execution batches.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="m"} 3.0
vllm:num_requests_running{engine="1",model_name="m"} 2.0
# HELP vllm:num_requests_waiting Number of requests waiting to be processed.
# TYPE vllm:num_requests_waiting gauge
vllm:num_requests_waiting{engine="0",model_name="m"} 4.0
vllm:num_requests_waiting{engine="1",model_name="m"} 0.0
vllm:num_requests_waiting_by_reason{engine="0",model_name="m",reason="capacity"} 4.0
vllm:num_requests_waiting_by_reason{engine="0",model_name="m",reason="deferred"} 0.0
vllm:kv_cache_usage_perc{engine="0",model_name="m"} 0.0
"""
SGLANG = b"""\
sglang:num_running_reqs{model_name="m",priority="",tp_rank="0"} 5.0
sglang:num_running_reqs{model_name="m",priority="1",tp_rank="0"} 3.0
sglang:num_running_reqs{model_name="m",priority="-2",tp_rank="0"} 2.0
sglang:num_queue_reqs{model_name="m",tp_rank="0"} 6.0
sglang:num_queue_reqs{priority="0",model_name="m",tp_rank="0"} 6.0
sglang:num_running_reqs_offline_batch{model_name="m"} 7.0
sglang:gen_throughput{model_name="m"} 250.0
"""
LLAMA = b"""\
# TYPE llamacpp:requests_processing gauge
llamacpp:requests_processing 1
# TYPE llamacpp:requests_deferred gauge
llamacpp:requests_deferred 2
llamacpp:tokens_predicted_total 900
"""


@pytest.mark.parametrize(
    ("page", "load"),
    [
        (VLLM, 9),
        (SGLANG, 11),
        (LLAMA, 3),
        (VLLM.replace(b"\n", b"\r\n"), 9),
        (b"vllm:num_requests_running 2", 2),
        (b"vllm:num_requests_running\t2 1790000000000\n", 2),
        (b'vllm:num_requests_running{model_name="a } 5 \\" \\n # b"} 2.0\n', 2),
        (b"vllm:num_requests_running 0.0\n", 0),
        (b"vllm:num_requests_running %d\n" % LOAD_MAX, LOAD_MAX),
    ],
)
def test_what_runs_and_what_waits_is_added_up(page: bytes, load: int) -> None:
    assert told_load(page) == load


@pytest.mark.parametrize(
    "page",
    [
        b"",
        b"<html>vllm:num_requests_running 2</html>",
        b"# vllm:num_requests_running 2\n",
        b"filature_requests_running 2\n",
        b"vllm:num_requests_running\n2\n",
        b"\xff\x00" * 100,
    ],
)
def test_a_page_without_the_gauges_tells_nothing(page: bytes) -> None:
    assert told_load(page) is None


@pytest.mark.parametrize("value", ["NaN", "-5", "1e308", "+Inf", "-Inf", "many", "\xff", "65537"])
def test_a_number_that_cannot_be_makes_all_of_it_worthless(value: str) -> None:
    line = f"vllm:num_requests_waiting {value}\n".encode("latin-1")
    assert told_load(VLLM + line) is None
    assert told_load(line + VLLM) is None


def test_a_sum_that_cannot_be_does_so_too() -> None:
    line = b"vllm:num_requests_running %d\n" % LOAD_MAX
    assert told_load(line) == LOAD_MAX
    assert told_load(line + LLAMA) is None
