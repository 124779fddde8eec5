"""The demonstration engine over real sockets: dialects, faults, cancellation, its own counters."""

import asyncio
import base64
import json
import signal
import subprocess
import sys
from array import array
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import httpx
import openai
import pytest
from tests.demo_model import MODEL_WAIT_S, loaded_model

from filature.demo.model import ModelBackend
from filature.demo.options import Script
from filature.demo.server import DemoEngine, EngineOptions
from filature.wire.engine_load import told_load

WAIT_S = 10.0
"""Reaching it is a failure."""
HELLO = [{"role": "user", "content": "Tell me about silk."}]
CHAT = "/v1/chat/completions"
STREAMS: dict[str, dict[str, Any]] = {
    CHAT: {"messages": HELLO},
    "/v1/completions": {"prompt": "Silk is", "max_tokens": 20},
    "/v1/responses": {"input": "Tell me about silk."},
    "/v1/messages": {"messages": HELLO, "max_tokens": 20},
}


@asynccontextmanager
async def engine(**script: Any) -> AsyncIterator[DemoEngine]:
    options = EngineOptions(models=("demo", "other"), script=Script(**script))
    running = DemoEngine(options)
    await running.start()
    try:
        yield running
    finally:
        await running.close()


async def raw(running: DemoEngine, path: str, body: dict[str, Any]) -> bytes:
    """All that comes until the engine closes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", running.port)
    payload = json.dumps({"model": "demo", "stream": True} | body)
    head = f"POST {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {len(payload)}\r\n\r\n"
    writer.write((head + payload).encode())
    received = b""
    try:
        async with asyncio.timeout(WAIT_S):
            while data := await reader.read(65536):
                received += data
    finally:
        writer.close()
    return received


async def until(running_engine: DemoEngine, /, **counters: int) -> None:
    async with asyncio.timeout(WAIT_S):
        while any(getattr(running_engine.stats, name) != count for name, count in counters.items()):
            await asyncio.sleep(0.005)


async def post(running: DemoEngine, path: str, body: dict[str, Any]) -> httpx.Response:
    async with httpx.AsyncClient(base_url=running.url, timeout=MODEL_WAIT_S) as client:
        return await client.post(path, json={"model": "demo"} | body)


# Dialects


@pytest.mark.parametrize("path", STREAMS)
async def test_streamed_and_whole_answers_agree(path: str) -> None:
    body = STREAMS[path]
    if path in (CHAT, "/v1/completions"):
        body = body | {"stream_options": {"include_usage": True}}
    async with engine() as running:
        streamed = await post(running, path, body | {"stream": True})
        whole = await post(running, path, {k: v for k, v in body.items() if k != "stream_options"})
    assert streamed.headers["content-type"].startswith("text/event-stream")
    events = [json.loads(line[6:]) for line in streamed.text.splitlines() if line[6:7] == "{"]
    document = whole.json()
    if path == "/v1/responses":
        text = "".join(event["delta"] for event in events if "delta" in event)
        assert text == document["output"][0]["content"][0]["text"]
        assert events[-1]["response"]["usage"] == document["usage"]
    elif path == "/v1/messages":
        deltas = [e["delta"]["text"] for e in events if e["type"] == "content_block_delta"]
        assert "".join(deltas) == document["content"][0]["text"]
        assert events[-2]["usage"] == document["usage"]
    else:
        choices = [event["choices"][0] for event in events if event["choices"]]
        if path == CHAT:
            text = "".join(choice["delta"].get("content", "") for choice in choices)
            assert text == document["choices"][0]["message"]["content"]
        else:
            assert "".join(c["text"] for c in choices) == document["choices"][0]["text"]
        assert events[-1]["usage"].items() <= document["usage"].items()
        assert streamed.text.endswith("data: [DONE]\n\n")


async def test_the_sdk_assembles_text_and_tools() -> None:
    function = {
        "name": "get_weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    }
    async with (
        engine() as running,
        openai.AsyncOpenAI(base_url=running.url + "/v1", api_key="x") as sdk,
    ):
        chat: Any = sdk.chat.completions
        async with chat.stream(model="demo", messages=HELLO) as stream:
            whole = await stream.get_final_completion()
        assert len(whole.choices[0].message.content) > 20
        tools = [{"type": "function", "function": function}]
        called = await chat.create(model="demo", messages=HELLO, tools=tools)
        (call,) = called.choices[0].message.tool_calls
        assert set(json.loads(call.function.arguments)) == {"city"}
        responses: Any = sdk.responses
        flat = [{"type": "function", **function}]
        async with responses.stream(model="demo", input="weather", tools=flat) as stream:
            response = await stream.get_final_response()
        assert json.loads(response.output[0].arguments).keys() == {"city"}
        models = [model.id async for model in sdk.models.list()]
    assert models == ["demo", "other"]


async def test_embeddings_in_both_encodings() -> None:
    async with engine() as running:
        body = {"input": ["silk", "thread"], "dimensions": 8}
        numbers = (await post(running, "/v1/embeddings", body)).json()
        encoded = await post(running, "/v1/embeddings", body | {"encoding_format": "base64"})
    assert numbers["usage"]["prompt_tokens"] == 2
    for plain, packed in zip(numbers["data"], encoded.json()["data"], strict=True):
        vector = array("f", base64.b64decode(packed["embedding"]))
        assert list(vector) == pytest.approx(plain["embedding"], abs=1e-6)
        assert sum(value * value for value in plain["embedding"]) == pytest.approx(1.0)


async def test_tokens_are_counted_alike_everywhere() -> None:
    async with engine() as running:
        counted = await post(running, "/v1/messages/count_tokens", {"messages": HELLO})
        answered = await post(running, "/v1/messages", STREAMS["/v1/messages"])
        tokenized = await post(running, "/tokenize", {"prompt": "Say hello"})
    assert counted.json()["input_tokens"] == answered.json()["usage"]["input_tokens"]
    assert tokenized.json()["count"] == len(tokenized.json()["tokens"]) == 2


async def test_pages_and_refusals() -> None:
    async with engine() as running, httpx.AsyncClient(base_url=running.url) as client:
        models = (await client.get("/v1/models")).json()["data"]
        assert [model["id"] for model in models] == ["demo", "other"]
        assert models[0]["max_model_len"] == 8192
        assert (await client.get("/health")).status_code == 200
        assert told_load((await client.get("/metrics")).content) == 0
        assert (await client.get("/v1/nope")).json() == {"detail": "Not Found"}
        wrong = await client.get(CHAT)
        assert (wrong.status_code, wrong.headers["allow"]) == (405, "POST")
        unknown = await client.post(CHAT, json={"model": "nope", "messages": HELLO})
        assert unknown.status_code == 404
        assert unknown.json()["error"]["param"] == "model"
        long = [{"role": "user", "content": "word " * 9000}]
        refused = await client.post(CHAT, json={"model": "demo", "messages": long})
        assert "maximum context length" in refused.json()["error"]["message"]
        bad = await client.post(CHAT, json={"messages": HELLO, "x_demo": {"nonsense": 1}})
        assert bad.status_code == 400
        stats = (await client.get("/demo/stats")).json()
        assert (stats["requests"], stats["refused"]) == (3, 3)
        await client.post("/demo/reset")
        stats = (await client.get("/demo/stats")).json()
        assert (stats["requests"], stats["connections"]) == (0, 1)


# HTTP


async def test_requests_on_one_connection_are_answered_in_order() -> None:
    async with engine() as running:
        reader, writer = await asyncio.open_connection("127.0.0.1", running.port)
        for count in range(1, 40):
            body = json.dumps({"messages": HELLO, "x_demo": {"text": f"<{count}>"}})
            writer.write(
                f"POST {CHAT} HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\n\r\n{body}".encode()
            )
        received = b""
        async with asyncio.timeout(WAIT_S):
            while b"<39>" not in received:
                received += await reader.read(65536)
        writer.close()
    places = [received.index(b'"<%d>"' % count) for count in range(1, 40)]
    assert places == sorted(places)


async def test_http_1_0_and_garbage_close() -> None:
    async with engine() as running:
        for request, start in (
            (b"GET /health HTTP/1.0\r\n\r\n", b"HTTP/1.1 200"),
            (b"\x00\x01\r\n\r\n", b"HTTP/1.1 400"),
        ):
            reader, writer = await asyncio.open_connection("127.0.0.1", running.port)
            writer.write(request)
            async with asyncio.timeout(WAIT_S):
                assert (await reader.read()).startswith(start)
            writer.close()


# Faults


@pytest.mark.parametrize("path", STREAMS)
@pytest.mark.parametrize(
    ("fault", "end"),
    [
        ("error-frame", b"failed on demand"),
        ("error-then-done", b"[DONE]"),
        ("error-string", b'{"error":"the engine failed on demand"}'),
    ],
)
async def test_errors_in_the_stream(path: str, fault: str, end: bytes) -> None:
    async with engine() as running:
        body = STREAMS[path] | {"x_demo": {"fault": fault, "after": 2}}
        received = await raw(running, path, body)
        await until(running, failed=1, running=0)
    assert received.endswith(b"\n\n\r\n0\r\n\r\n")
    assert end in received.split(b"\r\n")[-4]
    assert received.count(b'"delta":') + received.count(b'"text":"') > 1


@pytest.mark.parametrize("after", [-1, 0, 2])
async def test_a_cut_comes_after_so_many_events(after: int) -> None:
    async with engine() as running:
        received = await raw(
            running, CHAT, {"messages": HELLO, "x_demo": {"fault": "cut", "after": after}}
        )
    events = received.partition(b"\r\n\r\n")[2].count(b"data: ")
    assert events == after + 1  # the role's is one
    assert not received.endswith(b"0\r\n\r\n")


async def test_a_reset_is_a_reset() -> None:
    async with engine() as running:
        with pytest.raises(ConnectionResetError):
            await raw(
                running,
                CHAT,
                {"messages": HELLO, "x_demo": {"fault": "reset", "after": 1, "tps": 50}},
            )


async def test_other_ends() -> None:
    async def ask(**script: Any) -> bytes:
        return await raw(running, CHAT, {"messages": HELLO, "x_demo": script})

    async with engine() as running:
        assert await ask(fault="refuse") == b""
        assert not (await ask(fault="garbage")).startswith(b"HTTP")
        assert b"zz this is not HTTP" in await ask(fault="garbage", after=1)
        empty = await ask(fault="empty-200")
        assert empty.startswith(b"HTTP/1.1 200")
        assert empty.endswith(b"\r\n\r\n0\r\n\r\n")
        assert b"[DONE]" not in await ask(fault="no-done")
        half = await ask(fault="half-event", after=1)
        assert half.endswith(b"\r\n0\r\n\r\n")
        assert not half.endswith(b"\n\n\r\n0\r\n\r\n")
        limited = await ask(status=429)
        assert limited.startswith(b"HTTP/1.1 429")
        assert b"retry-after: 1" in limited
        for by in (10, -10):
            head, _, body = (await ask(fault="wrong-length", by=by)).partition(b"\r\n\r\n")
            told = int(head.partition(b"content-length: ")[2].partition(b"\r\n")[0])
            assert told - len(body) == by
        long = await ask(fault="big-line", size=1_000_000, after=1)
        assert long.count(b"x") >= 1_000_000


async def test_faults_of_whole_answers() -> None:
    async def ask(**script: Any) -> bytes:
        body = {"messages": HELLO, "stream": False, "x_demo": script}
        return await raw(running, CHAT, body)

    async with engine() as running:
        assert (await ask(fault="empty-200")).endswith(
            b"content-length: 0\r\nconnection: close\r\n\r\n"
        )
        assert b'{"error":"the engine failed on demand"}' in await ask(fault="error-string")
        for fault in ("cut", "wrong-length"):
            head, _, body = (await ask(fault=fault)).partition(b"\r\n\r\n")
            told = int(head.partition(b"content-length: ")[2].partition(b"\r\n")[0])
            assert told > len(body) > 0


async def test_a_model_name_carries_a_fault_and_fails_so_many_times() -> None:
    async with engine() as running:
        name = "other/status=503;fail_times=2;key=k"
        answers = [await post(running, CHAT, {"model": name, "messages": HELLO}) for _ in range(3)]
        assert [answer.status_code for answer in answers] == [503, 503, 200]
        assert answers[-1].json()["model"] == name
        assert (running.stats.failed, running.stats.completed) == (2, 1)


@pytest.mark.parametrize("fault", ["stall", "stall-pings", "none"])
async def test_leaving_reaches_the_engine(fault: str) -> None:
    async with engine() as running:
        reader, writer = await asyncio.open_connection("127.0.0.1", running.port)
        script = {"fault": fault, "after": 1, "ping_s": 0.01, "tps": 20, "tokens": 1000}
        body = json.dumps({"messages": HELLO, "stream": True, "x_demo": script})
        writer.write(
            f"POST {CHAT} HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\n\r\n{body}".encode()
        )
        async with asyncio.timeout(WAIT_S):
            await reader.readuntil(b"data: ")
            if fault == "stall-pings":
                await reader.readuntil(b"\r\n:\n\n\r\n")
        assert running.stats.running == 1
        writer.transport.abort()
        await until(running, running=0, cancelled=1, failed=0)


async def test_a_gigabyte_stops_where_the_reader_does() -> None:
    async with engine() as running:
        reader, writer = await asyncio.open_connection("127.0.0.1", running.port, limit=65536)
        body = json.dumps({"messages": HELLO, "stream": True, "x_demo": {"fault": "big-line"}})
        writer.write(
            f"POST {CHAT} HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\n\r\n{body}".encode()
        )
        async with asyncio.timeout(WAIT_S):
            await reader.readexactly(300_000)
        (connection,) = running._connections
        async with asyncio.timeout(WAIT_S):
            while not connection.is_paused:
                await asyncio.sleep(0.005)
        writer.transport.abort()
        await until(running, running=0, cancelled=1)


# What it tells


async def test_what_crossed_is_told() -> None:
    async with engine() as running:
        async with httpx.AsyncClient(base_url=running.url, timeout=MODEL_WAIT_S) as client:
            await client.post(CHAT + "?q=1", json={"messages": HELLO}, headers={"X-Secret": "s"})
            told = (await client.get("/demo/stats")).json()["last_request"]
        assert told["path"] == CHAT
        assert told["query"] == "q=1"
        assert told["body"] == {"messages": HELLO}
        assert ["x-secret", "s"] in told["headers"]
        assert json.loads(running.stats.history[-1]["body"]) == told["body"]


async def test_closing_leaves_nothing_behind() -> None:
    running = DemoEngine(EngineOptions(script=Script(tokens=1000, tokens_per_second=10)))
    await running.start()
    reader, writer = await asyncio.open_connection("127.0.0.1", running.port)
    body = json.dumps({"messages": HELLO, "stream": True})
    writer.write(
        f"POST {CHAT} HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\n\r\n{body}".encode()
    )
    await reader.readuntil(b"data: ")
    await running.close()
    assert (running.stats.running, running.stats.connections) == (0, 0)
    async with asyncio.timeout(WAIT_S):
        with suppress(ConnectionResetError):
            assert b"[DONE]" not in await reader.read()
    writer.close()
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", running.port)


# The real model, where it is installed


@pytest.fixture(scope="module")
def model() -> Iterator[ModelBackend]:
    with loaded_model() as loaded:
        yield loaded


async def test_the_model_answers_in_all_dialects(model: ModelBackend) -> None:
    running = DemoEngine(EngineOptions(context_length=2048), model=model)
    await running.start()
    try:
        question = [{"role": "user", "content": "What is 2+2?"}]
        fixed = {"temperature": 0, "messages": question, "input": question, "max_tokens": 24}
        fixed["max_output_tokens"] = 24
        chat = (await post(running, CHAT, fixed)).json()
        text = chat["choices"][0]["message"]["content"]
        assert "4" in text
        usage = chat["usage"]
        assert usage["prompt_tokens"] > 20
        assert 0 < usage["completion_tokens"] <= 24
        message = (await post(running, "/v1/messages", fixed)).json()
        response = (await post(running, "/v1/responses", fixed)).json()
        assert message["content"][0]["text"] == text
        assert response["output"][0]["content"][0]["text"] == text
        for told in (message["usage"], response["usage"]):
            assert told["input_tokens"] == usage["prompt_tokens"]
            assert told["output_tokens"] == usage["completion_tokens"]
        counted = (await post(running, "/v1/messages/count_tokens", fixed)).json()
        assert counted["input_tokens"] == usage["prompt_tokens"]

        options = {"include_usage": True, "continuous_usage_stats": True}
        body = fixed | {"stream": True, "stream_options": options}
        streamed = (await post(running, CHAT, body)).text
        events = [json.loads(line[6:]) for line in streamed.splitlines() if line[6:7] == "{"]
        parts = [e["choices"][0]["delta"].get("content", "") for e in events if e["choices"]]
        assert "".join(parts) == text
        assert sum(map(bool, parts)) > 3
        counts = [event["usage"]["completion_tokens"] for event in events]
        assert counts == sorted(counts)
        assert events[-1]["usage"].items() <= usage.items()

        prompts = {"prompt": ["Once upon a time", "Once upon a time"], "max_tokens": 4}
        completion = (await post(running, "/v1/completions", prompts | {"temperature": 0})).json()
        texts = [choice["text"] for choice in completion["choices"]]
        assert texts[0] == texts[1]
        assert completion["usage"]["completion_tokens"] == 8

        for path, extra in (
            ("/v1/embeddings", {}),
            (CHAT, {"x_demo": {"fault": "cut"}}),
            (CHAT, {"messages": [{"role": "user", "content": "word " * 3000}]}),
        ):
            assert (await post(running, path, fixed | extra)).status_code == 400
    finally:
        await running.close()


async def test_leaving_the_model_ends_its_generation(model: ModelBackend) -> None:
    running = DemoEngine(model=model)
    await running.start()
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", running.port)
        body = json.dumps({"messages": HELLO, "stream": True, "ignore_eos": True})
        writer.write(
            f"POST {CHAT} HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\n\r\n{body}".encode()
        )
        async with asyncio.timeout(MODEL_WAIT_S):
            await reader.readuntil(b'"content":"')
        assert (running.stats.running, len(model._generating)) == (1, 1)
        writer.transport.abort()
        await until(running, running=0, cancelled=1)
        async with asyncio.timeout(MODEL_WAIT_S):
            while model._generating:
                await asyncio.sleep(0.01)
    finally:
        await running.close()


# As a process


def test_the_command_tells_where_it_listens_and_ends_on_a_signal() -> None:
    command = [sys.executable, "-m", "filature", "demo-engine", "--port=0"]
    command += ["--backend=scripted", "--model=m", "--tokens-per-second=0", "--usage=finish"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        url = process.stdout.readline().strip().rpartition(" ")[2]
        assert "scripted" in process.stdout.readline()
        body = {"model": "m", "messages": HELLO, "stream": True}
        answer = httpx.post(url + CHAT, json=body)
        assert '"usage":{' in answer.text
        process.send_signal(signal.SIGTERM)
        assert process.wait(WAIT_S) == 0
