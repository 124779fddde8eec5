"""An account that can pay its prompt and 25 tokens: its answers end by themselves, whole and paid for."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any, Final

import pytest
from tests.demo_model import MODEL_WAIT_S, loaded_model
from tests.integration.accounts import balance, customer, money, records
from tests.integration.harness import Answer, Chain
from tests.integration.messages import cost

from filature.demo.model import ModelBackend
from filature.demo.model_files import CONTEXT_LENGTH
from filature.demo.options import Script
from filature.demo.server import DemoEngine, EngineOptions
from filature.request.limits import RequestLimits
from filature.request.parse import parse_request
from filature.request.quote import PromptRules, prompt_bound
from filature.wire.dialect import Dialect

AFFORDED: Final = 25
AFFORDED_OF_16: Final = 9
"""Of the completions API's own default, which is less than the above."""
MORE: Final = 500
TOLD: Final = "Write down the numbers from one to one hundred in words, one after another."
MESSAGES: Final = [{"role": "user", "content": TOLD}]
ASKED: Final[dict[Dialect, dict[str, Any]]] = {
    Dialect.CHAT: {"messages": MESSAGES, "temperature": 0},
    Dialect.COMPLETIONS: {"prompt": "One, two, three, four, five, six, seven,", "temperature": 0},
    Dialect.RESPONSES: {"input": TOLD, "temperature": 0},
    Dialect.MESSAGES: {"messages": MESSAGES, "temperature": 0},
}
PATHS: Final = {
    Dialect.CHAT: "/v1/chat/completions",
    Dialect.COMPLETIONS: "/v1/completions",
    Dialect.RESPONSES: "/v1/responses",
    Dialect.MESSAGES: "/v1/messages",
}
LIMITS: Final = {
    Dialect.CHAT: "max_completion_tokens",
    Dialect.COMPLETIONS: "max_tokens",
    Dialect.RESPONSES: "max_output_tokens",
    Dialect.MESSAGES: "max_tokens",
}


@pytest.fixture(scope="module")
def model() -> Iterator[ModelBackend]:
    with loaded_model() as loaded:
        yield loaded


@pytest.fixture
def engine(request: pytest.FixtureRequest, kind: str) -> DemoEngine:
    """One that would go on for longer than anybody here can pay."""
    if kind == "scripted":
        return DemoEngine(EngineOptions(script=Script(tokens=MORE + 100)))
    backend = request.getfixturevalue("model")
    return DemoEngine(EngineOptions(models=("demo",), context_length=CONTEXT_LENGTH), model=backend)


EVERY_WAY: Final = [
    ("scripted", dialect, stream, limit, known)
    for dialect in ASKED
    for stream in (False, True)
    for limit in (MORE, None)
    for known in ("bound", "exact")
]
WITH_THE_MODEL: Final = [
    ("model", dialect, stream, limit, known)
    for dialect in ASKED
    for stream in (False, True)
    for limit, known in ((None, "bound"), (MORE, "exact"))
]
"""Not every way to know the prompt, for it takes its time."""


@asynccontextmanager
async def before(engine: DemoEngine) -> AsyncIterator[Chain]:
    await engine.start()
    try:
        async with money(urls=(engine.url,), first_byte_s=MODEL_WAIT_S) as c:
            yield c
    finally:
        await engine.close()


def body_of(dialect: Dialect, limit: int | None, *, stream: bool) -> dict[str, Any]:
    body = {"model": "demo", "stream": stream, **ASKED[dialect]}
    if limit is not None:
        body[LIMITS[dialect]] = limit
    if stream and dialect in (Dialect.CHAT, Dialect.COMPLETIONS):
        body["stream_options"] = {"include_usage": True}
    return body


def bound_of(dialect: Dialect, body: dict[str, Any], context_length: int) -> int:
    request = parse_request(dialect, json.dumps(body).encode(), RequestLimits())
    return prompt_bound(request, PromptRules(), context_length)


async def ask(c: Chain, request: bytes) -> Answer:
    """As ``Chain.ask``, with a model's patience."""
    client = await c.connect()
    client.send(request)
    async with asyncio.timeout(MODEL_WAIT_S):
        while not client.reader._buffer:  # type: ignore[attr-defined]  # what has come
            await asyncio.sleep(0.005)
    answer = await client.answer()
    client.leave()
    return answer


@pytest.mark.parametrize(
    ("kind", "dialect", "stream", "limit", "known"), EVERY_WAY + WITH_THE_MODEL
)
async def test_an_answer_ends_by_length_where_the_credit_does(
    engine: DemoEngine, dialect: Dialect, stream: bool, limit: int | None, known: str
) -> None:
    """The account has the price of its prompt, by its bound or by its exact count, and of 25 tokens."""
    if limit is None and dialect is Dialect.MESSAGES:
        limit = 10**6  # this API has no request without a limit: one that is none
    affords = AFFORDED
    if limit is None and dialect is Dialect.COMPLETIONS:
        affords = AFFORDED_OF_16
    body = body_of(dialect, limit, stream=stream)
    async with before(engine) as c:
        rich = await customer(c, 10**9, "rich")
        once = await ask(c, rich.asks(body | {LIMITS[dialect]: 1}, PATHS[dialect]))
        assert once.status == 200, once.body
        (record,) = await records(c)
        exact = record.prompt
        bound = bound_of(dialect, body, engine.options.context_length)
        assert exact < bound
        prompt = exact if known == "exact" else bound
        poor = await customer(c, cost(prompt, affords), "poor")
        answer = await ask(c, poor.asks(body, PATHS[dialect]))
        assert answer.status == 200, answer.body
        assert answer.complete
        usage = (streamed if stream else whole)(dialect, answer)
        (record,) = [record for record in await records(c) if record.account == poor.account]
        assert (record.prompt, record.completion) == (exact, affords)
        assert record.outcome == "completed"
        assert record.clamped
        assert record.total_cost == cost(exact, affords) == usage["total_cost"]
        assert usage["cost"] == pytest.approx(record.total_cost / 10**9)
        assert balance(c, poor.account) == cost(prompt - exact, 0) >= 0


