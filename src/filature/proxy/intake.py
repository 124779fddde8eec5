"""From a request's body to its exchange: read, admitted, started. What has to wait is deferred here."""

import asyncio
import hashlib
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, Final

from filature.answer.pricing import credits_text
from filature.errors import Conflict, FilatureError, InvalidRequest
from filature.proxy.admission import Admission, TooDear
from filature.proxy.callers import Caller
from filature.proxy.counting import count_prompt
from filature.proxy.grants import row_of
from filature.proxy.offer import Offer
from filature.relay.deferred import Deferred
from filature.relay.downstream import DownstreamConnection
from filature.relay.exchange import Exchange
from filature.relay.http1 import RequestHead
from filature.relay.outcome import CLIENT_CLOSED, Outcome
from filature.relay.plane import DataPlane
from filature.relay.responses import response
from filature.request.parse import ParsedRequest
from filature.store.batch import UsageRow
from filature.store.idempotency import KEY_CHARS_MAX, Claim, Idempotency
from filature.telemetry.record import UsageRecord
from filature.units import RequestId

RUNNING_RETRY_S: Final = 1
"""After which a client may ask again for a request that is still running."""


class Asked:
    """A request that was read, on its way to an exchange."""

    __slots__ = (
        "caller",
        "claim",
        "connection",
        "head",
        "lines",
        "offer",
        "record",
        "request",
        "waited_since",
    )

    def __init__(
        self,
        connection: DownstreamConnection,
        head: RequestHead,
        caller: Caller,
        request: ParsedRequest,
        record: UsageRecord,
        lines: bytes,
        offer: Offer,
    ) -> None:
        self.connection = connection
        self.head = head
        self.caller = caller
        self.request = request
        self.record = record
        self.lines = lines
        self.offer = offer
        self.claim: Claim | None = None
        self.waited_since: float | None = None  # by the plane's timer


class Intake:
    """Admits requests and starts their exchanges. ``refuse`` answers with an error and keeps the record."""

    def __init__(
        self,
        plane: DataPlane,
        admission: Admission,
        idempotency: Idempotency,
        refuse: Callable[[Asked, FilatureError], None],
    ) -> None:
        self._plane = plane
        self._admission = admission
        self._idempotency = idempotency
        self._refuse = refuse

    def take(self, asked: Asked) -> None:
        """Start it, now or when what it waits for is there. Raises FilatureError to refuse it at once."""
        delay_s = self._admission.delay_s(asked.caller)
        key = asked.head.headers.get(b"idempotency-key")
        if delay_s or key is not None:
            claim = None if key is None else _claim(key, asked)
            self._defer(asked, self._prepare(asked, delay_s, claim))
            return
        try:
            self._start(asked, None)
        except TooDear as error:
            self._defer(asked, self._count(asked, error))

    def _start(self, asked: Asked, prompt_tokens: int | None) -> None:
        grant = self._admission.admit(
            asked.caller, asked.request, asked.record, asked.offer, prompt_tokens
        )
        grant.claim = asked.claim
        Exchange(
            self._plane,
            asked.connection,
            asked.head,
            asked.request,
            asked.record,
            asked.lines + grant.header_lines,
            grant,
        ).start(asked.waited_since)

    # what waits

    def _defer(self, asked: Asked, work: Coroutine[Any, Any, int | None]) -> None:
        def done(prompt_tokens: int | None) -> None:
            try:
                self._start(asked, prompt_tokens)
            except TooDear as too_dear:
                self._defer(asked, self._count(asked, too_dear))
            except FilatureError as error:
                failed(error)

        def failed(error: FilatureError) -> None:
            self._release(asked)
            if isinstance(error, AnsweredBefore):
                self._answer_again(asked, error)
            else:
                self._refuse(asked, error)

        def abandoned() -> None:
            self._release(asked)
            asked.record.outcome = Outcome.CLIENT_GONE
            asked.record.status = CLIENT_CLOSED
            self._plane.record(asked.record)

        if asked.waited_since is None:
            asked.waited_since = self._plane.timer()
        Deferred(asked.connection, done, failed, abandoned).start(work)

    async def _prepare(self, asked: Asked, delay_s: float, claim: Claim | None) -> None:
        if delay_s:
            await asyncio.sleep(delay_s)
        if claim is None:
            return
        asked.claim = claim  # before it is made: released, it does no harm
        held = await self._idempotency.claim(claim, partial(_replaced, asked))
        if held is not claim:
            asked.claim = None
            raise _verdict(held, claim)

    async def _count(self, asked: Asked, too_dear: TooDear) -> int:
        """The prompt's exact tokens; the offer becomes the one that they hold for. Raises ``too_dear``."""
        counted = await count_prompt(asked.offer, asked.request, self._plane.clock.now)
        if counted is None:
            raise too_dear
        asked.offer = counted.offer
        return counted.tokens

    def _release(self, asked: Asked) -> None:
        claim, asked.claim = asked.claim, None
        if claim is not None:
            self._idempotency.release(claim)

    def _answer_again(self, asked: Asked, before: "AnsweredBefore") -> None:
        connection, head, record = asked.connection, asked.head, asked.record
        keep_alive = head.keep_alive and not connection.closes
        connection.write(
            response(
                200,
                before.answer,
                headers=asked.lines + b"idempotency-replayed: true\r\n",
                content_type=before.content_type,
                keep_alive=keep_alive,
                http_minor=head.http_minor,
            )
        )
        record.outcome = Outcome.REPLAYED
        record.status = 200
        self._plane.record(record)
        connection.answered(keep_alive)


