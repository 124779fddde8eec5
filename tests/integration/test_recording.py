"""A worker and a client that record every byte: neither finds in it what is the other's, or another's."""

import asyncio
import json
from itertools import product
from typing import Any, Final

import pytest
from tests.integration.accounts import CREDIT, Customer, customer
from tests.integration.harness import RawEngine, says
from tests.integration.messages import (
    CHAT,
    DONE,
    SHORT_STREAM,
    completion,
    event,
    json_answer,
    post,
    stream_answer,
)
from tests.integration.network import Fake, Network, network

ADDRESS: Final = "127.0.0.77"
"""The client's."""
COOKIE: Final = "session=planted-cookie"
OTHER_KEY: Final = "sk-planted-for-another"
OWN_ID: Final = "the-client-s-own-id"
FORWARDED: Final = "203.0.113.9"
ENGINE_KEY: Final = "planted-engine-key"
PROMPT: Final = "a prompt that crosses"
MESSAGES: Final = [{"role": "user", "content": PROMPT}]
ASKED: Final[dict[str, dict[str, Any]]] = {
    "/v1/chat/completions": {"messages": MESSAGES},
    "/v1/completions": {"prompt": PROMPT, "max_tokens": 5},
    "/v1/responses": {"input": PROMPT},
    "/v1/messages": {"messages": MESSAGES, "max_tokens": 5},
}
PLANTED: Final = {
    "Cookie": COOKIE,
    "x-api-key": OTHER_KEY,
    "api-key": OTHER_KEY,
    "Proxy-Authorization": f"Bearer {OTHER_KEY}",
    "X-Forwarded-For": FORWARDED,
    "X-Real-IP": FORWARDED,
    "Forwarded": f"for={FORWARDED}",
    "X-Client": COOKIE,
    "X-Request-Id": OWN_ID,
    "User-Agent": COOKIE,
    "Referer": f"http://{FORWARDED}/",
}
TELLING: Final = ("user", "safety_identifier", "prompt_cache_key")
"""Fields that say who asks, or what for."""


async def recorded(net: Network, who: Customer, body: dict[str, Any], path: str) -> bytes:
    """Every byte that a client gets, who gives away all that it can beside what it asks."""
    lines = {**PLANTED, "Authorization": f"Bearer {who.secret}", "Connection": "close"}
    told = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    telling = dict.fromkeys(TELLING, COOKIE) | {"metadata": {"session": COOKIE}}
    asked = body | {"model": "m", "request_guid": OWN_ID} | telling
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", net.chain.proxy.port, local_addr=(ADDRESS, 0)
    )
    writer.write(post(asked, path, headers=told))
    try:
        async with asyncio.timeout(10):
            return await reader.read()
    finally:
        writer.close()


@pytest.mark.parametrize(
    ("path", "stream"), [*product(ASKED, [False, True]), ("/v1/embeddings", False)]
)
async def test_a_worker_that_records_all_finds_nothing_of_its_clients(
    path: str, stream: bool
) -> None:
    """Not even of one that asks for embeddings, which come whole only."""
    answer = stream_answer(SHORT_STREAM) if stream else json_answer(completion("hi", 3, 2))
    async with network(keyless=False) as net:
        who = await customer(net.chain, CREDIT)
        worker = await Fake.join(net, "gpu", coefficient=1000, says=answer)
        asked = ASKED.get(path, {"input": PROMPT})
        body = asked | ({"stream": True} if stream else {})
        assert await recorded(net, who, body, path)
        heard = worker.heard.decode("latin-1")
        assert PROMPT in heard, "it records"
        for secret in (who.secret, OTHER_KEY, COOKIE, OWN_ID, FORWARDED, ADDRESS):
            assert secret not in heard
            assert json.dumps(secret)[1:-1] not in heard
        names = {
            line.partition(":")[0]
            for line in heard.partition("\r\n\r\n")[0].split("\r\n")[1:]
        }  # fmt: skip
        assert names == {
            *("host", "accept-encoding", "content-type", "content-length"),
            *("x-request-id", "x-filature-ticket"),
        }
        await worker.close()


LEAKS: Final = {
    "a whole answer": json_answer(completion("hi", 3, 2)),
    "a stream": stream_answer(SHORT_STREAM),
    "no right": json_answer({"error": {"message": f"bad key {ENGINE_KEY}"}}, status="401 No"),
    "no way": json_answer({"error": f"bad key {ENGINE_KEY[:9]}…"}, status="403 No"),
    "a failure": json_answer({"error": {"message": f"not by {ENGINE_KEY}"}}, status="500 Oh"),
    "a failure in other words": json_answer(f"Bearer {ENGINE_KEY}", status="503 Oh"),
    "a refusal": json_answer(
        {"error": {"message": f"{ENGINE_KEY}?", "param": ENGINE_KEY, "code": f"c-{ENGINE_KEY}"}},
        status="400 No",
    ),
    "a list of refusals": json_answer(
        {"detail": [{"loc": ["body", ENGINE_KEY], "msg": ENGINE_KEY}]}, status="422 No"
    ),
    "an error document": json_answer({"error": {"message": f"not by {ENGINE_KEY}"}}),
    "a stream's error": stream_answer(
        [SHORT_STREAM[0], event({"error": {"message": ENGINE_KEY, "code": ENGINE_KEY}}), DONE]
    ),
    "no right in a stream": stream_answer(
        [SHORT_STREAM[0], event({"error": {"message": f"bad {ENGINE_KEY[:9]}…", "code": 401}})]
    ),
    "nothing of HTTP": f"{ENGINE_KEY}\r\n\r\n".encode(),
}


@pytest.mark.parametrize("path", ASKED)
@pytest.mark.parametrize("what", LEAKS)
async def test_a_client_that_records_all_finds_nothing_of_its_worker(what: str, path: str) -> None:
    """Also where the engine itself says too much."""
    said = LEAKS[what].replace(
        b"\r\n", b"\r\nset-cookie: %b\r\nx-key: %b\r\n" % ((ENGINE_KEY.encode(),) * 2), 1
    )
    engine = RawEngine(says(said, close=True))
    async with network(keyless=False) as net:
        who = await customer(net.chain, CREDIT)
        await net.join("gpu", engine, engine_key=ENGINE_KEY)
        body = ASKED[path] | {"stream": "stream" in what}
        seen = (await recorded(net, who, body, path)).decode("latin-1")
        assert seen.startswith("HTTP/1.1 "), "it records"
        assert engine.requests[0].headers["authorization"] == f"Bearer {ENGINE_KEY}"
        for secret in (ENGINE_KEY[:7], await net.token("gpu"), str(engine.port), who.secret):
            assert secret not in seen


async def test_a_worker_that_records_all_is_never_asked_to_fetch_something() -> None:
    async with network() as net:
        worker = await Fake.join(net, "gpu", coefficient=1000)
        url = f"http://{FORWARDED}/admin"
        part = {"type": "image_url", "image_url": {"url": url}}
        refused = await net.chain.ask(
            post(CHAT | {"messages": [{"role": "user", "content": [part]}]})
        )
        assert (refused.status, refused.json["error"]["code"]) == (400, "remote_media_refused")
        assert worker.heard == b""
        await worker.close()
