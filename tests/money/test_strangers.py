"""Ten thousand connections of strangers at the workers' routes: clients are served, and workers join.

What the proxy has open and what memory that takes are bounded.
"""

import asyncio
import resource
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Final

from tests.money import strangers
from tests.money.asking import CREDIT, Load, connecting_to, judge
from tests.money.network import Network, ended
from tests.money.process import WAIT_S, running_engine

from filature.relay.open_files import FILES_KEPT

PROCESSES: Final = 4
EACH: Final = 2500
CONNECTIONS_MAX: Final = 8000
"""Fewer than there are strangers."""
BYTES_EACH_MAX: Final = 8 * 1024
"""Of the proxy's memory, for a connection on which nothing was asked."""
TOKENS: Final = 5
ENGINE: Final = ("--tokens", str(TOKENS), "--tokens-per-second", "50", "--model", "demo")
CLIENTS: Final = 4
ANSWERS: Final = 20


@asynccontextmanager
async def crowd(port: int) -> AsyncIterator[None]:
    """Strangers, all of them connected at once."""

    async def start(number: int) -> asyncio.subprocess.Process:
        words = (strangers.__file__, str(port), str(EACH), f"127.0.0.{number + 2}")
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-S", *words),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        stack.push_async_callback(process.communicate, b"")  # ends its input, and waits
        return process

    async with AsyncExitStack() as stack:
        processes = [await start(number) for number in range(PROCESSES)]
        for process in processes:
            assert process.stdout is not None
            async with asyncio.timeout(WAIT_S):
                assert int(await process.stdout.readline()) == EACH
        yield


def open_files(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def resident_bytes(pid: int) -> int:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * resource.getpagesize()


async def test_ten_thousand_strangers_change_nothing_for_others(tmp_path: Path) -> None:
    _, files_max = resource.getrlimit(resource.RLIMIT_NOFILE)
    allowed = min(CONNECTIONS_MAX, (files_max - FILES_KEPT) // 2)
    assert allowed < PROCESSES * EACH
    async with running_engine(tmp_path, *ENGINE) as engine:
        net = Network(tmp_path, engine.url)
        net.place.settings |= {"connections_max": str(CONNECTIONS_MAX), "head_s": "120"}
        secret = await net.stock(CREDIT, "here", "new")
        proxy = await net.proxy()
        workers = [await net.worker("here")]
        try:
            await net.joined("here")
            pid = proxy.process.pid
            load = Load(connecting_to(proxy), secret, tokens=TOKENS, clients=CLIENTS)
            await load.answered(ANSWERS)
            before = resident_bytes(pid)
            async with crowd(proxy.port):
                await load.answered(ANSWERS)
                workers.append(await net.worker("new"))
                await net.joined("here", "new")
                await load.answered(ANSWERS)
                files = open_files(pid)
                grown = resident_bytes(pid) - before
            async with asyncio.timeout(WAIT_S):
                while open_files(pid) > FILES_KEPT:
                    await asyncio.sleep(0.1)
            await load.answered(ANSWERS)
            seen = await load.stop()
            assert allowed * 0.8 < files <= allowed + FILES_KEPT, (
                "about as many as may be, and no more"
            )
            assert grown < allowed * BYTES_EACH_MAX
            assert seen.failed == 0
            await judge(net, connecting_to(proxy), secret, seen)
        finally:
            for worker in workers:
                await ended(worker)
            status = await proxy.stop()
        assert status == 0, proxy.log.read_text()[-3000:]
        print(  # noqa: T201 - what was seen is worth knowing
            f"\n{files} open files, {grown / allowed / 1024:.1f} KiB of memory for each stranger"
        )
