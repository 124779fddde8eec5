"""The half of an exchange that faces its client: what the client is sent, and how the request ends.

It ends once: in ``_end``, for which nobody waits, or complete in ``_finish``, whose last bytes go out by
``Ending``. The half that faces engines builds on this one: ``engine_side.py``.
"""

import logging
from collections.abc import Callable
from typing import Final, cast

from filature.answer.bounds import UsageBounds
from filature.answer.postprocessor import AnswerPostprocessor
from filature.errors import FilatureError
from filature.relay.accounting import account
from filature.relay.deadlines import Deadlines
from filature.relay.downstream import Answering, DownstreamConnection
from filature.relay.ending import Ending
from filature.relay.engines import Engine, ServedModel
from filature.relay.http1 import RequestHead
from filature.relay.outcome import Outcome, outcome_of
from filature.relay.plane import DataPlane
from filature.relay.reply import CHUNKED, UNSENT, Reply
from filature.relay.settlement import Grant
from filature.relay.timings import ASK_HEADER, HopTimings
from filature.relay.upstream import UpstreamConnection
from filature.relay.watch import Sample
from filature.request.parse import ParsedRequest
from filature.telemetry.record import UsageRecord

log: Final = logging.getLogger(__name__)


class ClientSide:
    """One request, as its client sees it."""

    __slots__ = (
        "_answer",
        "_connection",
        "_content_type",
        "_deadlines",
        "_ended",
        "_first_content_at",
        "_grant",
        "_in_document",
        "_model",
        "_plane",
        "_record",
        "_reply",
        "_request",
        "_sample",
        "_started_at",
        "_tail",
        "_timings",
        "_tried",
        "_upstream",
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
        self._connection = connection
        self._request = request
        self._record = record
        self._grant = grant
        self._reply = Reply(connection, head, header_lines)
        # where the next chunk goes, once the answer streams in chunks: the hot path's short cut
        self._write_chunk: Callable[[bytes], None] | None = None
        self._started_at = plane.timer()
        self._first_content_at: float | None = None
        self._tried: list[Engine] = []
        self._model: ServedModel | None = None  # as the engine tried last serves it
        self._upstream: UpstreamConnection | None = None
        self._answer: AnswerPostprocessor | None = None
        self._sample: Sample | None = None  # of the answer, where somebody looks at it afterwards
        self._content_type = b""
        self._tail = b""  # the end mark, what came with it and what came behind it
        self._in_document = False  # what the client was sent is the beginning of a document
        self._ended = False
        self._deadlines = Deadlines(plane.limits, plane.clock.now, request.timeout_s)
        self._timings: HopTimings | None = None
        if ASK_HEADER in head.headers if plane.passes else request.enable_debug:
            hop = b"worker" if plane.passes else b"proxy"
            self._timings = HopTimings(hop, record, timer=plane.timer, wall=plane.wall)
            self._reply.timings = self._timings

    @property
    def is_unsent(self) -> bool:
        """Whether the client was sent nothing yet."""
        return self._reply.state is UNSENT

    def _debug(self) -> bytes:
        """What is told beside the usage of whoever asked for it."""
        assert self._timings is not None
        return self._timings.debug_member(self._started_at, self._first_content_at)

    def _schedule(self) -> None:
        self._connection.deadline = self._deadlines.next_look(self._plane.clock.now)

    # the answer

    def _postprocessor(self) -> AnswerPostprocessor:
        """For the answer of the engine that was asked last, which begins."""
        plane, request, model, grant = self._plane, self._request, self._model, self._grant
        assert model is not None  # an answer comes from an engine that was chosen
        engine = self._tried[-1]
        watch, belief = engine.watch, None
        self._sample = None
        if watch is not None:
            belief, self._sample = watch.begin(request, grant.model, grant.prefix)
        return AnswerPostprocessor(
            request.dialect,
            plane.policy(
                request, grant.tariff(engine), hold_until_content=self._reply.state is UNSENT
            ),
            n=request.n,
            prompts=request.prompts,
            prompt_text_bytes=request.prompt_text_bytes,
            bytes_per_token=model.bytes_per_token,
            continuous=model.abilities.continuous_usage,
            model_names=(model.upstream_name, request.model),
            bounds=UsageBounds(grant.prompt_tokens, grant.completion_tokens, belief),
            debug=self._debug if self._timings is not None and not plane.passes else None,
        )

    @property
    def _is_shapeless(self) -> bool:
        """Whether the answer is no event stream that could be followed event by event."""
        answer = self._answer
        return answer is None or answer.mode == "documents" or answer.overflowed

    @property
    def _is_misplaced(self) -> bool:
        """Whether the answer is a document, and the client was sent the beginning of an event stream."""
        answer = self._answer
        begun = self._reply.state is not UNSENT and not self._in_document
        return begun and answer is not None and answer.mode == "documents"

    @property
    def _will_be_document(self) -> bool:
        """Whether nothing of the answer came, and its head says that it is going to be JSON."""
        answer = self._answer
        return answer is not None and answer.mode is None and b"json" in self._content_type.lower()

    @property
    def _told_type(self) -> bytes:
        """The answer's content type: SDKs go by it, so where the engine tells none it is what the answer is."""
        answer = self._answer
        is_document = answer is not None and answer.mode == "documents"
        return self._content_type or (b"application/json" if is_document else b"text/event-stream")

    def _note_content(self, answer: AnswerPostprocessor) -> None:
        if self._first_content_at is None and answer.has_content:
            self._first_content_at = self._plane.timer()

    def _begin(self, first: bytes) -> None:
        """Send the answer's head: from here on it streams."""
        answer = self._answer
        self._in_document = answer is not None and answer.mode == "documents"
        self._reply.keeps_last_byte = self._is_shapeless
        self._reply.begin(self._told_type, first)
        self._deadlines.spoke(self._plane.clock.now)
        self._plane.open.streams += 1
        self._take_short_cut()

    def _take_short_cut(self) -> None:
        """After the first content an event stream's chunks go straight to the client."""
        begun = self._reply.state is CHUNKED and self._first_content_at is not None
        if begun and not self._is_shapeless:
            self._write_chunk = self._connection.write
            if self._sample is not None:
                return  # its bytes are kept as they come
            if self._upstream is not None and self._answer is not None:
                self._upstream.splice(self._answer, self._write_chunk)

    def _hand_over_rest(self, answer: AnswerPostprocessor, tail: bytes) -> None:
        """What was kept of a stream that fails goes before the error, but for half an event, and for what is behind
        its end mark."""
        whole = tail[: len(tail) - answer.unfinished_bytes]
        begun = self._reply.state is not UNSENT
        if whole and begun and answer.mode == "events" and not answer.end_mark_seen:
            self._reply.send(whole)

    # the end

    def _finish(self, answer: AnswerPostprocessor, tail: bytes) -> None:
        """The answer is whole: the rest of it goes out when it is settled."""
        streams = self._reply.state is not UNSENT or answer.mode == "events"
        if self._first_content_at is None and not streams:
            self._first_content_at = self._plane.timer()
        content_type = self._told_type
        record = self._close(Outcome.COMPLETED, 200)
        record.streamed = streams
        Ending(
            self._plane,
            self._connection,
            self._reply,
            self._grant,
            record,
            self._request.dialect,
            answer.next_sequence_number,
        ).start(content_type, self._tail + tail, streams=answer.mode == "events")

    def _fail(self, error: FilatureError, outcome: Outcome) -> None:
        """End with an error: as a response, or inside a stream as the dialect's error event."""
        answer = self._answer
        if self._in_document:
            self._connection.abort()  # half a document holds no error: it must not end properly
        else:
            number = answer.next_sequence_number if answer is not None else 0
            self._reply.fail(error, self._request.dialect, number)
        self._end(outcome, error.status, error.code)

    def _fail_for_good(self, error: FilatureError) -> None:
        self._fail(error, outcome_of(error))

    def _end(self, outcome: Outcome, status: int, error_code: str | None = None) -> None:
        """The way out of all that is not a complete answer: nobody waits for what is settled."""
        record = self._close(outcome, status, error_code)
        try:
            self._grant.end(record, None)
        finally:
            self._plane.record(record)
            if self._connection.exchange is cast(Answering, self):  # else it is closed
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
            record.engine = self._tried[-1].name
        if self._answer is not None:
            account(record, self._answer, outcome, self._model)
            if record.unprocessed_bytes:
                self._tell_unprocessed(record, self._answer)
            if self._sample is not None and outcome.is_charged:
                self._hand_in(self._sample, self._answer)
        self._sample = None
        self._answer = None  # it may know this exchange: a cycle
        return record

    def _tell_unprocessed(self, record: UsageRecord, answer: AnswerPostprocessor) -> None:
        """Log what of the engine's answer could not be read."""
        said = "unprocessed data in answer: bytes=%d, of engine %s, in %s"
        if answer.overflowed:
            limit = "event_bytes_max" if answer.mode == "events" else "document_bytes_max"
            self._plane.metrics.limit_reached(limit)
            said += f": it passed unread above {limit}, and usage is estimated"
        log.warning(said, record.unprocessed_bytes, record.engine, record.id)

    def _hand_in(self, sample: Sample, answer: AnswerPostprocessor) -> None:
        """Let the answer be looked at by whoever chose it."""
        watch = self._tried[-1].watch
        if watch is not None:
            sample.claimed = answer.usage_claimed
            watch.take(sample)
