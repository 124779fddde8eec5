"""One request's life on the data plane: engine chosen, answer relayed, exactly one outcome.

An exchange is wired between a client's connection and an engine's: the engine's bytes go through the
postprocessor to the client's transport in one chain of calls. It ends in ``_end`` or, complete, in
``_complete``, once; the last of a complete answer goes out by ``Ending``.
"""

import logging
from collections.abc import Callable
from typing import Final

from filature.answer.bounds import UsageBounds
from filature.answer.postprocessor import AnswerPostprocessor
from filature.errors import (
    EngineError,
    EngineFailed,
    EngineRefused,
    EngineTimeout,
    FilatureError,
    ModelNotFound,
    RequestError,
    Unavailable,
)
from filature.relay.accounting import account
from filature.relay.downstream import DownstreamConnection
from filature.relay.ending import Ending
from filature.relay.engines import Engine, ServedModel
from filature.relay.http1 import RequestHead, ResponseHead
from filature.relay.outcome import Outcome
from filature.relay.plane import DataPlane
from filature.relay.reply import CHUNKED, UNSENT, Reply
from filature.relay.responses import chunk
from filature.relay.settlement import Grant
from filature.relay.upstream import UpstreamConnection
from filature.request.parse import ParsedRequest
from filature.request.rewrite import body_for_engine
from filature.telemetry.record import UsageRecord
from filature.wire.engine_errors import EngineMessage, read_error, read_error_body

_PASSED_REFUSALS: Final = (400, 413, 422)
"""An engine's judgement of the request; any other refusal is the engine's own failure."""
_HELD_READS_MAX: Final = 64
"""Reads after an end mark that are kept; an engine that goes on has ended all the same."""
_EVENTS_PER_TOKEN_MAX: Final = 2
_EVENTS_MORE: Final = 64
"""Events with content, beside those that the allowed tokens explain, before an engine is stopped."""
_PING: Final = b": \n\n"
_CLIENT_CLOSED: Final = 499
"""The status in the record of an answer that nobody was there to take; nginx's number."""

log = logging.getLogger(__name__)


