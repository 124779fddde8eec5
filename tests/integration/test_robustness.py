"""Any cut of the bytes gives the same answers; garbage from either side gives an answer or a close.

Seeds are the tests' parameters, so that a failing one is in the test's name.
"""

import asyncio
import random
import re
from typing import Any, Final

import pytest
from tests.integration.harness import Chain, EngineRequest, RawEngine, chain
from tests.integration.messages import (
    CHAT,
    DONE,
    LAST_CHUNK,
    STREAM,
    STREAM_HEAD,
    WITH_USAGE,
    chunked,
    completion,
    delta,
    get,
    json_answer,
    post,
    stream_answer,
    tokens,
    usage_event,
)

CHUNKED_POST: Final = (
    b"POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
    + chunked(b'{"model":"m",')
    + b'1c;ext="a;b"\r\n'
    + b'"messages":[{"role":"user",\r\n'.replace(b"\r\n", b" ")
    + b"\r\n"
    + chunked(b'"content":"x"}]}')
    + b"0\r\nX-Trailer: 1\r\n\r\n"
)
REQUESTS: Final = [
    post(CHAT),
    post(STREAM),
    post(WITH_USAGE),
    post(CHAT | {"messages": [{"role": "user", "content": "long " * 2000}]}),
    CHUNKED_POST,
    get("/v1/models"),
    get("/health", method="HEAD"),
    get("/nowhere"),
    get("/v1/chat/completions"),
    get("/v1/chat/completions", method="OPTIONS"),
    post(b"{"),
    post({"model": "none", "messages": []}),
    post(
        {"model": "m", "max_tokens": 5, "messages": [{"role": "user", "content": "x"}]},
        "/v1/messages",
    ),
    b"\r\n" + get("/health"),
]
SAID: Final = [
    delta("a", usage=tokens(9, 1)),
    b": ping\n\n",
    delta("b"),
    delta("", finish="stop"),
    usage_event(9, 2),
    DONE,
]


async def honest(request: EngineRequest, writer: asyncio.StreamWriter) -> None:
    streams = b'"stream": true' in request.body
    writer.write(stream_answer(SAID) if streams else json_answer(completion("hi")))


def cut(data: bytes, choose: random.Random) -> list[bytes]:
    """The same bytes in pieces."""
    size = choose.choice([1, 3, 40, 1000])
    pieces = []
    while data:
        length = choose.randint(1, 2 * size)
        pieces.append(data[:length])
        data = data[length:]
    return pieces


_VARYING: Final = re.compile(
    rb"(?<=\r\nx-request-id: )\S+|(?<=\r\ndate: )[^\r]+|(?<=\r\n)[0-9a-f]+\r\n(?=data|: )|(?<=\n\n)\r\n(?:0\r\n\r\n)?"
)
"""What two runs may differ in: ids, dates, and where a stream is cut into chunks."""


def same(answers: bytes) -> bytes:
    return _VARYING.sub(b"", answers)


async def all_answers(c: Chain, pieces: list[bytes]) -> bytes:
    client = await c.connect()
    for piece in pieces:
        if client.writer.transport.is_closing():
            break
        client.send(piece)
        await asyncio.sleep(0)
    return await client.eof()


@pytest.mark.parametrize("seed", range(12))
async def test_pipelined_requests_cut_anywhere_get_the_same_answers(seed: int) -> None:
    choose = random.Random(seed)
    requests = choose.choices(REQUESTS, k=12)
    data = b"".join(requests) + get("/health", headers="Connection: close\r\n")
    async with chain(honest) as c:
        expected = same(await all_answers(c, [data]))
        assert len(re.findall(rb"HTTP/1\.1 \d\d\d ", expected)) == 13
        for _ in range(4):
            assert same(await all_answers(c, cut(data, choose))) == expected


SPECIAL: Final = [
    b"\r\n", b"\n", b"\r", b"\0", b" ", b"\t", b":", b",", b";", b"\xff", b"\r\n\r\n", b"Content-Length: 5\r\n",
    b"Transfer-Encoding: chunked\r\n", b"Connection: close\r\n", b"Expect: 100-continue\r\n", b"Upgrade: h2c\r\n",
    b"0\r\n\r\n", b"ffffffffffffffff\r\n", b"HTTP/1.1", b"GET ", b"data: ", b"[DONE]", b"{", b'"', b"}", b"\\",
    b"\xef\xbb\xbf",
]  # fmt: skip


