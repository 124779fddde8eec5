"""The usage record: all that is kept of a request after its end. Never a prompt, an answer or a key."""

from dataclasses import dataclass, field
from typing import Any

import orjson

from filature.answer.pricing import credits_text
from filature.units import RequestId


@dataclass(slots=True)
class UsageRecord:
    """One request, ended in exactly one outcome.

    Costs are nano-credits; ``started_at`` is Unix time in seconds; what ends in ``_s`` are seconds
    since then. The field names are those of the request's log line, too.
    """

    id: RequestId
    client_request_id: str | None
    """The client's own id, as it sent it."""
    dialect: str
    model: str
    """As the client named it; empty when the request could not be read so far."""
    engine: str
    """The name of the engine that was asked last; empty when none was."""
    outcome: str
    status: int
    """The HTTP status that the client was sent, 0 when none was."""
    streamed: bool = False
    prompt: int = 0
    """Tokens, cached ones included."""
    cached: int = 0
    completion: int = 0
    """Tokens, reasoning included."""
    reasoning: int = 0
    estimated: bool = False
    prompt_cost: int = 0
    completion_cost: int = 0
    total_cost: int = 0
    """Prompt, completion and the price per request."""
    started_at: float = 0.0
    queue_s: float = 0.0
    """Until the request was sent to the engine that answered it."""
    first_content_s: float | None = None
    total_s: float = 0.0
    events: int = 0
    """Those that carried content."""
    unprocessed_bytes: int = 0
    """The tail of the engine's answer that never became an event or a document."""
    error_code: str | None = None
    tries: int = 0
    """Engines asked."""
    account: str = ""
    """The ledger's id of who pays; empty where nobody was known to ask."""
    key_id: str | None = None
    """Of the API key, never the key."""
    held: int = 0
    """Nano-credits set aside while it ran."""
    clamped: bool = False
    """Whether the balance allowed fewer tokens than were asked for."""
    tariff_version: int = 0
    """Of the model's price; 0: the settings'."""
    coefficient: int = 1000
    """Of the engine that answered, in thousandths."""
    worker_started_at: float | None = None
    """By the worker's word and clock, of a request that asked for its times; else None, and not told."""
    worker_ended_at: float | None = None
    """The same; of a stream, from when the worker reported it."""
    line: bytes = field(default=b"", init=False, repr=False, compare=False)
    """Its log line, between ``write_down`` and ``take_line``: the store and the log have the same."""

    sent_again: bool = field(default=False, init=False, repr=False, compare=False)
    """Whether the engine may have answered it twice: the connection that it was sent on first was taken for dead."""

    # spelt out, for the __init__ that a dataclass makes is not compiled
    def __init__(  # noqa: PLR0913, PLR0917 - a record has many fields
        self,
        id: RequestId,  # noqa: A002
        client_request_id: str | None,
        dialect: str,
        model: str,
        engine: str,
        outcome: str,
        status: int,
        streamed: bool = False,
        prompt: int = 0,
        cached: int = 0,
        completion: int = 0,
        reasoning: int = 0,
        estimated: bool = False,
        prompt_cost: int = 0,
        completion_cost: int = 0,
        total_cost: int = 0,
        started_at: float = 0.0,
        queue_s: float = 0.0,
        first_content_s: float | None = None,
        total_s: float = 0.0,
        events: int = 0,
        unprocessed_bytes: int = 0,
        error_code: str | None = None,
        tries: int = 0,
        account: str = "",
        key_id: str | None = None,
        held: int = 0,
        clamped: bool = False,
        tariff_version: int = 0,
        coefficient: int = 1000,
        worker_started_at: float | None = None,
        worker_ended_at: float | None = None,
    ) -> None:
        self.id = id
        self.client_request_id = client_request_id
        self.dialect = dialect
        self.model = model
        self.engine = engine
        self.outcome = outcome
        self.status = status
        self.streamed = streamed
        self.prompt = prompt
        self.cached = cached
        self.completion = completion
        self.reasoning = reasoning
        self.estimated = estimated
        self.prompt_cost = prompt_cost
        self.completion_cost = completion_cost
        self.total_cost = total_cost
        self.started_at = started_at
        self.queue_s = queue_s
        self.first_content_s = first_content_s
        self.total_s = total_s
        self.events = events
        self.unprocessed_bytes = unprocessed_bytes
        self.error_code = error_code
        self.tries = tries
        self.account = account
        self.key_id = key_id
        self.held = held
        self.clamped = clamped
        self.tariff_version = tariff_version
        self.coefficient = coefficient
        self.worker_started_at = worker_started_at
        self.worker_ended_at = worker_ended_at
        self.line = b""
        self.sent_again = False

    def as_dict(self) -> dict[str, Any]:
        """The public form, for ``orjson.dumps``.

        ``cost`` (credits, an exact decimal) is an ``orjson.Fragment``: no float touches an amount.
        """
        timings: dict[str, Any] = {
            "started_at": self.started_at,
            "ended_at": round(self.started_at + self.total_s, 6),
            "queue_s": self.queue_s,
            "first_content_s": self.first_content_s,
            "total_s": self.total_s,
        }
        if self.worker_started_at is not None:
            timings["worker"] = {
                "started_at": self.worker_started_at,
                "ended_at": self.worker_ended_at,
            }
        return {
            "id": self.id,
            "object": "usage_record",
            "client_request_id": self.client_request_id,
            "dialect": self.dialect,
            "model": self.model,
            "engine": self.engine,
            "outcome": self.outcome,
            "status": self.status,
            "streamed": self.streamed,
            "usage": {
                "prompt_tokens": self.prompt,
                "cached_tokens": self.cached,
                "completion_tokens": self.completion,
                "reasoning_tokens": self.reasoning,
                "total_tokens": self.prompt + self.completion,
                "estimated": self.estimated,
                "prompt_total_cost": self.prompt_cost,
                "completion_total_cost": self.completion_cost,
                "total_cost": self.total_cost,
                "cost": orjson.Fragment(credits_text(self.total_cost)),
            },
            "timings": timings,
            "events": self.events,
            "unprocessed_bytes": self.unprocessed_bytes,
            "error_code": self.error_code,
            "tries": self.tries,
            "account": self.account.partition(":")[2],
            "key_id": self.key_id,
            "held": self.held,
            "clamped": self.clamped,
            "tariff_version": self.tariff_version,
            "coefficient": self.coefficient,
        }

    def write_down(self) -> bytes:
        """The log line, without its end; kept for ``take_line``. What is changed later is not in it."""
        self.line = orjson.dumps(self.as_log_fields())
        return self.line

    def take_line(self) -> bytes:
        """The log line that was written down last, or a new one. It is not kept any longer."""
        line = self.line or orjson.dumps(self.as_log_fields())
        self.line = b""
        return line

    def as_log_fields(self) -> dict[str, Any]:
        """The log line's: its kind, and all fields under their own names."""
        fields: dict[str, Any] = {
            "event": "request",
            "id": self.id,
            "client_request_id": self.client_request_id,
            "dialect": self.dialect,
            "model": self.model,
            "engine": self.engine,
            "outcome": self.outcome,
            "status": self.status,
            "streamed": self.streamed,
            "prompt": self.prompt,
            "cached": self.cached,
            "completion": self.completion,
            "reasoning": self.reasoning,
            "estimated": self.estimated,
            "prompt_cost": self.prompt_cost,
            "completion_cost": self.completion_cost,
            "total_cost": self.total_cost,
            "started_at": self.started_at,
            "queue_s": self.queue_s,
            "first_content_s": self.first_content_s,
            "total_s": self.total_s,
            "events": self.events,
            "unprocessed_bytes": self.unprocessed_bytes,
            "error_code": self.error_code,
            "tries": self.tries,
            "account": self.account,
            "key_id": self.key_id,
            "held": self.held,
            "clamped": self.clamped,
            "tariff_version": self.tariff_version,
            "coefficient": self.coefficient,
        }
        if self.worker_started_at is not None:
            fields["worker_started_at"] = self.worker_started_at
            fields["worker_ended_at"] = self.worker_ended_at
        return fields

    @staticmethod
    def from_log(line: bytes | str) -> "UsageRecord":
        """The record of a log line, whichever version of this program wrote it."""
        fields = orjson.loads(line)
        names = {name for name, each in UsageRecord.__dataclass_fields__.items() if each.init}
        return UsageRecord(**{name: value for name, value in fields.items() if name in names})

    def as_json(self) -> bytes:
        """The body of ``GET /v1/usage/{request_id}``."""
        return orjson.dumps(self.as_dict())
