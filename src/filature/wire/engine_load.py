"""What an engine tells of its load: gauges on its page of metrics, in Prometheus' text format."""

import re
from typing import Final

LOAD_MAX: Final = 65_536
"""Requests: what says more says nothing."""

_SAMPLE: Final = re.compile(
    rb"\n(?:vllm:num_requests_(?:running|waiting)"
    rb"|sglang:num_(?:running|queue)_reqs"
    rb"|llamacpp:requests_(?:processing|deferred))"  # told where it was started with --metrics
    rb"(\{.*\})?[ \t]+(\S+)"
)
_IS_A_PART: Final = re.compile(rb'[{,]priority="[^"]')
"""SGLang tells of each priority beside the sum of all, whose label is empty."""


def told_load(page: bytes) -> int | None:
    """Requests that run or wait, over all models and processes of the engine; None: it does not tell."""
    total, tells = 0.0, False
    for labels, value in _SAMPLE.findall(b"\n" + page):
        if _IS_A_PART.search(labels):
            continue
        try:
            number = float(value)
        except ValueError:
            return None
        if not 0 <= number <= LOAD_MAX:  # not a number is neither
            return None
        total += number
        tells = True
    return int(total) if tells and total <= LOAD_MAX else None
