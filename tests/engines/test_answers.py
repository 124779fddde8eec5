"""Whole answers of real engines, through the chain: unbroken, one event at a time, metered and priced."""

import json
from typing import Any

import pytest
from tests.engines.chain import REQUEST_PRICE_NANO, Answer, Chain
from tests.engines.reading import (
    Counts,
    Json,
    cost,
    counts,
    engine_usage,
    events,
    payloads,
    text_of,
    usages,
)
from tests.engines.tap import Exchange

CHAT = "/v1/chat/completions"
COMPLETIONS = "/v1/completions"
HELLO = [{"role": "user", "content": "Say hello, and name three rivers."}]
TOOL = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string", "enum": ["Paris", "Rome"]}},
            "required": ["city"],
        },
    },
}


def chat(**members: Any) -> Json:
    return {"messages": HELLO, "max_tokens": 16, "temperature": 0, **members}


def has_cost(usage: Json, used: Counts) -> None:
    """The usage is what the engine said, and the cost what the prices say."""
    assert counts(usage) == used
    assert usage["total_cost"] == cost(used)
    assert (
        usage["prompt_total_cost"] + usage["completion_total_cost"]
        == cost(used) - REQUEST_PRICE_NANO
    )
    assert round(usage["cost"] * 10**9) == cost(used)
    assert list(usage)[-4:] == ["prompt_total_cost", "completion_total_cost", "total_cost", "cost"]


def is_recorded(running: Chain, answer: Answer, used: Counts, *, streamed: bool) -> Json:
    """The record tells the same as the answer."""
    record = running.record(answer)
    assert record["outcome"] == "completed"
    assert record["model"] == running.model
    assert record["streamed"] is streamed
    usage = record["usage"]
    assert usage["estimated"] is False
    assert (
        Counts(usage["prompt_tokens"], usage["cached_tokens"], usage["completion_tokens"]) == used
    )
    assert usage["total_cost"] == cost(used)
    return record


def engine_body(exchange: Exchange) -> bytes:
    status, body, whole = exchange.decoded()
    assert status == 200
    assert whole
    return body


def test_the_model_is_listed(running: Chain) -> None:
    response = running.client.get("/v1/models")
    assert response.headers["content-type"].startswith("application/json")
    assert running.model in [model["id"] for model in response.json()["data"]]


def test_a_stream_with_usage(running: Chain) -> None:
    answer, exchange = running.ask(CHAT, chat(stream=True, stream_options={"include_usage": True}))
    assert answer.status == 200
    assert answer.whole
    assert answer.headers["content-type"].startswith("text/event-stream")
    said = engine_body(exchange)
    sent = payloads(answer.body)
    assert text_of(sent)
    assert text_of(sent) == text_of(payloads(said))
    assert {chunk["model"] for chunk in sent} == {running.model}
    assert sent[-1]["choices"] == []
    assert len(usages(sent)) == 1
    used = engine_usage(said)
    has_cost(sent[-1]["usage"], used)
    reasons = [choice.get("finish_reason") for chunk in sent for choice in chunk["choices"]]
    assert [reason for reason in reasons if reason] in (["stop"], ["length"])
    # an end mark is passed where there is one, and never made up
    assert answer.body.count(b"[DONE]") == said.count(b"[DONE]")
    record = is_recorded(running, answer, used, streamed=True)
    assert record["timings"]["first_content_s"] <= record["timings"]["total_s"]


def test_a_stream_without_usage(running: Chain) -> None:
    answer, exchange = running.ask(CHAT, chat(stream=True))
    said = engine_body(exchange)
    sent = payloads(answer.body)
    assert text_of(sent) == text_of(payloads(said)) != ""
    assert all(chunk["choices"] for chunk in sent)
    assert not usages(sent)
    used = engine_usage(said)
    comments = [event.comment for event in events(answer.body) if event.comment]
    told = [text for text in comments if text.startswith("filature ")]
    assert len(told) == 1
    has_cost(json.loads(told[0].removeprefix("filature "))["usage"], used)
    is_recorded(running, answer, used, streamed=True)


def test_a_whole_answer(running: Chain) -> None:
    answer, exchange = running.ask(CHAT, chat())
    assert answer.status == 200
    assert answer.headers["content-type"].startswith("application/json")
    said = json.loads(engine_body(exchange))
    sent = answer.json()
    used = engine_usage(engine_body(exchange))
    has_cost(sent["usage"], used)
    assert {**sent, "usage": 0, "model": 0} == {**said, "usage": 0, "model": 0}
    assert sent["model"] == running.model
    is_recorded(running, answer, used, streamed=False)


