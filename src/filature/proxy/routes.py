"""What the proxy answers on which path. The API's requests go on to ``intake.py``, pages are ``pages.py``'s."""

import re
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any, Final

from filature.errors import (
    AuthenticationFailed,
    Draining,
    FilatureError,
    InvalidRequest,
    MethodNotAllowed,
    NotFound,
    Unavailable,
)
from filature.proxy.admission import Admission
from filature.proxy.callers import Caller, Callers
from filature.proxy.control import Control, WorkerRoute
from filature.proxy.intake import Asked, Intake
from filature.proxy.pages import Page, Pages
from filature.relay.deferred import Deferred
from filature.relay.downstream import DownstreamConnection
from filature.relay.http1 import COMPRESSION, RequestHead
from filature.relay.outcome import Outcome
from filature.relay.plane import DataPlane, RequestIds
from filature.relay.responses import connection_line, error_response, response, status_line
from filature.request.limits import RequestLimits
from filature.request.parse import parse_request
from filature.store.idempotency import Idempotency
from filature.telemetry.record import UsageRecord
from filature.units import RequestId
from filature.wire.control import PREFIX
from filature.wire.dialect import DIALECT_BY_PATH, Dialect

_CLIENT_ID: Final = re.compile(rb"[!-~]{1,128}")
_CLIENT_ID_HEADERS: Final = (b"x-client-request-id", b"x-request-id")
_EXPOSED: Final = (
    b"x-request-id, request-id, x-client-request-id, retry-after, x-should-retry, "
    b"x-ratelimit-limit-requests, x-ratelimit-limit-tokens, x-ratelimit-remaining-requests, "
    b"x-ratelimit-remaining-tokens, x-ratelimit-reset-requests, x-ratelimit-reset-tokens, "
    b"x-filature-proxy-start, x-filature-proxy-end, x-filature-worker-start, x-filature-worker-end"
)
_PREFLIGHT_AGE_S: Final = 600
_ANTHROPIC_HEADER: Final = b"anthropic-version"
"""By which Anthropic's clients are known; they look for a request's id in a header of another name."""
UNREAD_BODY_BYTES_MAX: Final = 64 * 1024
"""Of a request that needs no body, and maybe no key either: some clients send one all the same."""


@dataclass(frozen=True, slots=True)
class _Route:
    """What follows from a head alone; remembered with it. One of ``dialect``, ``page`` and ``worker`` is
    set, none for ``OPTIONS`` of what is nowhere."""

    dialect: Dialect | None
    page: Page | None
    caller: Caller | None
    """None where no key that is valid was given; the dialects always have one."""
    client_request_id: str | None
    lines: bytes
    """Of every answer to this head."""
    worker: WorkerRoute | None = None
    """Of a request that a worker makes."""


