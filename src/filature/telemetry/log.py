"""Log lines, one JSON object each: a line per request, and the program's own messages.

A request's line is its usage record and nothing else: never a prompt, an answer or a key.
"""

import json
import logging
import sys
import time
from typing import Any, BinaryIO, Final, TextIO

import orjson

from filature.telemetry.record import UsageRecord

LINES_BUFFERED_MAX: Final = 4096
"""Request lines kept between two flushes; at the limit they are written at once."""

_START: Final = b'{"event":"request",'
_EXTRAS: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
"""Attributes that every LogRecord has; the others were given as ``extra``."""


class RequestLog:
    """One line per request to ``stream``, written in batches by ``flush``; None writes nowhere.

    ``flush`` is called from the coarse clock and at exit. A stream that fails is given up: serving
    goes on, and ``lines_dropped`` tells.
    """

    def __init__(self, stream: BinaryIO | None) -> None:
        self._stream = stream
        self._records: list[UsageRecord] = []
        self.lines_dropped = 0

    def write(self, record: UsageRecord) -> None:
        """Queue one record; it must not change any more."""
        if self._stream is None:
            return
        self._records.append(record)
        if len(self._records) >= LINES_BUFFERED_MAX:
            self.flush()

    def flush(self) -> None:
        """Write what is queued."""
        records = self._records
        if not records:
            return
        self._records = []
        stream = self._stream
        if stream is None:
            return
        lines = b"\n".join([_START + orjson.dumps(r.as_log_fields())[1:] for r in records]) + b"\n"
        try:
            stream.write(lines)
            stream.flush()
        except (OSError, ValueError) as error:  # the disk is full, the reader left, it was closed
            self.lines_dropped += len(records)
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
