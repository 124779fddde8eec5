"""When an exchange has to act though nothing happened: its deadlines, and which of them is over.

It is told what happens and is asked now and again. What follows is the exchange's to do.
"""

from collections.abc import Callable
from typing import Final, Literal

from filature.relay.clock import TICK_S
from filature.relay.limits import RelayLimits

Stage = Literal["asking", "answering", "ending"]
ASKING: Final = "asking"
"""A request is on its way to an engine, and no head of an answer came."""
ANSWERING: Final = "answering"
ENDING: Final = "ending"
"""The answer's end mark came, the end of the engine's response did not."""

Due = Literal[
    "nothing",
    "request_over",
    "client_stalled",
    "engine_silent",
    "begin",
    "ping",
    "end",
]
NOTHING: Final = "nothing"
REQUEST_OVER: Final = "request_over"
CLIENT_STALLED: Final = "client_stalled"
ENGINE_SILENT: Final = "engine_silent"
BEGIN: Final = "begin"
"""What precedes the content was held long enough."""
PING: Final = "ping"
"""The client heard nothing for long enough."""
END: Final = "end"
"""The engine's response need not be waited for."""


class Deadlines:
    """The deadlines of one request, in seconds of the coarse clock."""

    __slots__ = (
        "_limits",
        "_paused_at",
        "_progress",
        "_progress_at",
        "_request_end",
        "_since",
        "_spoke_at",
        "patience_s",
        "stage",
    )

    def __init__(self, limits: RelayLimits, now: float, timeout_s: float | None) -> None:
        self._limits = limits
        wait_s = limits.request_s
        if timeout_s is not None and timeout_s < wait_s:
            wait_s = timeout_s + TICK_S  # the clock may be so far behind: never over too early
        self._request_end = now + wait_s
        self._since = self._progress_at = self._spoke_at = now
        self._progress = 0
        self._paused_at: float | None = None
        self.stage: Stage = ASKING
        self.patience_s = limits.first_byte_s
        """How long the engine may be silent, at this stage."""

    def enter(self, stage: Stage, now: float) -> None:
        self.stage = stage
        self._since = self._progress_at = now

    def spoke(self, now: float) -> None:
        """The client was sent something."""
        self._spoke_at = now

    def paused(self, now: float) -> None:
        """The client has not taken what it was sent."""
        self._paused_at = now

    def resumed(self, now: float) -> None:
        self._paused_at = None
        self._progress_at = now

    def next_look(self, now: float) -> float:
        """When to ask again."""
        limits = self._limits
        wait_s = limits.end_mark_wait_s if self.stage is ENDING else limits.look_s
        return min(now + wait_s, self._request_end)

    def due(
        self,
        now: float,
        took_something: Callable[[], bool],
        progress: int,
        *,
        unsent: bool,
        prefilling: bool,
    ) -> Due:
        """What is to be done.

        ``took_something``: whether a client that does not read has read a little all the same.
        ``progress`` is a number that grows with the answer. ``unsent``: the client was sent nothing.
        ``prefilling``: an answer began, and no content of it came.
        """
        limits, stage = self._limits, self.stage
        if now >= self._request_end:
            return REQUEST_OVER
        if stage is ENDING:
            # whether the client reads or not: the outcome is known
            return END if now - self._since >= limits.end_mark_wait_s else NOTHING
        paused_at = self._paused_at
        if paused_at is not None:
            if took_something():
                self._paused_at = now
            elif now - paused_at >= limits.client_stall_s:
                return CLIENT_STALLED
            return NOTHING
        if stage is ASKING:
            return ENGINE_SILENT if now - self._since >= limits.first_byte_s else NOTHING
        # what precedes the first content may be the prefill of a long prompt
        self.patience_s = limits.first_byte_s if prefilling else limits.progress_s
        if progress != self._progress:
            self._progress = progress
            self._progress_at = self._spoke_at = now
        elif now - self._progress_at >= self.patience_s:
            return ENGINE_SILENT
        if unsent:
            return BEGIN if now - self._since >= limits.hold_s else NOTHING
        return PING if now - self._spoke_at >= limits.ping_s else NOTHING
