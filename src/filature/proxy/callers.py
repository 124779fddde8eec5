"""Who asks: the account behind a request's key. What the account may spend is decided in ``admission.py``."""

from collections.abc import Callable, Collection
from typing import Final

from filature.errors import AuthenticationFailed
from filature.relay.http1 import RequestHead
from filature.store.keys import ApiKey, KeyRing
from filature.units import AccountId

KEY_BYTES_MAX: Final = 512
_OURS: Final = b"sk-fil-"


class Caller:
    """An account, and the key by which it is known: None for requests without one."""

    __slots__ = ("account", "key")

    def __init__(self, account: AccountId, key: ApiKey | None) -> None:
        self.account = account
        self.key = key


class Callers:
    """Finds the caller of a request by its head.

    ``keyless`` is the account of requests that bring no key of ours, where such are served: SDKs
    insist on sending some key. A key of ours that is not valid is refused everywhere. Any web page can have a
    browser send requests to this machine, so those of pages are served without a key only where their origin is
    one of ``origins``, or these are ``*``.
    """

    def __init__(
        self,
        keys: KeyRing,
        wall_ms: Callable[[], int],
        *,
        keyless: AccountId | None,
        origins: Collection[str] = (),
    ) -> None:
        self._keys = keys
        self._wall_ms = wall_ms
        self._keyless = None if keyless is None else Caller(keyless, None)
        self._origins = frozenset(origin.encode("latin-1") for origin in origins)

    def of(self, head: RequestHead) -> Caller:
        """Raises AuthenticationFailed. May be remembered with the head, and is to be given to ``check``."""
        secret = _secret(head)
        if self._keyless is not None and not secret.startswith(_OURS):
            origin = head.headers.get(b"origin")
            if origin is None or origin in self._origins or b"*" in self._origins:
                return self._keyless
            raise AuthenticationFailed(
                "Requests of web pages need an API key here, or their origin in FILATURE_CORS_ORIGINS.",
            )
        if not secret:
            raise AuthenticationFailed(
                "No API key was given. Send one as `Authorization: Bearer sk-fil-…`; "
                "the operator makes them with `filature key create ACCOUNT`.",
            )
        key = self._keys.find(secret) if len(secret) <= KEY_BYTES_MAX else None
        if key is None:
            raise AuthenticationFailed
        return Caller(key.account, key)

    def is_valid(self, caller: Caller) -> bool:
        """Whether ``check`` lets it pass."""
        try:
            self.check(caller)
        except AuthenticationFailed:
            return False
        return True

    def check(self, caller: Caller) -> None:
        """Raises AuthenticationFailed when the key was revoked or has expired since it was found."""
        key = caller.key
        if key is None:
            return
        if key.revoked_ms is not None:
            raise AuthenticationFailed("This API key was revoked.")
        expires_ms = key.limits.expires_ms
        if expires_ms is not None and expires_ms <= self._wall_ms():
            raise AuthenticationFailed("This API key has expired.", code="expired_api_key")


def _secret(head: RequestHead) -> bytes:
    """The key: OpenAI's clients send it as a bearer token, Anthropic's as ``x-api-key``.

    Anthropic's may send both, one for another service: then it is the one of ours.
    """
    scheme, _, token = head.headers.get(b"authorization", b"").partition(b" ")
    bearer = token.strip() if scheme.lower() == b"bearer" else b""
    api_key = head.headers.get(b"x-api-key", b"").strip()
    if not bearer or (api_key.startswith(_OURS) and not bearer.startswith(_OURS)):
        return api_key
    return bearer
