"""The usage record: all that is kept of a request after its end. Never a prompt, an answer or a key."""

from dataclasses import dataclass
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

    def as_dict(self) -> dict[str, Any]:
        """The public form, for ``orjson.dumps``.

        ``cost`` (credits, an exact decimal) is an ``orjson.Fragment``: no float touches an amount.
        """
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
            "timings": {
                "started_at": self.started_at,
                "queue_s": self.queue_s,
                "first_content_s": self.first_content_s,
                "total_s": self.total_s,
            },
            "events": self.events,
            "unprocessed_bytes": self.unprocessed_bytes,
            "error_code": self.error_code,
            "tries": self.tries,
        }

    def as_log_fields(self) -> dict[str, Any]:
        """The log line's: its kind, and all fields under their own names."""
        return {
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
        }

    def as_json(self) -> bytes:
        """The body of ``GET /v1/usage/{request_id}``."""
        return orjson.dumps(self.as_dict())
