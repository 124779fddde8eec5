"""The demonstration engine counts a prompt as it charges for it, by its script and by its model."""

import asyncio
from contextlib import AsyncExitStack
from typing import Any

import httpx
import pytest
from tests.unit.demo.runner import Runner, chunk, loaded

from filature.demo.server import DemoEngine

HELLO = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Say hello"}]
TOOL = {"type": "function", "function": {"name": "weave", "parameters": {"type": "object"}}}


async def asked(engine: DemoEngine, path: str, body: dict[str, Any]) -> httpx.Response:
    async with httpx.AsyncClient(base_url=engine.url, timeout=10) as client:
        return await client.post(path, json=body)


@pytest.mark.parametrize("with_model", [False, True])
@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/chat/completions", {"messages": HELLO}),
        ("/v1/chat/completions", {"messages": HELLO, "tools": [TOOL]}),
        ("/v1/completions", {"prompt": "Say hello to the reelers"}),
        ("/v1/completions", {"prompt": ""}),
    ],
)
async def test_a_prompt_is_counted_as_it_is_charged(
    path: str, body: dict[str, Any], with_model: bool
) -> None:
    async with AsyncExitStack() as stack:
        model = None
        if with_model:
            runner = Runner([chunk("Hello"), chunk(None, "stop", 2)])
            model = await stack.enter_async_context(loaded(runner))
        engine = DemoEngine(model=model)
        await engine.start()
        stack.push_async_callback(engine.close)
        answer = (await asked(engine, path, body | {"max_tokens": 2})).json()
        told = (await asked(engine, "/tokenize", {"model": "demo"} | body)).json()
    assert told["count"] == answer["usage"]["prompt_tokens"] == len(told["tokens"])
    assert told["max_model_len"] == 8192
    assert engine.stats.running == 0


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({}, 400),
        ({"prompt": ["a"]}, 400),
        ({"prompt": None}, 400),
        ({"messages": "x"}, 400),
        ({"messages": []}, 400),
        ({"model": "other", "prompt": "x"}, 404),
    ],
)
async def test_what_cannot_be_counted_is_refused(body: dict[str, Any], status: int) -> None:
    engine = DemoEngine()
    await engine.start()
    try:
        assert (await asked(engine, "/tokenize", body)).status_code == status
    finally:
        await engine.close()


async def test_many_at_once() -> None:
    engine = DemoEngine()
    await engine.start()
    try:
        bodies = [{"prompt": "silk " * number} for number in range(1, 20)]
        told = await asyncio.gather(*(asked(engine, "/tokenize", body) for body in bodies))
        counts = [answer.json()["count"] for answer in told]
    finally:
        await engine.close()
    assert counts == sorted(set(counts))
