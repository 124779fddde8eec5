"""What workers are answered at ``/filature/v1/…``: hello, heartbeat, reports, and the turning round of a connection."""

from collections.abc import Callable, Coroutine
from typing import Any, Final

from pydantic import ValidationError

from filature.errors import AuthenticationFailed, Conflict, InvalidRequest, MethodNotAllowed
from filature.proxy.payout_desk import PayoutDesk
from filature.proxy.reports import ReportDesk
from filature.proxy.workers import Workers
from filature.relay.downstream import DownstreamConnection
from filature.relay.http1 import RequestHead
from filature.store.worker_tokens import WorkerToken, WorkerTokens
from filature.wire import control
from filature.wire.control import Standing

CONTROL_BODY_BYTES_MAX: Final = 4 * 1024 * 1024
_SWITCH: Final = (
    b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: %b\r\n\r\n"
    % control.TUNNEL_PROTOCOL.encode("ascii")
)

Answer = bytes | Coroutine[Any, Any, bytes]
Endpoint = Callable[[WorkerToken, bytes], Answer]


class Control:
    """The routes of workers. Every one needs a worker's token."""

    def __init__(
        self, tokens: WorkerTokens, workers: Workers, desk: ReportDesk, payouts: PayoutDesk
    ) -> None:
        self._tokens = tokens
        self._workers = workers
        self._desk = desk
        self._endpoints: dict[str, Endpoint] = {
            control.HELLO_PATH: self._hello,
            control.HEARTBEAT_PATH: self._heartbeat,
            control.REPORTS_PATH: self._reports,
            control.PAYOUT_REQUESTS_PATH: payouts.ask,
        }

    def find(self, head: RequestHead) -> "WorkerRoute | None":
        """The route of a head; None: it is not one of workers.

        Raises MethodNotAllowed, AuthenticationFailed, Conflict or InvalidRequest.
        """
        path, method = head.path, head.method
        endpoint = self._endpoints.get(path)
        is_tunnel = path == control.TUNNEL_PATH
        if endpoint is None and not is_tunnel:
            return None
        needed = "GET" if is_tunnel else "POST"
        if method != needed:
            raise MethodNotAllowed(f"{method} is not allowed on {path}.", allow=needed)
        token = self._token(head)
        if not is_tunnel:
            head.body_bytes_max = CONTROL_BODY_BYTES_MAX
            return WorkerRoute(token, endpoint, "")
        if head.headers.get(b"upgrade", b"").lower() != control.TUNNEL_PROTOCOL.encode("ascii"):
            raise InvalidRequest(f"Ask for it by Upgrade: {control.TUNNEL_PROTOCOL}.")
        header = control.INSTANCE_HEADER.encode("ascii")
        instance = head.headers.get(header, b"").decode("latin-1")
        if not self._workers.knows(token, instance):
            raise Conflict("Say hello first.", code="hello_needed")
        return WorkerRoute(token, None, instance)

    def _token(self, head: RequestHead) -> WorkerToken:
        scheme, _, secret = head.headers.get(b"authorization", b"").partition(b" ")
        if scheme.lower() != b"bearer":
            raise AuthenticationFailed("A worker's token is needed.", code="invalid_worker_token")
        token = self._tokens.find(secret.strip())
        if token is None:
            raise AuthenticationFailed(
                "This is no worker's token of this proxy.", code="invalid_worker_token"
            )
        _check(token)
        return token

    def check(self, route: "WorkerRoute") -> None:
        """Whether what was found with a head still holds. Raises AuthenticationFailed or Unavailable."""
        _check(route.token)
        if route.endpoint is None:
            self._workers.check_room()

    def turn_round(self, route: "WorkerRoute", connection: DownstreamConnection) -> None:
        """From here on requests go down this connection."""
        connection.write(_SWITCH)
        transport = connection.hand_over()
        if transport is not None:
            self._workers.attach(route.token, route.instance, transport)

    def _hello(self, token: WorkerToken, body: bytes) -> Answer:
        standing: Standing = control.parse(Standing, body)
        return self._workers.hello(token, standing).model_dump_json().encode()

    def _heartbeat(self, token: WorkerToken, body: bytes) -> Answer:
        standing: Standing = control.parse(Standing, body)
        return self._workers.heartbeat(token, standing).model_dump_json().encode()

    async def _reports(self, token: WorkerToken, body: bytes) -> bytes:
        try:
            reports = control.read_reports(body)
        except ValueError as error:
            raise InvalidRequest(f"reports: {error}.", param="reports") from None
        try:
            accepted = await self._desk.take(token, reports)
        except ValidationError as error:
            raise control.invalid(error) from None
        return accepted.model_dump_json().encode()


class WorkerRoute:
    """A request of a worker whose token is valid; ``endpoint`` None: it asks for a tunnel."""

    __slots__ = ("endpoint", "instance", "token")

    def __init__(self, token: WorkerToken, endpoint: Endpoint | None, instance: str) -> None:
        self.token = token
        self.endpoint = endpoint
        self.instance = instance


def _check(token: WorkerToken) -> None:
    if token.revoked_ms is not None:
        raise AuthenticationFailed("The worker's token was revoked.", code="invalid_worker_token")