def test_events_arrive_one_by_one(running: Chain) -> None:
    answer, exchange = running.ask(CHAT, chat(stream=True, max_tokens=24))
    arrived = [at for at, data in answer.reads if b"data:" in data]
    said = [at for at, data in exchange.answer if b"data:" in data]
    assert len(arrived) >= 8
    # Before the engine was done, the client had read most of it: nothing waits for the end.
    assert sum(at < said[-1] for at in arrived) > len(said) // 2
    assert len(arrived) > len(said) // 2


def test_max_tokens(running: Chain) -> None:
    answer, exchange = running.ask(CHAT, chat(max_tokens=5))
    assert json.loads(exchange.body_of_request())["max_tokens"] == 5
    assert answer.json()["usage"]["completion_tokens"] == 5
    assert answer.json()["choices"][0]["finish_reason"] == "length"


def test_the_engine_is_asked_for_its_own_name(running: Chain) -> None:
    _, exchange = running.ask(CHAT, chat())
    assert json.loads(exchange.body_of_request()) == chat() | {"model": running.upstream}


@pytest.mark.parametrize("stream", [False, True])
def test_completions(running: Chain, stream: bool) -> None:
    options = {"stream": True, "stream_options": {"include_usage": True}} if stream else {}
    body = {"prompt": "Once upon a time", "max_tokens": 12, "temperature": 0, **options}
    answer, exchange = running.ask(COMPLETIONS, body)
    assert answer.status == 200
    said = engine_body(exchange)
    read = payloads if stream else lambda whole: [json.loads(whole)]
    assert text_of(read(answer.body)) == text_of(read(said)) != ""
    used = engine_usage(said)
    has_cost(usages(read(answer.body))[-1], used)
    is_recorded(running, answer, used, streamed=stream)


@pytest.mark.engine.with_args(lambda kind: "responses" in kind.dialects)
def test_responses(running: Chain) -> None:
    body = {"input": "Say hello.", "max_output_tokens": 12, "stream": True}
    answer, exchange = running.ask("/v1/responses", body)
    said = engine_body(exchange)
    sent = payloads(answer.body)
    assert [one["type"] for one in sent] == [one["type"] for one in payloads(said)]
    assert sent[-1]["type"] in ("response.completed", "response.incomplete")
    assert text_of(sent) == text_of(payloads(said)) != ""
    used = engine_usage(said)
    has_cost(sent[-1]["response"]["usage"], used)
    is_recorded(running, answer, used, streamed=True)


@pytest.mark.engine.with_args(lambda kind: "messages" in kind.dialects)
def test_messages(running: Chain) -> None:
    body = {"messages": HELLO, "max_tokens": 12, "stream": True}
    answer, exchange = running.ask("/v1/messages", body)
    said = engine_body(exchange)
    sent = payloads(answer.body)
    assert [one["type"] for one in sent] == [one["type"] for one in payloads(said)]
    assert sent[-1]["type"] == "message_stop"
    assert text_of(sent) == text_of(payloads(said)) != ""
    record = is_recorded(running, answer, engine_usage_of_messages(said), streamed=True)
    final = usages(sent)[-1]
    assert final["output_tokens"] == record["usage"]["completion_tokens"]
    assert final["total_cost"] == record["usage"]["total_cost"]
    assert "total_cost" not in sent[0]["message"]["usage"]


def engine_usage_of_messages(said: bytes) -> Counts:
    """The prompt is told at the start, the completion at the end."""
    told = usages(payloads(said))
    return counts({**told[0], **told[-1]})


@pytest.mark.engine.with_args(lambda kind: "messages" not in kind.dialects and bool(kind.command))
def test_a_dialect_that_the_engine_lacks(running: Chain) -> None:
    answer, exchange = running.ask("/v1/messages", {"messages": HELLO, "max_tokens": 12})
    assert exchange.decoded()[0] == 404
    assert answer.status in (502, 503)
    assert answer.json()["type"] == "error"
    assert running.record(answer)["outcome"] == "refused_by_engine"
    # the engine is not set aside for it
    assert running.ask(CHAT, chat())[0].status == 200


def test_tools(running: Chain) -> None:
    options = {"tools": [TOOL], "stream": True, "stream_options": {"include_usage": True}}
    if running.kind.calls_tools:
        options["tool_choice"] = "required"
    answer, exchange = running.ask(
        CHAT, chat(max_tokens=48 if running.kind.calls_tools else 8, **options)
    )
    assert answer.status == 200
    said = engine_body(exchange)
    assert tool_calls(payloads(answer.body)) == tool_calls(payloads(said))
    assert bool(tool_calls(payloads(said))) or not running.kind.calls_tools
    used = engine_usage(said)
    has_cost(usages(payloads(answer.body))[-1], used)
    is_recorded(running, answer, used, streamed=True)


def tool_calls(chunks: list[Json]) -> list[Json]:
    return [
        call
        for chunk in chunks
        for choice in chunk["choices"]
        for call in choice["delta"].get("tool_calls") or ()
    ]
