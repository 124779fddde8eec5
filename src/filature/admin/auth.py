"""Who may use the admin API: whoever has its token. Checked before anything of a request's body is read."""

import hashlib
import hmac
from typing import Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from filature.errors import AuthenticationFailed, FilatureError, InvalidRequest, RequestTooLarge
from filature.wire.envelope import error_body

BODY_BYTES_MAX: Final = 4 * 1024 * 1024
"""Of a request; an import of some ten thousand prices is the largest."""


class TokenRequired:
    """Lets through what is not below ``prefix``, is in ``public``, or brings the token.

    The token comes as ``Authorization: Bearer TOKEN`` and is compared in constant time. Bodies need
    a length, within BODY_BYTES_MAX.
    """

    def __init__(self, app: ASGIApp, *, token: str, prefix: str, public: frozenset[str]) -> None:
        self._app = app
        self._digest = _digest(token.encode())
        self._prefix = prefix
        self._public = public

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"].startswith(self._prefix):
            refusal = self._refusal(Request(scope))
            if refusal is not None:
                await error_response(refusal)(scope, receive, send)
                return
        await self._app(scope, receive, send)

    def _refusal(self, request: Request) -> FilatureError | None:
        if request.scope["path"] not in self._public:
            scheme, _, token = request.headers.get("authorization", "").partition(" ")
            given = _digest(token.strip().encode("latin-1"))
            if scheme.lower() != "bearer" or not hmac.compare_digest(given, self._digest):
                return AuthenticationFailed(
                    "The admin API needs its token: Authorization: Bearer …; it is in the file "
                    "admin-token of the data directory, or was set as FILATURE_ADMIN_TOKEN.",
                    code="invalid_admin_token",
                )
        if "transfer-encoding" in request.headers:
            return InvalidRequest("Send the body with a content-length.")
        length = request.headers.get("content-length", "0")
        if not length.isdecimal() or int(length) > BODY_BYTES_MAX:
            return RequestTooLarge(f"A body has at most {BODY_BYTES_MAX} bytes.")
        return None


def error_response(error: FilatureError) -> Response:
    """The error in OpenAI's envelope."""
    headers = {}
    if error.status == 401:
        headers["www-authenticate"] = "Bearer"
    if error.retry_after_s is not None:
        headers["retry-after"] = str(error.retry_after_s)
    return Response(error_body(error), error.status, headers, "application/json")


def _digest(token: bytes) -> bytes:
    """Of one length for all tokens, so that a comparison tells nothing of the length either."""
    return hashlib.sha256(token).digest()