class Exchange:
    """One request. Made by the service, told of events by both connections."""

    __slots__ = (
        "_answer",
        "_collected",
        "_collected_bytes",
        "_connection",
        "_content_type",
        "_end_held",
        "_end_held_since",
        "_ended",
        "_engine",
        "_first_content_at",
        "_grant",
        "_head",
        "_held_since",
        "_last_error",
        "_model",
        "_paused_at",
        "_plane",
        "_progress_at",
        "_progress_seen",
        "_reads",
        "_record",
        "_reply",
        "_request",
        "_request_deadline",
        "_sent_at",
        "_started_at",
        "_status",
        "_tried",
        "_upstream",
        "_waiting_since",
        "_write_chunk",
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
        self._plane = plane
        self._grant = grant
        self._connection = connection
        self._head = head
        self._request = request
        self._record = record
        self._reply = Reply(connection, head, header_lines)
        # where the next chunk goes, once the answer streams in chunks: the hot path's short cut
        self._write_chunk: Callable[[bytes], None] | None = None
        self._started_at = plane.timer()
        self._tried: list[Engine] = []
        self._engine: Engine | None = None
        self._model: ServedModel | None = None
        self._upstream: UpstreamConnection | None = None
        self._answer: AnswerPostprocessor | None = None
        self._collected: list[bytes] = []  # the body of an engine's refusal
        self._collected_bytes = 0
        self._status = 0  # of the engine's answer; 0 until its head came
        self._content_type = b""
        self._reads = 0  # those that were not simply the next chunk of an event stream
        self._first_content_at: float | None = None
        self._last_error: EngineError | None = None
        self._ended = False
        self._end_held: list[bytes] = []  # the end mark, and what came with it
        self._end_held_since: float | None = None
        now = plane.clock.now
        wait_s = plane.limits.request_s
        if request.timeout_s is not None:
            wait_s = min(wait_s, request.timeout_s)
        self._request_deadline = now + wait_s
        self._waiting_since = self._held_since = self._progress_at = self._sent_at = now
        self._progress_seen = 0
        self._paused_at: float | None = None

    def start(self) -> None:
        self._connection.exchange = self
        self._try_next_engine()

    # towards the engine

    def _try_next_engine(self) -> None:
        plane, request, grant = self._plane, self._request, self._grant
        try:
            engine = plane.engines.pick(grant.model, self._tried, grant.allows)
        except (ModelNotFound, Unavailable) as error:
            self._fail_for_good(self._last_error or error)
            return
        model = engine.models[grant.model]
        body = body_for_engine(
            request,
            model=model.upstream_name,
            include_usage=model.abilities.include_usage,
            continuous_usage=model.abilities.continuous_usage,
            max_tokens=grant.limit,
        )
        self._engine, self._model = engine, model
        self._tried.append(engine)
        engine.running += 1
        self._answer = None
        self._status = 0
        self._waiting_since = plane.clock.now
        self._schedule()
        head = self._head
        lines = head.engine_lines
        if lines is None:
            lines = head.engine_lines = _lines_for_engine(head)
        request_id = self._record.id.encode("ascii")
        engine.pool.send(self, engine.post(request.dialect, request_id, lines, body))

    def _drop_engine(self, *, cancel: bool) -> None:
        """Let go of the engine, once per try; ``cancel`` where its answer has not ended."""
        engine, upstream = self._engine, self._upstream
        self._engine = self._upstream = None
        if engine is not None:
            engine.running -= 1
            if cancel:
                engine.pool.cancel(self)
                if upstream is not None:
                    upstream.cancel()

    # from the engine (Caller)

    def on_connected(self, connection: UpstreamConnection) -> None:
        self._upstream = connection
        self._record.queue_s = self._plane.timer() - self._started_at
        if self._connection.writing_paused:
            connection.pause_reading()

    def on_head(self, head: ResponseHead) -> None:
        self._status = head.status
        self._held_since = self._progress_at = self._plane.clock.now
        if head.status != 200:
            self._collected.clear()
            self._collected_bytes = 0
        elif head.headers.get(b"content-encoding", b"identity") != b"identity":
            self._engine_failed(EngineFailed("The engine compressed its answer unasked."))
        else:
            self._content_type = head.content_type or b"application/octet-stream"
            self._answer = self._postprocessor()

    def _postprocessor(self) -> AnswerPostprocessor:
        plane, request, model, grant = self._plane, self._request, self._model, self._grant
        assert model is not None  # an answer comes from an engine that was chosen
        tariff = grant.tariff(self._tried[-1])
        return AnswerPostprocessor(
            request.dialect,
            plane.policy(request, tariff, hold_until_content=self._reply.state is UNSENT),
            n=request.n,
            prompts=request.prompts,
            prompt_text_bytes=request.prompt_text_bytes,
            bytes_per_token=model.bytes_per_token,
            continuous=model.abilities.continuous_usage,
            model_names=(model.upstream_name, request.model),
            bounds=UsageBounds(grant.prompt_tokens, grant.completion_tokens),
        )

    def on_payload(self, payload: bytes, raw: bytes | None) -> None:
        answer = self._answer
        if answer is None:
            self._collect(payload)
            return
        out = answer.feed(payload)
        if answer.end_mark_seen:
            self._hold_end(answer, out)
        elif out:
            write = self._write_chunk
            if write is not None:
                write(raw if out is payload and raw is not None else chunk(out))
            else:
                self._on_output(answer, out)
        else:
            self._reads += 1
        if answer.error is not None:
            self._on_error_frame(answer.error)

    def _hold_end(self, answer: AnswerPostprocessor, out: bytes) -> None:
        """The end mark waits for the engine's end of the body and for the commit."""
        plane = self._plane
        now = plane.clock.now
        if self._end_held_since is None:
            self._end_held_since = now
            self._connection.deadline = now + plane.limits.end_mark_wait_s
            if self._first_content_at is None and answer.has_content:
                self._first_content_at = plane.timer()
        if out:
            self._end_held.append(out)
            if len(self._end_held) > _HELD_READS_MAX:
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
        if self._first_content_at is None and answer.has_content:
            self._first_content_at = self._plane.timer()
        if reply.state is not UNSENT:
            reply.send(out)
            self._take_short_cut()
        elif answer.mode == "events" or answer.overflowed:
            self._begin(out)
        else:  # a document, or what is none: it is judged at its end
            reply.hold(out)
            if reply.held_bytes > self._plane.limits.document_bytes_held_max:
                self._begin(b"")

    def _begin(self, first: bytes) -> None:
        """Send the answer's head: from here on it streams."""
        self._reply.begin(self._content_type, first)
        self._sent_at = self._plane.clock.now
        self._plane.open.streams += 1
        self._take_short_cut()

    def _take_short_cut(self) -> None:
        """After the first content an event stream's chunks go straight to the client."""
        begun = self._reply.state is CHUNKED and self._first_content_at is not None
        if begun and not self._is_shapeless:
            self._write_chunk = self._connection.write
            if self._upstream is not None and self._answer is not None:
                self._upstream.splice(self._answer, self._write_chunk)

    @property
    def _is_shapeless(self) -> bool:
        """Whether the answer is no event stream that could be followed event by event."""
        answer = self._answer
        return answer is None or answer.mode == "documents" or answer.overflowed

    def _on_error_frame(self, frame: object) -> None:
        told, answer = read_error(frame), self._answer
        status = told.status if answer is None or not answer.started else 0
        self._on_told(told, status, EngineFailed(told.message, param=told.param, code=told.code))

    def on_end(self) -> None:
        answer = self._answer
        self._upstream = None  # it is its pool's again
        if answer is None:
            self._on_refusal()
            return
        self._drop_engine(cancel=False)
        tail = answer.finish(True)
        verdict = answer.verdict(True)
        if verdict.completed:
            self._complete(answer, tail)
        elif answer.error is not None:
            self._on_error_frame(answer.error)
        else:
            self._broken(EngineFailed(f"The engine's answer is incomplete: {verdict.reason}."))

    def _complete(self, answer: AnswerPostprocessor, tail: bytes) -> None:
        """The outcome is known; the rest goes out when it is settled."""
        reply, engine = self._reply, self._tried[-1]
        if answer.exceeded:
            log.warning("engine %s claims more than is possible: %s", engine.name, self._record.id)
            self._plane.metrics.engine_failed(engine.name, "engine_exceeded")
        else:
            engine.succeeded()
        streams = reply.state is not UNSENT or answer.mode == "events"
        if self._first_content_at is None and not streams:
            self._first_content_at = self._plane.timer()
        record = self._close(Outcome.COMPLETED, 200)
        record.streamed = streams
        last = b"".join(self._end_held) + tail if self._end_held else tail
        Ending(
            self._plane,
            self._connection,
            reply,
            self._grant,
            record,
            self._request.dialect,
            answer.next_sequence_number,
        ).start(self._content_type, last, streams=answer.mode == "events")

    def _was_complete(self) -> bool:
        """Whether nothing was missing when the answer was cut short; then it ends as completed."""
        answer = self._answer
        if answer is None:
            return False
        tail = answer.finish(False)
        if answer.verdict(False).completed:
            self._complete(answer, tail)
            return True
        if tail and self._reply.state is not UNSENT:
            self._reply.send(tail)
        return False

    def _on_refusal(self) -> None:
        """The engine answered with a status other than 200."""
        told, status = read_error_body(b"".join(self._collected)), self._status
        self._on_told(told, status, EngineFailed(f"The engine answered {status}: {told.message}"))

    def _on_told(self, told: EngineMessage, status: int, failed: EngineFailed) -> None:
        """A refusal, or a failure. vLLM refuses inside a 200 what only its core checks."""
        self._drop_engine(cancel=True)
        if status in _PASSED_REFUSALS:
            message = told.message or "The engine refused the request."
            error = EngineRefused(message, status=status, param=told.param, code=told.code)
            self._fail(error, Outcome.REFUSED_BY_ENGINE)
        else:
            self._broken(failed)

    def on_lost(self, reason: str) -> None:
        self._cut_short(EngineFailed(f"The engine failed: {reason}."))

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
        self._tried[-1].failed(plane.clock.now)
        kind = "engine_timeout" if stalled else "engine_failed"
        plane.metrics.engine_failed(self._tried[-1].name, kind)
        self._last_error = error
        if self._reply.state is not UNSENT and answer is not None and answer.started:
            outcome = Outcome.ENGINE_STALLED if stalled else Outcome.ENGINE_FAILED_MIDSTREAM
            self._fail(error, outcome)
        elif len(self._tried) <= plane.limits.retries_max:
            self._reply.forget_held()
            self._first_content_at = None
            self._try_next_engine()
        else:
            self._fail_for_good(error)

    def _fail_for_good(self, error: FilatureError) -> None:
        if isinstance(error, EngineTimeout):
            outcome = Outcome.ENGINE_STALLED
        elif isinstance(error, EngineError):
            outcome = Outcome.ENGINE_FAILED
        elif isinstance(error, RequestError):
            outcome = Outcome.REFUSED
        else:
            outcome = Outcome.NO_ENGINE
        self._fail(error, outcome)

    def _fail(self, error: FilatureError, outcome: Outcome) -> None:
        """End with an error: as a response, or inside a stream as the dialect's error event."""
        answer = self._answer
        if self._reply.state is not UNSENT and answer is not None and answer.mode == "documents":
            self._connection.abort()  # half a document holds no error: it must not end properly
        else:
            number = answer.next_sequence_number if answer is not None else 0
            self._reply.fail(error, self._request.dialect, number)
        self._end(outcome, error.status, error.code)

    # from the client (Answering)

    def client_gone(self) -> None:
        self._drop_engine(cancel=True)
        self._end(Outcome.CLIENT_GONE, _CLIENT_CLOSED)

    def client_paused(self) -> None:
        self._paused_at = self._plane.clock.now
        if self._upstream is not None:
            self._upstream.pause_reading()

    def client_resumed(self) -> None:
        self._paused_at = None
        self._progress_at = self._plane.clock.now
        if self._upstream is not None:
            self._upstream.resume_reading()

    def drain(self) -> None:
        self._drop_engine(cancel=True)
        if not self._was_complete():
            error = Unavailable("This server is shutting down.", code="draining")
            self._fail(error, Outcome.DRAINED)

    # deadlines

    def _schedule(self) -> None:
        plane, until = self._plane, self._request_deadline
        next_look = plane.clock.now + plane.limits.look_s
        self._connection.deadline = min(next_look, until)

    def tick(self, now: float) -> None:
        """A deadline may have passed: look which, and set the next."""
        limits = self._plane.limits
        if now >= self._request_deadline:
            self._out_of_time()
        elif self._paused_at is not None:
            if self._connection.took_something():
                self._paused_at = now
            elif now - self._paused_at >= limits.client_stall_s:
                self._client_stalled()
        elif self._end_held_since is not None:
            if now - self._end_held_since >= limits.end_mark_wait_s:
                self._cut_short(EngineTimeout("The engine did not end its answer."))
        elif self._status == 0:
            if now - self._waiting_since >= limits.first_byte_s:
                self._engine_failed(EngineTimeout())
        else:
            self._look_at_progress(now)
        if not self._ended:
            self._schedule()

    def _look_at_progress(self, now: float) -> None:
        limits, answer, reply = self._plane.limits, self._answer, self._reply
        if answer is not None and self._goes_on_too_long(answer):
            self._engine_failed(EngineFailed("The engine went on past the tokens it was allowed."))
            return
        if self._is_shapeless:
            self._write_chunk = None  # from here on reads are counted
        seen = self._progress()
        # what precedes the first content may be the prefill of a long prompt
        waits_for_content = answer is not None and not answer.has_content
        patience_s = limits.first_byte_s if waits_for_content else limits.progress_s
        if seen != self._progress_seen:
            self._progress_seen = seen
            self._progress_at = self._sent_at = now
        elif now - self._progress_at >= patience_s:
            self._cut_short(EngineTimeout(f"No data came for {patience_s:g} s."))
            return
        if answer is None or self._is_shapeless:
            return
        if reply.state is UNSENT:
            if self._request.stream and now - self._held_since >= limits.hold_s:
                self._begin(answer.release() or _PING)
        elif now - self._sent_at >= limits.ping_s:
            reply.send(_PING)
            self._sent_at = now

    def _goes_on_too_long(self, answer: AnswerPostprocessor) -> bool:
        """Whether the engine ignores its cap. An event has a token, as a rule, but some engines make two of one."""
        events_max = _EVENTS_PER_TOKEN_MAX * self._grant.completion_tokens + _EVENTS_MORE
        return answer.exceeded or answer.content_events > events_max

    def _progress(self) -> int:
        """A number that grows with the answer's data; an event stream's comments do not count."""
        answer = self._answer
        return self._reads if answer is None or self._is_shapeless else answer.progress

    def _out_of_time(self) -> None:
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
        self._end(Outcome.CLIENT_STALLED, _CLIENT_CLOSED)

    # the end

    def _end(self, outcome: Outcome, status: int, error_code: str | None = None) -> None:
        """The way out of all that is not a complete answer: nobody waits for what is settled."""
        record = self._close(outcome, status, error_code)
        self._grant.end(record, None)
        self._plane.record(record)
        if self._connection.exchange is self:  # else it is closed
            self._connection.answered(self._reply.keep_alive)

    def _close(self, outcome: Outcome, status: int, error_code: str | None = None) -> UsageRecord:
        """The record, written to its end."""
        assert not self._ended, "an exchange ends once"
        self._ended = True
        plane, record, started = self._plane, self._record, self._started_at
        if self._reply.state is not UNSENT:
            plane.open.streams -= 1
            record.streamed = True
        record.outcome = outcome
        record.status = status
        record.error_code = error_code
        record.total_s = plane.timer() - started
        record.tries = len(self._tried)
        if self._first_content_at is not None:
            record.first_content_s = self._first_content_at - started
        if self._tried:
            engine = self._tried[-1]
            record.engine = engine.name
            if self._answer is not None:
                tariff = self._grant.tariff(engine)
                record.coefficient = tariff.coefficient
                account(record, self._answer, outcome, tariff, self._request, self._model)
        return record


def _lines_for_engine(head: RequestHead) -> bytes:
    """The client's header lines that cross, by allow-list."""
    crossing = (b"accept", b"traceparent")
    return b"".join(
        b"%b: %b\r\n" % (name, head.headers[name]) for name in crossing if head.headers.get(name)
    )
