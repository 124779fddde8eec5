"""One request's life on the data plane: engine chosen, answer relayed, exactly one outcome.

An exchange is wired between a client's connection and an engine's: the engine's bytes go through the
postprocessor to the client's transport in one chain of calls. It ends in ``_end``, once.
"""

from typing import Final

from filature.answer.policy import AnswerPolicy
from filature.answer.postprocessor import AnswerPostprocessor
from filature.answer.pricing import cost_of
from filature.answer.usage import Usage
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
from filature.relay.downstream import DownstreamConnection
from filature.relay.engines import Engine, ServedModel
from filature.relay.http1 import RequestHead, ResponseHead
from filature.relay.outcome import Outcome
from filature.relay.plane import DataPlane
from filature.relay.responses import (
    LAST_CHUNK,
    chunk,
    error_response,
    response,
    status_line,
)
from filature.relay.upstream import UpstreamConnection
from filature.request.parse import ParsedRequest
from filature.request.rewrite import body_for_engine
from filature.telemetry.record import UsageRecord
from filature.units import RequestId
from filature.wire.dialect import Dialect
from filature.wire.engine_errors import read_error, read_error_body
from filature.wire.envelope import error_event

_PASSED_REFUSALS: Final = (400, 413, 422)
"""An engine's judgement of the request; any other refusal is the engine's own failure."""
_CHECKS_PER_DEADLINE: Final = 4
"""How often progress is looked at within the shortest deadline that depends on it."""
_RATIO_WEIGHT: Final = 0.1
"""Of a new answer in the running mean of bytes per token."""
_PING: Final = b": \n\n"


