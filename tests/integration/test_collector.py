"""That requests leave nothing behind for the garbage collector, which looks seldom: see ``relay/collector.py``."""

import asyncio
import gc
from typing import Any

import pytest
from tests.integration.harness import WAIT_S, RawEngine, says
from tests.integration.messages import (
    CHAT,
    DONE,
    STREAM,
    completion,
    delta,
    json_answer,
    post,
    stream_answer,
    usage_event,
)
from tests.integration.network import network

from filature.relay.exchange import Exchange
from filature.request.parse import ParsedRequest

WHOLE = json_answer(completion("hi", 3, 2))
STREAMED = stream_answer([delta("a"), usage_event(3, 2), DONE])
CUT = stream_answer([delta("a")])
REFUSED = json_answer({"error": {"message": "no"}}, "400 Bad Request")


@pytest.mark.parametrize("debug", [{}, {"enable_debug": True}])
@pytest.mark.parametrize(
    ("asked", "answer"),
    [(CHAT, WHOLE), (STREAM, STREAMED), (STREAM, CUT), (CHAT, REFUSED)],
    ids=["whole", "streamed", "cut", "refused"],
)
async def test_a_request_that_has_ended_is_gone_without_the_collector(
    asked: dict[str, Any], answer: bytes, debug: dict[str, Any]
) -> None:
    gc.collect()
    of_other_tests = left()
    async with network(RawEngine(says(answer))) as net:
        await net.chain.ask(post(asked | debug))  # what is made once, is made
        gc.collect()
        gc.disable()
        try:
            for _ in range(3):
                await net.chain.ask(post(asked | debug))
            async with asyncio.timeout(WAIT_S):  # the worker's side ends a moment later
                while left() > of_other_tests:
                    await asyncio.sleep(0.01)
        finally:
            gc.enable()


def left() -> int:
    """Requests that something still knows."""
    return sum(isinstance(each, Exchange | ParsedRequest) for each in gc.get_objects())
