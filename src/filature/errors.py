"""The error tree: what went wrong, whose fault it is and what the client may do about it.

::

    FilatureError
    ├── RequestError           the client's fault: 4xx, costs nothing
    │   ├── InvalidRequest         400  invalid_request_error
    │   ├── AuthenticationFailed   401  invalid_api_key
    │   ├── InsufficientQuota      402  insufficient_quota
    │   ├── PermissionDenied       403
    │   ├── NotFound               404
    │   ├── ModelNotFound          404  model_not_found
    │   ├── MethodNotAllowed       405
    │   ├── RequestTimeout         408
    │   ├── Conflict               409
    │   ├── RequestTooLarge        413
    │   ├── RateLimited            429  rate_limit_exceeded
    │   ├── BudgetExceeded         429  budget_exceeded
    │   └── HeadTooLarge           431
    ├── EngineError            the engine's fault
    │   ├── EngineRefused          400, 413, 422: the engine judged the request; passes to the client
    │   ├── EngineFailed           502: no answer, or a broken one
    │   └── EngineTimeout          504: a deadline of ours ran out on it
    └── LocalError             ours
        ├── Unavailable            503: no engine has room
        │   └── Draining           503: we are shutting down
        ├── StoreError             503: the database cannot be read or written
        └── InternalError          500

How an error looks on the wire is not here but in ``wire/envelope.py``.
"""

from typing import ClassVar


class FilatureError(Exception):
    """Base of all errors that may reach a client.

    ``status`` is the HTTP status; ``type``, ``code`` and ``param`` are those of the OpenAI error
    envelope; ``retry_after_s`` becomes ``retry-after``; ``should_retry`` False becomes
    ``x-should-retry: false``; ``header_lines`` are further lines of the response, each complete.
    """

    status: int = 500
    type: str = "server_error"
    code: str | None = None
    retry_after_s: int | None = None
    should_retry: bool = True
    header_lines: bytes = b""
    default_message: ClassVar[str] = "internal error"

    def __init__(
        self, message: str = "", *, param: str | None = None, code: str | None = None
    ) -> None:
        self.message = message or self.default_message
        self.param = param
        if code is not None:
            self.code = code
        super().__init__(self.message)


class RequestError(FilatureError):
    """The client's fault. Nothing was asked of an engine, or nothing will be charged."""

    status = 400
    type = "invalid_request_error"
    should_retry = False
    default_message = "invalid request"


class InvalidRequest(RequestError):
    """The body or the head says something that cannot be served as it stands."""


class AuthenticationFailed(RequestError):
    """No API key, or one that is not valid."""

    status = 401
    code = "invalid_api_key"
    default_message = "Incorrect API key provided."


class InsufficientQuota(RequestError):
    """The balance does not cover the request."""

    status = 402
    type = "insufficient_quota"
    code = "insufficient_quota"
    default_message = "The balance does not cover this request."


class PermissionDenied(RequestError):
    """The key is valid but may not do this."""

    status = 403
    type = "permission_error"
    default_message = "This API key may not do that."


class NotFound(RequestError):
    """No such path or record."""

    status = 404
    default_message = "not found"


class ModelNotFound(NotFound):
    """No engine serves the model."""

    code = "model_not_found"


class MethodNotAllowed(RequestError):
    """The path exists, for other methods; ``allow`` lists them as the header does."""

    status = 405

    def __init__(self, message: str, *, allow: str) -> None:
        super().__init__(message)
        self.allow = allow


class RequestTimeout(RequestError):
    """The request's head or body did not arrive in time."""

    status = 408
    default_message = "The request did not arrive in time."


class Conflict(RequestError):
    """The same request is running or was settled."""

    status = 409


class RequestTooLarge(RequestError):
    """The body is above the limit."""

    status = 413


class RateLimited(RequestError):
    """A limit on requests, tokens or concurrency was reached."""

    status = 429
    type = "rate_limit_error"
    code = "rate_limit_exceeded"
    should_retry = True
    retry_after_s = 1


class BudgetExceeded(RequestError):
    """The key's budget for the period does not cover the request."""

    status = 429
    type = "insufficient_quota"
    code = "budget_exceeded"


class HeadTooLarge(RequestError):
    """The request's head is above the limit."""

    status = 431


class EngineError(FilatureError):
    """The engine's fault."""

    status = 502
    type = "api_error"
    default_message = "The engine failed."


class EngineRefused(EngineError):
    """The engine's own 400, 413 or 422: its judgement of the request, passed to the client."""

    type = "invalid_request_error"
    should_retry = False

    def __init__(
        self, message: str, *, status: int, param: str | None = None, code: str | None = None
    ) -> None:
        super().__init__(message, param=param, code=code)
        self.status = status


class EngineFailed(EngineError):
    """The engine was not reached, or its answer is broken."""

    code = "engine_failed"
    retry_after_s = 1


class RouteMissing(EngineFailed):
    """The engine has no such API. Nothing is broken by asking for it."""

    code = "unsupported_by_engine"


class EngineTimeout(EngineError):
    """One of our deadlines ran out on the engine."""

    status = 504
    code = "engine_timeout"
    default_message = "The engine did not answer in time."
    retry_after_s = 1


class LocalError(FilatureError):
    """Our own fault or state."""


class Unavailable(LocalError):
    """Nothing can serve this now; later it may."""

    status = 503
    type = "service_unavailable"
    code = "unavailable"
    retry_after_s = 1
    default_message = "No engine is available for this request now."


class Draining(Unavailable):
    """We take nothing new, and end what runs when the grace for it is over."""

    code = "draining"
    default_message = "This server is shutting down."


class StoreError(LocalError):
    """The database cannot be opened, read or written; nothing was charged."""

    status = 503
    type = "service_unavailable"
    code = "ledger_unavailable"
    retry_after_s = 5
    default_message = "The ledger cannot be written to now; nothing was charged."


class InternalError(LocalError):
    """A defect of ours."""
