"""A prompt counted by a worker's engine through the tunnel, where its bound does not fit the balance."""

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest
from pydantic import SecretStr
from tests.integration.accounts import balance, customer
from tests.integration.harness import Answer, EngineRequest, Handler, RawEngine
from tests.integration.messages import (
    CHAT,
    DONE,
    completion,
    delta,
    json_answer,
    post,
    stream_answer,
    usage_event,
)
from tests.integration.network import Network, engine_of, network

from filature.relay.engines import COUNTING_MAX
from filature.relay.fetch import fetch
from filature.worker.counting import QUESTION_BYTES_MAX

PER_TOKEN: dict[str, Any] = {"price_in": "1", "price_cached": "0", "price_out": "1"}
NANO = 1000
"""The price of a token by PER_TOKEN, in nano-credits."""
BOUND = 512 + 16 + len("hello")
"""Tokens that CHAT's prompt is held for uncounted: the template, the message, its text."""


def counts(
    tokens: int, answer: bytes, *, asked: Callable[[str, Any], Any] | None = None
) -> Handler:
    """An engine that counts as vLLM does, and answers requests with ``answer``. ``asked`` may say otherwise."""

    async def handler(request: EngineRequest, writer: asyncio.StreamWriter) -> None:
        if request.path in ("/tokenize", "/apply-template", "/v1/messages/count_tokens"):
            told = asked(request.path, request.json) if asked is not None else {"count": tokens}
            nothing = json_answer({"detail": "Not Found"}, "404 Not Found")
            writer.write(nothing if told is None else json_answer(told))
        else:
            writer.write(answer)

    return handler


def code(answer: Answer) -> tuple[int, str]:
    return answer.status, answer.json["error"]["code"]


def asked_for(engine: RawEngine, path: str) -> list[EngineRequest]:
    return [request for request in engine.requests if request.path == path]


async def test_credit_for_the_exact_prompt_and_25_tokens_ends_cleanly_by_length() -> None:
    events = [delta("word ") for _ in range(25)]
    events += [delta("", finish="length"), usage_event(9, 25), DONE]
    engine = RawEngine(counts(9, stream_answer(events)))
    async with network(engine, **PER_TOKEN) as net:
        alice = await customer(net.chain, (9 + 25) * NANO)
        asked = CHAT | {
            "stream": True,
            "stream_options": {"include_usage": True},
            "max_tokens": 500,
            "user": "alice",
        }
        answer = await net.chain.ask(alice.asks(asked))
        assert answer.status == 200
        assert answer.complete
        assert answer.body.endswith(DONE)
        assert b'"finish_reason":"length"' in answer.body
        assert b'"total_cost":%d' % ((9 + 25) * NANO) in answer.body
        assert balance(net.chain, alice.account) == 0
        (question,) = asked_for(engine, "/tokenize")
        assert question.json == {"model": "m", "messages": CHAT["messages"]}
        (request,) = asked_for(engine, "/v1/chat/completions")
        assert request.json["max_tokens"] == 25


async def test_as_llama_cpp_counts_by_the_workers_name_of_the_model_and_key() -> None:
    def llama(path: str, asked: Any) -> Any:
        if path == "/apply-template":
            return {"prompt": "<u>hello</u>"}
        return {"tokens": [1, 2, 3, 4]} if "content" in asked else {"tokens": []}

    engine = RawEngine(
        counts(0, json_answer(completion("hi", 4, 2, "up")), asked=llama), suffix="=m:up"
    )
    async with network(**PER_TOKEN) as net:
        await net.join("gpu", engine, engine_key=SecretStr("secret"))
        alice = await customer(net.chain, (4 + 2) * NANO)
        answer = await net.chain.ask(alice.asks(CHAT | {"user": "alice", "enable_debug": True}))
        assert answer.status == 200
        assert balance(net.chain, alice.account) == 0
        (template,) = asked_for(engine, "/apply-template")
        assert template.json == {"model": "up", "messages": CHAT["messages"]}
        assert asked_for(engine, "/tokenize")[-1].json == {
            "model": "up",
            "content": "<u>hello</u>",
            "add_special": True,
            "parse_special": True,
        }
        for request in engine.requests:
            assert request.headers["authorization"] == "Bearer secret"
            assert alice.secret not in str(request.headers)


