"""What a worker's log, and what it prints, tells its owner, who has nothing else to go by."""

import asyncio
import logging

import pytest
from pydantic import SecretStr
from tests.integration.harness import TLS, WAIT_S, RawEngine, says
from tests.integration.messages import completion, json_answer
from tests.integration.network import network

from filature.cli.worker import Announcement

HI = json_answer(completion("hi"))


async def said(caplog: pytest.LogCaptureFixture, text: str) -> str:
    """The first warning with ``text``, once it is there."""
    async with asyncio.timeout(WAIT_S):
        while True:
            for record in caplog.records:
                if record.levelno == logging.WARNING and text in record.message:
                    return record.message
            await asyncio.sleep(0.01)


async def test_by_which_option_a_proxy_s_certificate_is_made_known(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with network(tls_cert=TLS / "cert.pem", tls_key=TLS / "key.pem") as net:
        await net.join("gpu", RawEngine(says(HI)), wait=False)
        assert (await said(caplog, "certificate verify failed")).endswith(": see --proxy-ca")
        assert net.chain.proxy.workers.list() == []


async def test_that_a_token_is_not_known(caplog: pytest.LogCaptureFixture) -> None:
    async with network() as net:
        token = SecretStr("fil-wrk-mistyped")
        await net.join("gpu", RawEngine(says(HI)), wait=False, token=token)
        await said(caplog, "status 401: This is no worker's token of this proxy.")


@pytest.mark.parametrize(
    ("models", "named"),
    [(("m", "n"), "m"), (("n",), "no model that it takes: see the log")],
)
async def test_with_which_models_it_joined(
    models: tuple[str, ...], named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Printed, of those alone that the proxy takes."""
    async with network() as net:
        await net.token("gpu", frozenset({"m"}))
        worker = await net.join("gpu", RawEngine(says(HI), models=models), wait=False)
        announcement = Announcement()
        announcement.started(worker)
        printed = ""
        async with asyncio.timeout(WAIT_S):
            while "Joined" not in printed:
                await asyncio.sleep(0.01)
                printed += capsys.readouterr().out
        assert printed.endswith(f"Joined {worker.links[0].url} with {named}\n")
        for task in announcement._tasks:
            task.cancel()


async def test_which_models_are_not_taken_also_of_those_that_came_later(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with network() as net:
        await net.token("gpu", frozenset({"m"}))
        engine = RawEngine(says(HI), models=("m",))
        worker = await net.join("gpu", engine)
        (own,) = worker.engines.engines
        own.models["new"] = own.models["m"]
        (link,) = worker.links
        for _ in range(2):
            await link.tell()
        await said(caplog, "does not take 1 models")
        assert caplog.text.count("have no price there: 'new'") == 1


async def test_that_a_gateway_takes_the_upgrade_out(caplog: pytest.LogCaptureFixture) -> None:
    async with network() as net:
        worker = await net.join("gpu", RawEngine(says(HI)))
        (link,) = worker.links
        link.tunnels._request = link.tunnels._request.replace(b"upgrade: filature", b"x: filature")
        await link.tunnels._dial()
        await said(caplog, "the proxy answered 400; does a gateway before it pass Upgrade on?")
