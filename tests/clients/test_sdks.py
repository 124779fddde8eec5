"""Each entry point of each SDK in each case, through the whole chain: the cells of the table."""

from collections.abc import Callable

import pytest
from ask import Ask, Sdk, Seen
from chain import ENGINE_ERROR, Chain, until
from sdks import all_traits
from table import CASES, applies, row_id

PIECES_BEFORE_LEAVING = 3
NOTICED_S = 20.0
"""Until the engine has stopped after a client left; the whole answer would take fifty seconds."""


def assert_priced(seen: Seen) -> None:
    """The cost is in the usage, in integers that add up and as a number of credits."""
    usage = seen.usage
    assert usage["total_cost"] > 0, usage
    assert usage["prompt_total_cost"] + usage["completion_total_cost"] == usage["total_cost"]
    assert usage["cost"] == pytest.approx(usage["total_cost"] / 1e9, rel=1e-12)


def assert_same_answer(seen: Seen, direct: Seen) -> None:
    """Through the chain the SDK sees what it sees without it, apart from the cost."""
    assert seen.error is None, seen.error
    assert direct.error is None, direct.error
    assert seen.text == direct.text
    assert seen.tool_calls == direct.tool_calls
    assert seen.finish == direct.finish
    assert seen.vector == direct.vector
    assert seen.tokens() == direct.tokens()
    assert "cost" not in direct.usage


def priced_note(sdk: Sdk, seen: Seen, case: str) -> str:
    if case not in sdk.traits.shows_cost:
        return "ok"
    assert_priced(seen)
    return "ok, cost"


def check_stream(sdk: Sdk, chain: Chain) -> str:
    ask = Ask("demo", stream=True)
    seen, direct = sdk.ask(chain.url, ask), sdk.ask(chain.engine_url, ask)
    assert_same_answer(seen, direct)
    assert len(seen.text) > 20
    assert seen.pieces == direct.pieces > 5
    assert min(seen.tokens()) > 0
    if sdk.traits.dialect in ("chat", "completions") and not sdk.traits.asks_for_usage:
        # The engine is asked all the same, and its record is told in a comment.
        unasked = sdk.ask(chain.url, Ask("demo", stream=True, usage=False))
        assert unasked.error is None, unasked.error
        assert unasked.tokens() == (0, 0)
        assert unasked.without_choices == 0
        assert (unasked.text, unasked.finish) == (direct.text, direct.finish)
        assert unasked.pieces == direct.pieces
    return priced_note(sdk, seen, "stream")


def check_unary(sdk: Sdk, chain: Chain) -> str:
    ask = Ask("demo")
    seen, direct = sdk.ask(chain.url, ask), sdk.ask(chain.engine_url, ask)
    assert_same_answer(seen, direct)
    assert seen.text or seen.vector
    return priced_note(sdk, seen, "unary")


def check_tools(sdk: Sdk, chain: Chain) -> str:
    for stream in (True, False):
        ask = Ask("demo", stream=stream, tools=True)
        seen, direct = sdk.ask(chain.url, ask), sdk.ask(chain.engine_url, ask)
        assert_same_answer(seen, direct)
        (call,) = seen.tool_calls
        assert call["name"] == "get_weather"
        assert isinstance(call["arguments"]["city"], str)

        ask = Ask("demo", stream=stream, tools=True, tool_result="21 degrees and sunny")
        seen, direct = sdk.ask(chain.url, ask), sdk.ask(chain.engine_url, ask)
        assert_same_answer(seen, direct)
        assert seen.text
    return "ok"


def check_error_before(sdk: Sdk, chain: Chain) -> str:
    stream = sdk.traits.streams
    unknown = sdk.ask(chain.url, Ask("no-such-model", stream=stream, max_retries=2)).error
    assert unknown is not None
    assert unknown.status == 404, unknown
    assert "no-such-model" in unknown.message
    if sdk.traits.dialect != "messages":  # its envelope has no codes
        assert unknown.code == "model_not_found", unknown

    if sdk.traits.refuses:
        refused = sdk.ask(chain.url, Ask("demo", stream=stream, invalid=True, max_retries=2))
        assert refused.error is not None
        assert refused.error.status == 400, refused.error
        assert refused.attempts == 1

    failed = sdk.ask(chain.url, Ask("fails", stream=stream))
    assert failed.error is not None
    assert failed.error.status in (502, 503), failed.error
    assert failed.attempts == 1
    return "ok"


def check_error_inside(sdk: Sdk, chain: Chain) -> str:
    for model in ("error-frame", "cut"):
        seen = sdk.ask(chain.url, Ask(model, stream=True))
        assert seen.error is not None, f"{model}: no error after {seen.text!r}"
        # Some call it 200, as the response's; the AI SDK makes 500 of the error's code.
        assert seen.error.status in (None, 200, 500), seen.error
        assert seen.pieces > 0, f"{model}: the error came before any text"
        if model == "error-frame":
            assert ENGINE_ERROR in seen.error.message, seen.error
        assert (seen.error.kind != "event") == sdk.traits.raises
    return "ok" if sdk.traits.raises else "event"


def check_abort(sdk: Sdk, chain: Chain) -> str:
    before = chain.stats()["cancelled"]
    seen = sdk.ask(chain.url, Ask("slow", stream=True, stop_after=PIECES_BEFORE_LEAVING))
    assert seen.error is None, seen.error
    assert seen.pieces == PIECES_BEFORE_LEAVING
    until("the engine stops", lambda: chain.stats()["cancelled"] == before + 1, NOTICED_S)
    return "ok"


def check_retry(sdk: Sdk, chain: Chain) -> str:
    stream = sdk.traits.streams
    chain.forgive_first_engine()
    before = chain.stats()["requests"]
    prompt = chain.new_prompt()  # one that was answered goes where it was answered
    seen = sdk.ask(chain.url, Ask("fails-over", prompt=prompt, stream=stream))
    assert seen.error is None, seen.error
    assert seen.text or seen.vector
    assert seen.attempts == 1, "the client had to ask again"
    assert chain.stats()["requests"] == before + 1, "the failing engine was not asked first"

    if sdk.traits.retries:
        seen = sdk.ask(chain.url, Ask(chain.fails_once(), stream=stream, max_retries=2))
        assert seen.error is None, seen.error
        assert seen.text or seen.vector
        assert seen.attempts == 2
    return "ok"


CHECKS: dict[str, Callable[[Sdk, Chain], str]] = {
    "stream": check_stream,
    "unary": check_unary,
    "tools": check_tools,
    "error-before": check_error_before,
    "error-inside": check_error_inside,
    "abort": check_abort,
    "retry": check_retry,
}


@pytest.mark.parametrize(
    ("row", "case"),
    [
        pytest.param(row_id(traits), case, id=f"{row_id(traits)}, {case}")
        for traits in all_traits()
        for case in CASES
        if applies(traits, case)
    ],
)
def test_cell(
    row: str,
    case: str,
    sdks: dict[str, Sdk],
    running_chain: Chain,
    record_property: Callable[[str, object], None],
) -> None:
    record_property("cell", (row, case))
    record_property("note", CHECKS[case](sdks[row], running_chain))