class Exchange:
    """One request. Made by the service, told of events by both connections."""

    __slots__ = (
        "_answer",
        "_body_seen",
        "_client_request_id",
        "_collected",
        "_connection",
        "_content_type",
        "_document",
        "_document_bytes",
        "_ended",
        "_engine",
        "_first_content_at",
        "_head",
        "_header_lines",
        "_held_since",
        "_last_error",
        "_model",
        "_paused_at",
        "_plane",
        "_progress_at",
        "_progress_seen",
        "_request",
        "_request_deadline",
        "_request_id",
        "_sent_at",
        "_started_at",
        "_status",
        "_streaming",
        "_tried",
        "_upstream",
        "_waiting_since",
        "_write",
    )

    def __init__(
        self,
        plane: DataPlane,
        connection: DownstreamConnection,
        head: RequestHead,
        request: ParsedRequest,
        request_id: RequestId,
        client_request_id: str | None,
        header_lines: bytes,
    ) -> None:
        self._plane = plane
        self._connection = connection
        self._write = connection.write
        self._head = head
        self._request = request
        self._request_id = request_id
        self._client_request_id = client_request_id
        self._header_lines = header_lines
        self._started_at = plane.timer()
        self._tried: list[Engine] = []
        self._engine: Engine | None = None
        self._model: ServedModel | None = None
        self._upstream: UpstreamConnection | None = None
        self._answer: AnswerPostprocessor | None = None
        self._collected: list[bytes] | None = None  # the body of an engine's refusal
        self._status = 0  # of the engine's answer
        self._content_type = b""
        self._streaming = 0  # 0: no head sent; 1: sent, chunked; 2: sent, until the close
        self._document: list[bytes] = []
        self._document_bytes = 0
        self._body_seen = 0  # reads that gave nothing to send yet
        self._first_content_at: float | None = None
        self._sent_at = 0.0
        self._last_error: EngineError | None = None
        self._ended = False
        now = plane.clock.now
        wait_s = plane.limits.request_s
        if request.timeout_s is not None:
            wait_s = min(wait_s, request.timeout_s)
        self._request_deadline = now + wait_s
        self._waiting_since = self._held_since = self._progress_at = now
        self._progress_seen = 0
        self._paused_at: float | None = None

    def start(self) -> None:
        self._connection.exchange = self
        self._try_next_engine()

    # towards the engine

    def _try_next_engine(self) -> None:
        plane, request = self._plane, self._request
        try:
            engine = plane.engines.pick(request.model, self._tried)
        except (ModelNotFound, Unavailable) as error:
            self._fail_for_good(self._last_error or error)
            return
        model = engine.models[request.model]
        body = body_for_engine(
            request,
            model=model.upstream_name,
            include_usage=model.abilities.include_usage,
            continuous_usage=model.abilities.continuous_usage,
        )
        self._engine, self._model = engine, model
        self._tried.append(engine)
        engine.running += 1
        self._answer = self._collected = None
        self._waiting_since = plane.clock.now
        self._schedule()
        engine.pool.send(self, engine.post(request.dialect, self._engine_headers(), body))

    def _engine_headers(self) -> bytes:
        """The client's header lines that cross, by allow-list, and our request id."""
        headers = self._head.headers
        lines = b"x-request-id: %b\r\n" % self._request_id.encode("ascii")
        accept, trace = headers.get(b"accept"), headers.get(b"traceparent")
        if accept:
            lines += b"accept: %b\r\n" % accept
        if trace:
            lines += b"traceparent: %b\r\n" % trace
        return lines

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
        if self._connection.writing_paused:
            connection.pause_reading()

    def on_head(self, head: ResponseHead) -> None:
        self._status = head.status
        self._held_since = self._progress_at = self._plane.clock.now
        if head.status != 200:
            self._collected = []
        elif head.headers.get(b"content-encoding", b"identity") != b"identity":
            self._engine_failed(EngineFailed("The engine compressed its answer unasked."))
        else:
            self._content_type = head.content_type or b"application/octet-stream"
            self._answer = self._postprocessor()

    def _postprocessor(self) -> AnswerPostprocessor:
        plane, request, model = self._plane, self._request, self._model
        assert model is not None  # an answer comes from an engine that was chosen
        counted = request.dialect is not Dialect.COUNT_TOKENS
        policy = AnswerPolicy(
            strip=request.stream and request.dialect.has_choices,
            include_usage=request.include_usage,
            continuous_usage=request.continuous_usage,
            when_unrequested=plane.usage_when_unrequested,
            hold_until_content=not self._streaming,
            tariff=plane.tariff if counted else None,
            errors="take",
        )
        return AnswerPostprocessor(
            request.dialect,
            policy,
            n=request.n,
            prompts=request.prompts,
            prompt_text_bytes=request.prompt_text_bytes,
            bytes_per_token=model.bytes_per_token,
            continuous=model.abilities.continuous_usage,
            model_names=(model.upstream_name, request.model),
        )

    def on_payload(self, payload: bytes, raw: bytes | None) -> None:
        answer = self._answer
        if answer is None:
            self._collect(payload)
            return
        out = answer.feed(payload)
        if out:
            if self._streaming == 1:
                self._write(raw if out is payload and raw is not None else chunk(out))
            else:
                self._on_output(out)
        else:
            self._body_seen += 1
        if answer.error is not None:
            self._on_error_frame(answer.error)

    def _collect(self, payload: bytes) -> None:
        collected = self._collected
        assert collected is not None  # the head came first
        if sum(map(len, collected)) < self._plane.limits.error_body_bytes_max:
            collected.append(payload)

    def _on_output(self, out: bytes) -> None:
        """Output that is not simply the next chunk of a stream whose head is out."""
        answer = self._answer
        assert answer is not None  # it made the output
        if self._first_content_at is None:
            self._first_content_at = self._plane.timer()
        if self._streaming == 2:
            self._write(out)
        elif answer.mode == "events" or self._request.stream or answer.overflowed:
            self._send_head(out)
        else:
            self._document.append(out)
            self._document_bytes += len(out)
            if self._document_bytes > self._plane.limits.document_bytes_held_max:
                self._send_head(b"".join(self._document))
                self._document.clear()

    def _send_head(self, first: bytes) -> None:
        """Send the answer's head and its first bytes; from here on the answer streams."""
        lines = b"%bcontent-type: %b\r\ncache-control: no-cache\r\nx-accel-buffering: no\r\n%b" % (
            status_line(200),
            self._content_type,
            self._header_lines,
        )
        if self._head.http_minor == 1:
            self._streaming = 1
            lines += b"transfer-encoding: chunked\r\n\r\n"
            self._write(lines + chunk(first) if first else lines)
        else:
            self._streaming = 2
            self._write(lines + b"connection: close\r\n\r\n" + first)
        self._plane.open.streams += 1
        self._sent_at = self._plane.clock.now

    def _on_error_frame(self, frame: object) -> None:
        told = read_error(frame)
        error = EngineFailed(told.message, param=told.param, code=told.code)
        self._engine_failed(error)

    def on_end(self) -> None:
        answer, engine = self._answer, self._engine
        if answer is None:
            self._on_refusal(b"".join(self._collected or ()))
            return
        self._drop_engine(cancel=False)
        tail = answer.finish(True)
        verdict = answer.verdict(True)
        if not verdict.completed:
            if answer.error is not None:
                self._on_error_frame(answer.error)
            else:
                self._broken(EngineFailed(f"The engine's answer is incomplete: {verdict.reason}."))
            return
        if engine is not None:
            engine.succeeded()
        if self._streaming:
            self._finish_body(tail)
        else:
            self._send_document(tail)
        self._end(Outcome.COMPLETED, 200)

    def _send_document(self, tail: bytes) -> None:
        """A whole answer with its length: the unary case."""
        if self._first_content_at is None:
            self._first_content_at = self._plane.timer()
        if self._document:
            self._document.append(tail)
            tail = b"".join(self._document)
        self._write(
            response(
                200,
                tail,
                headers=self._header_lines,
                content_type=self._content_type,
                keep_alive=self._keep_alive,
            )
        )

    def _finish_body(self, last: bytes) -> None:
        """The last bytes of a streamed answer and its proper end."""
        if self._streaming == 1:
            self._write(chunk(last) + LAST_CHUNK if last else LAST_CHUNK)
        elif last:
            self._write(last)

    def _on_refusal(self, body: bytes) -> None:
        """The engine answered with a status other than 200."""
        told = read_error_body(body)
        status = self._status
        if status in _PASSED_REFUSALS:
            self._drop_engine(cancel=False)
            error = EngineRefused(
                told.message or "The engine refused the request.",
                status=status,
                param=told.param,
                code=told.code,
            )
            self._refuse(error, Outcome.REFUSED_BY_ENGINE)
        else:
            self._engine_failed(EngineFailed(f"The engine answered {status}: {told.message}"))

    def on_lost(self, reason: str) -> None:
        if self._answer is not None and self._upstream is not None:
            answer = self._answer
            tail = answer.finish(False)
            if answer.verdict(False).completed and self._streaming:
                self._drop_engine(cancel=True)
                self._finish_body(tail)
                self._end(Outcome.COMPLETED, 200)
                return
            if tail and self._streaming:
                self._write(chunk(tail) if self._streaming == 1 else tail)
        self._upstream = None
        self._engine_failed(EngineFailed(f"The engine failed: {reason}."))

    # failure

    def _engine_failed(self, error: EngineError) -> None:
        """The present engine failed: the next one is tried if the client saw nothing yet."""
        self._drop_engine(cancel=True)
        self._broken(error)

    def _broken(self, error: EngineError) -> None:
        plane = self._plane
        self._tried[-1].failed(plane.clock.now)
        handed_out = self._streaming and self._answer is not None and self._answer.started
        self._last_error = error
        if handed_out:
            stalled = isinstance(error, EngineTimeout)
            outcome = Outcome.ENGINE_STALLED if stalled else Outcome.ENGINE_FAILED_MIDSTREAM
            self._refuse(error, outcome)
        elif len(self._tried) <= plane.limits.retries_max:
            self._document.clear()
            self._document_bytes = 0
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
        self._refuse(error, outcome)

    def _refuse(self, error: FilatureError, outcome: Outcome) -> None:
        """End with an error: as a response, or inside a stream as the dialect's error event."""
        dialect = self._request.dialect
        if self._streaming:
            number = self._answer.next_sequence_number if self._answer is not None else 0
            self._finish_body(error_event(error, dialect, number))
        else:
            self._write(
                error_response(
                    error, dialect, headers=self._header_lines, keep_alive=self._keep_alive
                )
            )
        self._end(outcome, error.status, error.code)

    # from the client (Answering)

    def client_gone(self) -> None:
        self._drop_engine(cancel=True)
        self._end(Outcome.CLIENT_GONE, 499)

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
        error = Unavailable("This server is shutting down.", code="draining")
        self._refuse(error, Outcome.DRAINED)

    # deadlines

    def _schedule(self) -> None:
        limits, now = self._plane.limits, self._plane.clock.now
        shortest = min(limits.progress_s, limits.ping_s, limits.hold_s, limits.client_stall_s)
        step = shortest / _CHECKS_PER_DEADLINE
        if self._answer is None:
            step = min(limits.first_byte_s, limits.client_stall_s)
        self._connection.deadline = min(now + step, self._request_deadline)

    def tick(self, now: float) -> None:
        """A deadline may have passed: look which, and set the next."""
        limits = self._plane.limits
        if now >= self._request_deadline:
            self._out_of_time()
        elif self._paused_at is not None:
            if now - self._paused_at >= limits.client_stall_s:
                self._client_stalled()
        elif self._answer is None and self._collected is None:
            if now - self._waiting_since >= limits.first_byte_s:
                self._engine_failed(EngineTimeout())
        else:
            self._look_at_progress(now)
        if not self._ended:
            self._schedule()

    def _look_at_progress(self, now: float) -> None:
        limits, answer = self._plane.limits, self._answer
        seen = self._progress()
        if seen != self._progress_seen:
            self._progress_seen = seen
            self._progress_at = self._sent_at = now
        elif now - self._progress_at >= limits.progress_s:
            self._engine_failed(EngineTimeout(f"No data came for {limits.progress_s:g} s."))
            return
        if answer is None or answer.mode == "documents":
            return
        if not self._streaming:
            if self._request.stream and now - self._held_since >= limits.hold_s:
                self._send_head(answer.release() or _PING)
        elif now - self._sent_at >= limits.ping_s:
            self._write(chunk(_PING) if self._streaming == 1 else _PING)
            self._sent_at = now

    def _progress(self) -> int:
        """A number that grows with the answer's data; comments do not count."""
        answer = self._answer
        if answer is None or answer.mode == "documents":
            return self._body_seen + len(self._collected or ())
        return answer.data_events

    def _out_of_time(self) -> None:
        self._drop_engine(cancel=True)
        if self._request.timeout_s is not None:
            text = f"The request's own timeout of {self._request.timeout_s:g} s ran out."
            error = EngineTimeout(text, code="timeout")
            error.should_retry = False
            self._refuse(error, Outcome.CLIENT_TIMEOUT)
        else:
            limit_s = self._plane.limits.request_s
            self._refuse(
                EngineTimeout(f"The answer took longer than {limit_s:g} s."), Outcome.ENGINE_STALLED
            )

    def _client_stalled(self) -> None:
        self._drop_engine(cancel=True)
        self._connection.abort()
        self._end(Outcome.CLIENT_STALLED, 499)

    # the end

    @property
    def _keep_alive(self) -> bool:
        return self._head.keep_alive and not self._connection.closes

    def _end(self, outcome: Outcome, status: int, error_code: str | None = None) -> None:
        """The only way out: the record is written and the connection given back."""
        assert not self._ended, "an exchange ends once"
        self._ended = True
        if self._streaming:
            self._plane.open.streams -= 1
        self._plane.record(self._usage_record(outcome, status, error_code))
        if outcome is not Outcome.CLIENT_GONE and outcome is not Outcome.CLIENT_STALLED:
            self._connection.answered(self._keep_alive and self._streaming != 2)

    def _usage_record(
        self, outcome: Outcome, status: int, error_code: str | None
    ) -> UsageRecord:
        plane, request, answer = self._plane, self._request, self._answer
        now = plane.timer()
        usage = Usage()
        prompt_cost = completion_cost = total_cost = 0
        if answer is not None and request.dialect is not Dialect.COUNT_TOKENS:
            if answer.data_events or outcome is Outcome.COMPLETED:
                usage = answer.usage
                if outcome.is_charged:
                    cost = cost_of(usage, plane.tariff)
                    prompt_cost, completion_cost, total_cost = cost
            if outcome is Outcome.COMPLETED and not usage.estimated:
                self._learn_ratio(answer, usage)
        total_s = now - self._started_at
        first = self._first_content_at
        return UsageRecord(
            id=self._request_id,
            client_request_id=self._client_request_id,
            dialect=request.dialect.value,
            model=request.model,
            engine=self._tried[-1].name if self._tried else "",
            outcome=outcome.value,
            status=status,
            streamed=bool(self._streaming),
            prompt=usage.prompt,
            cached=usage.cached,
            completion=usage.completion,
            reasoning=usage.reasoning,
            estimated=usage.estimated,
            prompt_cost=prompt_cost,
            completion_cost=completion_cost,
            total_cost=total_cost,
            started_at=plane.wall() - total_s,
            queue_s=0.0,
            first_content_s=None if first is None else first - self._started_at,
            total_s=total_s,
            events=answer.data_events if answer is not None else 0,
            unprocessed_bytes=answer.unprocessed_bytes if answer is not None else 0,
            error_code=error_code,
            tries=len(self._tried),
        )

    def _learn_ratio(self, answer: AnswerPostprocessor, usage: Usage) -> None:
        """Keep the model's mean of text bytes per completion token, for estimates."""
        model = self._model
        if model is not None and usage.completion > 0 and answer.content_bytes > 0:
            ratio = answer.content_bytes / usage.completion
            model.bytes_per_token += _RATIO_WEIGHT * (ratio - model.bytes_per_token)
