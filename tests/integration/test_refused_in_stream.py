"""An engine that refuses a request inside a 200, as vLLM does with what only its core checks."""

import json

import pytest
from tests.integration.harness import chain, says
from tests.integration.messages import DONE, STREAM, delta, event, post, stream_answer


def frame(code: object) -> bytes:
    return event({"error": {"message": "bad regex", "param": "x", "code": code}})


@pytest.mark.parametrize("first", [(), (delta("", role="assistant"),)])
async def test_a_refusal_before_content_is_the_client_s(first: tuple[bytes, ...]) -> None:
    async with chain(says(stream_answer([*first, frame(400), DONE]))) as c:
        answer = await c.ask(post(STREAM))
        assert answer.status == 400
        error = json.loads(answer.body)["error"]
        assert error["message"] == "bad regex"
        assert error["param"] == "x"
        assert error["type"] == "invalid_request_error"
        record = await c.usage(answer.request_id)
        assert record["outcome"] == "refused_by_engine"
        assert record["tries"] == 1


@pytest.mark.parametrize("code", [500, 404, "400", True, None])
async def test_any_other_is_the_engine_s_failure(code: object) -> None:
    async with chain(says(stream_answer([frame(code), DONE]))) as c:
        answer = await c.ask(post(STREAM))
        assert answer.status == 502
        assert (await c.usage(answer.request_id))["outcome"] == "engine_failed"


async def test_a_refusal_after_content_is_a_failure() -> None:
    async with chain(says(stream_answer([delta("one"), frame(400), DONE]))) as c:
        answer = await c.ask(post(STREAM))
        assert answer.events[0] == delta("one")
        assert (await c.usage(answer.request_id))["outcome"] == "engine_failed_midstream"
