"""Which requests begin alike."""

from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tests.unit.request.asking import parse

from filature.request.prefix import PREFIX_BYTES_MAX, prefix_of
from filature.wire.dialect import Dialect

CHAT, COMPLETIONS, EMBEDDINGS = Dialect.CHAT, Dialect.COMPLETIONS, Dialect.EMBEDDINGS
RESPONSES, MESSAGES, COUNT_TOKENS = Dialect.RESPONSES, Dialect.MESSAGES, Dialect.COUNT_TOKENS


def prefix(dialect: Dialect, account: str = "client:alice", /, **more: Any) -> int:
    return prefix_of(parse(dialect, **more), account)


def said(*texts: str) -> list[dict[str, Any]]:
    """A talk: who uses a system prompt says every second text."""
    roles = ("system", *("user", "assistant") * len(texts))
    return [{"role": role, "content": text} for role, text in zip(roles, texts, strict=False)]


TALK = said("Be brief.", "Hello", "Hi", "How are you?")


@pytest.mark.parametrize("turns", [3, 4])
def test_a_talk_that_goes_on_begins_alike(turns: int) -> None:
    for dialect, name in ((CHAT, "messages"), (MESSAGES, "messages"), (RESPONSES, "input")):
        first = prefix(dialect, **{name: TALK[:2]})
        assert first > 0
        assert prefix(dialect, **{name: TALK[:turns]}) == first
        others = (said("Be long.", "Hello"), said("Be brief.", "Good day"), TALK[:1])
        assert all(prefix(dialect, **{name: other}) != first for other in others)


@pytest.mark.parametrize(
    ("dialect", "name", "first"),
    [(RESPONSES, "instructions", "input"), (MESSAGES, "system", "messages")],
)
def test_what_leads_a_prompt_counts(dialect: Dialect, name: str, first: str) -> None:
    hello = [{"role": "user", "content": "Hello"}]
    found = {
        prefix(dialect, **{first: hello}),
        prefix(dialect, **{first: hello, name: "Be brief."}),
        prefix(dialect, **{first: hello, name: "Be long."}),
        prefix(dialect, **{first: said("", "Good day")[1:], name: "Be brief."}),
    }
    assert len(found) == 4
    assert 0 not in found


def test_system_prompts_may_come_in_parts() -> None:
    parts = [{"type": "text", "text": "Be "}, {"type": "text", "text": "brief."}]
    assert prefix(MESSAGES, system=parts) == prefix(MESSAGES, system="Be brief.")
    assert prefix(MESSAGES, system=parts[:1]) != prefix(MESSAGES, system="Be brief.")


def test_an_attribution_that_differs_each_time_does_not_count() -> None:
    def of(digest: str) -> int:
        said = f"x-anthropic-billing-header: cc_version=2.1; cc_entrypoint=cli; cch={digest};"
        parts = [{"type": "text", "text": said}, {"type": "text", "text": "Be brief."}]
        return prefix(MESSAGES, system=parts)

    assert of("1a2b3") == of("4c5d6") == prefix(MESSAGES, system="Be brief.")


def test_so_may_a_message() -> None:
    for content in (
        [{"type": "text", "text": "Hello"}],
        [{"type": "input_text", "text": "Hello"}],
        ["Hello"],
        ["Hel", {"type": "image_url", "image_url": {"url": "data:,x"}}, {"text": "lo"}],
    ):
        messages = [{"role": "user", "content": content}]
        expected = [{"role": "user", "content": "Hello"}]
        assert prefix(CHAT, messages=messages) == prefix(CHAT, messages=expected)
        assert prefix(RESPONSES, input=messages) == prefix(RESPONSES, input="Hello")


def test_prompts_of_completions_begin_alike_by_their_text() -> None:
    one = prefix(COMPLETIONS, prompt="import os")
    assert one > 0
    assert prefix(COMPLETIONS, prompt=["import os"]) == one
    assert prefix(COMPLETIONS, prompt="import sys") != one


def test_sampling_does_not_count() -> None:
    assert prefix(CHAT, messages=TALK, temperature=1, stream=True) == prefix(CHAT, messages=TALK)


# how far


@pytest.mark.parametrize("char", ["a", "é", "€", "😀"])
def test_only_so_many_bytes_of_it_count(char: str) -> None:
    long = char * -(-PREFIX_BYTES_MAX // len(char.encode()))  # a last one may be cut
    assert prefix(COMPLETIONS, prompt=long + "x") == prefix(COMPLETIONS, prompt=long + char + "yz")
    before = long[:-2]
    assert prefix(COMPLETIONS, prompt=before + "x") != prefix(COMPLETIONS, prompt=before + "y")
    talk = said(long + "x", "Hello")
    assert prefix(CHAT, messages=talk) == prefix(CHAT, messages=said(long + "y", "Good day"))
    assert prefix(CHAT, messages=said(before, "x")) != prefix(CHAT, messages=said(before, "y"))


def test_many_parts_count_no_further() -> None:
    def of(*texts: str) -> int:
        parts = [{"type": "text", "text": text} for text in texts]
        return prefix(CHAT, messages=[{"role": "user", "content": parts}])

    pieces = ["abcdefgh"] * (PREFIX_BYTES_MAX // 8)
    assert of(*pieces, "x") == of(*pieces, "y", "z") == of(*pieces)
    assert of(*pieces[1:], "x") != of(*pieces[1:], "y")


# whose


def test_another_account_s_or_model_s_requests_begin_otherwise() -> None:
    found = {
        prefix(CHAT),
        prefix(CHAT, "client:bob"),
        prefix(CHAT, model="n"),
        prefix(CHAT, "client:bob", model="n"),
    }
    assert len(found) == 4
    assert prefix(CHAT, "a", model="bc") != prefix(CHAT, "ab", model="c")


# nothing to go by


@pytest.mark.parametrize(
    ("dialect", "more"),
    [
        (EMBEDDINGS, {"input": "a text"}),
        (COUNT_TOKENS, {}),
        (COMPLETIONS, {"prompt": [1, 2, 3]}),
        (COMPLETIONS, {"prompt": ""}),
        (CHAT, {"messages": [{"role": "user", "content": None}]}),
        (CHAT, {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}),
        (RESPONSES, {"input": [{"type": "reasoning", "summary": []}]}),
    ],
)
def test_where_there_is_no_text_there_is_no_prefix(dialect: Dialect, more: dict[str, Any]) -> None:
    assert prefix(dialect, **more) == 0


@example("\ud800", "a", "m")
@given(st.text(st.characters(exclude_categories=[])), st.text(), st.text(min_size=1))
def test_any_text_has_one_and_always_the_same(text: str, account: str, model: str) -> None:
    def of(content: str) -> int:
        fields = {"model": model, "messages": [{"role": "user", "content": content}]}
        request = parse(CHAT, messages=[{"role": "user", "content": "x"}])
        request.model, request.fields = model, fields
        return prefix_of(request, account)

    found = of(text)
    assert found == of(text)
    assert (found == 0) == (text == "")
    assert 0 <= found <= 2**32
    assert of(text[:100]) == of(text) or len(text) > 100
    assert of("x" + text) != found
