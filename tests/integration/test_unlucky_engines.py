"""Engines that change while they are served, that never have room, and that nobody can find."""

import asyncio
from contextlib import AsyncExitStack
from typing import Any
from unittest.mock import AsyncMock, patch

import pytest
from tests.integration.harness import WAIT_S, EngineRequest, Puppet, RawEngine, chain, says
from tests.integration.messages import CHAT, completion, json_answer, post, tokens
from tests.integration.network import network

from filature.relay import discovery
from filature.relay.fetch import FetchError
from filature.relay.http1 import ResponseHead
from filature.relay.upstream import UpstreamConnection
from filature.wire.dialect import Dialect

HI = json_answer(completion("hi"))
FULL = b"HTTP/1.1 503 Full\r\nx-filature-busy: 1\r\ncontent-length: 0\r\n\r\n"


async def test_an_engine_that_comes_back_with_another_context() -> None:
    raw = RawEngine(says(HI))
    raw.context_length = 8192
    async with chain(raw) as c:
        (engine,) = c.proxy.engines.engines
        model = engine.models["m"]
        model.bytes_per_token = 3.0
        raw.context_length = 1024
        await discovery._look(engine)
        assert engine.models["m"].context_length == 1024
        assert len(raw.probes) == 3, "what it can do is asked again only where it was away"

        engine.reachable, raw.continuous = False, True
        await discovery._look(engine)
        assert engine.models["m"].abilities.continuous_usage
        assert engine.models["m"].bytes_per_token == 3.0
        assert (await c.ask(post(CHAT))).status == 200


async def test_an_engine_to_which_no_tokens_are_any_number() -> None:
    """Ollama. The answer was the client's, for the price of its prompt."""
    choice = {"index": 0, "text": "all of it", "finish_reason": "stop"}
    text = {"id": "c1", "object": "text_completion", "model": "m", "choices": [choice]}
    asked = {"model": "m", "prompt": "hi", "max_tokens": 0}

    def with_tokens(completion_tokens: int) -> bytes:
        return json_answer(text | {"usage": tokens(1, completion_tokens)})

    raw = RawEngine(says(with_tokens(5)))
    async with chain(raw) as c:
        refused = await c.ask(post(asked, "/v1/completions"))
        assert (refused.status, refused.headers["x-should-retry"]) == (502, "false")
        assert b"max_tokens" in refused.body
        assert b"all of it" not in refused.body
        (engine,) = c.proxy.engines.engines
        assert engine.failures == 0, "nothing is broken"
        raw.handler = says(with_tokens(1))  # as vLLM where it only echoes
        assert (await c.ask(post(asked, "/v1/completions"))).status == 200


async def test_an_engine_that_is_back_and_too_busy_to_be_probed_keeps_what_is_known_of_it() -> None:
    puppet = Puppet()
    puppet.continuous = True
    async with chain(puppet) as c:
        (engine,) = c.proxy.engines.engines
        assert engine.models["m"].abilities.continuous_usage
        engine.reachable = False
        with patch.object(Puppet, "_is_probe", lambda *_: False):  # the test answers it
            looking = asyncio.create_task(discovery._look(engine))
            call = await puppet.call()
            assert engine.reachable, "it need not be probed to be ready"
            call.end(json_answer({}, "503 Busy"))
            await looking
        assert engine.models["m"].abilities.continuous_usage


async def test_an_engine_whose_first_model_does_not_chat() -> None:
    raw = RawEngine(says(HI), models=("embeds", "chats"))
    raw.silent_models, raw.continuous = ("embeds",), True
    async with chain(raw) as c:
        for model in c.proxy.engines.engines[0].models.values():
            assert model.abilities.include_usage
            assert model.abilities.continuous_usage
        assert (await c.ask(post(CHAT | {"model": "chats"}))).status == 200


@pytest.mark.parametrize("by_tunnel", [False, True])
@pytest.mark.parametrize("refuses_both", [False, True])
async def test_an_engine_that_heeds_max_tokens_only(refuses_both: bool, by_tunnel: bool) -> None:
    """It is told by both names, unless it refuses them at once."""
    raw = RawEngine(says(HI))
    raw.refuses_both, raw.continuous = refuses_both, True
    asked = CHAT | {"max_completion_tokens": 5}
    async with AsyncExitStack() as stack:
        if by_tunnel:
            c = (await stack.enter_async_context(network(raw))).chain
        else:
            c = await stack.enter_async_context(chain(raw))
        assert (await c.ask(post(asked))).status == 200
    assert raw.probes[-1].json["stream_options"]["continuous_usage_stats"]
    sent = raw.requests[-1].json
    assert (sent["max_completion_tokens"], sent.get("max_tokens")) == (
        5,
        None if refuses_both else 5,
    )


