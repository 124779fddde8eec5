"""Log lines, one JSON object each: a line per request, and the program's own messages.

A request's line is its usage record and nothing else: never a prompt, an answer or a key.
"""

import contextlib
import json
import logging
import queue
import sys
import threading
import time
from typing import Any, BinaryIO, Final, TextIO

from filature.telemetry.record import UsageRecord

LINES_BUFFERED_MAX: Final = 4096
"""Request lines kept between two flushes; at the limit they are flushed at once."""
BATCHES_WAITING_MAX: Final = 16
"""Flushed batches that wait for the stream's reader; further ones are dropped."""
CLOSE_S: Final = 2.0

_EXTRAS: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
"""Attributes that every LogRecord has; the others were given as ``extra``."""


class RequestLog:
    """One line per request to ``stream``, in batches; None writes nowhere.

    ``flush`` is called from the coarse clock and hands what was queued to a thread, for whoever
    reads the stream may be slow. Lines for which there is no room are dropped and counted in
    ``lines_dropped``, and so are those of a stream that failed: serving goes on.
    """

    def __init__(self, stream: BinaryIO | None) -> None:
        self._stream = stream
        self._lines = bytearray()  # one piece of memory: to keep each line would cost cache misses
        self._lines_kept = 0
        self._batches: queue.Queue[bytearray | None] = queue.Queue(BATCHES_WAITING_MAX)
        self._writer: threading.Thread | None = None
        self.lines_dropped = 0

    def write(self, record: UsageRecord) -> None:
        """Queue one record's line."""
        if self._stream is None:
            record.line = b""
            return
        # written down here and not by the thread, which would hold the interpreter for a whole batch
        self._lines += record.take_line()
        self._lines += b"\n"
        self._lines_kept += 1
        if self._lines_kept >= LINES_BUFFERED_MAX:
            self.flush()

    def flush(self) -> None:
        """Hand what is queued to the thread; never waits."""
        lines = self._lines
        if not lines:
            return
        self._lines = bytearray()
        self._lines_kept = 0
        if self._writer is None:
            self._writer = threading.Thread(target=self._run, name="request-log", daemon=True)
            self._writer.start()
        try:
            self._batches.put_nowait(lines)
        except queue.Full:
            self.lines_dropped += lines.count(b"\n")

    def close(self) -> None:
        """Write what is left, waiting no longer than CLOSE_S for the stream's reader."""
        self.flush()
        thread = self._writer
        if thread is None:
            return
        with contextlib.suppress(queue.Full):
            self._batches.put(None, timeout=CLOSE_S)
            thread.join(CLOSE_S)
        self._writer = None

    def _run(self) -> None:
        while (lines := self._batches.get()) is not None:
            self._write(lines)

    def _write(self, lines: bytearray) -> None:
        stream = self._stream
        if stream is None:
            self.lines_dropped += lines.count(b"\n")
            return
        try:
            stream.write(lines)
            stream.flush()
        except (OSError, ValueError) as error:  # the disk is full, the reader left, it was closed
            self.lines_dropped += lines.count(b"\n")
            self._stream = None
            logging.getLogger(__name__).warning("request log given up: %s", error)


class JsonFormatter(logging.Formatter):
    """A log record as one line of JSON; what was given as ``extra`` becomes members of it."""

    def format(self, record: logging.LogRecord) -> str:
        seconds = time.gmtime(record.created)
        line: dict[str, Any] = {
            "time": f"{time.strftime('%Y-%m-%dT%H:%M:%S', seconds)}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": record.getMessage(),
        }
        line |= {key: value for key, value in vars(record).items() if key not in _EXTRAS}
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str, ensure_ascii=False)


def configure_logging(level: str = "INFO", stream: TextIO | None = None) -> None:
    """Send the program's messages to ``stream`` (standard error) as JSON lines.

    Called once by a process's composition root. Libraries speak up from WARNING on.
    """
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonFormatter())
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger("filature").setLevel(level.upper())