@pytest.mark.parametrize("kind", ["scripted"])
@pytest.mark.parametrize("known", ["exact", "less"])
@pytest.mark.parametrize("dialect", list(ASKED))
async def test_without_the_price_of_one_token_nothing_is_asked_of_the_engine(
    engine: DemoEngine, dialect: Dialect, known: str
) -> None:
    """The prompt's exact price and a token's is enough; a nano-credit less is 402, and told."""
    body = body_of(dialect, MORE, stream=False)
    async with before(engine) as c:
        rich = await customer(c, 10**9, "rich")
        await ask(c, rich.asks(body | {LIMITS[dialect]: 1}, PATHS[dialect]))
        (record,) = await records(c)
        engine.stats.reset()
        price = cost(record.prompt, 1)
        poor = await customer(c, price - (known == "less"), "poor")
        answer = await ask(c, poor.asks(body, PATHS[dialect]))
        asked = [entry["path"] for entry in engine.stats.history]
        if known == "exact":  # one token is what there is
            assert answer.status == 200
            assert balance(c, poor.account) == 0
            assert asked[-1] == PATHS[dialect]
        else:
            assert answer.status == 402
            assert f"needs {price / 10**9:.10f}".rstrip("0") in answer.json["error"]["message"]
            assert PATHS[dialect] not in asked
            assert balance(c, poor.account) == poor.credit


def whole(dialect: Dialect, answer: Answer) -> dict[str, Any]:
    """The usage of an answer that ended by length."""
    told: dict[str, Any] = answer.json
    if dialect in (Dialect.CHAT, Dialect.COMPLETIONS):
        assert [choice["finish_reason"] for choice in told["choices"]] == ["length"]
    elif dialect is Dialect.RESPONSES:
        assert told["status"] == "incomplete"
        assert told["incomplete_details"] == {"reason": "max_output_tokens"}
    else:
        assert told["stop_reason"] == "max_tokens"
    usage: dict[str, Any] = told["usage"]
    return usage


def streamed(dialect: Dialect, answer: Answer) -> dict[str, Any]:
    """The same of a stream, whose end mark is its last event."""
    names = [line[7:] for line in answer.body.decode().splitlines() if line.startswith("event: ")]
    datas = [line[6:] for line in answer.body.decode().splitlines() if line.startswith("data: ")]
    events = [json.loads(data) for data in datas if data != "[DONE]"]
    if dialect in (Dialect.CHAT, Dialect.COMPLETIONS):
        assert datas[-1] == "[DONE]"
        reasons = [c["finish_reason"] for event in events for c in event["choices"]]
        assert [reason for reason in reasons if reason] == ["length"]
        usage: dict[str, Any] = events[-1]["usage"]
    elif dialect is Dialect.RESPONSES:
        response = events[-1]["response"]
        assert names[-1] == events[-1]["type"] in ("response.incomplete", "response.completed")
        assert response["status"] == "incomplete"  # vLLM calls the event by the other name
        assert response["incomplete_details"] == {"reason": "max_output_tokens"}
        usage = response["usage"]
    else:
        assert names[-2:] == ["message_delta", "message_stop"]
        assert events[-2]["delta"]["stop_reason"] == "max_tokens"
        usage = events[-2]["usage"]
    return usage


@pytest.mark.parametrize("stream", [False, True])
async def test_several_choices_share_what_there_is(stream: bool) -> None:
    """Four choices of an account with credit for 100 tokens: each ends at its 25th."""
    choices = 4
    body = body_of(Dialect.CHAT, MORE, stream=stream) | {"n": choices}
    engine = DemoEngine(EngineOptions(script=Script(tokens=MORE)))
    async with before(engine) as c:
        bound = bound_of(Dialect.CHAT, body, engine.options.context_length)
        poor = await customer(c, cost(bound, choices * AFFORDED))
        answer = await c.ask(poor.asks(body))
        assert answer.status == 200
        (record,) = await records(c)
        assert record.completion == choices * AFFORDED
        assert record.outcome == "completed"
        assert answer.body.count(b'"finish_reason":"length"') == choices


async def test_thinking_is_lowered_with_the_limit() -> None:
    """Anthropic's budget of thinking has to stay below ``max_tokens``, whoever lowered that."""
    body = body_of(Dialect.MESSAGES, 5000, stream=True)
    body["thinking"] = {"type": "enabled", "budget_tokens": 4000}
    engine = DemoEngine(EngineOptions(script=Script(tokens=MORE, reasoning=10)))
    async with before(engine) as c:
        bound = bound_of(Dialect.MESSAGES, body, engine.options.context_length)
        poor = await customer(c, cost(bound, 2000))
        answer = await c.ask(poor.asks(body, "/v1/messages"))
        assert answer.status == 200
        (sent,) = [e["body"] for e in engine.stats.history if e["path"] == "/v1/messages"]
        asked = json.loads(sent)
        assert asked["max_tokens"] == 2000
        assert 1024 <= asked["thinking"]["budget_tokens"] < 2000
