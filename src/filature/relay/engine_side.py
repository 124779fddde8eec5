"""The half of an exchange that faces engines: one chosen, asked, read, replaced where it fails.

The engine's bytes go through the postprocessor to the client's transport in one chain of calls, which begins here and
ends in ``client_side.py``. What the client does, and what is done when a deadline is over, is in ``exchange.py``.
"""

import logging
from typing import Final

from filature.answer.postprocessor import AnswerPostprocessor
from filature.errors import (
    EngineError,
    EngineFailed,
    EngineRefused,
    EngineTimeout,
    RouteMissing,
    Unavailable,
)
from filature.relay.client_side import ClientSide
from filature.relay.deadlines import ANSWERING, ASKING, ENDING
from filature.relay.downstream import NEVER, DownstreamConnection
from filature.relay.engines import Engine
from filature.relay.http1 import COMPRESSION, RequestHead, ResponseHead
from filature.relay.outcome import Outcome
from filature.relay.plane import DataPlane
from filature.relay.reply import UNSENT
from filature.relay.responses import chunk
from filature.relay.settlement import Grant
from filature.relay.timings import ASK_LINE
from filature.relay.upstream import UpstreamConnection
from filature.relay.waiting import BUSY_HEADER, BUSY_S
from filature.request.parse import ParsedRequest
from filature.request.rewrite import body_for_engine
from filature.telemetry.record import UsageRecord
from filature.wire.dialect import Dialect
from filature.wire.engine_errors import (
    ABOUT_THE_KEY,
    EngineMessage,
    failure_text,
    read_error,
    read_error_body,
)

_PASSED_REFUSALS: Final = (400, 413, 422)
"""An engine's judgement of the request; any other refusal is the engine's own failure."""

_NO_ROUTE: Final = (404, 405)
"""Of any API but chat, which all engines have: of that they say so of a model."""
LACKS_HEADER: Final = b"x-filature-unsupported"
"""By which a worker says so of its engines."""

log = logging.getLogger(__name__)