async def test_an_adapter_has_the_context_of_its_model() -> None:
    raw = RawEngine(says(HI), models=("adapter", "base"))
    raw.context_length, raw.parents = 4096, {"adapter": "base"}
    async with chain(raw) as c:
        assert c.proxy.engines.engines[0].models["adapter"].context_length == 4096


@pytest.mark.parametrize("name", ["context_length", "max_context_length", "context_window"])
async def test_no_number_is_named_that_may_not_fit_into_the_context(name: str) -> None:
    """By whichever name the engine tells its context: it would refuse the request."""
    raw = RawEngine(says(HI))
    raw.context_length, raw.context_name = 32_768, name
    async with chain(raw) as c:
        asked = {"model": "m", "messages": [{"role": "user", "content": "x" * 20_000}]}
        assert (await c.ask(post(asked))).status == 200
    assert raw.requests[0].json == asked


@pytest.mark.parametrize("told", [True, False, -1, "8192", 8192.0])
async def test_a_context_that_is_no_number_of_tokens(told: Any) -> None:
    raw = RawEngine(says(HI))
    raw.context_length = told
    async with chain(raw) as c:
        assert c.proxy.engines.engines[0].models["m"].context_length is None
        assert (await c.ask(post(CHAT))).status == 200
    assert raw.requests[0].json["max_tokens"] > 1


async def test_an_engine_that_is_always_full_is_not_asked_for_ever() -> None:
    raw = RawEngine(says(FULL))
    async with chain(raw, wait_s=0.3) as c:
        answer = await c.ask(post(CHAT))
        assert (answer.status, answer.json["error"]["code"]) == (503, "no_capacity")
        assert (await c.only_usage())["outcome"] == "no_engine"
    assert len(raw.requests) < 5


@pytest.mark.parametrize("by_tunnel", [False, True])
@pytest.mark.parametrize(
    ("said", "told"),
    [
        *(("7", "7"), ("0060", "60"), ("86400", "60"), ("0", "1"), ("-5", "1"), ("9" * 5000, "1")),
        *(("Wed, 21 Oct 2026 07:28:00 GMT", "1"), ("7\r\nRetry-After: 8", "1")),
    ],
)
async def test_when_a_full_engine_is_to_be_asked_again_is_passed_on(
    said: str, told: str, by_tunnel: bool
) -> None:
    full = says(json_answer({"error": "full"}, "429 Full", f"Retry-After: {said}\r\n"))
    async with AsyncExitStack() as stack:
        if by_tunnel:
            c = (await stack.enter_async_context(network(full))).chain
        else:
            c = await stack.enter_async_context(chain(full))
        answer = await c.ask(post(CHAT))
    assert answer.status == 502
    assert answer.headers["retry-after"] == told


@pytest.mark.parametrize("host", ["a..b", "x" * 64 + ".localhost"])
async def test_an_engine_whose_name_cannot_be_looked_up(host: str) -> None:
    async with chain(urls=(f"http://{host}:80=m",), wait=False) as c:
        await c.looked()
        answer = await c.ask(post(CHAT))
        assert answer.status == 502
        assert "is no host name" in answer.json["error"]["message"]


async def test_a_connection_that_is_given_up_as_soon_as_it_is_made_is_not_counted() -> None:
    async with chain(RawEngine(says(HI), suffix="=m")) as c:
        pool = c.proxy.engines.engines[0].pool
        before, call = pool.open_connections, NoCaller()
        pool.send(call, b"", fresh=True)
        async with asyncio.timeout(WAIT_S):
            while pool.open_connections == before:  # it is looked at in each round of the loop
                await asyncio.sleep(0)
        assert not call.connected
        pool.cancel(call)
        async with asyncio.timeout(WAIT_S):
            while pool.open_connections > before:
                await asyncio.sleep(0.001)


class NoCaller:
    """Gives up before it is connected."""

    connected = False

    def on_connected(self, connection: UpstreamConnection) -> None:
        self.connected = True

    def on_head(self, head: ResponseHead) -> None: ...
    def on_payload(self, payload: bytes, raw: bytes | None) -> None: ...
    def on_end(self) -> None: ...
    def on_lost(self, reason: str, *, ours: bool = False) -> None: ...

    def on_silent(self) -> bool:
        return False


