"""Earnings statements: only the proxy's key makes one, and nothing in it can be changed."""

import base64
import json
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from filature.wire.statement import (
    STATEMENT_CHARS_MAX,
    ProxyKey,
    SigningKey,
    Statement,
    StatementError,
    check_by,
    fallen,
    key_set,
    read_keys,
    read_unchecked,
)

KEY, OTHER = SigningKey(bytes(range(32))), SigningKey(bytes(32))
RFC8037_X = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"
TOTALS: dict[str, Any] = {"earned_nano": 100, "paid_nano": 30, "requests": 7, "seq": 9}
TYPE = {"typ": "filature-statement+jwt"}


def statement(**changed: Any) -> Statement:
    given = {"iss": KEY.public.issuer, "sub": "gpu", "iat": 1_800_000_000}
    return Statement.model_validate(given | TOTALS | changed)


def encoded(part: object) -> str:
    raw = part if isinstance(part, bytes) else json.dumps(part).encode()
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def refused(text: str, key: ProxyKey = KEY.public) -> str:
    with pytest.raises(StatementError) as caught:
        key.check(text)
    return str(caught.value)


def test_what_was_signed_is_read() -> None:
    signed = statement(corrected_nano=5)
    text = KEY.sign(signed)
    assert KEY.public.check(text) == check_by([OTHER.public, KEY.public], text) == signed
    assert read_unchecked(text) == signed
    assert signed.owed_nano == 65
    header = jwt.get_unverified_header(text)
    assert header == {"alg": "EdDSA", "kid": KEY.public.id, **TYPE}


def test_the_id_is_the_thumbprint_of_the_standard() -> None:
    (key,) = read_keys(RFC8037_X)  # RFC 8037, A.3
    assert key.id == "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"


def test_any_other_byte_is_noticed() -> None:
    text = KEY.sign(statement())
    for place in range(len(text) - 1):  # the last character has bits that say nothing
        other = "A" if text[place] != "A" else "B"
        refused(text[:place] + other + text[place + 1 :])
    for cut in (text[:-1], text[:-20], text + "A", text.rpartition(".")[0] + ".", ""):
        refused(cut)


def test_another_key_is_none() -> None:
    forged = OTHER.sign(statement())
    assert "not signed by this key" in refused(forged)
    header, body, _ = KEY.sign(statement()).split(".")
    refused(f"{header}.{body}.{forged.rpartition('.')[2]}")
    with pytest.raises(StatementError, match="names another key"):
        check_by([KEY.public], forged)
    with pytest.raises(StatementError, match="names another key"):
        check_by([], KEY.sign(statement()))


def test_another_proxys_id_is_refused() -> None:
    assert "another proxy" in refused(KEY.sign(statement(iss=OTHER.public.issuer)))


@pytest.mark.parametrize("algorithm", ["none", "HS256"])
def test_no_other_algorithm_is_taken(algorithm: str) -> None:
    claims = statement().model_dump()
    secret = KEY.public.x if algorithm == "HS256" else None
    text = jwt.encode(claims, secret, algorithm, TYPE | {"kid": KEY.public.id})  # type: ignore[arg-type]
    refused(text)
    with pytest.raises(StatementError):
        check_by([KEY.public], text)


def test_what_else_the_key_might_sign_is_no_statement() -> None:
    private = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
    text = jwt.encode(statement().model_dump(), private, "EdDSA", {"kid": KEY.public.id})
    assert "no earnings statement" in refused(text)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *((name, value) for name in TOTALS for value in (-1, 2**63, 1.5, "1", True, None)),
        ("iat", -1),
        ("iat", "now"),
        ("sub", ""),
        ("sub", 5),
    ],
)
def test_a_signed_claim_that_cannot_be_is_refused(name: str, value: object) -> None:
    private = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
    claims = statement().model_dump() | {name: value}
    text = f"{encoded({'alg': 'EdDSA', **TYPE})}.{encoded(claims)}"
    signed = f"{text}.{encoded(private.sign(text.encode()))}"
    assert name in refused(signed)
    whole = f"{encoded({'alg': 'EdDSA', **TYPE})}.{encoded(statement().model_dump())}"
    KEY.public.check(f"{whole}.{encoded(private.sign(whole.encode()))}")  # what is refused is that


def test_it_lies_within_bounds() -> None:
    most = 2**63 - 1
    text = KEY.sign(statement(sub="w" * 256, **dict.fromkeys(TOTALS, most), corrected_nano=most))
    assert len(text) <= STATEMENT_CHARS_MAX
    KEY.public.check(text)
    assert refused("a" * (STATEMENT_CHARS_MAX + 1)) == "it is too long"


def test_what_fell_is_named() -> None:
    before = statement(corrected_nano=5)
    assert fallen(before, before) == []
    assert fallen(before, statement(corrected_nano=6, earned_nano=101, iat=1)) == []
    for name in (*TOTALS, "corrected_nano"):
        lower = before.model_copy(update={name: getattr(before, name) - 1})
        assert fallen(before, lower) == [name]
        assert fallen(lower, before) == []


def test_keys_are_read_in_all_their_forms() -> None:
    jwk = KEY.public.as_jwk()
    other: dict[str, object] = {"kty": "RSA", "n": "AQAB", "e": "AQAB"}
    for text in (
        KEY.public.x,
        f" {KEY.public.x}\n",
        json.dumps(jwk),
        json.dumps(key_set([KEY.public])).encode(),
        json.dumps({"keys": [other, jwk]}),
    ):
        assert read_keys(text) == [KEY.public]
    both = json.dumps(key_set([KEY.public, OTHER.public]))
    assert read_keys(both) == [KEY.public, OTHER.public]
    assert set(jwk) == {"kty", "crv", "x", "kid", "use", "alg"}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x",
        "{",
        "[]",
        "null",
        "{}",
        '{"keys": {}}',
        '{"keys": []}',
        '{"keys": [1]}',
        '{"kty": "OKP", "crv": "X25519", "x": "' + RFC8037_X + '"}',
        '{"kty": "OKP", "crv": "Ed25519"}',
        '{"kty": "OKP", "crv": "Ed25519", "x": 1}',
        '{"kty": "OKP", "crv": "Ed25519", "x": "AA"}',
        "é" * 43,
        "!" * 43,
        b"\xff\xfe",
        '{"keys": [' + ",".join([json.dumps(KEY.public.as_jwk())] * 17) + "]}",
    ],
)
def test_what_is_no_key_is_refused(text: str | bytes) -> None:
    with pytest.raises(StatementError):
        read_keys(text)


@pytest.mark.parametrize("text", ["", "a", "a.b.c", "....", "é.é.é"])
def test_what_is_no_statement_is_refused(text: str) -> None:
    refused(text)
    with pytest.raises(StatementError):
        check_by([KEY.public], text)
    with pytest.raises(StatementError):
        read_unchecked(text)
