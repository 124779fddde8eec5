"""The benchmark's engine and generator count right; how fast they are is nobody's business here."""

import asyncio

import pytest
from benchmarks import engine, generator, payload
from benchmarks.generator import Load


@pytest.fixture(autouse=True)
def _keep_the_collector(monkeypatch: pytest.MonkeyPatch) -> None:
    """The generator turns the garbage collector off for its own process; this one needs it."""
    monkeypatch.setattr(generator, "freeze_garbage", lambda: None)


async def _measure(options: engine.EngineOptions, **load: object) -> generator.Measured:
    server, port = await engine.start(options)
    try:
        return await generator.run(Load("127.0.0.1", port, warm_s=0.1, seconds=0.3, **load))  # type: ignore[arg-type]  # by name
    finally:
        server.close()


async def test_every_event_of_a_stream_is_counted() -> None:
    options = engine.EngineOptions(events=7, interval_s=0.002)
    measured = await _measure(options, connections=3, stream=True, events_per_answer=7)
    assert measured.faults == []
    assert measured.answers > 3
    whole_answers_at_the_edges = 3 * 7
    assert abs(measured.events - 7 * measured.answers) <= whole_answers_at_the_edges


async def test_events_back_to_back_are_counted() -> None:
    options = engine.EngineOptions(events=50, interval_s=0.0)
    measured = await _measure(options, connections=2, stream=True)
    assert measured.faults == []
    assert measured.events == 50 * measured.answers > 0


async def test_stamped_events_give_delays() -> None:
    options = engine.EngineOptions(events=7, interval_s=0.002, stamped=True)
    measured = await _measure(
        options, connections=3, stream=True, stamped=True, events_per_answer=7
    )
    assert measured.faults == []
    assert 0 < measured.latency_ns["p50"] <= measured.latency_ns["p99"]


async def test_unary_answers_are_counted() -> None:
    measured = await _measure(engine.EngineOptions(), connections=2, stream=False, vary=True)
    assert measured.faults == []
    assert measured.answers > 2
    assert measured.events == 0


async def test_an_answer_whose_text_was_altered_is_a_failure() -> None:
    measured = await _measure(
        engine.EngineOptions(events=6, interval_s=0.0),
        connections=1,
        stream=True,
        events_per_answer=7,
    )
    assert "text differs" in measured.faults[0]


@pytest.mark.parametrize("size", [1, 3, 100])
@pytest.mark.parametrize("on_every_event", [False, True])
async def test_the_end_of_an_answer_is_found_at_any_split(size: int, on_every_event: bool) -> None:
    answer = payload.stream_answer(events=5, usage_on_every_event=on_every_event)
    assert answer.opening.startswith(b"HTTP/1.1 200 ")
    data = answer.opening + b"".join(answer.events) + answer.closing
    fleet = generator.Fleet(Load("127.0.0.1", 1, connections=1, stream=True))
    fleet.stopping = True
    client = generator.StreamClient(fleet)
    for at in range(0, len(data), size):
        assert fleet.answers == 0
        client.data_received(data[at : at + size])
    assert (fleet.answers, fleet.events, fleet.failures) == (1, 5, 0)
    assert generator.answer_text(data, stream=True) == answer.text


def test_a_unary_document_has_the_size_asked_for() -> None:
    assert [len(payload.unary_document(size)) for size in (400, 401, 1000)] == [400, 401, 1000]


def test_a_loop_of_asyncio_itself_will_do() -> None:
    measured = asyncio.run(_measure(engine.EngineOptions(), connections=1, stream=False))
    assert measured.faults == []


@pytest.mark.parametrize("size", [1, 5, 500])
async def test_an_answer_that_is_no_200_is_a_failure(size: int) -> None:
    data = b"HTTP/1.1 502 Bad Gateway\r\ncontent-length: 0\r\n\r\n"
    fleet = generator.Fleet(Load("127.0.0.1", 1, connections=1, stream=True))
    client = generator.StreamClient(fleet)
    for at in range(0, len(data), size):
        client.data_received(data[at : at + size])
    assert fleet.failures == 1
    assert fleet.faults[0].startswith("HTTP/1.1 502")