def spoilt(data: bytes, choose: random.Random) -> bytes:
    """The bytes with a few things wrong."""
    broken = bytearray(data)
    for _ in range(choose.randint(1, 4)):
        at = choose.randrange(len(broken) + 1)
        until = min(len(broken), at + choose.choice([1, 1, 2, 10, 100]))
        what = choose.randrange(5)
        if what == 0:
            broken[at:until] = b""
        elif what == 1:
            broken[at:at] = choose.choice(SPECIAL)
        elif what == 2:
            broken[at:until] = choose.randbytes(until - at)
        elif what == 3:
            broken[at:at] = broken[at:until]
        else:
            del broken[at:]
    return bytes(broken)


CLIENTS_DEADLINES: Final[dict[str, Any]] = {"head_s": 0.2, "idle_s": 0.2, "body_idle_s": 0.2}
SHORT_DEADLINES: Final = CLIENTS_DEADLINES | {
    "first_byte_s": 0.2,
    "progress_s": 0.2,
    "ping_s": 0.1,
}


async def in_time(c: Chain, data: bytes, choose: random.Random) -> None:
    """Whatever was sent, the connection ends by itself, and what came is a row of answers."""
    answers = (
        await all_answers(c, cut(data, choose))
        if choose.random() < 0.7
        else await all_answers(c, [data])
    )
    assert not answers or answers.startswith(b"HTTP/1.1 "), (data, answers[:200])


@pytest.mark.parametrize("seed", range(4))
async def test_garbage_from_a_client_gets_an_answer_or_a_close(seed: int) -> None:
    choose = random.Random(seed)
    async with chain(honest, **CLIENTS_DEADLINES) as c:
        tries = []
        for _ in range(150):
            data = b"".join(choose.choices(REQUESTS, k=choose.randint(1, 3)))
            if choose.random() < 0.1:
                data = choose.randbytes(choose.randint(1, 400))
            tries.append(in_time(c, spoilt(data, choose), choose))
        await asyncio.gather(*tries)
        answer = await c.ask(post(CHAT))
        assert answer.status == 200
        for record in c.proxy.usage._records.values():
            assert record.outcome in ("completed", "refused", "client_gone"), record


ENGINE_ANSWERS: Final = [
    stream_answer(SAID),
    STREAM_HEAD + chunked(b"".join(SAID)) + LAST_CHUNK,
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n" + b"".join(SAID),
    json_answer(completion("hi")),
    json_answer({"error": {"message": "no"}}, "400 No"),
    json_answer({"error": "no"}, "503 No", "Retry-After: 9\r\n"),
    b"HTTP/1.1 100 Continue\r\n\r\n" + json_answer(completion("hi")),
    stream_answer([delta("a"), b'data: {"error": {"message": "dead"}}\n\n', DONE]),
]


@pytest.mark.parametrize("seed", range(4))
async def test_garbage_from_an_engine_is_never_garbage_in_http(seed: int) -> None:
    choose = random.Random(seed)

    async def broken(request: EngineRequest, writer: asyncio.StreamWriter) -> None:
        data = choose.choice(ENGINE_ANSWERS)
        if choose.random() < 0.8:
            data = spoilt(data, choose)
        for piece in cut(data, choose) if choose.random() < 0.3 else [data]:
            if writer.is_closing():
                return
            writer.write(piece)
            await asyncio.sleep(0)
        if choose.random() < 0.7:
            writer.close()

    engines = [RawEngine(broken, suffix="=m") for _ in range(2)]
    async with chain(*engines, **SHORT_DEADLINES) as c:

        async def ask(payload: object) -> None:
            client = await c.connect()
            client.send(post(payload, headers="Connection: close\r\n"))
            answer = await client.answer()
            assert answer.status in (200, 400, 413, 422, 502, 503, 504), answer
            assert await client.eof() == b""
            record = await c.usage(answer.request_id)
            if record["outcome"] == "completed":
                assert answer.complete
                assert answer.status == 200
            else:
                assert DONE not in answer.events
                assert record["usage"]["total_cost"] == 0
                assert not answer.complete or b"error" in answer.body

        await asyncio.gather(*[ask(choose.choice([CHAT, STREAM, WITH_USAGE])) for _ in range(120)])
