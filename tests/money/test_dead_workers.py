"""Workers are killed under load, one after the other, then started anew at another price: the ledger is sound.

A client whose answer had not begun notices nothing; one whose stream had begun gets an error event, and pays nothing.
"""

import asyncio
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from tests.money.asking import CREDIT, Load, Seen, connecting_to, judge
from tests.money.network import Network, ended
from tests.money.process import WAIT_S, running_engine

TOKENS: Final = 20
ENGINE: Final = (
    *("--tokens", str(TOKENS), "--tokens-per-second", "50", "--prefill-s", "0.2"),
    *("--model", "demo"),
)
NAMES: Final = ("gpu0", "gpu1")
KILLS: Final = 2
"""At least: until one broke a stream, and one came before an answer's first content."""
KILLS_MAX: Final = 12
CLIENTS: Final = 12
AFTERWARDS: Final = 12
"""Answers, after each fault."""
Scene = tuple[
    Network, dict[str, asyncio.subprocess.Process], Load, Callable[[Seen], Awaitable[int]]
]
"""Also what judges the ledger by what clients saw, and tells how many answers another worker gave."""


@asynccontextmanager
async def loaded(tmp_path: Path) -> AsyncIterator[Scene]:
    """Two workers under load."""
    async with running_engine(tmp_path, *ENGINE) as engine:
        net = Network(tmp_path, engine.url)
        secret = await net.stock(CREDIT, *NAMES)
        proxy = await net.proxy()
        workers = {name: await net.worker(name) for name in NAMES}
        connect = connecting_to(proxy)

        async def judged(seen: Seen) -> int:
            for name in NAMES:
                await net.delivered(name)
            await judge(net, connect, secret, seen)
            return len(await retried(net))

        try:
            await net.joined(*NAMES)
            load = Load(connect, secret, tokens=TOKENS, clients=CLIENTS)
            yield net, workers, load, judged
        finally:
            for worker in workers.values():
                await ended(worker)
            status = await proxy.stop()
        assert status == 0, proxy.log.read_text()[-3000:]


async def test_workers_that_are_killed_and_started_anew(tmp_path: Path) -> None:
    async with loaded(tmp_path) as (net, workers, load, judged):
        await load.answered(AFTERWARDS)
        kills = 0
        while kills < KILLS or not (load.seen.broken and await retried(net)):
            assert kills < KILLS_MAX
            name = NAMES[kills % 2]
            kills += 1
            await load.streaming(4)
            await ended(workers[name], kill=True)
            workers[name] = await net.worker(name)
            await net.joined(*NAMES)
            await load.answered(AFTERWARDS)
        broken = len(load.seen.broken)
        prices = set(load.seen.told.values())
        for name in NAMES:  # as their owners would: they say that they go
            await ended(workers[name])
            workers[name] = await net.worker(name, "--coefficient", "2000")
            await net.joined(*NAMES)
            await load.answered(AFTERWARDS)
        seen = await load.stop()
        assert not seen.refused, "a client noticed something"
        assert len(seen.broken) == broken, "a worker that leaves in good order broke an answer"
        (price,) = prices
        assert set(seen.told.values()) == {price, 2 * price}
        replaced = await judged(seen)
        print(  # noqa: T201 - what was seen is worth knowing
            f"\n{kills} kills: {seen.sent} requests, {len(seen.told)} answered whole and charged, "
            f"{replaced} of them by another worker, {broken} broken off"
        )


async def retried(net: Network) -> list[str]:
    """Answers that another worker gave in the end."""
    return [r["id"] for r in await net.usage("--outcome", "completed") if r["tries"] > 1]


async def test_a_worker_that_falls_silent_for_a_while(tmp_path: Path) -> None:
    """All its connections are there, and nobody answers on them: what is sent there is answered by another."""
    async with loaded(tmp_path) as (net, workers, load, judged):
        for name in NAMES:
            await load.answered(AFTERWARDS)
            await load.streaming(4)
            before = len(await retried(net))
            workers[name].send_signal(signal.SIGSTOP)
            try:
                async with asyncio.timeout(WAIT_S):
                    while len(await retried(net)) == before:
                        await load.answered(1)
            finally:
                workers[name].send_signal(signal.SIGCONT)
        await load.answered(AFTERWARDS)
        seen = await load.stop()
        assert not seen.failed, "a client noticed something"
        replaced = await judged(seen)
        print(  # noqa: T201 - what was seen is worth knowing
            f"\n{seen.sent} requests, all answered, {replaced} of them by another worker"
        )