class AnsweredBefore(FilatureError):
    """Not an error to the client: the answer that it was given before is given again."""

    def __init__(self, content_type: bytes, answer: bytes) -> None:
        super().__init__()
        self.content_type = content_type
        self.answer = answer


def _claim(key: bytes, asked: Asked) -> Claim:
    """Raises InvalidRequest."""
    text = key.decode("latin-1")
    if not 1 <= len(text) <= KEY_CHARS_MAX:
        raise InvalidRequest(
            f"Idempotency-Key must have 1 to {KEY_CHARS_MAX} characters.", param="Idempotency-Key"
        )
    digest = hashlib.sha256(asked.head.path.encode() + b"\n" + asked.request.body).digest()
    return Claim(asked.caller.account, text, asked.record.id, digest)


def _replaced(asked: Asked, request_id: str, claimed_ms: int) -> UsageRow:
    """Of an earlier request like this one, which its client is not charged for any more."""
    record = UsageRecord(
        RequestId(request_id),
        None,
        asked.record.dialect,
        asked.record.model,
        "",
        Outcome.REPLACED,
        0,
        streamed=asked.record.streamed,
        started_at=claimed_ms / 1000,
        account=asked.record.account,
        key_id=asked.record.key_id,
    )
    return row_of(record)


def _verdict(held: Claim, claim: Claim) -> FilatureError:
    """What is said to a request whose key another one holds."""
    if held.body_digest != claim.body_digest:
        error: FilatureError = InvalidRequest(
            "This Idempotency-Key was used with another request; a key belongs to one request.",
            param="Idempotency-Key",
            code="idempotency_key_reused",
        )
        error.status = 422
        return error
    if held.state == "running":
        error = Conflict(
            f"A request with this Idempotency-Key is running: {held.request_id}.",
            param="Idempotency-Key",
            code="idempotency_key_running",
        )
        error.retry_after_s = RUNNING_RETRY_S
        error.should_retry = True
        return error
    if held.answer is not None and held.content_type is not None:
        return AnsweredBefore(held.content_type.encode("latin-1"), held.answer)
    told = "" if held.record is None else _told(UsageRecord.from_log(held.record))
    return Conflict(
        f"A request with this Idempotency-Key was answered and charged{told}; its answer is not kept. "
        f"GET /v1/usage/{held.request_id} has its usage record.",
        param="Idempotency-Key",
        code="already_settled",
    )


def _told(record: UsageRecord) -> str:
    cost = credits_text(record.total_cost).decode("ascii")
    return f": {record.prompt} prompt and {record.completion} completion tokens, {cost} credits"
