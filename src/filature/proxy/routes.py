"""What the proxy answers on which path: the API's dialects, the models, usage, health."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final
from urllib.parse import unquote

import orjson

from filature.errors import (
    FilatureError,
    InvalidRequest,
    MethodNotAllowed,
    ModelNotFound,
    NotFound,
    Unavailable,
)
from filature.relay.downstream import DownstreamConnection
from filature.relay.exchange import Exchange
from filature.relay.http1 import RequestHead
from filature.relay.outcome import Outcome
from filature.relay.plane import DataPlane, RequestIds
from filature.relay.responses import connection_line, error_response, response, status_line
from filature.request.limits import RequestLimits
from filature.request.parse import parse_request
from filature.telemetry.record import UsageRecord
from filature.units import RequestId
from filature.wire.dialect import DIALECT_BY_PATH, Dialect

_CLIENT_ID: Final = re.compile(rb"[!-~]{1,128}")
_EXPOSED: Final = (
    b"x-request-id, x-client-request-id, retry-after, x-should-retry, "
    b"x-ratelimit-limit-requests, x-ratelimit-limit-tokens, x-ratelimit-remaining-requests, "
    b"x-ratelimit-remaining-tokens, x-ratelimit-reset-requests, x-ratelimit-reset-tokens"
)
_PREFLIGHT_AGE_S: Final = 600

Page = Callable[[RequestHead], bytes]


@dataclass(frozen=True, slots=True)
class _Route:
    """What follows from a head alone; remembered with it. One of ``dialect`` and ``page`` is set,
    neither for ``OPTIONS *``."""

    dialect: Dialect | None
    page: Page | None
    client_request_id: str | None
    lines: bytes
    """Of every answer to this head."""


class Routes:
    """The service that client connections are given (``relay.downstream.Service``)."""

    def __init__(
        self,
        plane: DataPlane,
        request_limits: RequestLimits,
        usage: Callable[[RequestId], UsageRecord | None],
        *,
        cors_origins: list[str],
        is_draining: Callable[[], bool],
    ) -> None:
        self._plane = plane
        self._limits = request_limits
        self._usage = usage
        self._origins = frozenset(origin.encode("latin-1") for origin in cors_origins)
        self._ids = RequestIds()
        self._is_draining = is_draining
        self._pages: dict[str, Page] = {
            "/v1/models": self._models,
            "/health": lambda _: b'{"status":"ok"}',
            "/ready": self._ready,
        }

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
            self._serve_page(connection, head, route.page)

    def refuse(
        self, connection: DownstreamConnection, head: RequestHead | None, error: FilatureError
    ) -> None:
        dialect = DIALECT_BY_PATH.get(head.path) if head is not None else None
        request_id = self._ids.next()
        lines = self._header_lines(head, request_id)
        if head is not None and dialect is not None:
            client_id = None if head.route is None else head.route.client_request_id
            self._refused(self._new_record(request_id, client_id, dialect), error)
        self._answer_error(connection, head, error, dialect, lines)

    def _route(self, head: RequestHead) -> _Route:
        """Raises NotFound, MethodNotAllowed or InvalidRequest."""
        path, method = head.path, head.method
        dialect = DIALECT_BY_PATH.get(path)
        page = None
        if dialect is not None:
            if method not in ("POST", "OPTIONS"):
                raise _not_allowed(method, path, "POST")
        else:
            page = self._page(path)
            if page is None and not (path == "*" and method == "OPTIONS"):
                raise NotFound(f"Unknown path: {method} {path}", code="unknown_url")
            if method not in ("GET", "HEAD", "OPTIONS"):
                raise _not_allowed(method, path, "GET, HEAD")
        client_id = _client_id(head)
        lines = self._cors_lines(head) if self._origins else b""
        if client_id is not None:
            lines += b"x-client-request-id: %b\r\n" % client_id.encode("ascii")
        return _Route(dialect, page, client_id, lines)

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
            if self._is_draining():
                raise Unavailable("This server is shutting down.", code="draining")
            request = parse_request(dialect, body, self._limits)
            record.model = request.model
            guid = request.request_guid
            if guid is not None:
                given = guid.encode("utf-8", "surrogatepass")
                checked = _checked_id(given, "request_guid")
                if record.client_request_id is None:  # a header's id comes first
                    record.client_request_id = checked
                    lines += b"x-client-request-id: %b\r\n" % given
        except FilatureError as error:
            self._refused(record, error)
            self._answer_error(connection, head, error, dialect, lines)
            return
        Exchange(self._plane, connection, head, request, record, lines).start()

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
        self._plane.record(record)

    # pages

    def _page(self, path: str) -> Page | None:
        page = self._pages.get(path)
        if page is None and path.startswith("/v1/models/"):
            return self._model
        if page is None and path.startswith("/v1/usage/"):
            return self._usage_record
        return page

    def _serve_page(self, connection: DownstreamConnection, head: RequestHead, page: Page) -> None:
        lines = self._header_lines(head, self._ids.next())
        try:
            body = page(head)
        except FilatureError as error:
            self._answer_error(connection, head, error, None, lines)
            return
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

    def _models(self, head: RequestHead) -> bytes:
        entries = [self._model_entry(name) for name in self._plane.engines.models()]
        return orjson.dumps({"object": "list", "data": entries})

    def _model(self, head: RequestHead) -> bytes:
        name = unquote(head.path.removeprefix("/v1/models/"))
        if name not in self._plane.engines.models():
            raise ModelNotFound(f"The model {name!r} does not exist here.", param="model")
        return orjson.dumps(self._model_entry(name))

    def _model_entry(self, name: str) -> dict[str, object]:
        model = self._plane.engines.models()[name]
        entry: dict[str, object] = {
            "id": name,
            "object": "model",
            "created": model.created,
            "owned_by": "filature",
        }
        if model.context_length is not None:
            entry["context_length"] = entry["max_model_len"] = model.context_length
        return entry

    def _usage_record(self, head: RequestHead) -> bytes:
        request_id = RequestId(unquote(head.path.removeprefix("/v1/usage/")))
        record = self._usage(request_id)
        if record is None:
            raise NotFound(f"No usage record {request_id!r}.", code="usage_not_found")
        return orjson.dumps(record.as_dict())

    def _ready(self, head: RequestHead) -> bytes:
        if self._is_draining():
            raise Unavailable("This server is shutting down.", code="draining")
        if not self._plane.engines.is_ready:
            raise Unavailable("No engine has answered yet.")
        return b'{"status":"ready"}'

    # answers

    def _answer_error(
        self,
        connection: DownstreamConnection,
        head: RequestHead | None,
        error: FilatureError,
        dialect: Dialect | None,
        lines: bytes,
    ) -> None:
        keep_alive = (
            head is not None
            and head.keep_alive
            and not connection.must_close
            and not connection.closes
        )
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
        return b"date: %b\r\nx-request-id: %b\r\n%b" % (
            self._plane.clock.date,
            request_id.encode("ascii"),
            lines,
        )

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


def _not_allowed(method: str, path: str, allow: str) -> MethodNotAllowed:
    return MethodNotAllowed(f"{method} is not allowed on {path}.", allow=f"{allow}, OPTIONS")


def _client_id(head: RequestHead) -> str | None:
    """The client's own id of its request, if it gave one. Raises InvalidRequest."""
    headers = head.headers
    given = headers.get(b"x-client-request-id") or headers.get(b"x-request-id")
    return None if given is None else _checked_id(given, "x-client-request-id")


def _checked_id(given: bytes, param: str) -> str:
    if not _CLIENT_ID.fullmatch(given):
        raise InvalidRequest(f"{param} must be 1 to 128 visible ASCII characters.", param=param)
    return given.decode("ascii")