@pytest.mark.parametrize("answer", [(500, b"{}"), (200, b"<html>"), (200, b'{"models": []}')])
async def test_an_engine_that_names_no_models_for_once_keeps_those_that_are_known(
    answer: tuple[int, bytes],
) -> None:
    async with chain(RawEngine(says(HI))) as c:
        (engine,) = c.proxy.engines.engines
        with patch.object(discovery, "fetch", AsyncMock(return_value=answer)):
            await discovery._look(engine)
        assert (await c.ask(post(CHAT))).status == 200


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ((404, b""), "it answers 404 on /v1/models and names none: name its models by hand"),
        ((200, b"<html>"), "it answers 200 on /v1/models and names none: name its models by hand"),
        (
            (401, b""),
            "it answers 401 on /v1/models and names none: give its key (--engine-key), or",
        ),
        (FetchError("cannot connect: refused"), "cannot connect: refused"),
    ],
)
async def test_an_engine_that_cannot_be_used_is_complained_of_once(
    answer: Any, said: str, caplog: pytest.LogCaptureFixture
) -> None:
    asked = AsyncMock(side_effect=[answer, answer, answer, asyncio.CancelledError])
    async with chain(RawEngine(says(HI))) as c:
        (engine,) = c.proxy.engines.engines
        engine.models.clear()
        engine.reachable = False
        with (
            patch.object(discovery, "fetch", asked),
            patch.object(discovery, "RETRY_S", 0),
            pytest.raises(asyncio.CancelledError),
        ):
            await discovery.watch(engine)
    told = [each.message for each in caplog.records if each.levelname == "WARNING"]
    assert len(told) == 1
    assert told[0].startswith(f"engine {engine.name}: {said}")


async def test_an_engine_that_says_it_cannot_answer_is_not_asked() -> None:
    """What lists its models may have lost what generates, or still load it."""
    raw = RawEngine(says(HI))
    raw.health = "503 Service Unavailable"
    async with network() as net:
        await net.join("gpu", raw, wait=False)
        async with asyncio.timeout(WAIT_S):
            while len(raw.health_requests) < 2:
                await asyncio.sleep(0.01)
        refused = await net.chain.ask(post(CHAT))
        assert refused.status in (404, 503), refused.body
        assert raw.requests == []
        raw.health = "200 OK"
        await net.ready("gpu")
        assert (await net.chain.ask(post(CHAT))).status == 200


@pytest.mark.parametrize("status", ["404 Not Found", "401 Unauthorized", "500 Oh"])
async def test_nothing_follows_where_no_health_is_told(status: str) -> None:
    """A gateway may ask for a key there, and have all its models answer something then: it is given none."""
    raw = RawEngine(says(HI))
    raw.health = status
    async with chain(raw, engine_key="sk-engine") as c:
        assert (await c.ask(post(CHAT))).status == 200
    (asked,) = raw.health_requests
    assert "authorization" not in asked.headers


@pytest.mark.parametrize("status", ["404 Not Found", "405 Method Not Allowed"])
@pytest.mark.parametrize("by_tunnel", [False, True])
async def test_an_engine_that_lacks_an_api_has_not_failed(by_tunnel: bool, status: str) -> None:
    """It is asked for others as before, and nobody is slowed for having asked."""

    async def answers(request: EngineRequest, writer: asyncio.StreamWriter) -> None:
        chats = request.path == "/v1/chat/completions"
        writer.write(HI if chats else json_answer({"detail": "Not Found"}, status))

    counts = {"model": "m", "messages": CHAT["messages"]}
    async with AsyncExitStack() as stack:
        if by_tunnel:
            c = (await stack.enter_async_context(network(answers))).chain
        else:
            c = await stack.enter_async_context(chain(answers))
        for _ in range(70):  # more than an account's free failures
            answer = await c.ask(post(counts, "/v1/messages/count_tokens"))
            assert (answer.status, answer.json["type"]) == (502, "error")
        assert status[:3] in answer.json["error"]["message"]
        assert "x-filature-unsupported" not in answer.headers
        (engine,) = c.proxy.engines.engines
        assert engine.failures == 0
        assert engine.lacks.keys() == {Dialect.COUNT_TOKENS}
        assert (await c.ask(post(CHAT))).status == 200
        assert (await c.usage(answer.request_id))["outcome"] == "refused_by_engine"


async def test_who_has_an_api_is_asked_for_it() -> None:
    def engine(reply: bytes) -> RawEngine:
        return RawEngine(says(reply))

    lacking = engine(json_answer({"detail": "Not Found"}, "404 Not Found"))
    having = engine(json_answer({"input_tokens": 3}))
    counts = post({"model": "m", "messages": CHAT["messages"]}, "/v1/messages/count_tokens")
    async with chain(lacking, having) as c:
        for _ in range(20):
            assert (await c.ask(counts)).json == {"input_tokens": 3}
    assert len(lacking.requests) <= 1
