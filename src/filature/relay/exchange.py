"""One request's life on the data plane: engine chosen, answer relayed, exactly one outcome.

An exchange is wired between a client's connection and an engine's. It is made in three layers: ``client_side.py`` says
what the client is sent and how the request ends, ``engine_side.py`` deals with engines; here it is begun, told of what
the client does, and acts when a deadline is over.
"""

from typing import Final

from filature.errors import Draining, EngineFailed, EngineTimeout
from filature.relay.deadlines import (
    ANSWERING,
    ASKING,
    BEGIN,
    CLIENT_STALLED,
    END,
    ENGINE_SILENT,
    PING,
    REQUEST_OVER,
)
from filature.relay.downstream import NEVER
from filature.relay.engine_side import EngineSide
from filature.relay.outcome import CLIENT_CLOSED, Outcome
from filature.relay.reply import UNSENT
from filature.relay.responses import PING_EVENT, PING_LINE

_EVENTS_PER_TOKEN_MAX: Final = 2
_EVENTS_MORE: Final = 64
"""Events with content, beside those that the allowed tokens explain, before an engine is stopped."""


class Exchange(EngineSide):
    """One request. Made by the service, told of events by both connections."""

    __slots__ = ()

    def start(self, waited_since: float | None = None) -> None:
        """``waited_since``: by ``plane.timer``, where it had to wait for something before."""
        if waited_since is not None:
            self._started_at = waited_since
        self._connection.exchange = self
        self._try_next_engine()

    # from the client (Answering)

    def client_gone(self) -> None:
        self._leave_queue()
        self._drop_engine(cancel=True)
        self._end(Outcome.CLIENT_GONE, CLIENT_CLOSED)

    def client_paused(self) -> None:
        self._deadlines.paused(self._plane.clock.now)
        if self._upstream is not None:
            self._upstream.pause_reading()

    def client_resumed(self) -> None:
        self._deadlines.resumed(self._plane.clock.now)
        if self._upstream is not None:
            self._upstream.resume_reading()

    def drain(self) -> None:
        self._leave_queue()
        self._drop_engine(cancel=True)
        if not self._was_complete():
            self._fail(Draining(), Outcome.DRAINED)
        elif self._connection.exchange is not None:
            self._connection.exchange.drain()  # the Ending: it would wait for its commit

    # deadlines

    def tick(self, now: float) -> None:
        """A deadline may have passed: do what is due, and set the next."""
        if self._waits_until < NEVER:
            self._deadlines.enter(ASKING, now)  # no engine is silent yet
        if now >= self._waits_until:
            self._leave_queue()
            self._fail_for_want_of_room()
        elif self._goes_on_too_long():
            self._engine_failed(EngineFailed("The engine went on past the tokens it was allowed."))
        else:
            self._do_what_is_due(now)
        if not self._ended:
            self._schedule()

    def _do_what_is_due(self, now: float) -> None:
        answer, deadlines = self._answer, self._deadlines
        if self._is_shapeless:
            self._write_chunk = None  # from here on reads are counted
        due = deadlines.due(
            now,
            self._connection.took_something,
            self._progress(),
            unsent=self._reply.state is UNSENT,
            prefilling=answer is not None and not answer.has_content,
        )
        if due is REQUEST_OVER:
            self._out_of_time()
        elif due is CLIENT_STALLED:
            self._client_stalled()
        elif due is ENGINE_SILENT:
            silent = f"No data came for {deadlines.patience_s:g} s." if self._status else ""
            self._cut_short(EngineTimeout(silent))
        elif due is END:
            self._cut_short(EngineTimeout("The engine did not end its answer."))
        elif answer is None or self._is_shapeless:
            return
        elif due is BEGIN and self._request.stream and not self._will_be_document:
            self._begin(answer.release() or PING_EVENT)
        elif due is PING:
            self._reply.send(PING_LINE if answer.has_last_id else PING_EVENT)
            deadlines.spoke(now)

    def _goes_on_too_long(self) -> bool:
        """Whether the engine ignores its cap. An event has a token, as a rule, but some engines make two of one."""
        answer, cap = self._answer, self._grant.completion_tokens
        if answer is None or self._is_shapeless or self._deadlines.stage is not ANSWERING:
            return False
        events_max = _EVENTS_PER_TOKEN_MAX * cap + _EVENTS_MORE
        return answer.completion_told > cap or answer.content_events > events_max

    def _progress(self) -> int:
        """A number that grows with the answer's data; an event stream's comments do not count."""
        answer = self._answer
        return self._reads if answer is None or self._is_shapeless else answer.progress

    def _out_of_time(self) -> None:
        self._leave_queue()
        self._drop_engine(cancel=True)
        if self._was_complete():
            return
        if self._request.timeout_s is not None:
            text = f"The request's own timeout of {self._request.timeout_s:g} s ran out."
            error = EngineTimeout(text, code="timeout")
            error.should_retry = False
            self._fail(error, Outcome.CLIENT_TIMEOUT)
        else:
            text = f"The answer took longer than {self._plane.limits.request_s:g} s."
            self._fail(EngineTimeout(text), Outcome.ENGINE_STALLED)

    def _client_stalled(self) -> None:
        self._drop_engine(cancel=True)
        self._connection.abort()
        self._end(Outcome.CLIENT_STALLED, CLIENT_CLOSED)
