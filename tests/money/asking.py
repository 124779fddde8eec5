"""Clients of a proxy process that ask again and again, and what they saw: of each request exactly one outcome."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Final

from tests.integration.harness import Answer, Client
from tests.integration.messages import DONE, get, post
from tests.money.load import stored_charges
from tests.money.network import Network
from tests.money.process import Filature

CREDIT: Final = 1000 * 10**9
"""Nano-credits of the customer."""
PAUSE_S: Final = 0.2
"""After a refusal, as a client should."""
PATIENCE_S: Final = 120.0
REFUSED: Final = (429, 502, 503, 504)

Connect = Callable[[], Awaitable[Client]]


@dataclass
class Seen:
    """By the ids of the requests."""

    sent: int = 0
    told: dict[str, int] = field(default_factory=dict)
    """What each complete answer says that it cost."""
    broken: set[str] = field(default_factory=set)
    """Streams that ended in an error event."""
    refused: dict[str, int] = field(default_factory=dict)
    """The status of what was refused or failed."""

    @property
    def failed(self) -> int:
        return len(self.broken) + len(self.refused)

    def note(self, answer: Answer) -> None:
        """Fails where an answer ended in no way, or in two."""
        name = answer.request_id
        assert name not in self.told.keys() | self.broken | self.refused.keys(), "an id twice"
        assert answer.complete, f"cut off without a word: {answer}"
        if answer.status != 200:
            assert answer.status in REFUSED, answer
            assert answer.json["error"]["message"]
            self.refused[name] = answer.status
        elif answer.headers["content-type"] == "application/json":
            self.told[name] = int(answer.json["usage"]["total_cost"])
        else:
            errors = [each for each in answer.events if b'"error":' in each]
            assert (DONE in answer.events) + len(errors) == 1, answer.events[-3:]
            if errors:
                assert answer.events[-1] == errors[0]
                self.broken.add(name)
            else:
                self.told[name] = int(json.loads(answer.events[-2][6:])["usage"]["total_cost"])


def request_of(secret: str, tokens: int, *, stream: bool, prompt: str = "Tell of silk.") -> bytes:
    body: dict[str, Any] = {
        "model": "demo",
        "messages": [{"role": "user", "content": prompt}],
        "max_tokens": tokens,
    }
    if stream:
        body |= {"stream": True, "stream_options": {"include_usage": True}}
    return post(body, headers=f"Authorization: Bearer {secret}\r\n")


class Load:
    """Clients at work, until told to stop. Half of the requests are streamed; no two are alike."""

    def __init__(self, connect: Connect, secret: str, *, tokens: int, clients: int) -> None:
        self.seen = Seen()
        self._connect = connect
        self._secret = secret
        self._tokens = tokens
        self._over = asyncio.Event()
        self._running = 0
        self._tasks = [asyncio.create_task(self._client(number)) for number in range(clients)]

    async def _client(self, number: int) -> None:
        turn = number
        while not self._over.is_set():
            turn += 1
            stream, prompt = turn // 2 % 2 == 0, f"Client {number}, question {turn}."
            client = await self._connect()
            client.wait_s = PATIENCE_S
            client.send(request_of(self._secret, self._tokens, stream=stream, prompt=prompt))
            self.seen.sent += 1
            before = self.seen.failed
            answer = await client.answer(head_only=True)
            self._running += stream
            await client._body(answer)  # an answer that is cut off fails the test
            self._running -= stream
            self.seen.note(answer)
            client.leave()
            if self.seen.failed > before:
                await asyncio.sleep(PAUSE_S)

    async def answered(self, more: int) -> None:
        """Until so many more were answered whole. Fails with the client that failed."""
        enough = len(self.seen.told) + more
        async with asyncio.timeout(PATIENCE_S):
            while len(self.seen.told) < enough:
                self._check()
                await asyncio.sleep(0.02)

    async def streaming(self, count: int) -> None:
        """Until so many streams have begun and not ended."""
        async with asyncio.timeout(PATIENCE_S):
            while self._running < count:
                self._check()
                await asyncio.sleep(0.001)

    def _check(self) -> None:
        for task in self._tasks:
            if task.done():
                task.result()

    async def stop(self) -> Seen:
        """Let each request come to its end."""
        self._over.set()
        async with asyncio.timeout(PATIENCE_S):
            await asyncio.gather(*self._tasks)
        assert len(self.seen.told) + self.seen.failed == self.seen.sent
        return self.seen


def connecting_to(proxy: Filature) -> Connect:
    """From where the tests are."""

    async def connect() -> Client:
        return Client(*await asyncio.open_connection("127.0.0.1", proxy.port))

    return connect


FREE: Final = {"engine_failed", "engine_failed_midstream", "engine_stalled", "no_engine"}


async def judge(net: Network, connect: Connect, secret: str, seen: Seen) -> None:
    """The ledger is sound; each complete answer was charged as told, once, and nothing else was."""
    await net.place.check()
    records = await net.usage()
    outcomes = {record["id"]: record["outcome"] for record in records}
    assert len(outcomes) == len(records), "two outcomes of one request"
    assert outcomes.keys() <= seen.told.keys() | seen.broken | seen.refused.keys()
    assert {outcomes[name] for name in seen.told} <= {"completed"}
    assert {outcomes[name] for name in seen.broken} <= FREE
    assert {outcomes[name] for name in seen.refused if name in outcomes} <= FREE
    charges = await asyncio.to_thread(stored_charges, net.database)
    assert len({charge.id for charge in charges}) == len(charges), "charged twice"
    assert {str(charge.id): charge.amount for charge in charges} == seen.told
    client = await connect()
    client.send(get("/v1/balance", headers=f"Authorization: Bearer {secret}\r\n"))
    shown = (await client.answer()).json
    client.leave()
    assert shown["held_nano"] == 0
    assert shown["balance_nano"] == CREDIT - sum(seen.told.values())
