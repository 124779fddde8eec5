"""Earnings statements: what a proxy says that it owes a worker, signed so that nobody else could have said it.

A JWS in its compact form (RFC 7515) with Ed25519 (RFC 8037). The proxy's id, ``iss``, is the thumbprint of its key
(RFC 7638, RFC 9278), so a statement tells by which key it is to be checked.
"""

import base64
import binascii
import hashlib
import json
from typing import Annotated, Any, Final

import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from pydantic import BaseModel, ConfigDict, Field, ValidationError

STATEMENT_CHARS_MAX: Final = 4096
KEYS_MAX: Final = 16
"""That one proxy serves."""
KEY_CHARS: Final = 43
"""Of a public key in base64url."""
_KIND: Final = "filature-statement+jwt"
_ALGORITHM: Final = "EdDSA"
_ISSUER: Final = "urn:ietf:params:oauth:jwk-thumbprint:sha-256:"
_TOTALS: Final = ("earned_nano", "paid_nano", "corrected_nano", "requests", "seq")

Total = Annotated[int, Field(ge=0, lt=2**63)]


class StatementError(Exception):
    """Why a statement or a key cannot be used."""


class Statement(BaseModel):
    """A worker's totals at a proxy since the beginning, nano-credits. None of them ever falls."""

    model_config = ConfigDict(strict=True, frozen=True, extra="ignore")

    iss: str
    sub: Annotated[str, Field(min_length=1, max_length=256)]
    """The worker."""
    iat: Annotated[int, Field(ge=0, lt=2**40)]
    """Unix time in seconds."""
    earned_nano: Total
    paid_nano: Total
    corrected_nano: Total = 0
    """What corrections of charges took back."""
    requests: Total
    seq: Total
    """How many transfers of the worker's account are in it."""

    @property
    def owed_nano(self) -> int:
        """Below zero where more was taken back than is left of what was earned."""
        return self.earned_nano - self.paid_nano - self.corrected_nano


def fallen(before: Statement, after: Statement) -> list[str]:
    """The totals that are lower in the later one: there should be none."""
    return [name for name in _TOTALS if getattr(after, name) < getattr(before, name)]


class ProxyKey:
    """A proxy's public key. Raises StatementError on what is none."""

    def __init__(self, raw: bytes) -> None:
        try:
            self._key = Ed25519PublicKey.from_public_bytes(raw)
        except ValueError:
            raise StatementError("a public key of Ed25519 has 32 bytes") from None
        self.x = _base64url(raw)
        canonical = f'{{"crv":"Ed25519","kty":"OKP","x":"{self.x}"}}'
        self.id = _base64url(hashlib.sha256(canonical.encode()).digest())
        self.issuer = _ISSUER + self.id

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ProxyKey) and other.x == self.x

    def __hash__(self) -> int:
        return hash(self.x)

    def as_jwk(self) -> dict[str, str]:
        return {
            "kty": "OKP",
            "crv": "Ed25519",
            "x": self.x,
            "kid": self.id,
            "use": "sig",
            "alg": _ALGORITHM,
        }

    def check(self, text: str) -> Statement:
        """The statement, when this key signed it. Raises StatementError."""
        if len(text) > STATEMENT_CHARS_MAX:
            raise StatementError("it is too long")
        try:
            if jwt.get_unverified_header(text).get("typ") != _KIND:
                raise StatementError("it is no earnings statement")
            claims = jwt.decode(
                text,
                self._key,
                algorithms=[_ALGORITHM],
                issuer=self.issuer,
                options={"verify_iat": False, "verify_aud": False, "verify_sub": False},
            )
            return Statement.model_validate(claims)
        except jwt.InvalidIssuerError:
            raise StatementError("another proxy's id is in it") from None
        except jwt.InvalidTokenError as error:
            raise StatementError(f"it was not signed by this key: {error}") from None
        except ValidationError as error:
            where = error.errors(include_input=False, include_url=False)[0]["loc"]
            raise StatementError(f"its {'.'.join(map(str, where))} cannot be") from None


class SigningKey:
    """A proxy's private key: 32 bytes."""

    def __init__(self, secret: bytes) -> None:
        self._key = Ed25519PrivateKey.from_private_bytes(secret)
        raw = self._key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        self.public = ProxyKey(raw)

    def sign(self, statement: Statement) -> str:
        """``statement`` has this key's issuer."""
        headers = {"typ": _KIND, "kid": self.public.id}
        return jwt.encode(statement.model_dump(), self._key, _ALGORITHM, headers)


def key_set(keys: list[ProxyKey]) -> dict[str, Any]:
    """A JWK set (RFC 7517)."""
    return {"keys": [key.as_jwk() for key in keys]}


def read_keys(text: str | bytes) -> list[ProxyKey]:
    """Of a JWK set, of a JWK, or the key alone in base64url. Raises StatementError."""
    shown = text.decode("utf-8", "replace").strip() if isinstance(text, bytes) else text.strip()
    if len(shown) == KEY_CHARS and not shown.startswith("{"):
        return [_key_of({"kty": "OKP", "crv": "Ed25519", "x": shown})]
    try:
        told = json.loads(shown)
    except (ValueError, RecursionError):
        raise StatementError("no JSON of a key is there") from None
    return keys_of(told)


def keys_of(told: object) -> list[ProxyKey]:
    """As ``read_keys``, of parsed JSON. Keys of other kinds are passed over."""
    if not isinstance(told, dict):
        raise StatementError("no key is there")
    if "keys" not in told:
        return [_key_of(told)]
    listed = told["keys"]
    if not isinstance(listed, list) or len(listed) > KEYS_MAX:
        raise StatementError("no set of keys is there")
    keys = [_key_of(each) for each in listed if isinstance(each, dict) and _is_ours(each)]
    if not keys:
        raise StatementError("no key of Ed25519 is there")
    return keys


def check_by(keys: list[ProxyKey], text: str) -> Statement:
    """The statement, when the one of ``keys`` that it names signed it. Raises StatementError."""
    try:
        named = jwt.get_unverified_header(text).get("kid")
    except jwt.InvalidTokenError:
        raise StatementError("it is no earnings statement") from None
    for key in keys:
        if key.id == named:
            return key.check(text)
    raise StatementError("it names another key")


def read_unchecked(text: str) -> Statement:
    """What a statement says, whoever signed it. Raises StatementError."""
    try:
        return Statement.model_validate(jwt.decode(text, options={"verify_signature": False}))
    except (jwt.InvalidTokenError, ValidationError):
        raise StatementError("it is no earnings statement") from None


def _is_ours(jwk: dict[str, Any]) -> bool:
    return jwk.get("kty") == "OKP" and jwk.get("crv") == "Ed25519"


def _key_of(jwk: dict[str, Any]) -> ProxyKey:
    x = jwk.get("x")
    if not _is_ours(jwk) or not isinstance(x, str) or len(x) != KEY_CHARS or not x.isascii():
        raise StatementError("it is no public key of Ed25519")
    try:
        return ProxyKey(base64.urlsafe_b64decode(x + "="))
    except (ValueError, binascii.Error):
        raise StatementError("it is no public key of Ed25519") from None


def _base64url(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode("ascii")
