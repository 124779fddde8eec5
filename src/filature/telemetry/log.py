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
from typing import Any, BinaryIO, Final

from filature.telemetry.record import UsageRecord

LINES_BUFFERED_MAX: Final = 4096
"""Request lines kept between two flushes; at the limit they are flushed at once."""
BATCHES_WAITING_MAX: Final = 16
"""Flushed batches that wait for the stream's reader; further ones are dropped."""
MESSAGES_WAITING_MAX: Final = 1000
"""The program's own messages that wait for it; further ones are dropped."""
CLOSE_S: Final = 2.0

_EXTRAS: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
"""Attributes that every LogRecord has; the others were given as ``extra``."""


class UnwaitedStream:
    """A stream that a thread writes to, for whoever reads it may be slow: ``put`` never waits.

    At most ``waiting_max`` pieces wait. Those for which there is no room are dropped, and so are those that
    the stream refuses: the disk is full, the reader left, it was closed. ``lines_dropped`` counts their lines.
    """

    def __init__(self, stream: BinaryIO, waiting_max: int) -> None:
        self._stream = stream
        self._waiting: queue.Queue[bytes | bytearray | None] = queue.Queue(waiting_max)
        self._writer: threading.Thread | None = None
        self.lines_dropped = 0

    def put(self, lines: bytes | bytearray) -> None:
        if self._writer is None:
            self._writer = threading.Thread(target=self._run, name="log", daemon=True)
            self._writer.start()
        try:
            self._waiting.put_nowait(lines)
        except queue.Full:
            self.lines_dropped += lines.count(b"\n")

    def close(self) -> bool:
        """Write what waits, within CLOSE_S; whether it was taken."""
        thread, self._writer = self._writer, None
        if thread is None:
            return True
        with contextlib.suppress(queue.Full):
            self._waiting.put(None, timeout=CLOSE_S)
            thread.join(CLOSE_S)
        return not thread.is_alive()

    def _run(self) -> None:
        while (lines := self._waiting.get()) is not None:
            try:
                self._stream.write(lines)
                self._stream.flush()
            except (OSError, ValueError):
                self.lines_dropped += lines.count(b"\n")


class RequestLog:
    """One line per request to ``stream``, in batches; None writes nowhere.

    ``flush`` is called from the coarse clock. What the stream does not take is dropped and counted in
    ``lines_dropped``: serving goes on.
    """

    def __init__(self, stream: BinaryIO | None) -> None:
        self._stream = None if stream is None else UnwaitedStream(stream, BATCHES_WAITING_MAX)
        self._lines = bytearray()  # one piece of memory: to keep each line would cost cache misses
        self._lines_kept = 0

    @property
    def lines_dropped(self) -> int:
        return 0 if self._stream is None else self._stream.lines_dropped

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
        if not lines or self._stream is None:
            return
        self._lines = bytearray()
        self._lines_kept = 0
        self._stream.put(lines)

    def close(self) -> None:
        """Write what is left, waiting no longer than CLOSE_S for the stream's reader."""
        self.flush()
        if self._stream is not None:
            self._stream.close()


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
        return json.dumps(line, default=str)  # ASCII: no terminal obeys what others said


class Messages:
    """What a ``logging.StreamHandler`` writes to. Event loops log, too, so nobody waits for who reads it."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = UnwaitedStream(stream, MESSAGES_WAITING_MAX)

    def write(self, text: str) -> None:
        self._stream.put(text.encode("utf-8", "backslashreplace"))

    def flush(self) -> None:
        """A thread does."""

    def close(self) -> None:
        """Write what waits, within CLOSE_S. Python would flush a stream that takes nothing at the exit, and abort."""
        if not self._stream.close():
            sys.stderr = None  # Python's own way to say that there is none


def configure_logging(level: str = "INFO", stream: BinaryIO | None = None) -> Messages:
    """Send the program's messages to ``stream`` (standard error) as JSON lines, until what is returned is closed.

    Called once by a process's composition root. Libraries speak up from WARNING on.
    """
    messages = Messages(stream or sys.stderr.buffer)
    handler = logging.StreamHandler(messages)
    handler.setFormatter(JsonFormatter())
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger("filature").setLevel(level.upper())
    return messages
