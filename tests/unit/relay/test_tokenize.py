"""Prompts counted by engines over real sockets: as vLLM, llama.cpp, SGLang, and as those that cannot."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx
import orjson
import pytest
from tests.unit.request.asking import LENIENT, parse

from filature.demo.server import DemoEngine
from filature.relay.clock import CoarseClock
from filature.relay.engines import COUNTING_MAX, Engine, EngineAddress, ServedModel
from filature.relay.limits import RelayLimits
from filature.relay.tokenize import (
    COUNTED_BYTES_MAX,
    MISUNDERSTANDINGS_MAX,
    TEXTS_MAX,
    exact_prompt_tokens,
)
from filature.request.parse import ParsedRequest, parse_request
from filature.wire.dialect import Dialect

CHAT, COMPLETIONS, EMBEDDINGS = Dialect.CHAT, Dialect.COMPLETIONS, Dialect.EMBEDDINGS
RESPONSES, MESSAGES, COUNT_TOKENS = Dialect.RESPONSES, Dialect.MESSAGES, Dialect.COUNT_TOKENS
WAIT_S = 5.0
HELLO = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Say hello"}]
IMAGE = {"type": "image_url", "image_url": {"url": "data:,x"}}
TOOL = {"type": "function", "function": {"name": "weave", "parameters": {"type": "object"}}}

Told = tuple[int, Any]
"""A status and what the body says."""
Answering = Callable[[str, Any], Told]
"""By path and by what was asked."""


class Stub:
    """An engine of few words: it counts, or says that it cannot."""

    def __init__(self, answering: Answering) -> None:
        self.answering = answering
        self.asked: list[tuple[str, Any]] = []
        self.bodies: list[bytes] = []
        self.gate: asyncio.Semaphore | None = None
        self.waiting = self.waiting_most = 0
        self._connections: set[asyncio.StreamWriter] = set()

    async def start(self) -> str:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/base/v1"

    async def close(self) -> None:
        self._server.close()
        for writer in tuple(self._connections):
            writer.transport.abort()
        await self._server.wait_closed()

    async def all_wait(self, number: int) -> None:
        async with asyncio.timeout(WAIT_S):
            while self.waiting < number:
                await asyncio.sleep(0)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._connections.add(writer)
        try:
            while True:
                await self._answer(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self._connections.discard(writer)
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        length = int(head.lower().partition("content-length: ")[2].partition("\r\n")[0])
        path = head.split(" ")[1].removeprefix("/base")
        self.bodies.append(await reader.readexactly(length))
        body = json.loads(self.bodies[-1])
        self.asked.append((path, body))
        self.waiting += 1
        self.waiting_most = max(self.waiting, self.waiting_most)
        if self.gate is not None:
            await self.gate.acquire()
        self.waiting -= 1
        status, told = self.answering(path, body)
        text = told if isinstance(told, bytes) else orjson.dumps(told)
        writer.write(b"HTTP/1.1 %d X\r\ncontent-length: %d\r\n\r\n%b" % (status, len(text), text))
        await writer.drain()


def engine_at(url: str) -> Engine:
    return Engine(EngineAddress.parse(url), CoarseClock(lambda: 0.0), RelayLimits())


class Counter:
    """One engine with one model, and the stub behind it."""

    def __init__(self, stub: Stub, url: str) -> None:
        self.stub = stub
        self.engine = engine_at(url)
        self.model = ServedModel("upstream")

    async def count(self, request: ParsedRequest, timeout_s: float = WAIT_S) -> int | None:
        return await exact_prompt_tokens(self.engine, self.model, request, timeout_s)


@asynccontextmanager
async def counter(answering: Answering) -> AsyncIterator[Counter]:
    stub = Stub(answering)
    made = Counter(stub, await stub.start())
    try:
        yield made
    finally:
        made.engine.pool.close()
        await stub.close()


def vllm(path: str, body: Any) -> Told:
    if path == "/tokenize" and ("messages" in body or isinstance(body.get("prompt"), str)):
        return 200, {"count": 42, "max_model_len": 8192, "tokens": [1] * 42, "token_strs": None}
    if path == "/v1/messages/count_tokens":
        return 200, {"input_tokens": 43}
    return 400, {"error": {"message": "validation error", "code": 400}}


def llama_cpp(path: str, body: Any) -> Told:
    """It takes any object at ``/tokenize`` and looks for ``content``."""
    if path == "/tokenize":
        special = [1] if body.get("add_special") else []
        return 200, {"tokens": [*special, *body["content"].split()] if "content" in body else []}
    if path == "/apply-template":
        return 200, {"prompt": " | ".join(m["content"] for m in body["messages"])}
    return 404, {"error": {"message": "File Not Found", "code": 404}}


def sglang(path: str, body: Any) -> Told:
    if path == "/tokenize" and "prompt" in body:
        return 200, {"tokens": [5, 6, 7], "count": 3, "max_model_len": 8192}
    return (422, {"detail": "prompt: missing"}) if path == "/tokenize" else (404, {})


def always(told: Told) -> Answering:
    return lambda path, body: told  # noqa: ARG005 - whatever is asked


def nobody(path: str, body: Any) -> Told:
    return 404, b"404 page not found"


# vLLM


async def test_a_chat_by_vllm() -> None:
    async with counter(vllm) as engine:
        request = parse(
            CHAT,
            messages=HELLO,
            tools=[TOOL],
            chat_template_kwargs={"enable_thinking": False},
            max_tokens=500,
            stream=True,
            temperature=0.5,
        )
        assert await engine.count(request) == 42
    assert engine.stub.asked == [
        (
            "/tokenize",
            {
                "model": "upstream",
                "messages": HELLO,
                "tools": [TOOL],
                "chat_template_kwargs": {"enable_thinking": False},
            },
        )
    ]


async def test_the_messages_are_told_as_the_client_wrote_them() -> None:
    """Even what is no character, which an engine may read as it likes."""
    body = b'{"model":"m","messages":[ {"role":"user","content":"a\\ud800"} ]}'
    async with counter(vllm) as engine:
        assert await engine.count(parse_request(CHAT, body, LENIENT)) == 42
    assert engine.stub.bodies == [body.replace(b'"m"', b'"upstream"')]


async def test_what_is_no_character_is_told_in_no_other_form() -> None:
    body = b'{"model":"m","input":"a\\ud800"}'
    async with counter(vllm) as engine:
        assert await engine.count(parse_request(RESPONSES, body, LENIENT)) is None
    assert not engine.stub.bodies


async def test_prompts_by_vllm() -> None:
    async with counter(vllm) as engine:
        assert await engine.count(parse(COMPLETIONS, prompt="silk")) == 42
        assert await engine.count(parse(COMPLETIONS, prompt=["a", [1, 2, 3], "b"])) == 42 + 3 + 42
        assert await engine.count(parse(EMBEDDINGS, input=["a", "b"])) == 84
    assert engine.stub.asked[0] == ("/tokenize", {"model": "upstream", "prompt": "silk"})


async def test_ids_are_counted_without_asking() -> None:
    async with counter(nobody) as engine:
        assert await engine.count(parse(COMPLETIONS, prompt=[1, 2, 3])) == 3
        assert await engine.count(parse(EMBEDDINGS, input=[[1, 2, 3], [4]])) == 4
    assert not engine.stub.asked


async def test_messages_by_their_own_counter() -> None:
    async with counter(vllm) as engine:
        request = parse(MESSAGES, messages=HELLO[1:], system="Be brief.", tools=[{"name": "f"}])
        assert await engine.count(request) == 43
    assert engine.stub.asked == [
        (
            "/v1/messages/count_tokens",
            {
                "model": "upstream",
                "system": "Be brief.",
                "messages": HELLO[1:],
                "tools": [{"name": "f"}],
            },
        )
    ]


@pytest.mark.parametrize(
    ("dialect", "fields"),
    [
        (RESPONSES, {"input": "Say hello", "instructions": "Be brief."}),
        (
            RESPONSES,
            {
                "instructions": "Be brief.",
                "input": [
                    {
                        "type": "message",
                        "role": "user",
                        "content": [{"type": "input_text", "text": "Say hello"}],
                    }
                ],
            },
        ),
        (RESPONSES, {"input": HELLO}),
        (MESSAGES, {"messages": HELLO[1:], "system": "Be brief."}),
        (
            MESSAGES,
            {
                "messages": [{"role": "user", "content": [{"type": "text", "text": "Say hello"}]}],
                "system": [{"type": "text", "text": "Be brief."}],
            },
        ),
    ],
)
async def test_what_is_nothing_but_a_chat_is_counted_as_one(
    dialect: Dialect, fields: dict[str, Any]
) -> None:
    def only_chat(path: str, body: Any) -> Told:
        return vllm(path, body) if path == "/tokenize" else (404, {})

    async with counter(only_chat) as engine:
        assert await engine.count(parse(dialect, **fields)) == 42
    assert engine.stub.asked[-1] == ("/tokenize", {"model": "upstream", "messages": HELLO})


async def test_several_parts_stay_several() -> None:
    parts = [{"type": "input_text", "text": "a"}, {"type": "input_text", "text": "b"}]
    async with counter(vllm) as engine:
        request = parse(RESPONSES, input=[{"role": "user", "content": parts}])
        assert await engine.count(request) == 42
    texts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    assert engine.stub.asked[0][1]["messages"] == [{"role": "user", "content": texts}]


# llama.cpp and SGLang


async def test_a_chat_by_llama_cpp() -> None:
    async with counter(llama_cpp) as engine:
        request = parse(CHAT, messages=HELLO, response_format={"type": "json_object"}, timeout=5)
        assert await engine.count(request) == 1 + 5
        assert await engine.count(request) == 1 + 5
    paths = [path for path, _ in engine.stub.asked]
    assert paths == ["/tokenize", *["/apply-template", "/tokenize"] * 2]
    assert engine.stub.asked[1][1] == {
        "model": "upstream",
        "messages": HELLO,
        "response_format": {"type": "json_object"},
    }
    assert engine.stub.asked[2][1] == {
        "model": "upstream",
        "content": "Be brief. | Say hello",
        "add_special": True,
        "parse_special": True,
    }


async def test_prompts_by_llama_cpp() -> None:
    async with counter(llama_cpp) as engine:
        assert await engine.count(parse(COMPLETIONS, prompt="two words")) == 3
        assert await engine.count(parse(COMPLETIONS, prompt=["two words", "one"])) == 3 + 2
        assert await engine.count(parse(RESPONSES, input="two words")) == 3
    asked = [body for _, body in engine.stub.asked]
    assert [body for body in asked if "prompt" in body] == [
        {"model": "upstream", "prompt": "two words"}
    ], "asked in vLLM's way once only"


async def test_prompts_by_sglang_and_no_chats() -> None:
    async with counter(sglang) as engine:
        assert await engine.count(parse(COMPLETIONS)) == 3
        for _ in range(MISUNDERSTANDINGS_MAX + 3):
            assert await engine.count(parse(CHAT)) is None
        assert await engine.count(parse(COMPLETIONS)) == 3
    chats = [path for path, body in engine.stub.asked if "messages" in body]
    assert chats.count("/tokenize") == MISUNDERSTANDINGS_MAX
    assert chats.count("/apply-template") == 1


# what is not counted


@pytest.mark.parametrize(
    ("dialect", "fields"),
    [
        (CHAT, {"messages": [{"role": "user", "content": [IMAGE]}]}),
        (CHAT, {"chat_template": "x"}),
        (CHAT, {"documents": [{"text": "x"}]}),
        (CHAT, {"functions": [{"name": "f"}]}),
        (CHAT, {"reasoning_effort": "low"}),
        (COMPLETIONS, {"suffix": "x"}),
        (COMPLETIONS, {"prompt": None, "prompt_embeds": "AAAA"}),
        (COMPLETIONS, {"prompt": ["x"] * (TEXTS_MAX + 1)}),
        (COMPLETIONS, {"prompt": [1, "x"]}),
        (COMPLETIONS, {"prompt": {"prompt_string": "x"}}),
        (COMPLETIONS, {"prompt": "x", "truncate_prompt_tokens": 5}),
        (EMBEDDINGS, {"input": None, "messages": HELLO}),
        (RESPONSES, {"tools": [{"type": "function", "name": "f"}]}),
        (RESPONSES, {"reasoning": {"effort": "low"}}),
        (RESPONSES, {"input": [{"type": "function_call", "name": "f", "arguments": "{}"}]}),
        (RESPONSES, {"input": [{"role": "user", "content": [{"type": "odd"}]}]}),
        (RESPONSES, {"input": [{"role": "user", "content": "x", "odd": 1}]}),
        (RESPONSES, {"input": [{"role": "user", "content": []}]}),
        (RESPONSES, {"chat_template_kwargs": {"custom_instructions": "x"}}),
        (MESSAGES, {"documents": [{"text": "x"}]}),
        (COUNT_TOKENS, {}),
        (CHAT, {"messages": [{"role": "user", "content": "x" * COUNTED_BYTES_MAX}]}),
    ],
)
async def test_what_could_be_counted_wrongly_is_not_counted(
    dialect: Dialect, fields: dict[str, Any]
) -> None:
    async with counter(vllm) as engine:
        assert await engine.count(parse(dialect, **fields)) is None
    assert len(engine.stub.asked) <= TEXTS_MAX


async def test_tools_of_messages_only_by_their_own_counter() -> None:
    async with counter(llama_cpp) as engine:
        assert await engine.count(parse(MESSAGES, tools=[{"name": "f"}])) is None
        assert await engine.count(parse(MESSAGES)) == 1 + 2


@pytest.mark.parametrize(
    "told",
    [
        (200, {"count": -1}),
        (200, {"count": "5"}),
        (200, {"count": True}),
        (200, {"count": 10**12}),
        (200, {"count": None}),
        (200, {}),
        (200, [1, 2]),
        (200, b"not JSON"),
        (500, {"count": 5}),
        (403, {"count": 5}),
    ],
)
async def test_what_is_no_count_is_none(told: Told) -> None:
    async with counter(always(told)) as engine:
        assert await engine.count(parse(CHAT)) is None
        assert await engine.count(parse(COMPLETIONS)) is None
        assert await engine.count(parse(MESSAGES)) is None


# what is remembered


@pytest.mark.parametrize("dialect", [CHAT, COMPLETIONS, MESSAGES, RESPONSES])
async def test_an_engine_that_cannot_is_asked_once(dialect: Dialect) -> None:
    async with counter(nobody) as engine:
        assert await engine.count(parse(dialect)) is None
        asked = len(engine.stub.asked)
        assert 2 <= asked <= 3
        assert await engine.count(parse(dialect)) is None
    assert len(engine.stub.asked) == asked


async def test_a_way_that_worked_is_not_given_up_for_requests_that_cannot_be_counted() -> None:
    def picky(path: str, body: Any) -> Told:
        return (404, {}) if "odd" in str(body) or path != "/tokenize" else (200, {"count": 9})

    odd = parse(CHAT, messages=[{"role": "user", "content": "odd"}])
    async with counter(picky) as engine:
        assert await engine.count(parse(CHAT)) == 9
        for _ in range(MISUNDERSTANDINGS_MAX + 1):
            assert await engine.count(odd) is None
        assert await engine.count(parse(CHAT)) == 9


async def test_a_failure_says_nothing_of_the_way() -> None:
    statuses = iter([500, 503, *[500] * MISUNDERSTANDINGS_MAX, 200])

    def recovering(path: str, body: Any) -> Told:
        return next(statuses), {"count": 9}

    async with counter(recovering) as engine:
        engine.model.abilities.misunderstood["apply-template"] = MISUNDERSTANDINGS_MAX
        for _ in range(MISUNDERSTANDINGS_MAX + 2):
            assert await engine.count(parse(CHAT)) is None
        assert await engine.count(parse(CHAT)) == 9


# bounds


async def test_an_engine_that_does_not_answer_is_not_waited_for() -> None:
    async with counter(vllm) as engine:
        engine.stub.gate = asyncio.Semaphore(0)
        assert await engine.count(parse(CHAT), timeout_s=0.05) is None
        engine.stub.gate = None
        assert await engine.count(parse(CHAT)) == 42


async def test_an_engine_that_is_not_there() -> None:
    engine = engine_at("http://127.0.0.1:1")
    assert await exact_prompt_tokens(engine, ServedModel("m"), parse(CHAT), WAIT_S) is None
    engine.pool.close()


async def test_no_more_than_some_at_once() -> None:
    async with counter(vllm) as engine:
        engine.stub.gate = gate = asyncio.Semaphore(0)
        every = [asyncio.create_task(engine.count(parse(CHAT))) for _ in range(3 * COUNTING_MAX)]
        await engine.stub.all_wait(COUNTING_MAX)
        for _ in every:
            gate.release()
        assert await asyncio.gather(*every) == [42] * len(every)
    assert engine.stub.waiting_most == COUNTING_MAX


async def test_whoever_stops_waiting_leaves_a_place() -> None:
    async with counter(vllm) as engine:
        engine.stub.gate = asyncio.Semaphore(0)
        every = [asyncio.create_task(engine.count(parse(CHAT))) for _ in range(COUNTING_MAX)]
        await engine.stub.all_wait(COUNTING_MAX)
        for task in every:
            task.cancel()
        await asyncio.gather(*every, return_exceptions=True)
        engine.stub.gate = None
        assert await engine.count(parse(CHAT)) == 42


# the demonstration engine


@pytest.mark.parametrize(
    ("dialect", "fields"),
    [
        (CHAT, {"messages": HELLO}),
        (CHAT, {"messages": HELLO, "tools": [TOOL]}),
        (COMPLETIONS, {"prompt": ["A cocoon is one thread.", "Say hello"]}),
        (EMBEDDINGS, {"input": "Say hello"}),
        (RESPONSES, {"input": "Say hello", "instructions": "Be brief."}),
        (MESSAGES, {"messages": HELLO[1:], "system": "Be brief."}),
    ],
)
async def test_a_count_is_what_is_charged(dialect: Dialect, fields: dict[str, Any]) -> None:
    demo = DemoEngine()
    await demo.start()
    engine = engine_at(demo.url)
    request = parse(dialect, **{"model": "demo", "max_tokens": 5} | fields)
    try:
        counted = await exact_prompt_tokens(engine, ServedModel("demo"), request, WAIT_S)
        async with httpx.AsyncClient(base_url=demo.url) as client:
            usage = (await client.post(dialect.path, content=request.body)).json()["usage"]
    finally:
        engine.pool.close()
        await demo.close()
    assert counted == usage.get("prompt_tokens", usage.get("input_tokens"))
