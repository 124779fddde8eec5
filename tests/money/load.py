"""Clients of a proxy that is killed while they ask: what they send, what they were told, what is stored of it."""

import asyncio
import random
import re
from dataclasses import dataclass, field
from typing import Any, Final

from tests.integration.harness import Answer, Client
from tests.integration.messages import get, post
from tests.money.process import Filature

from filature.ledger.transfers import Transfer, TransferKind
from filature.store.database import Database
from filature.store.ledger_rows import read_transfers

CLIENTS: Final = 16
LEAVING: Final = 0.1
"""Share of the requests whose client leaves, too."""
LOAD_S: Final = (0.05, 0.8)
"""Between the beginning of the load and the kill: the least and the most."""
TOKENS: Final = 12
CREDIT: Final = "1000"
PROMPT: Final = "Tell me about silk."
MESSAGES: Final = [{"role": "user", "content": PROMPT}]
ASKED: Final[dict[str, dict[str, Any]]] = {
    "/v1/chat/completions": {"messages": MESSAGES, "max_tokens": TOKENS},
    "/v1/completions": {"prompt": PROMPT, "max_tokens": TOKENS},
    "/v1/responses": {"input": PROMPT, "max_output_tokens": TOKENS},
    "/v1/messages": {"messages": MESSAGES, "max_tokens": TOKENS},
    "/v1/embeddings": {"input": PROMPT},
}
"""Every dialect that is paid for."""
END_MARK: Final = re.compile(
    rb"^data: \[DONE\]$|^event: (?:message_stop|response\.(?:completed|incomplete))$", re.MULTILINE
)
COST: Final = re.compile(rb'"total_cost":(\d+)')


@dataclass
class Book:
    """What the clients saw, over all lives of the proxy."""

    told: dict[str, int] = field(default_factory=dict)
    """The cost of each complete answer, by its request's id."""
    prices: dict[str, int] = field(default_factory=dict)
    """The cost of each question, by its path: it is always the same one."""
    sent: int = 0
    broken: int = 0
    left: int = 0

    def note(self, path: str, answer: Answer) -> None:
        """An answer that its client takes for complete."""
        assert answer.request_id not in self.told, "an id was given twice"
        cost = int(COST.findall(answer.body)[-1])
        assert self.prices.setdefault(path, cost) == cost
        self.told[answer.request_id] = cost


def request_of(secret: str, path: str, *, stream: bool) -> bytes:
    body = {"model": "demo", **ASKED[path]}
    if stream:
        body["stream"] = True
        if "completions" in path:
            body["stream_options"] = {"include_usage": True}
    return post(body, path, headers=f"Authorization: Bearer {secret}\r\n")


async def client(proxy: Filature, secret: str, book: Book, chance: random.Random) -> None:
    """Asks until the proxy is gone."""
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
    connection = Client(reader, writer)
    try:
        while True:
            book.sent += 1
            path = chance.choice(list(ASKED))
            stream = "embeddings" not in path and chance.random() < 0.6
            connection.send(request_of(secret, path, stream=stream))
            if chance.random() < LEAVING:
                await connection.head()
                book.left += 1
                connection.leave()
                reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
                connection = Client(reader, writer)
                continue
            answer = await connection.answer()
            assert answer.status == 200, answer.body
            marked = END_MARK.search(answer.body) is not None
            assert marked == stream or not answer.complete
            if (
                answer.complete or marked
            ):  # SDKs end at the mark, whatever becomes of the connection
                book.note(path, answer)
            if not answer.complete:
                book.broken += 1
                return
    except (asyncio.IncompleteReadError, ConnectionError):
        book.broken += 1
    finally:
        connection.leave()


async def load(proxy: Filature, secret: str, book: Book, chance: random.Random) -> None:
    """Clients, and a kill among what they do."""
    clients = [asyncio.create_task(client(proxy, secret, book, chance)) for _ in range(CLIENTS)]
    await asyncio.sleep(chance.uniform(*LOAD_S))
    await proxy.kill()
    await asyncio.gather(*clients)


def stored_charges(url: str) -> list[Transfer]:
    """Read by a connection of its own, beside the proxy's."""
    database = Database(url)
    try:
        with database.engine.connect() as connection:
            return [t for t in read_transfers(connection) if t.kind is TransferKind.CHARGE]
    finally:
        database.close()


async def balance(proxy: Filature, secret: str) -> tuple[int, int]:
    """What the account has, and what of it is held."""
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
    connection = Client(reader, writer)
    connection.send(get("/v1/balance", headers=f"Authorization: Bearer {secret}\r\n"))
    shown = (await connection.answer()).json
    connection.leave()
    return shown["balance_nano"], shown["held_nano"]


async def ready(proxy: Filature, secret: str) -> None:
    """Wait until the proxy knows the engine's models: it asks when it starts."""
    async with asyncio.timeout(30):
        while True:
            reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
            connection = Client(reader, writer)
            connection.send(get("/ready"))
            status = (await connection.answer()).status
            connection.leave()
            if status == 200:
                return
            await asyncio.sleep(0.01)