class EngineSide(ClientSide):
    """One request, as its engines see it (``relay.upstream.Caller``)."""

    __slots__ = (
        "_asked_at",
        "_collected",
        "_collected_bytes",
        "_engine",
        "_head",
        "_lacks",
        "_last_error",
        "_reads",
        "_retry_after_s",
        "_room_by",
        "_status",
        "_waits_until",
    )

    def __init__(
        self,
        plane: DataPlane,
        connection: DownstreamConnection,
        head: RequestHead,
        request: ParsedRequest,
        record: UsageRecord,
        header_lines: bytes,
        grant: Grant,
    ) -> None:
        super().__init__(plane, connection, head, request, record, header_lines, grant)
        self._head = head
        self._engine: Engine | None = None
        self._collected: list[bytes] = []  # the body of an engine's refusal
        self._collected_bytes = 0
        self._status = 0  # of the engine's answer; 0 until its head came
        self._retry_after_s: int | None = None  # as its refusal says
        self._lacks = False  # its refusal says that it does not have the API
        self._reads = 0  # those that were not simply the next chunk of an event stream
        self._last_error: EngineError | None = None
        self._asked_at = 0.0
        self._waits_until = NEVER  # for an engine to have room
        self._room_by = NEVER  # the end of all waits, however often it is sent back

    # towards the engine

    def _try_next_engine(self) -> None:
        """Ask one that was not tried, or wait until one has room."""
        waiting, grant = self._plane.waiting, self._grant
        if waiting.waits_for(grant.model):
            self._wait()
            waiting.freed()
        elif not self.try_again():
            self._wait()

    def _wait(self) -> None:
        plane, grant = self._plane, self._grant
        if self._room_by == NEVER:
            self._room_by = plane.clock.now + plane.limits.wait_s
        elif plane.clock.now >= self._room_by:
            self._fail_for_want_of_room()
            return
        if not plane.waiting.enter(grant.model, grant.account, self):
            plane.metrics.limit_reached("waiting_max")
            text = f"Every worker that serves {grant.model!r} is busy, and too many requests wait."
            self._fail_for_good(Unavailable(text, code="no_capacity"))
            return
        self._waits_until = self._room_by
        self._schedule()

    def _leave_queue(self) -> None:
        self._waits_until = NEVER
        self._plane.waiting.leave(self._grant.model, self._grant.account, self)

    def try_again(self) -> bool:
        """Ask an engine that has room; False: there is none now."""
        try:
            engine = self._plane.router.pick(self._grant, self._tried)
        except Unavailable as error:
            self._fail_for_good(self._last_error or error)
            return True
        if engine is None:
            return False
        self._waits_until = NEVER
        self._ask(engine)
        return True

    def _ask(self, engine: Engine) -> None:
        plane, request, grant = self._plane, self._request, self._grant
        model = engine.models[grant.model]
        body = body_for_engine(
            request,
            model=model.upstream_name,
            include_usage=model.abilities.include_usage,
            continuous_usage=model.abilities.continuous_usage,
            max_tokens=grant.limit,
            both_limits=model.abilities.both_limits,
            for_network=engine.is_remote,
        )
        self._engine, self._model = engine, model
        self._tried.append(engine)
        engine.began(request.answers)
        self._answer = None
        self._status = 0
        self._deadlines.enter(ASKING, plane.clock.now)
        self._schedule()
        lines = self._head.engine_lines
        if engine.is_remote:
            lines += grant.ticket_line(engine, self._record)
        if self._timings is not None:
            self._timings.forget_worker()
            if engine.is_remote:
                lines += ASK_LINE
        self._asked_at = plane.timer()
        request_id = self._record.id.encode("ascii")
        engine.pool.send(self, engine.post(request.dialect, request_id, lines, body))

    def _drop_engine(self, *, cancel: bool) -> None:
        """Let go of the engine, once per try; ``cancel`` where its answer has not ended."""
        engine, upstream = self._engine, self._upstream
        self._engine = self._upstream = None
        if engine is not None:
            engine.ended(self._request.answers)
            self._plane.waiting.freed()
            if cancel:
                engine.pool.cancel(self)
                if upstream is not None:
                    upstream.cancel()

    # from the engine (Caller)

    def on_connected(self, connection: UpstreamConnection) -> None:
        if self._upstream is not None:  # which is dead, and may have been read
            self._record.sent_again = True
        self._upstream = connection
        self._record.queue_s = self._plane.timer() - self._started_at
        if self._connection.writing_paused:
            connection.pause_reading()

    def on_head(self, head: ResponseHead) -> None:
        self._status = head.status
        self._deadlines.enter(ANSWERING, self._plane.clock.now)
        if self._timings is not None and self._tried[-1].is_remote:
            self._timings.worker_said(head.headers)
        if head.status == 503 and BUSY_HEADER in head.headers:
            self._on_busy()
            return
        self._room_by = NEVER
        if head.status != 200:
            self._retry_after_s = head.retry_after_s
            self._lacks = self._says_it_lacks(head)
            self._collected.clear()
            self._collected_bytes = 0
        elif COMPRESSION.search(head.headers.get(b"content-encoding", b"")):
            self._engine_failed(EngineFailed("The engine compressed its answer unasked."))
        else:
            self._content_type = head.content_type
            self._answer = self._postprocessor()

    def _says_it_lacks(self, head: ResponseHead) -> bool:
        """Whether the engine refuses since it does not have the API."""
        if self._tried[-1].is_remote:
            return LACKS_HEADER in head.headers
        return head.status in _NO_ROUTE and self._request.dialect is not Dialect.CHAT

    def _on_busy(self) -> None:
        """The worker has no room, whatever it told before: no failure, and no try."""
        engine = self._tried.pop()
        engine.full_until = self._plane.clock.now + BUSY_S
        engine.refused += 1
        self._drop_engine(cancel=True)
        self._try_next_engine()

    def on_payload(self, payload: bytes, raw: bytes | None) -> None:
        answer = self._answer
        if answer is None:
            self._collect(payload)
            return
        if self._sample is not None:
            self._sample.keep(payload)
        out = answer.feed(payload)
        if answer.said_last_word:
            self._on_last_word(answer, out)
        elif out:
            write = self._write_chunk
            if write is not None:
                write(raw if out is payload and raw is not None else chunk(out))
            else:
                self._on_output(answer, out)
        else:
            self._reads += 1

    def _on_last_word(self, answer: AnswerPostprocessor, out: bytes) -> None:
        """An error frame, or the end mark: that waits for the end of the engine's message and the commit."""
        if answer.error is not None:
            if out and not (answer.end_mark_seen or self._is_misplaced):  # no end, no document
                self._on_output(answer, out)
            self._on_error_frame(answer.error)
            return
        self._note_content(answer)
        self._tail += out
        if self._deadlines.stage is not ENDING:
            self._deadlines.enter(ENDING, self._plane.clock.now)
            self._schedule()
        elif len(self._tail) > self._plane.limits.after_end_mark_bytes_max:
            self._plane.metrics.limit_reached("after_end_mark_bytes_max")
            self._cut_short(EngineFailed("The engine went on after its end mark."))

    def _collect(self, payload: bytes) -> None:
        self._reads += 1
        self._collected.append(payload)
        self._collected_bytes += len(payload)
        if self._collected_bytes > self._plane.limits.error_body_bytes_max:
            self._on_refusal()

    def _on_output(self, answer: AnswerPostprocessor, out: bytes) -> None:
        """Output that is not simply the next chunk of a stream whose head is out."""
        reply = self._reply
        self._reads += 1
        self._note_content(answer)
        if self._is_misplaced:
            text = "The engine answered with a document after its stream had begun."
            self._engine_failed(EngineFailed(text))
        elif reply.state is not UNSENT:
            reply.keeps_last_byte = self._is_shapeless
            reply.send(out)
            self._take_short_cut()
        elif answer.mode == "events" or answer.overflowed:
            self._begin(out)
        else:  # a document, or what is none: it is judged at its end
            reply.hold(out)
            if reply.held_bytes > self._plane.limits.document_bytes_held_max:
                self._begin(b"")

    def _on_error_frame(self, frame: object) -> None:
        engine, answer = self._tried[-1], self._answer
        told = read_error(frame, engine.api_key)
        status = told.status if answer is None or not answer.started else 0
        text = told.message
        if told.status in ABOUT_THE_KEY:
            text = failure_text(told, told.status, of_worker=engine.is_remote)
        self._on_told(told, status, EngineFailed(text, param=told.param, code=told.code))

    def on_end(self) -> None:
        answer = self._answer
        self._upstream = None  # it is its pool's again
        if answer is None:
            self._on_refusal()
            return
        self._drop_engine(cancel=False)
        tail = answer.finish(True)
        verdict = answer.verdict(True)
        if verdict.completed and not answer.is_no_answer:
            self._complete(answer, tail)
            return
        self._hand_over_rest(answer, tail)
        if answer.error is not None:
            self._on_error_frame(answer.error)
        elif verdict.completed:
            self._broken(EngineFailed("The engine's document is no answer."))
        else:
            self._broken(EngineFailed(f"The engine's answer is incomplete: {verdict.reason}."))

    def _complete(self, answer: AnswerPostprocessor, tail: bytes) -> None:
        """The answer is whole, and its outcome known."""
        engine = self._tried[-1]
        if self._ignores_zero(answer):
            error = EngineFailed(
                "The engine generates on where max_tokens is 0; ask for 1 or more."
            )
            error.should_retry = False
            self._fail(error, Outcome.ENGINE_FAILED)
            return
        if answer.exceeded:
            log.warning("engine %s claims more than is possible: %s", engine.name, self._record.id)
            self._plane.metrics.engine_failed(engine.name, "engine_exceeded")
            if engine.watch is not None:
                engine.watch.exceeded(self._request, self._grant.model)
        else:
            engine.succeeded(self._plane.timer() - self._asked_at)
        self._finish(answer, tail)

    def _ignores_zero(self, answer: AnswerPostprocessor) -> bool:
        """Whether a whole answer has a completion where the request allows none: to Ollama, 0 tokens are any number.

        That is the request's doing, so the engine is not taken for broken. One token each is no completion: vLLM makes
        it where it only echoes. Of a stream the client saw it already, as far as ``exchange`` let it.
        """
        request = self._request
        return (
            request.max_tokens == 0
            and not self._plane.passes
            and self._reply.state is UNSENT
            and answer.completion_told > request.answers
        )

    def _was_complete(self) -> bool:
        """Whether nothing was missing when the answer was cut short; then it ends as completed."""
        answer = self._answer
        if answer is None:
            return False
        tail = answer.finish(False)
        if answer.verdict(False).completed and not answer.is_no_answer:
            self._complete(answer, tail)
            return True
        self._hand_over_rest(answer, tail)
        return False

    def _on_refusal(self) -> None:
        """The engine answered with a status other than 200."""
        engine, status = self._tried[-1], self._status
        told = read_error_body(b"".join(self._collected), engine.api_key)
        text = failure_text(told, status, of_worker=engine.is_remote)
        failed = EngineFailed(text)
        if self._lacks:
            failed = RouteMissing(text)
            if self._plane.passes:
                failed.header_lines = LACKS_HEADER + b": 1\r\n"
        failed.retry_after_s = self._retry_after_s or failed.retry_after_s
        self._on_told(told, status, failed)

    def _on_told(self, told: EngineMessage, status: int, failed: EngineFailed) -> None:
        """A refusal, or a failure. vLLM refuses inside a 200 what only its core checks."""
        self._drop_engine(cancel=True)
        if status in _PASSED_REFUSALS:
            message = told.message or "The engine refused the request."
            error = EngineRefused(message, status=status, param=told.param, code=told.code)
            self._fail(error, Outcome.REFUSED_BY_ENGINE)
        else:
            self._broken(failed)

    def on_lost(self, reason: str, *, ours: bool = False) -> None:
        if ours:
            self._plane.metrics.limit_reached("open_files")
            self._drop_engine(cancel=True)
            self._fail_for_good(Unavailable(f"No engine can be reached from here: {reason}."))
        else:
            self._cut_short(EngineFailed(f"The engine failed: {reason}."))

    def on_silent(self) -> bool:
        """All connections of a worker may be dead: one that has room is asked in its place, where there is one."""
        plane, grant = self._plane, self._grant
        if len(self._tried) > plane.limits.retries_max or plane.waiting.waits_for(grant.model):
            return False
        try:
            other = plane.router.pick(grant, self._tried)
        except Unavailable:
            return False
        if other is not None:
            self._engine_failed(EngineFailed("The worker gave no sign of life."))
        return other is not None

    def _cut_short(self, error: EngineError) -> None:
        """The engine's answer will not go on."""
        self._drop_engine(cancel=True)
        if not self._was_complete():
            self._broken(error)

    # failure

    def _engine_failed(self, error: EngineError) -> None:
        self._drop_engine(cancel=True)
        self._broken(error)

    def _broken(self, error: EngineError) -> None:
        """The engine let go of has failed: the next one is tried if the client saw nothing yet."""
        plane, answer, stalled = self._plane, self._answer, isinstance(error, EngineTimeout)
        self._record.sent_again = False  # not to the next one
        engine = self._tried[-1]
        if isinstance(error, RouteMissing):
            engine.lacked(self._request.dialect, plane.clock.now)
        else:
            engine.failed(plane.clock.now)
            kind = "engine_timeout" if stalled else "engine_failed"
            plane.metrics.engine_failed(engine.name, kind)
        self._last_error = error
        begun = self._reply.state is not UNSENT and not self._is_misplaced
        if begun and answer is not None and answer.started:
            outcome = Outcome.ENGINE_STALLED if stalled else Outcome.ENGINE_FAILED_MIDSTREAM
            self._fail(error, outcome)
        elif len(self._tried) <= plane.limits.retries_max:
            self._reply.forget_held()
            self._tail = b""
            self._first_content_at = None
            self._try_next_engine()
        else:
            self._fail_for_good(error)

    def _fail_for_want_of_room(self) -> None:
        text = f"Every worker that serves {self._grant.model!r} is busy."
        self._fail_for_good(self._last_error or Unavailable(text, code="no_capacity"))
