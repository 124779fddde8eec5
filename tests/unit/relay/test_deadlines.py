"""Which deadline is over when, on times that the test makes up."""

from typing import Any

import pytest

from filature.relay.clock import TICK_S
from filature.relay.deadlines import ANSWERING, ASKING, ENDING, Deadlines
from filature.relay.limits import RelayLimits

LIMITS = RelayLimits(
    first_byte_s=100,
    progress_s=20,
    request_s=1000,
    hold_s=8,
    ping_s=12,
    client_stall_s=30,
    end_mark_wait_s=1,
)


def due(
    deadlines: Deadlines,
    now: float,
    progress: int = 0,
    *,
    unsent: bool = False,
    prefilling: bool = False,
    takes: bool = False,
) -> str:
    return deadlines.due(now, lambda: takes, progress, unsent=unsent, prefilling=prefilling)


def started(stage: Any, timeout_s: float | None = None) -> Deadlines:
    deadlines = Deadlines(LIMITS, 0.0, timeout_s)
    deadlines.enter(stage, 0.0)
    return deadlines


@pytest.mark.parametrize("stage", [ASKING, ANSWERING, ENDING])
@pytest.mark.parametrize(("timeout_s", "end"), [(None, 1000), (5, 5 + TICK_S), (5000, 1000)])
def test_the_request_s_own_time_is_over_at_every_stage(
    stage: Any, timeout_s: float | None, end: float
) -> None:
    """Of a client's own time not a moment is missing, though the clock may be a tick behind at its beginning."""
    assert due(started(stage, timeout_s), end - 0.01) != "request_over"
    assert due(started(stage, timeout_s), end) == "request_over"


def test_an_engine_may_be_silent_longer_before_its_content_than_in_it() -> None:
    assert due(started(ASKING), 99.9) == "nothing"
    assert due(started(ASKING), 100) == "engine_silent"
    assert due(started(ANSWERING), 99.9, prefilling=True) == "ping"
    assert due(started(ANSWERING), 100, prefilling=True) == "engine_silent"
    assert due(started(ANSWERING), 20) == "engine_silent"


def test_progress_begins_the_patience_anew() -> None:
    deadlines = started(ANSWERING)
    assert due(deadlines, 19, progress=1) == "nothing"
    assert due(deadlines, 38, progress=1) == "ping"
    assert due(deadlines, 39, progress=1) == "engine_silent"
    assert deadlines.patience_s == 20


def test_what_is_held_begins_and_a_silent_stream_pings() -> None:
    assert due(started(ANSWERING), 7.9, unsent=True) == "nothing"
    assert due(started(ANSWERING), 8, unsent=True) == "begin"
    deadlines = started(ANSWERING)
    assert due(deadlines, 12) == "ping"
    deadlines.spoke(12)
    assert due(deadlines, 13) == "nothing"


def test_a_client_that_does_not_read_stalls_and_its_engine_is_not_blamed() -> None:
    deadlines = started(ANSWERING)
    deadlines.paused(1)
    assert due(deadlines, 30.9) == "nothing"
    assert due(deadlines, 31) == "client_stalled"
    assert due(deadlines, 31, takes=True) == "nothing"
    assert due(deadlines, 60.9) == "nothing", "it took something since"
    deadlines.resumed(61)
    assert due(deadlines, 80.9) != "engine_silent"
    assert due(deadlines, 81) == "engine_silent"


def test_after_an_end_mark_only_its_own_wait_counts() -> None:
    deadlines = started(ANSWERING)
    deadlines.paused(0)
    deadlines.enter(ENDING, 50)
    assert due(deadlines, 50.9) == "nothing"
    assert due(deadlines, 51) == "end"


def test_the_next_look_is_never_behind_a_deadline() -> None:
    assert started(ANSWERING).next_look(0) == LIMITS.look_s
    assert started(ANSWERING, timeout_s=1).next_look(0) == 1 + TICK_S
    assert started(ENDING).next_look(50) == 51
    assert LIMITS.look_s <= 2, "a fraction of the shortest"
