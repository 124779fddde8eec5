"""What a worker gains by a lie: earnings beside what honest ones would have been, for each of a catalogue.

Each lie is told by one worker of three that sell the same model. ``in all`` is printed of all its answers, ``shown
after`` how many of them it took until it was marked, ``then`` what it was paid for the rest.
"""

import asyncio
import random
from pathlib import Path
from typing import Any

import pytest
from tests.integration.accounts import records
from tests.integration.harness import Client
from tests.integration.messages import post
from tests.integration.network import Network, network
from tests.money import liars
from tests.money.liars import Spinner
from tests.money.telling import CHAT, COMPLETIONS, EMBEDDINGS, MESSAGES, MODEL, RESPONSES, asking

from filature.telemetry.record import UsageRecord

pytest.importorskip("tokenizers", reason="there is no wheel of tokenizers for this machine")

KNOWN = 150
"""Requests to the two honest workers, before the liar comes."""
REQUESTS = 360
"""Over all three."""
CLIENTS = 9
TURNS = 3
WITHOUT_TOKENIZER = (
    "completion tokens x 10",
    "usage swollen inside the stream",
    "invented prompt tokens",
    "every letter told as a token",
    "reasoning never delivered",
    "answers never delivered",
    "false cache misses",
)
"""Lies that are shown by what others claim: who claims less than twice as much is not."""
IN_EACH_DIALECT = (  # told where each has its usage, and of what each delivers
    "completion tokens x 10",
    "invented prompt tokens",
    "reasoning never delivered",
    "answers never delivered",
)
CATALOGUE = [
    *((name, True, CHAT) for name in liars.ALL),
    *((name, False, CHAT) for name in WITHOUT_TOKENIZER),
    *(
        (name, True, path)
        for path in (COMPLETIONS, RESPONSES, MESSAGES)
        for name in IN_EACH_DIALECT
    ),
    ("invented prompt tokens", True, EMBEDDINGS),
    ("invented prompt tokens", False, EMBEDDINGS),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("tokenizers")
    liars.make_tokenizer(place)
    return place


@pytest.fixture(scope="module")
def tokenizer(folder: Path) -> Any:
    from tokenizers import Tokenizer

    return Tokenizer.from_file(str(folder / MODEL / "tokenizer.json"))


async def talk(
    client: Client, chance: random.Random, words: list[str], name: str, requests: int, path: str
) -> None:
    """Conversations of some turns, streamed and not: what was said before is said again."""
    number = 0
    while number < requests:
        topic = " ".join(chance.choices(words, k=chance.randint(20, 120)))
        messages = [{"role": "user", "content": f"{name} {number} {topic}"}]
        for _ in range(TURNS):
            number += 1
            body = asking(path, messages) | {"model": MODEL}
            if path != EMBEDDINGS:
                body["stream"] = chance.random() < 0.6
            client.send(post(body, path))
            answer = await client.answer()
            assert answer.status == 200, answer.body
            said = " ".join(chance.choices(words, k=10))
            messages += [
                {"role": "assistant", "content": said},
                {"role": "user", "content": f"and {said}?"},
            ]


async def buy(
    net: Network, chance: random.Random, words: list[str], requests: int, path: str
) -> None:
    clients = [await net.chain.connect() for _ in range(CLIENTS)]
    await asyncio.gather(
        *(
            talk(client, chance, words, f"{chance.random()}", requests // CLIENTS, path)
            for client in clients
        )
    )
    await net.chain.proxy.auditor.settled()


def paid(found: list[UsageRecord], spinner: Spinner) -> float:
    """Earnings ÷ honest earnings."""
    honest = sum(spinner.honest_cost(record.id) for record in found)
    return sum(record.total_cost for record in found) / honest


@pytest.mark.parametrize(("name", "counted", "path"), CATALOGUE)
async def test_what_a_lie_earns(
    name: str, counted: bool, path: str, tokenizer: Any, folder: Path, chance: random.Random
) -> None:
    spinners = {
        "liar": Spinner(tokenizer, random.Random(chance.random()), liars.ALL[name]),
        "abe": Spinner(tokenizer, random.Random(chance.random())),
        "zoe": Spinner(tokenizer, random.Random(chance.random())),
    }
    words = liars.words()
    async with network(tokenizers=folder if counted else None) as net:
        for worker in ("abe", "zoe"):
            await net.join(worker, spinners[worker].engine())
        await buy(net, chance, words, KNOWN, path)
        auditor = net.chain.proxy.auditor
        watch = auditor.watch("liar")
        spinners["liar"].is_marked = lambda: watch.is_marked
        await net.join("liar", spinners["liar"].engine())
        await buy(net, chance, words, REQUESTS, path)
        found = await records(net.chain)
        mine = [record for record in found if record.engine == "liar"]
        after = [record for record in mine if record.id in spinners["liar"].when_marked]
        shown = len(mine) - len(after)
        then = paid(after, spinners["liar"])
        print(  # noqa: T201 - what is to be shown
            f"{name} in {path} ({'tokenizer' if counted else 'others'}): earnings / honest in all "
            f"{paid(mine, spinners['liar']):.2f} of {len(mine)} answers, shown after {shown}, then {then:.3f}"
        )
        assert len(after) > len(mine) // 4
        recounted = counted and name != "false cache misses"  # which no tokenizer counts
        most = 1.02 if recounted else 1.05
        assert then <= (1.1 if path == EMBEDDINGS else most)  # short prompts, and nothing beside
        for worker in ("abe", "zoe"):
            assert not auditor.watch(worker).is_marked
            honest = [record for record in found if record.engine == worker]
            assert paid(honest, spinners[worker]) == 1.0  # never cut
