"""A document where a client asked for events: SDKs read it, find no event, and say nothing. So it is a failure."""

from typing import Any, Final

import openai
import pytest
from tests.integration.harness import RawEngine, chain, says
from tests.integration.messages import (
    CHAT,
    SHORT_STREAM,
    STREAM,
    completion,
    json_answer,
    post,
    stream_answer,
    tokens,
)

HI: Final = json_answer(completion("hi"))
MESSAGES: Final = CHAT["messages"]
ASKS: Final[dict[str, dict[str, Any]]] = {
    "/v1/chat/completions": CHAT,
    "/v1/completions": {"model": "m", "prompt": "a"},
    "/v1/responses": {"model": "m", "input": "a"},
    "/v1/messages": {"model": "m", "messages": MESSAGES, "max_tokens": 9},
}
WHOLE: Final[dict[str, dict[str, Any]]] = {
    "/v1/chat/completions": completion("hi"),
    "/v1/completions": {"choices": [{"index": 0, "text": "hi"}], "usage": tokens(1, 1)},
    "/v1/responses": {"object": "response", "status": "completed", "output": []},
    "/v1/messages": {"type": "message", "content": [{"type": "text", "text": "hi"}]},
}
REASON: Final = "a document where a stream was asked for"


@pytest.mark.parametrize("path", ASKS)
async def test_it_costs_nothing_in_any_dialect(path: str) -> None:
    async with chain(says(json_answer(WHOLE[path]))) as c:
        whole = await c.ask(post(ASKS[path], path))
        assert whole.json["usage"]["total_cost"] > 0
        answer = await c.ask(post(ASKS[path] | {"stream": True}, path))
        record = await c.usage(answer.request_id)
    assert answer.status == 502
    assert REASON in answer.json["error"]["message"]
    assert (record["outcome"], record["usage"]["total_cost"]) == ("engine_failed", 0)


@pytest.mark.parametrize("length", [None, 5_000_000])
async def test_the_next_engine_is_asked(length: int | None) -> None:
    """Also where the document is so long that it would not have been held to its end."""
    bad = RawEngine(says(HI if length is None else json_answer(completion("x" * length))))
    good = RawEngine(says(stream_answer(SHORT_STREAM)))
    async with chain(bad, good) as c:
        answer = await c.ask(post(STREAM))
        assert (await c.usage(answer.request_id))["tries"] == 2
    assert answer.body.startswith(SHORT_STREAM[0])
    assert len(bad.requests) == len(good.requests) == 1


async def test_sdks_raise() -> None:
    async with chain(says(HI)) as c:
        url = f"http://127.0.0.1:{c.proxy.port}/v1"
        async with openai.AsyncOpenAI(base_url=url, api_key="none", max_retries=0) as client:
            with pytest.raises(openai.InternalServerError, match=REASON):
                await client.chat.completions.create(
                    model="m", messages=[{"role": "user", "content": "hello"}], stream=True
                )
