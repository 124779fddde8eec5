"""What goes wrong between a client and a real engine is seen by the client, and ends in its outcome.

The last tests kill the engine: they stay last.
"""

import json
import os
from collections.abc import Iterator
from itertools import count

import pytest
from tests.engines.chain import ANSWER_S, Answer, Chain, until
from tests.engines.reading import Counts, Json, counts, payloads, text_of, usages
from tests.engines.tap import Exchange

CHAT = "/v1/chat/completions"
HELLO = [{"role": "user", "content": "Say hello."}]
STORY = [{"role": "user", "content": "Write a very long story about a river."}]
LONG = {"messages": STORY, "max_tokens": 400, "temperature": 0, "stream": True}


def read_events(reads: Iterator[bytes], wanted: int) -> None:
    """Until so many ``data:`` lines have arrived."""
    seen = 0
    while seen < wanted:
        seen += next(reads).count(b"data:")


def test_an_unknown_model(running: Chain) -> None:
    answer, asked = running.ask_unheard(CHAT, {"messages": HELLO, "model": "no-such-model"})
    assert answer.status == 404
    assert answer.json()["error"]["code"] == "model_not_found"
    assert not asked
    assert running.record(answer)["outcome"] == "refused"


def test_a_request_that_we_refuse(running: Chain) -> None:
    answer, asked = running.ask_unheard(CHAT, {"max_tokens": 8})
    assert answer.status == 400
    assert answer.json()["error"]["param"] == "messages"
    assert not asked
    assert running.record(answer)["outcome"] == "refused"


@pytest.mark.engine.with_args(lambda kind: kind.refused is not None)
@pytest.mark.parametrize("stream", [False, True])
def test_a_request_that_the_engine_refuses(running: Chain, stream: bool) -> None:
    assert running.kind.refused is not None
    body = {"messages": HELLO, "max_tokens": 8, "stream": stream, **running.kind.refused}
    if os.environ.get("TEST_SPLIT_ROLES") and "no_such_member" in body:
        answer, exchanges = running.ask_unheard(CHAT, body)
        assert (answer.status, answer.json()["error"]["param"]) == (400, "no_such_member")
        assert exchanges == [], "what is not known does not reach the network's engines"
        return
    answer, exchange = running.ask(CHAT, body)
    status, said, _ = exchange.decoded()
    if status == 200:  # vLLM refuses in the stream what only its core checks
        status = payloads(said)[0]["error"]["code"]
    assert status in (400, 413, 422)
    assert answer.status == status
    error = answer.json()["error"]
    assert error["message"]
    assert error["code"] is None or isinstance(error["code"], str)
    record = running.record(answer)
    assert record["outcome"] == "refused_by_engine"
    assert record["usage"]["total_cost"] == 0


def test_no_such_record(running: Chain) -> None:
    response = running.client.get("/v1/usage/req-that-never-was")
    assert response.status_code == 404
    assert response.json()["error"]["message"]


def test_a_client_that_leaves(running: Chain) -> None:
    before = len(running.tap.exchanges)
    with running.open(CHAT, LONG) as (answer, reads):
        read_events(reads, 4)
    (exchange,) = running.tap.asked(before)
    until("the engine is let go", lambda: exchange.closed_by, ANSWER_S)
    assert exchange.closed_by == "filature"
    assert not exchange.decoded()[2], "the engine was done before the client left"
    record = running.record(answer)
    assert record["outcome"] == "client_gone"
    usage = record["usage"]
    told = running_counts(exchange)
    assert told or not running.kind.running_usage
    assert usage["estimated"] is not bool(told)
    if told:
        assert usage["prompt_tokens"] == told[-1].prompt
        assert usage["completion_tokens"] in [one.completion for one in told]
    assert usage["prompt_tokens"] >= 1
    assert usage["completion_tokens"] >= 3
    # the engine is free for the next one
    assert running.ask(CHAT, {"messages": HELLO, "max_tokens": 4})[0].status == 200


def running_counts(exchange: Exchange) -> list[Counts]:
    """The usage told so far, in the whole events of an answer that was cut."""
    said = exchange.decoded()[1]
    whole = said[: said.rfind(b"\n\n") + 2]
    return [counts(usage) for usage in usages(payloads(whole))]


def failed_visibly(running: Chain, answer: Answer) -> Json:
    """The client was told in the stream, after what it had got; its record."""
    assert answer.status == 200
    assert answer.whole
    assert b"[DONE]" not in answer.body
    *sent, last = payloads(answer.body)
    assert text_of(sent)
    assert last["error"]["message"]
    assert isinstance(last["error"]["code"], str)
    record = running.record(answer)
    assert record["outcome"] == "engine_failed_midstream"
    assert record["usage"]["completion_tokens"] >= 3
    assert record["usage"]["total_cost"] == 0, "nobody pays for what an engine broke"
    return record


def test_an_answer_that_is_cut(running: Chain) -> None:
    running.tap.cut_after_events = 6
    answer, exchange = running.ask(CHAT, LONG)
    assert exchange.closed_by == "tap"
    record = failed_visibly(running, answer)
    assert record["usage"]["estimated"] is not bool(running_counts(exchange))
    # One failure sets an engine aside for a second: then it serves again.
    until("the engine serves again", lambda: served(running), 10)


def served(running: Chain) -> bool:
    with running.open(CHAT, {"messages": HELLO, "max_tokens": 4}) as (answer, reads):
        b"".join(reads)
    return answer.status == 200


@pytest.mark.engine.with_args(lambda kind: bool(kind.command))
def test_an_engine_that_is_killed(running: Chain) -> None:
    if running.engine.process is None:
        pytest.fail("only engines that were started here are killed")
    with running.open(CHAT, LONG) as (answer, reads):
        read_events(reads, 5)
        running.engine.kill()
        for _ in reads:
            pass
    failed_visibly(running, answer)


@pytest.mark.engine.with_args(lambda kind: bool(kind.command))
def test_an_engine_that_is_dead(running: Chain) -> None:
    for attempt in count(1):
        answer, _ = running.ask_unheard(CHAT, {"messages": HELLO, "max_tokens": 4})
        assert answer.status in (502, 503), f"attempt {attempt}"
        assert json.loads(answer.body)["error"]["message"]
        assert running.record(answer)["outcome"] in ("engine_failed", "no_engine")
        if attempt == 3:
            break