class Routes:
    """The service that client connections are given (``relay.downstream.Service``)."""

    def __init__(
        self,
        plane: DataPlane,
        request_limits: RequestLimits,
        callers: Callers,
        admission: Admission,
        idempotency: Idempotency,
        pages: Pages,
        control: Control,
        *,
        cors_origins: list[str],
    ) -> None:
        self._plane = plane
        self._limits = request_limits
        self._callers = callers
        self._admission = admission
        self._intake = Intake(plane, admission, idempotency, self._refuse_asked)
        self._pages = pages
        self._control = control
        self._origins = frozenset(origin.encode("latin-1") for origin in cors_origins)
        self._ids = RequestIds(plane.wall)

    # Service

    def check(self, head: RequestHead) -> FilatureError | None:
        if head.route is None:
            try:
                head.route = self._route(head)
            except FilatureError as error:
                return error
        return None

    def serve(self, connection: DownstreamConnection, head: RequestHead, body: bytes) -> None:
        route: _Route = head.route
        if head.method == "OPTIONS":
            self._options(connection, head)
        elif route.dialect is not None:
            self._serve_dialect(connection, head, route, route.dialect, body)
        elif route.page is not None:
            self._serve_page(connection, head, route, route.page)
        elif route.worker is not None:
            self._serve_worker(connection, head, route.worker, body)

    def refuse(
        self, connection: DownstreamConnection, head: RequestHead | None, error: FilatureError
    ) -> None:
        dialect = DIALECT_BY_PATH.get(head.path) if head is not None else None
        request_id = self._ids.next()
        lines = self._header_lines(head, request_id)
        if head is not None and dialect is not None:
            client_id = None if head.route is None else head.route.client_request_id
            record = self._new_record(request_id, client_id, dialect)
            caller = self._caller(head, needed=False)
            if caller is not None:
                _tell_caller(record, caller)
            self._refused(record, error)
        self._answer_error(connection, head, error, dialect, lines)

    def _route(self, head: RequestHead) -> _Route:
        """Raises NotFound, MethodNotAllowed, AuthenticationFailed or InvalidRequest."""
        path, method = head.path, head.method
        if method != "POST":
            head.body_bytes_max = UNREAD_BODY_BYTES_MAX
        if path.startswith(PREFIX):
            worker = self._control.find(head)
            if worker is not None:
                return _Route(None, None, None, None, b"", worker)
        dialect = DIALECT_BY_PATH.get(path)
        page = None
        if dialect is not None:
            if method not in ("POST", "OPTIONS"):
                raise _not_allowed(method, path, "POST")
            if COMPRESSION.search(head.headers.get(b"content-encoding", b"")):
                raise InvalidRequest(
                    "Compressed bodies are not read here: send the body without Content-Encoding.",
                    code="unsupported_encoding",
                )
        else:
            page = self._pages.find(path)
            # a browser shows a page the 404 only where the preflight was not one itself
            asks = method == "OPTIONS" and (path == "*" or bool(self._origins))
            if page is None and not asks:
                raise NotFound(f"Unknown path: {method} {path}", code="unknown_url")
            if method not in ("GET", "HEAD", "OPTIONS"):
                raise _not_allowed(method, path, "GET, HEAD")
        caller = self._caller(head, needed=dialect is not None and method == "POST")
        client_id = _client_id(head)
        lines = self._cors_lines(head) if self._origins else b""
        if client_id is not None:
            lines += b"x-client-request-id: %b\r\n" % client_id.encode("ascii")
        return _Route(dialect, page, caller, client_id, lines)

    def _caller(self, head: RequestHead, *, needed: bool) -> Caller | None:
        try:
            return self._callers.of(head)
        except AuthenticationFailed:
            if needed:
                raise
            return None  # some pages are for everybody

    # the API

    def _serve_dialect(
        self,
        connection: DownstreamConnection,
        head: RequestHead,
        route: _Route,
        dialect: Dialect,
        body: bytes,
    ) -> None:
        record = self._new_record(self._ids.next(), route.client_request_id, dialect)
        lines = self._header_lines(head, record.id)
        try:
            if connection.closes:
                raise Draining
            caller = route.caller
            assert caller is not None  # the route had one, or was refused
            self._callers.check(caller)
            _tell_caller(record, caller)
            request = parse_request(dialect, body, self._limits)
            record.model = request.model
            guid = request.request_guid
            if guid is not None:
                given = guid.encode("utf-8", "surrogatepass")
                checked = _checked_id(given, "request_guid")
                if record.client_request_id is None:  # a header's id comes first
                    record.client_request_id = checked
                    lines += b"x-client-request-id: %b\r\n" % given
            offer = self._admission.offer(caller, request)
            self._intake.take(Asked(connection, head, caller, request, record, lines, offer))
        except FilatureError as error:
            self._refused(record, error)
            self._answer_error(connection, head, error, dialect, lines)

    def _refuse_asked(self, asked: Asked, error: FilatureError) -> None:
        self._refused(asked.record, error)
        self._answer_error(asked.connection, asked.head, error, asked.request.dialect, asked.lines)

    def _new_record(
        self, request_id: RequestId, client_id: str | None, dialect: Dialect
    ) -> UsageRecord:
        now = self._plane.wall()
        return UsageRecord(
            request_id, client_id, dialect, "", "", Outcome.REFUSED, 0, started_at=now
        )

    def _refused(self, record: UsageRecord, error: FilatureError) -> None:
        record.status = error.status
        record.error_code = error.code
        if isinstance(error, Unavailable) and error.code == "unavailable":
            record.outcome = Outcome.NO_ENGINE
        self._plane.record(record)

    # pages and workers

    def _serve_worker(
        self, connection: DownstreamConnection, head: RequestHead, worker: WorkerRoute, body: bytes
    ) -> None:
        def answer() -> bytes | Coroutine[Any, Any, bytes]:
            self._control.check(worker)
            if connection.closes:
                raise Draining
            endpoint = worker.endpoint
            return b"" if endpoint is None else endpoint(worker.token, body)

        lines = self._header_lines(head, self._ids.next())
        try:
            given = answer()
        except FilatureError as error:
            self._answer_error(connection, head, error, None, lines)
            return
        if worker.endpoint is None:
            self._control.turn_round(worker, connection)
        else:
            self._show(connection, head, lines, given)

    def _serve_page(
        self, connection: DownstreamConnection, head: RequestHead, route: _Route, page: Page
    ) -> None:
        lines = self._header_lines(head, self._ids.next())
        caller = route.caller
        if caller is not None and not self._callers.is_valid(caller):
            caller = None  # some pages are for everybody
        try:
            body = page(head, caller)
        except FilatureError as error:
            self._answer_error(connection, head, error, None, lines)
            return
        self._show(connection, head, lines, body)

    def _show(
        self,
        connection: DownstreamConnection,
        head: RequestHead,
        lines: bytes,
        body: bytes | Coroutine[Any, Any, bytes],
    ) -> None:
        """A JSON body, now or when it is there."""

        def show(body: bytes) -> None:
            keep_alive = head.keep_alive and not connection.closes
            connection.write(
                response(
                    200,
                    body,
                    headers=lines,
                    keep_alive=keep_alive,
                    http_minor=head.http_minor,
                    send_body=head.method != "HEAD",
                )
            )
            connection.answered(keep_alive)

        def fail(error: FilatureError) -> None:
            self._answer_error(connection, head, error, None, lines)

        if isinstance(body, bytes):
            show(body)
        else:
            Deferred(connection, show, fail).start(body)

    # answers

    def _answer_error(
        self,
        connection: DownstreamConnection,
        head: RequestHead | None,
        error: FilatureError,
        dialect: Dialect | None,
        lines: bytes,
    ) -> None:
        if dialect is None and head is not None and _ANTHROPIC_HEADER in head.headers:
            dialect = Dialect.MESSAGES  # on paths that are nobody's, or everybody's
        keep_alive = connection.outlives_refusal(head)
        connection.write(
            error_response(
                error,
                dialect,
                headers=lines,
                keep_alive=keep_alive,
                http_minor=1 if head is None else head.http_minor,
                send_body=head is None or head.method != "HEAD",
            )
        )
        connection.answered(keep_alive)

    def _options(self, connection: DownstreamConnection, head: RequestHead) -> None:
        """A CORS preflight (Fetch standard, 4.8), or a plain question for the methods."""
        lines = self._header_lines(head, self._ids.next())
        methods = b"POST" if head.path in DIALECT_BY_PATH else b"GET, HEAD"
        lines += b"allow: %b, OPTIONS\r\n" % methods
        if b"access-control-allow-origin" in lines:
            asked = head.headers.get(b"access-control-request-headers", b"*")
            lines += (
                b"access-control-allow-methods: %b, OPTIONS\r\n"
                b"access-control-allow-headers: %b\r\n"
                b"access-control-max-age: %d\r\n" % (methods, asked, _PREFLIGHT_AGE_S)
            )
        keep_alive = head.keep_alive and not connection.closes
        lines += connection_line(keep_alive=keep_alive, http_minor=head.http_minor)
        connection.write(b"%b%b\r\n" % (status_line(204), lines))
        connection.answered(keep_alive)

    def _header_lines(self, head: RequestHead | None, request_id: RequestId) -> bytes:
        """The header lines of every answer: date, ids, CORS."""
        if head is None:
            lines = b""
        elif head.route is not None:
            lines = head.route.lines
        else:
            lines = self._cors_lines(head) if self._origins else b""
        encoded = request_id.encode("ascii")
        if head is not None and _ANTHROPIC_HEADER in head.headers:
            lines = b"request-id: %b\r\n%b" % (encoded, lines)
        return b"date: %b\r\nx-request-id: %b\r\n%b" % (self._plane.clock.date, encoded, lines)

    def _cors_lines(self, head: RequestHead) -> bytes:
        origin = head.headers.get(b"origin")
        if b"*" in self._origins:
            allowed = b"*"
        elif origin is not None and origin in self._origins:
            allowed = origin
        else:
            return b"vary: origin\r\n"
        vary = b"" if allowed == b"*" else b"vary: origin\r\n"
        return b"access-control-allow-origin: %b\r\naccess-control-expose-headers: %b\r\n%b" % (
            allowed,
            _EXPOSED,
            vary,
        )


def _tell_caller(record: UsageRecord, caller: Caller) -> None:
    record.account = caller.account
    if caller.key is not None:
        record.key_id = caller.key.id


def _not_allowed(method: str, path: str, allow: str) -> MethodNotAllowed:
    return MethodNotAllowed(f"{method} is not allowed on {path}.", allow=f"{allow}, OPTIONS")


def _client_id(head: RequestHead) -> str | None:
    """The client's own id of its request, if it gave one. Raises InvalidRequest."""
    for name in _CLIENT_ID_HEADERS:
        given = head.headers.get(name)
        if given:  # an empty one names nothing
            return _checked_id(given, name.decode("ascii"))
    return None


def _checked_id(given: bytes, param: str) -> str:
    if not _CLIENT_ID.fullmatch(given):
        raise InvalidRequest(f"{param} must be 1 to 128 visible ASCII characters.", param=param)
    return given.decode("ascii")