@pytest.mark.parametrize(
    ("path", "asked", "question"),
    [
        (
            "/v1/messages",
            {"model": "m", "max_tokens": 9, "messages": CHAT["messages"]},
            "/v1/messages/count_tokens",
        ),
        ("/v1/completions", {"model": "m", "prompt": "hello"}, "/tokenize"),
        ("/v1/responses", {"model": "m", "input": "hello"}, "/tokenize"),
        ("/v1/embeddings", {"model": "m", "input": "hello"}, "/tokenize"),
    ],
)
async def test_in_each_dialect(path: str, asked: dict[str, Any], question: str) -> None:
    told = {"count": 3, "input_tokens": 3}
    used = {"input_tokens": 3, "output_tokens": 2, "prompt_tokens": 3, "completion_tokens": 2}
    engine = RawEngine(counts(3, json_answer({"id": "r", "usage": used}), asked=lambda *_: told))
    async with network(engine, **PER_TOKEN) as net:
        alice = await customer(net.chain, 5 * NANO)
        answer = await net.chain.ask(alice.asks(asked, path))
        assert answer.status == 200, answer.body
        assert len(asked_for(engine, question)) == 1


async def test_who_cannot_count_is_asked_once_and_the_bound_holds() -> None:
    engine = RawEngine(counts(0, json_answer(completion("hi")), asked=lambda *_: None))
    async with network(engine, **PER_TOKEN) as net:
        alice = await customer(net.chain, 100 * NANO)
        for _ in range(2):
            answer = await net.chain.ask(alice.asks(CHAT))
            assert code(answer) == (402, "insufficient_quota")
        assert sorted(request.path for request in engine.requests) == [
            "/apply-template",
            "/tokenize",
        ]


async def test_a_count_binds_the_worker_that_gave_it() -> None:
    """One who says too little is paid for no more than it said, and no other reads the prompt for that."""
    answer = json_answer(completion("hi", 500, 2))
    liar, honest = RawEngine(counts(1, answer)), RawEngine(counts(500, answer))
    async with network(liar, honest, **PER_TOKEN) as net:
        (await engine_of(net, "gpu1")).running += 1  # so that the other is asked first
        alice = await customer(net.chain, 10 * NANO)
        for _ in range(2):
            got = await net.chain.ask(alice.asks(CHAT | {"max_tokens": 2}))
            assert got.status == 200
            assert got.json["usage"]["total_cost"] == (1 + 2) * NANO
        (await engine_of(net, "gpu1")).running -= 1
        assert balance(net.chain, alice.account) == 4 * NANO
        assert honest.requests == []
        assert len(asked_for(liar, "/v1/chat/completions")) == 2


async def test_a_count_above_the_bound_changes_nothing() -> None:
    engine = RawEngine(counts(10**6, json_answer(completion("hi"))))
    async with network(engine, **PER_TOKEN) as net:
        alice = await customer(net.chain, BOUND * NANO)
        answer = await net.chain.ask(alice.asks(CHAT))
        assert code(answer) == (402, "insufficient_quota")
        assert f"needs 0.000{BOUND + 1} credits" in answer.json["error"]["message"]
        assert len(engine.requests) == 1


async def test_a_client_that_leaves_while_its_prompt_is_counted_takes_nothing_along() -> None:
    asked, gone = asyncio.Event(), asyncio.Event()

    async def handler(request: EngineRequest, writer: asyncio.StreamWriter) -> None:
        asked.set()
        await request.gone.wait()
        gone.set()

    async with network(RawEngine(handler), **PER_TOKEN) as net:
        alice = await customer(net.chain, 10 * NANO)
        client = await net.chain.connect()
        client.send(alice.asks(CHAT))
        async with asyncio.timeout(5):
            await asked.wait()
            client.leave()
            await gone.wait()
        assert balance(net.chain, alice.account) == 10 * NANO


# what a worker answers, whatever a proxy asks


async def question(net: Network, path: str, body: Any, headers: str = "") -> tuple[int, Any]:
    """Sent down a tunnel, as only the proxy can."""
    engine = await engine_of(net, "gpu0")
    status, answer = await fetch(engine.pool, post(body, path, headers=headers), timeout_s=5)
    return status, json.loads(answer)


