"""The benchmark counts right and says what it compared; how fast anything is, is nobody's business here."""

import asyncio
import ssl

import pytest
from benchmarks import engine, generator, payload, report, routing, shapes
from benchmarks.generator import Load, Measured
from benchmarks.measure import Turns
from benchmarks.relays import CERTIFICATE


@pytest.fixture(autouse=True)
def _keep_the_collector(monkeypatch: pytest.MonkeyPatch) -> None:
    """The generator turns the garbage collector off for its own process; this one needs it."""
    monkeypatch.setattr(generator, "freeze_garbage", lambda: None)


async def _measure(
    options: engine.EngineOptions, *, tls: ssl.SSLContext | None = None, **load: object
) -> Measured:
    server, port = await engine.start(options, tls=tls)
    try:
        return await generator.run(
            Load("127.0.0.1", port, tls=tls is not None, warm_s=0.1, seconds=0.3, **load)  # type: ignore[arg-type]  # by name
        )
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


@pytest.mark.parametrize("stream", [True, False])
async def test_a_client_of_tls_counts_the_same(stream: bool) -> None:
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(CERTIFICATE, CERTIFICATE.with_name("key.pem"))
    options = engine.EngineOptions(events=7, interval_s=0.0)
    measured = await _measure(options, tls=tls, connections=2, stream=stream, events_per_answer=7)
    assert measured.faults == []
    assert measured.events == (7 * measured.answers if stream else 0)
    assert measured.answers > 2


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


# what is printed


def test_the_hop_is_compared_without_tls_and_with_it() -> None:
    (unary,) = [shape for shape in shapes.HOP_SHAPES if shape.name == "unary"]
    cpu_us = {
        "filature": [40, 50],
        "hop": [80, 200],
        "filature-tls": [60, 60],
        "hop-tls": [150, 180],
    }
    measured = {
        name: [Measured(seconds=2.0, answers=10, relay_cpu_ns=us * 10_000) for us in each]
        for name, each in cpu_us.items()
    }
    plain, tls = report.hop_rows(Turns(unary, measured))
    assert (plain.value, plain.limit) == (3.0, 2.2)  # of 2 × and 4 ×, turn by turn
    assert plain.beside == "140.0 µs at 5/s, the proxy alone 45.0 µs at 5/s"
    assert (tls.value, tls.limit) == (2.75, 2.2)
    assert tls.beside == "165.0 µs at 5/s, the proxy alone 60.0 µs at 5/s"
    assert "TLS" in tls.figure
    assert "TLS" not in plain.figure
    assert (plain.verdict, tls.verdict) == ("not met, by 36%", "not met, by 25%")


def test_routing_is_told_for_few_workers_and_for_many() -> None:
    rows = {row.name: row for row in routing.rows(2000)}
    for workers in (10, 200):
        assert rows.pop(f"routing/{workers}/pick").value > 0
        # workers are drawn in pairs: alone by chance it would be 0.07 and 0.32
        assert 0 < rows.pop(f"routing/{workers}/variation").value < 0.3
        same = rows.pop(f"routing/{workers}/same")
        assert 0.5 < same.value <= 1
        assert "of those whose worker had room" in same.beside
    assert rows == {}
