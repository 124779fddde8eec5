"""A worker that lies among honest ones, over real sockets: marked, cut, suspended, and so after a restart too."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from tests.integration.accounts import records, store_of
from tests.integration.harness import EngineRequest, Handler
from tests.integration.messages import (
    DONE,
    completion,
    delta,
    json_answer,
    post,
    stream_answer,
    usage_event,
)
from tests.integration.network import Network, network

from filature.proxy.audit.auditor import Auditor
from filature.store.marks import SUSPENDED

TEXT: Final = "Silk is what the worm spins around itself."
HONEST: Final = 11
FALSE: Final = 110
PROMPT: Final = 30
AT_ONCE: Final = 9
ROUNDS_MAX: Final = 50
"""Far more than any of this takes."""


def engine(told: int) -> Handler:
    async def answer(request: EngineRequest, writer: asyncio.StreamWriter) -> None:
        if request.json.get("stream"):
            events = [delta(TEXT), delta("", finish="stop"), usage_event(PROMPT, told), DONE]
            writer.write(stream_answer(events))
        else:
            writer.write(json_answer(completion(TEXT, PROMPT, told)))

    return answer


@asynccontextmanager
async def running(data_dir: Path) -> AsyncIterator[Network]:
    """Two honest workers and a liar; every answer is sampled."""
    async with network(data_dir=data_dir) as net:
        net.chain.proxy.auditor.draw = lambda: 0.0
        for name, told in (("abe", HONEST), ("zoe", HONEST), ("liar", FALSE)):
            wait = not net.chain.proxy.workers.is_disabled(name)
            await net.join(name, engine(told), wait=wait)
        yield net


def auditor(net: Network) -> Auditor:
    return net.chain.proxy.auditor


async def ask(net: Network, number: int) -> None:
    """So many at once that each worker gets some."""

    async def one(each: int) -> None:
        content = f"{number} {each} what does the worm do all day, and what for?"
        body = {"model": "m", "messages": [{"role": "user", "content": content}]}
        answer = await net.chain.ask(post(body | {"stream": each % 2 == 0}))
        assert answer.status == 200, answer.body

    await asyncio.gather(*(one(each) for each in range(AT_ONCE)))
    await auditor(net).settled()


async def charged(net: Network) -> dict[str, set[int]]:
    """Completion tokens of the answers of some requests, by worker."""
    before = {record.id for record in await records(net.chain)}
    for number in range(3):
        await ask(net, 1000 + number)
    found: dict[str, set[int]] = {}
    for record in await records(net.chain):
        if record.id not in before:
            found.setdefault(record.engine or "", set()).add(record.completion)
    return found


async def until(net: Network, so: Callable[[], bool]) -> None:
    number = 0
    while not so():
        assert number < ROUNDS_MAX
        await ask(net, number)
        number += 1


async def test_marks_and_beliefs_survive_a_restart(tmp_path: Path) -> None:
    believed = {"abe": {HONEST}, "zoe": {HONEST}, "liar": {HONEST}}
    async with running(tmp_path) as net:
        await until(net, lambda: auditor(net).watch("liar").is_marked)
        assert await charged(net) == believed
    async with running(tmp_path) as net:
        assert auditor(net).watch("liar").is_marked
        assert await charged(net) == believed  # of others nothing was seen before
        marks = store_of(net.chain).marks.all()
        assert [(mark.worker, mark.model, mark.kind) for mark in marks] == [
            ("liar", "m", "completion")
        ]
        assert not net.chain.proxy.workers.is_disabled("liar")
        await store_of(net.chain).marks.clear("liar")
        net.chain.proxy.workers.forgive("liar")
        assert FALSE in (await charged(net))["liar"]


async def test_who_goes_on_gets_no_requests(tmp_path: Path) -> None:
    async with running(tmp_path) as net:
        auditor(net).suspended_after = 3
        await until(net, lambda: net.chain.proxy.workers.is_disabled("liar"))
        await auditor(net).settled()
        assert "liar" in store_of(net.chain).disabled_workers
        assert SUSPENDED in {mark.kind for mark in store_of(net.chain).marks.of("liar")}
    async with running(tmp_path) as net:
        assert await charged(net) == {"abe": {HONEST}, "zoe": {HONEST}}
        assert auditor(net).watch("liar").is_suspended
        net.chain.proxy.workers.disable("liar", disabled=False)
        assert not auditor(net).watch("liar").is_suspended
        assert not auditor(net).watch("abe").is_marked
