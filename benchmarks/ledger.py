"""The embedded ledger alone: settlements per second on both databases, and how much more is held than settled.

``python -m benchmarks --only ledger``. No sockets: so many requests at once are held for and settled in a loop
of their own, each waiting for its commit as an answer's end does.
"""

import asyncio
import json
import random
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from tests.databases import NoPostgres, postgres_server

from benchmarks.report import Row
from filature.answer.pricing import Tariff, cost_of
from filature.answer.usage import Usage
from filature.ledger.accounts import client_account, worker_account
from filature.ledger.commands import OpenAccount, TopUp
from filature.relay.plane import RequestIds
from filature.request.limits import RequestLimits
from filature.request.parse import parse_request
from filature.request.quote import PromptRules, Quote, prompt_bound, quote
from filature.store.batch import UsageRow
from filature.store.store import Store
from filature.units import NANO_PER_CREDIT, AccountId, HoldId, Nano, TransferId
from filature.wire.dialect import Dialect

_SETTLEMENTS = 20_000
_AT_ONCE = (8, 64)
_ALICE = client_account("alice")
_WORKER = worker_account("w")
_RECORD = json.dumps({"event": "request", "filler": "x" * 520})
"""As long as a request's record."""
_CREDIT = Nano(1000 * NANO_PER_CREDIT)

_REQUESTS = 2000
_TARIFF = Tariff(
    prompt=200_000_000, cached=20_000_000, completion=800_000_000, reasoning=800_000_000
)
_CONTEXT = 131_072
_TOOLS_BYTES = 6_000
_BYTES_PER_TOKEN = 4
_TEMPLATE_TOKENS = 200
_MAX_TOKENS = 4096


def rows(settlements: int = _SETTLEMENTS) -> tuple[list[Row], list[str]]:
    found: list[Row] = []
    notes: list[str] = []
    with tempfile.TemporaryDirectory(prefix="filature-bench-") as folder:
        for at_once in _AT_ONCE:
            url = f"sqlite:///{Path(folder) / f'{at_once}.db'}"
            found.append(asyncio.run(_settle("SQLite", url, settlements, at_once)))
    try:
        with postgres_server(durable=True) as server:
            for at_once in _AT_ONCE:
                run = _settle("PostgreSQL", server.create(), settlements, at_once)
                found.append(asyncio.run(run))
    except NoPostgres as reason:
        notes.append(f"PostgreSQL was not measured: {reason}")
    found += (_held(max_tokens=_MAX_TOKENS), _held(max_tokens=None))
    return found, notes


async def _settle(kind: str, url: str, number: int, at_once: int) -> Row:
    store = await Store.open(url)
    try:
        await store.ledger.run(OpenAccount(_ALICE))
        await store.ledger.run(TopUp(TransferId("credit"), _ALICE, _CREDIT, 1))
        ids = RequestIds(time.time)
        left = iter(range(number))
        writer = store.writer
        batches, transfers = writer.batches, writer.transfers
        started, cpu = time.perf_counter(), time.process_time()
        await asyncio.gather(*(_client(store, ids, left) for _ in range(at_once)))
        taken, cpu = time.perf_counter() - started, time.process_time() - cpu
        per_batch = (writer.transfers - transfers) / (writer.batches - batches)
    finally:
        await store.close()
    return Row(
        name=f"settlements {kind} {at_once}",
        figure=f"settlements per second, {kind}, {at_once} at once",
        target="–",
        measured=f"{number / taken:,.0f} /s",
        beside=f"{cpu / number * 1e6:.0f} µs CPU here each, {per_batch:.1f} in a batch",
        value=number / taken,
    )


async def _client(store: Store, ids: RequestIds, left: Iterator[int]) -> None:
    ledger = store.ledger
    for _ in left:
        request, stored = ids.next(), asyncio.Event()
        ledger.hold(HoldId(request), _ALICE, Nano(50_000), 1000, 1 << 60)
        row = UsageRow(request, AccountId(_ALICE), None, 1, "m", "completed", 12_345, _RECORD)
        ledger.settle(HoldId(request), _WORKER, Nano(12_345), row, stored.set)
        await stored.wait()


def _held(*, max_tokens: int | None) -> Row:
    """Agents: a conversation that grows by what tools said, answers of some hundred tokens."""
    draw = random.Random(7)  # the same traffic each time
    limits = RequestLimits()
    held = settled = 0
    for _ in range(_REQUESTS):
        text_bytes = int(min(draw.lognormvariate(9.5, 0.9), 200_000))
        completion = max(1, int(min(draw.lognormvariate(5.3, 1.0), max_tokens or _CONTEXT)))
        body = {
            "model": "m",
            "messages": [{"role": "user", "content": "x" * (text_bytes // 20)}] * 20,
            "tools": [{"type": "function", "function": {"name": "t" * _TOOLS_BYTES}}],
        }
        if max_tokens is not None:
            body["max_tokens"] = max_tokens
        request = parse_request(Dialect.CHAT, json.dumps(body).encode(), limits)
        bound = prompt_bound(request, PromptRules(), _CONTEXT)
        quoted = quote(
            request, _TARIFF, prompt_tokens=bound, available=_CREDIT, context_length=_CONTEXT
        )
        assert isinstance(quoted, Quote), "there is credit enough"
        prompt = (text_bytes + _TOOLS_BYTES) // _BYTES_PER_TOKEN + _TEMPLATE_TOKENS
        held += quoted.hold
        settled += cost_of(Usage(prompt=prompt, completion=completion), _TARIFF).total
    asked = "no max_tokens" if max_tokens is None else f"max_tokens {max_tokens}"
    return Row(
        name=f"held {asked}",
        figure=f"held ÷ settled, agent-like traffic, {asked}",
        target="–",
        measured=f"{held / settled:.1f} ×",
        beside=f"{held / _REQUESTS / NANO_PER_CREDIT:.4f} credits held for a request on average",
        value=held / settled,
    )
