import dataclasses
import errno
import io
import json
import logging
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from filature.telemetry.log import (
    BATCHES_WAITING_MAX,
    LINES_BUFFERED_MAX,
    MESSAGES_WAITING_MAX,
    JsonFormatter,
    RequestLog,
    configure_logging,
)
from filature.telemetry.record import UsageRecord
from filature.units import RequestId


def record(number: int = 1) -> UsageRecord:
    return UsageRecord(
        id=RequestId(f"req_{number}"),
        client_request_id=None,
        dialect="chat",
        model="m",
        engine="e",
        outcome="completed",
        status=200,
        streamed=False,
        total_cost=7,
    )


@pytest.fixture
def root_logger() -> Iterator[logging.Logger]:
    root, ours = logging.getLogger(), logging.getLogger("filature")
    before = root.handlers, root.level, ours.level
    yield root
    root.handlers, root.level = before[:2]
    ours.setLevel(before[2])


def test_lines_are_written_when_flushed_one_object_each() -> None:
    stream = io.BytesIO()
    log = RequestLog(stream)
    log.write(record(1))
    log.write(record(2))
    assert stream.getvalue() == b""
    log.close()
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [line["id"] for line in lines] == ["req_1", "req_2"]
    assert lines[0]["event"] == "request"
    assert lines[0]["total_cost"] == 7
    told = {field.name for field in dataclasses.fields(UsageRecord) if field.init}
    asked = {"worker_started_at", "worker_ended_at"}
    assert lines[0].keys() == {"event", *told} - asked
    log.close()
    assert stream.getvalue().count(b"\n") == 2, "a line is written once"


def test_a_line_that_was_written_down_is_taken_and_not_kept() -> None:
    stream = io.BytesIO()
    log = RequestLog(stream)
    told = record(1)
    line = told.write_down()
    log.write(told)
    log.close()
    assert stream.getvalue() == line + b"\n"
    assert not told.line


def test_a_record_that_was_changed_is_written_down_anew() -> None:
    told = record(1)
    told.write_down()
    told.outcome = "not_settled"
    told.write_down()
    assert json.loads(told.take_line())["outcome"] == "not_settled"


def test_the_buffer_is_bounded() -> None:
    stream = io.BytesIO()
    log = RequestLog(stream)
    for number in range(LINES_BUFFERED_MAX):
        log.write(record(number))
    assert not log._lines
    log.close()
    assert stream.getvalue().count(b"\n") == LINES_BUFFERED_MAX


class StuckStream(io.BytesIO):
    """Its reader takes nothing until it is let go."""

    def __init__(self) -> None:
        super().__init__()
        self.let_go = threading.Event()

    def write(self, data: Any) -> int:
        self.let_go.wait(10)
        return super().write(data)


def test_a_reader_that_takes_nothing_holds_nobody_up_and_costs_bounded_memory() -> None:
    stream = StuckStream()
    log = RequestLog(stream)
    for number in range(BATCHES_WAITING_MAX + 5):
        log.write(record(number))
        log.flush()
    assert 4 <= log.lines_dropped <= 5, "one batch may be with the writer, the others wait"
    stream.let_go.set()
    log.close()
    assert stream.getvalue().count(b"\n") == BATCHES_WAITING_MAX + 5 - log.lines_dropped


class FullDisk(io.BytesIO):
    """Takes nothing while it is full."""

    full = True

    def write(self, data: Any) -> int:
        if self.full:
            raise OSError(errno.ENOSPC, "No space left on device")
        return super().write(data)


def test_what_a_stream_refuses_is_counted_and_what_it_takes_later_is_written() -> None:
    stream = FullDisk()
    log = RequestLog(stream)
    log.write(record(1))
    log.close()
    assert log.lines_dropped == 1
    stream.full = False
    log.write(record(2))
    log.close()
    assert json.loads(stream.getvalue())["id"] == "req_2"
    stream.close()
    log.write(record(3))
    log.close()
    assert log.lines_dropped == 2


def test_without_a_stream_nothing_is_kept_and_nothing_counts_as_lost() -> None:
    log = RequestLog(None)
    for number in range(LINES_BUFFERED_MAX + 1):
        log.write(record(number))
    log.close()
    assert log.lines_dropped == 0


def test_messages_are_json_with_their_extras(root_logger: logging.Logger) -> None:
    stream = io.BytesIO()
    messages = configure_logging("INFO", stream)
    logging.getLogger("filature.relay").info("engine %s", "up\ud800\x9b", extra={"engine": "e"})
    logging.getLogger("somebody.else").info("chatter")
    messages.close()
    (line,) = stream.getvalue().splitlines()
    told = json.loads(line)
    assert told["event"] == "engine up\ud800\x9b"
    assert line.isascii(), "no terminal obeys it"
    assert told["engine"] == "e"
    assert told["level"] == "info"
    assert told["time"].endswith("Z")


def test_a_reader_that_takes_no_messages_holds_nobody_up(
    root_logger: logging.Logger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stderr", sys.stderr)
    stream = StuckStream()
    messages = configure_logging("INFO", stream)
    for _ in range(MESSAGES_WAITING_MAX + 5):
        logging.getLogger("filature.relay").info("the engine is away")
    messages.close()
    assert sys.stderr is None, "nobody is to wait for it at the exit either"
    stream.let_go.set()


def test_an_exception_is_part_of_its_line() -> None:
    try:
        raise ValueError("what went wrong")
    except ValueError:
        made = logging.LogRecord("n", logging.ERROR, "p", 1, "failed", None, None)
        made.exc_info = sys.exc_info()
    line = JsonFormatter().format(made)
    assert "\n" not in line
    assert "what went wrong" in json.loads(line)["exception"]
