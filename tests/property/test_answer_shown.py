"""What a client sees of an answer, against a slow reading of the same bytes."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from tests.property.reference import (
    completed,
    decode,
    expected,
    is_record,
    parsed,
    several,
    without_cost,
)
from tests.property.streams import STREAMED, TARIFF, cuts, documents, streams

from filature.answer.policy import AnswerPolicy
from filature.answer.postprocessor import AnswerPostprocessor
from filature.answer.pricing import COST_KEYS, cost_of
from filature.wire.dialect import Dialect
from filature.wire.sse import BOM

CHOSEN = st.sampled_from([Dialect.CHAT, Dialect.COMPLETIONS])


def through(
    dialect: Dialect, policy: AnswerPolicy, body: bytes, **asked: Any
) -> tuple[bytes, AnswerPostprocessor]:
    answer = AnswerPostprocessor(dialect, policy, **asked)
    return answer.feed(body) + answer.finish(True), answer


def end_of(shown: list[Any]) -> int:
    """Where the end mark stands: the first that is behind a choice; else behind all."""
    begun = False
    for position, each in enumerate(shown):
        if each == "[DONE]" and begun:
            return position
        choices = each.get("choices") if isinstance(each, dict) else None
        begun |= isinstance(choices, list) and any(isinstance(one, dict) for one in choices)
    return len(shown)


@given(st.sampled_from(STREAMED), st.data())
def test_nothing_changes_where_nothing_is_asked(dialect: Dialect, data: st.DataObject) -> None:
    body = data.draw(streams(dialect))
    out, answer = through(dialect, AnswerPolicy(errors="pass"), body)
    if answer.mode == "events":
        assert out.startswith(body.removeprefix(BOM))
        assert out[len(body.removeprefix(BOM)) :].strip(b"\r\n") == b""
        assert decode(out) == decode(completed(body))
    elif answer.mode == "documents":
        assert out == body.removeprefix(BOM)
    else:
        assert out == body


@given(st.sampled_from(STREAMED), st.booleans(), st.data())
def test_cost_is_all_that_is_added(dialect: Dialect, is_stream: bool, data: st.DataObject) -> None:
    body = data.draw(streams(dialect) if is_stream else documents(dialect))
    out, answer = through(dialect, AnswerPolicy(errors="pass", tariff=TARIFF), body)
    if answer.mode == "events":
        before = [parsed(event[1]) for event in decode(completed(body))]
        after = [parsed(event[1]) for event in decode(out)]
    else:
        before, after = several(body), several(out)
    assert len(before) == len(after)
    for old, new in zip(before, after, strict=True):
        assert without_cost(new) == without_cost(old) or not is_record(old)


@given(
    CHOSEN, st.booleans(), st.booleans(), st.sampled_from(["comment", "hide", "send"]), st.data()
)
def test_a_client_sees_what_it_asked_for(
    dialect: Dialect, asks_usage: bool, asks_all: bool, unrequested: Any, data: st.DataObject
) -> None:
    body = data.draw(streams(dialect, faults=False))
    policy = AnswerPolicy(
        strip=True,
        include_usage=asks_usage,
        continuous_usage=asks_all,
        when_unrequested=unrequested,
        tariff=TARIFF,
    )
    out, answer = through(dialect, policy, body)
    if answer.mode != "events":
        return
    wants_chunk = asks_usage or unrequested == "send"
    wants_every = asks_usage and asks_all
    before = [parsed(event[1]) for event in decode(completed(body))]
    after = [parsed(event[1]) for event in decode(out)]
    shown = expected(before, wants_chunk=wants_chunk, wants_every=wants_every)
    end = end_of(shown)
    ends = answer.verdict(True).completed
    told = [each for each in after[:end] if is_record(each) and not each.get("choices")]
    if ends and wants_chunk and len(after) > len(shown):
        own = after.pop(end)
        assert own["choices"] == []
        assert set(COST_KEYS) <= set(own["usage"])
        told.append(own)
    if ends and wants_chunk and not shown[end + 1 :]:
        assert told[-1]["usage"]["total_cost"] == cost_of(answer.usage, TARIFF).total
    assert [without_cost(each) for each in after] == [without_cost(each) for each in shown]
    for each in after:
        if is_record(each):
            assert list(each["usage"])[-4:] == list(COST_KEYS)
    comments = out.count(b": filature {")
    assert comments == (1 if ends and not wants_chunk and unrequested == "comment" else 0)


@given(st.sampled_from(STREAMED), st.data())
def test_what_is_told_holds_together(dialect: Dialect, data: st.DataObject) -> None:
    body = data.draw(streams(dialect))
    asked: dict[str, Any] = {
        "n": data.draw(st.integers(1, 3)),
        "prompts": data.draw(st.integers(1, 2)),
    }
    answer = AnswerPostprocessor(dialect, AnswerPolicy(tariff=TARIFF), **asked)
    for piece in data.draw(cuts(body)):
        answer.feed(piece)
        usage = answer.usage
        assert 0 <= usage.cached <= usage.prompt
        assert 0 <= usage.reasoning <= usage.completion
