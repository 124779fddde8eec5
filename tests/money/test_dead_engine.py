"""The engine behind a worker ends under load and comes back: it is served from again without anyone's help."""

import asyncio
import socket
from pathlib import Path
from typing import Final

from tests.money.asking import CREDIT, Load, connecting_to, judge
from tests.money.network import Network, ended
from tests.money.process import Filature

TOKENS: Final = 20
OPTIONS: Final = (
    *("--backend", "scripted", "--model", "demo"),
    *("--tokens", str(TOKENS), "--tokens-per-second", "50"),
)
CLIENTS: Final = 8
AFTERWARDS: Final = 16
"""Answers, before the engine ends and after it is back."""


async def engine(directory: Path, port: int) -> Filature:
    words = ("demo-engine", *OPTIONS, "--port", str(port))
    return await Filature.start(*words, log=directory / "engine.log")


async def test_an_engine_that_ends_and_comes_back(tmp_path: Path) -> None:
    """Killed first, then restarted by its owner. What broke off is told so, and costs nothing."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    running = await engine(tmp_path, port)
    net = Network(tmp_path, running.url)
    secret = await net.stock(CREDIT, "gpu")
    proxy = await net.proxy()
    worker = await net.worker()
    try:
        await net.joined("gpu")
        connect = connecting_to(proxy)
        load = Load(connect, secret, tokens=TOKENS, clients=CLIENTS)
        for kill in (True, False):
            await load.answered(AFTERWARDS)
            await load.streaming(2)
            failed = load.seen.failed
            await (running.kill() if kill else running.stop())
            async with asyncio.timeout(30):
                while load.seen.failed < failed + CLIENTS:
                    await asyncio.sleep(0.02)
            running = await engine(tmp_path, port)
        await load.answered(AFTERWARDS)
        seen = await load.stop()
        assert seen.broken, "it did not end in the middle of a stream"
        assert seen.refused
        assert worker.returncode is None
        await net.delivered()
        await judge(net, connect, secret, seen)
    finally:
        await ended(worker)
        status = await proxy.stop()
        await running.kill()
    assert status == 0, proxy.log.read_text()[-3000:]
    print(  # noqa: T201 - what was seen is worth knowing
        f"\n{seen.sent} requests: {len(seen.told)} answered, {len(seen.broken)} broken off, "
        f"refused: {sorted(seen.refused.values())}"
    )
