"""The scripted plan: deterministic, with counts that are those of the text."""

from typing import Any

import orjson
import pytest

from filature.demo.options import Script
from filature.demo.pieces import Choice, Kind, Piece, gather, with_finish_apart
from filature.demo.question import read_question
from filature.demo.scripted import ScriptedBackend
from filature.demo.text import count_tokens
from filature.wire.dialect import Dialect

HELLO = [{"role": "user", "content": "Say hello"}]
WEATHER = {
    "name": "get_weather",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
}


def plan(script: Script | None = None, **body: Any) -> list[Piece]:
    asked = {"messages": HELLO, "stream": True} | body
    return ScriptedBackend().plan(read_question(Dialect.CHAT, asked, 2048), script or Script())


def whole(pieces: list[Piece]) -> Choice:
    (choice,) = gather(pieces, 1)
    return choice


def tokens(pieces: list[Piece]) -> int:
    return sum(piece.tokens for piece in pieces)


def test_the_same_question_has_the_same_answer() -> None:
    assert plan() == plan()
    texts = {whole(plan(seed=seed)).text for seed in range(20)}
    assert len(texts) > 3


def test_the_text_does_not_depend_on_streaming_or_event_size() -> None:
    text = whole(plan()).text
    assert whole(plan(stream=False)).text == text
    assert whole(plan(Script(tokens_per_event=7))).text == text
    assert len(plan(stream=False)) == 1
    assert len(plan(Script(tokens_per_event=7))) == -(-len(plan()) // 7)


def test_the_count_is_that_of_the_text() -> None:
    pieces = plan()
    assert tokens(pieces) == count_tokens(whole(pieces).text) == len(pieces)
    assert whole(pieces).finish == "stop"


@pytest.mark.parametrize("size", [1, 4])
def test_a_limit_ends_with_length(size: int) -> None:
    pieces = plan(Script(tokens_per_event=size), max_tokens=5)
    assert tokens(pieces) == 5
    assert whole(pieces).finish == "length"
    assert [piece.finish for piece in pieces[:-1]] == [None] * (len(pieces) - 1)


def test_ignore_eos_fills_the_limit() -> None:
    pieces = plan(max_tokens=900, ignore_eos=True)
    assert tokens(pieces) == 900
    assert whole(pieces).finish == "length"


def test_a_stop_sequence_is_left_out_but_its_tokens_count() -> None:
    script = Script(text="one two three four")
    choice = whole(pieces := plan(script, stop=["o th", "four"]))
    assert choice.text == "one tw"
    assert (choice.finish, choice.stop) == ("stop", "o th")
    assert tokens(pieces) == 3
    assert all(piece.text for piece in pieces)


def test_reasoning_comes_first_and_counts_towards_the_limit() -> None:
    pieces = plan(Script(reasoning=4), max_tokens=6)
    assert [piece.kind for piece in pieces] == [Kind.REASONING] * 4 + [Kind.TEXT] * 2
    cut = plan(Script(reasoning=4), max_tokens=3)
    assert [piece.kind for piece in cut] == [Kind.REASONING] * 3
    assert whole(cut).finish == "length"


def test_choices_take_turns() -> None:
    pieces = plan(n=2, max_tokens=3)
    assert [piece.choice for piece in pieces] == [0, 1, 0, 1, 0, 1]
    first, second = gather(pieces, 2)
    assert first.text != second.text


@pytest.mark.parametrize(
    ("choice", "calls"), [("auto", True), ("required", True), ("none", False), (None, True)]
)
def test_a_tool_is_called(choice: str | None, calls: bool) -> None:
    tool = {"type": "function", "function": WEATHER}
    answer = whole(plan(tools=[tool], tool_choice=choice))
    assert bool(answer.calls) == calls
    if calls:
        assert answer.finish == "tool_calls"
        assert answer.text == ""
        ((call, arguments),) = answer.calls
        assert call.name == "get_weather"
        assert isinstance(orjson.loads(arguments)["city"], str)


def test_the_named_tool_is_called() -> None:
    tools = [{"type": "function", "function": {"name": name}} for name in ("a", "b")]
    named = {"type": "function", "function": {"name": "b"}}
    ((call, arguments),) = whole(plan(tools=tools, tool_choice=named)).calls
    assert (call.name, call.named, arguments) == ("b", True, "{}")


def test_a_tools_result_is_answered_in_words() -> None:
    tool = {"type": "function", "function": WEATHER}
    messages = [*HELLO, {"role": "tool", "content": "21 degrees"}]
    answer = whole(plan(tools=[tool], messages=messages))
    assert answer.text
    assert not answer.calls


def test_a_call_can_be_cut_by_the_limit() -> None:
    tool = {"type": "function", "function": WEATHER}
    pieces = plan(tools=[tool], max_tokens=6)
    assert tokens(pieces) == 6
    assert whole(pieces).finish == "length"


def test_a_schema_is_followed() -> None:
    schema = {"type": "object", "properties": {"ok": {"type": "boolean"}}}
    wanted = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    assert orjson.loads(whole(plan(response_format=wanted)).text) == {"ok": True}


@pytest.mark.parametrize("count", [0, 1])
def test_short_answers_end_too(count: int) -> None:
    pieces = plan(Script(tokens=count))
    assert tokens(pieces) == count
    assert pieces[-1].finish == "stop"


def test_the_finish_can_come_apart() -> None:
    pieces = list(with_finish_apart(plan(max_tokens=2)))
    assert [(piece.tokens, piece.finish) for piece in pieces] == [
        (1, None),
        (1, None),
        (0, "length"),
    ]