COUNTED = {"model": "m", "messages": CHAT["messages"]}


@pytest.mark.parametrize(
    ("path", "body", "status", "param"),
    [
        ("/detokenize", {"model": "m", "tokens": [1]}, 404, None),
        ("/tokenize", COUNTED | {"model": "other"}, 503, None),
        ("/tokenize", COUNTED | {"lora_path": "/etc"}, 400, "lora_path"),
        ("/tokenize", COUNTED | {"chat_template": "{{x}}"}, 400, "chat_template"),
        ("/tokenize", {"model": "m", "content": "a", "with_pieces": True}, 400, "with_pieces"),
        ("/tokenize", {"model": "m", "content": ["a"]}, 400, "content"),
        ("/tokenize", {"content": "a"}, 503, None),
        ("/tokenize", {"model": "m"}, 400, "prompt"),
        ("/tokenize", [1], 400, None),
        ("/tokenize", b"{", 400, None),
        ("/apply-template", {"model": "m", "prompt": "a"}, 400, "messages"),
        ("/v1/messages/count_tokens", {"model": "m"}, 400, None),
        ("/v1/chat/completions", COUNTED, 403, None),
        (
            "/tokenize",
            {
                "model": "m",
                "messages": [
                    {
                        "role": "user",
                        "content": [{"type": "image_url", "image_url": {"url": "data:,x"}}],
                    }
                ],
            },
            400,
            "messages",
        ),
        (
            "/tokenize",
            {
                "model": "m",
                "messages": [
                    {
                        "role": "user",
                        "content": [{"type": "image_url", "image_url": {"url": "http://10.0.0.1"}}],
                    }
                ],
            },
            400,
            "messages[0].content[0].image_url.url",
        ),
    ],
)
async def test_no_question_but_how_long_a_text_is(
    path: str, body: Any, status: int, param: str | None
) -> None:
    engine = RawEngine(counts(3, b""))
    async with network(engine) as net:
        told, said = await question(net, path, body)
        assert (told, said["error"].get("param")) == (status, param)
        assert engine.requests == []
        assert await question(net, "/tokenize", COUNTED) == (200, {"count": 3})


async def test_a_question_has_a_bound() -> None:
    engine = RawEngine(counts(3, b""))
    async with network(engine) as net:
        body = {"model": "m", "content": "a" * QUESTION_BYTES_MAX}
        told, _ = await question(net, "/tokenize", body)
        assert told == 413
        assert engine.requests == []


async def test_no_more_questions_at_once_than_a_proxy_asks() -> None:
    asked, go_on = asyncio.Semaphore(0), asyncio.Event()

    async def handler(request: EngineRequest, writer: asyncio.StreamWriter) -> None:
        asked.release()
        await go_on.wait()
        writer.write(json_answer({"count": 3}))

    async with network(RawEngine(handler)) as net:
        running = [
            asyncio.create_task(question(net, "/tokenize", COUNTED)) for _ in range(COUNTING_MAX)
        ]
        async with asyncio.timeout(5):
            for _ in running:
                await asked.acquire()
        told, said = await question(net, "/tokenize", COUNTED)
        assert (told, said["error"]["code"]) == (503, "busy")
        go_on.set()
        assert await asyncio.gather(*running) == [(200, {"count": 3})] * COUNTING_MAX


@pytest.mark.parametrize(
    ("said", "status"),
    [
        ("400 Bad Request", 400),
        ("404 Not Found", 404),
        ("501 Not Implemented", 501),
        ("302 F", 502),
        ("500 I", 502),
    ],
)
async def test_an_engines_refusal_keeps_its_status_and_not_its_words(
    said: str, status: int
) -> None:
    async def handler(request: EngineRequest, writer: asyncio.StreamWriter) -> None:
        writer.write(json_answer({"error": "at 10.0.0.1"}, said))

    async with network(RawEngine(handler)) as net:
        told, answer = await question(net, "/tokenize", COUNTED)
        assert told == status
        assert "10.0.0.1" not in json.dumps(answer)
