"""When a hop had a request, for a client that asked by ``enable_debug``: header lines, and ``debug`` beside the usage.

Nothing here is made for a request that did not ask. Times are Unix time in seconds, with microseconds. The worker
is asked by a header and tells its part by headers of its answer; what is no time there is not passed on.
"""

import re
from collections.abc import Callable, Mapping
from typing import Final

from filature.telemetry.record import UsageRecord

ASK_HEADER: Final = b"x-filature-debug"
ASK_LINE: Final = ASK_HEADER + b": 1\r\n"
"""To a worker: tell when you had it."""
START_LINE: Final = b"x-filature-%b-start: %b\r\n"
END_LINE: Final = b"x-filature-%b-end: %b\r\n"
_WORKER_START: Final = b"x-filature-worker-start"
_WORKER_END: Final = b"x-filature-worker-end"
_TIME: Final = re.compile(rb"(?:0|[1-9][0-9]{0,11})(?:\.[0-9]{1,6})?")


class HopTimings:
    """Of one request at one hop: ``proxy`` or ``worker``. ``timer`` is monotonic, ``wall`` Unix time."""

    __slots__ = ("_hop", "_record", "_timer", "_wall", "_worker_end", "_worker_start")

    def __init__(
        self,
        hop: bytes,
        record: UsageRecord,
        *,
        timer: Callable[[], float],
        wall: Callable[[], float],
    ) -> None:
        self._hop = hop
        self._record = record
        self._timer = timer
        self._wall = wall
        self._worker_start = b""
        self._worker_end = b""

    def forget_worker(self) -> None:
        """Another one is asked."""
        self._worker_start = self._worker_end = b""
        self._record.worker_started_at = self._record.worker_ended_at = None

    def worker_said(self, headers: Mapping[bytes, bytes]) -> None:
        """The head of a worker's answer: its word, which nothing depends on."""
        self._worker_start = _time_in(headers, _WORKER_START)
        self._worker_end = _time_in(headers, _WORKER_END)
        record = self._record
        record.worker_started_at = float(self._worker_start) if self._worker_start else None
        record.worker_ended_at = float(self._worker_end) if self._worker_end else None

    def header_lines(self, *, ended: bool) -> bytes:
        """``ended``: the answer is sent at once, so that its end is known."""
        lines = START_LINE % (self._hop, _written(self._record.started_at))
        if ended:
            lines += END_LINE % (self._hop, _written(self._wall()))
        if self._worker_start:
            lines += START_LINE % (b"worker", self._worker_start)
        if self._worker_end:
            lines += END_LINE % (b"worker", self._worker_end)
        return lines

    def debug_member(self, started_at: float, first_content_at: float | None) -> bytes:
        """The member of a JSON object, as things stand now. Both by ``timer``; None: the first content is this."""
        now = self._timer()
        first = now if first_content_at is None else first_content_at
        proxy = b'"start":%b,"queue_s":%.6f,"first_content_s":%.6f,"total_s":%.6f' % (
            _written(self._record.started_at),
            self._record.queue_s,
            first - started_at,
            now - started_at,
        )
        worker = b""
        if self._worker_start:
            worker = b',"worker":{"start":' + self._worker_start
            if self._worker_end:
                worker += b',"end":' + self._worker_end
            worker += b"}"
        return b'"debug":{"proxy":{%b}%b}' % (proxy, worker)


def _written(time: float) -> bytes:
    return b"%.6f" % time


def _time_in(headers: Mapping[bytes, bytes], name: bytes) -> bytes:
    value = headers.get(name, b"")
    return value if _TIME.fullmatch(value) else b""
