"""A certificate that is renewed while the proxy runs."""

import asyncio
import logging
import shutil
import ssl
from pathlib import Path
from typing import Any

import pytest
from tests.integration.harness import TLS, WAIT_S, Chain, chain
from tests.integration.messages import get
from tests.integration.test_split_roles import signed_by_another

from filature.proxy import certificate


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Any]:
    for name in ("cert.pem", "key.pem"):
        shutil.copy(TLS / name, tmp_path / name)
    return {"tls_cert": tmp_path / "cert.pem", "tls_key": tmp_path / "key.pem"}


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(certificate, "LOOK_S", 0.01)


def renewed(folder: Path) -> tuple[Path, Path]:
    folder.mkdir()
    return signed_by_another(folder)


async def shown(c: Chain) -> bytes:
    """The certificate that a client is shown, which is served."""
    trusting = ssl.create_default_context()
    trusting.check_hostname, trusting.verify_mode = False, ssl.CERT_NONE
    client = await c.connect(tls=trusting)
    client.send(get("/health"))
    assert (await client.answer()).status == 200
    der: bytes = client.writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    return der


def der(place: Path) -> bytes:
    return ssl.PEM_cert_to_DER_cert(place.read_text(encoding="ascii"))


async def until_shown(c: Chain, expected: bytes) -> None:
    async with asyncio.timeout(WAIT_S):
        while await shown(c) != expected:
            await asyncio.sleep(0.01)


async def test_who_comes_is_shown_the_new_one_and_who_is_there_stays(
    files: dict[str, Any], tmp_path: Path
) -> None:
    new = renewed(tmp_path / "new")
    trusting = ssl.create_default_context()
    trusting.check_hostname, trusting.verify_mode = False, ssl.CERT_NONE
    async with chain(**files) as c:
        there = await c.connect(tls=trusting)
        assert await shown(c) == der(TLS / "cert.pem")
        shutil.copy(new[0], files["tls_cert"])
        shutil.copy(new[1], files["tls_key"])
        await until_shown(c, der(new[0]))
        there.send(get("/health"))
        assert (await there.answer()).status == 200


async def test_a_half_written_pair_changes_nothing_and_is_told(
    files: dict[str, Any], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    new = renewed(tmp_path / "new")
    old = der(TLS / "cert.pem")
    caplog.set_level(logging.INFO, certificate.__name__)
    async with chain(**files) as c:
        for problem, change in (
            ("mismatch", lambda: shutil.copy(new[0], files["tls_cert"])),
            ("No such file", files["tls_key"].unlink),
        ):
            caplog.clear()
            change()
            async with asyncio.timeout(WAIT_S):
                while problem.lower() not in caplog.text.lower():
                    await asyncio.sleep(0.01)
            assert await shown(c) == old
        shutil.copy(new[1], files["tls_key"])
        await until_shown(c, der(new[0]))


async def test_files_that_stay_are_not_read_again(
    files: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = 0
    stamps = certificate.Certificate._stamps

    def counted(self: certificate.Certificate) -> list[tuple[int, int, int]]:
        nonlocal looks
        looks += 1
        return stamps(self)

    monkeypatch.setattr(certificate.Certificate, "_stamps", counted)
    async with chain(**files) as c:
        assert c.proxy.certificate is not None
        first = c.proxy.certificate.context
        async with asyncio.timeout(WAIT_S):
            while looks < 4:
                await asyncio.sleep(0.01)
        assert c.proxy.certificate.context is first


def test_who_trusts_the_certificate_trusts_what_it_is_renewed_to(
    files: dict[str, Any], tmp_path: Path
) -> None:
    new = renewed(tmp_path / "new")
    own = certificate.Certificate(files["tls_cert"], files["tls_key"])
    client = own.client_context()
    assert not own.renew()
    shutil.copy(new[0], files["tls_cert"])
    shutil.copy(new[1], files["tls_key"])
    assert own.renew()
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = (
        client.wrap_bio(to_client, to_server, server_hostname="127.0.0.1"),
        own.context.wrap_bio(to_server, to_client, server_side=True),
    )
    done = 0
    for end in ends * 2:
        try:
            end.do_handshake()
        except ssl.SSLWantReadError:
            continue
        done += 1
    assert done == 2
