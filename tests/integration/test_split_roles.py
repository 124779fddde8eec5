"""``filature up --split-roles`` as a person starts it: its answers come through a tunnel, by TLS or not."""

import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID
from tests.integration.test_up import running

TLS: Final = Path(__file__).parents[1] / "data" / "tls"
DAY: Final = timedelta(days=1)


def named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def signed_by_another(folder: Path) -> tuple[Path, Path]:
    """A certificate, for another name than it is asked by, and its key: as an authority gives them, whose own is not
    beside them."""
    authority, key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(named("proxy.example"))
        .issuer_name(named("an authority"))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - DAY)
        .not_valid_after(now + DAY)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("proxy.example")]), False)
        .sign(authority, SHA256())
    )
    place, key_place = folder / "cert.pem", folder / "key.pem"
    place.write_bytes(certificate.public_bytes(Encoding.PEM))
    key_place.write_bytes(
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
    )
    return place, key_place


@pytest.mark.parametrize("certificate", ["none", "its own", "an authority's"])
@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_comes_through_the_tunnel(certificate: str, stream: bool, tmp_path: Path) -> None:
    options: tuple[str, ...] = ()
    if certificate != "none":
        own = certificate == "its own"
        files = (TLS / "cert.pem", TLS / "key.pem") if own else signed_by_another(tmp_path)
        options = ("--tls-cert", str(files[0]), "--tls-key", str(files[1]))
    trusting = ssl.create_default_context()
    trusting.check_hostname, trusting.verify_mode = False, ssl.CERT_NONE
    with running("--demo", "scripted", "--split-roles", *options) as up:
        url = up.until(r"listens at (https?://[\w.:]+\d)")[1]
        model = up.until(r"^Models: (\S+)$")[1]
        asked = {
            "model": model,
            "max_tokens": 3,
            "enable_debug": True,
            "messages": [{"role": "user", "content": "hi"}],
            **({"stream": True, "stream_options": {"include_usage": True}} if stream else {}),
        }
        with httpx.Client(verify=trusting, trust_env=False, timeout=20) as client:
            answer = client.post(f"{url}/v1/chat/completions", json=asked)
        assert answer.status_code == 200, answer.text
        assert '"total_cost":' in answer.text
        assert "x-filature-worker-start" in answer.headers, "a worker answered"
