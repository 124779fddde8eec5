"""From an answer and its request to claims that can be compared."""

from typing import Any

import orjson
import pytest
from tests.unit.proxy.audit.build import BODIES, WORDS, chat, request, sample

from filature.answer.usage import Usage
from filature.proxy.audit.claims import TOLERANCE_TOKENS, Claim, Kind
from filature.proxy.audit.measure import (
    CACHED_PROMPT_MIN,
    MESSAGE_TOKENS,
    TEMPLATE_TOKENS,
    THOUGHT_TOKENS,
    TOOLS_TOKENS,
    measure,
)
from filature.relay.watch import KEPT_BYTES_MAX
from filature.wire.dialect import Dialect

TOOLS: dict[str, Any] = {"tools": [{"type": "function", "function": {"name": "weave"}}]}
USAGE = Usage(100, 60, 20)


def claims(
    answer: bytes, usage: Usage = USAGE, *, is_repeated: bool = False, **fields: Any
) -> dict[Kind, Claim]:
    found = measure(sample(request(**fields), answer, usage, is_repeated=is_repeated), None)
    return {claim.group.kind: claim for claim in found}


def test_prompt_and_completion() -> None:
    found = claims(chat("Silk."))
    assert list(found) == [Kind.PROMPT, Kind.COMPLETION]
    prompt, completion = found.values()
    assert (prompt.claimed, prompt.size, prompt.counted) == (100, len(WORDS), None)
    assert prompt.extra == TEMPLATE_TOKENS + MESSAGE_TOKENS
    assert (completion.claimed, completion.size, completion.counted) == (20, 5, None)
    assert completion.extra == TOLERANCE_TOKENS
    assert prompt.group.plain
    assert completion.group.plain


@pytest.mark.parametrize("dialect", BODIES)
def test_every_dialect_has_a_prompt(dialect: Dialect) -> None:
    found = measure(sample(request(dialect), b"{}", Usage(7, 0, 0)), None)
    assert [(claim.group.kind, claim.claimed) for claim in found] == [(Kind.PROMPT, 7)]


@pytest.mark.parametrize(
    ("dialect", "fields", "extra"),
    [
        (Dialect.COMPLETIONS, {}, TEMPLATE_TOKENS),  # there are engines that use one all the same
        (Dialect.EMBEDDINGS, {}, MESSAGE_TOKENS),
        (Dialect.EMBEDDINGS, {"input": [WORDS] * 3}, 3 * MESSAGE_TOKENS),
        (Dialect.EMBEDDINGS, {"input": [1, 2, 3]}, MESSAGE_TOKENS),
        (Dialect.EMBEDDINGS, BODIES[Dialect.CHAT], TEMPLATE_TOKENS + MESSAGE_TOKENS),
        (Dialect.RESPONSES, {}, TEMPLATE_TOKENS),
        (Dialect.MESSAGES, {}, TEMPLATE_TOKENS + MESSAGE_TOKENS),
    ],
)
def test_a_text_to_embed_has_no_tokens_of_a_template(
    dialect: Dialect, fields: dict[str, Any], extra: int
) -> None:
    found = measure(sample(request(dialect, **fields), b"{}", Usage(7, 0, 0)), None)
    assert [claim.extra for claim in found] == [extra]


def test_nothing_is_claimed_of_what_was_not_told() -> None:
    """A prompt of 0: no record tells it."""
    assert list(claims(chat("Silk."), Usage(0, 0, 3, estimated=True))) == [Kind.COMPLETION]
    assert claims(chat(""), Usage()) == {}


def test_media_are_not_compared() -> None:
    part = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA"}}
    messages = [{"role": "user", "content": [part, {"type": "text", "text": "what is it"}]}]
    assert list(claims(chat("Silk."), messages=messages)) == [Kind.COMPLETION]


def test_prompts_of_ids_are_alike() -> None:
    found = measure(
        sample(request(Dialect.COMPLETIONS, prompt=[1, 2, 3]), b"{}", Usage(3, 0, 0)), None
    )
    assert found[0].group.like == "ids"


def test_tools_are_compared_with_tools() -> None:
    found = claims(chat("Silk."), **TOOLS)
    assert not found[Kind.PROMPT].group.plain
    assert found[Kind.PROMPT].extra == TEMPLATE_TOKENS + TOOLS_TOKENS + MESSAGE_TOKENS
    assert not found[Kind.COMPLETION].group.plain
    shaped = claims(chat("Silk."), response_format={"type": "json_object"})
    assert shaped[Kind.COMPLETION].group != found[Kind.COMPLETION].group


def test_calls_are_not_compared_where_tools_were_offered() -> None:
    """Of a call an engine may show any part of what was written."""
    call = [{"function": {"name": "weave", "arguments": "{}"}}]
    answer = chat(None, tool_calls=call)
    assert Kind.COMPLETION not in claims(answer, **TOOLS)
    assert claims(answer)[Kind.COMPLETION].size == len("weave{}")  # a trick that escapes nothing


@pytest.mark.parametrize(
    "fields",
    [
        {"ignore_eos": True},
        {"logit_bias": {"1": 5}},
        {"min_tokens": 3},
        {"skip_special_tokens": False},
        {"include_reasoning": False},
    ],
)
def test_what_may_hide_any_number_of_tokens_is_not_compared(fields: dict[str, Any]) -> None:
    assert list(claims(chat("Silk."), **fields)) == [Kind.PROMPT]


def test_members_that_no_client_shows_are_no_text() -> None:
    """Who sells tokens may send any: neither do they count, nor do they make an answer another sort."""
    plain = claims(chat("Silk."))[Kind.COMPLETION]
    assert claims(chat("Silk.", x="junk " * 99))[Kind.COMPLETION] == plain
    nested = chat("Silk.", x={"content": "junk", "tool": [{"text": "junk"}]})
    assert claims(nested)[Kind.COMPLETION] == plain


def test_reasonings_have_marks_around_them() -> None:
    found = claims(chat("Silk.", reasoning_content="Worms spin."))[Kind.COMPLETION]
    assert (found.size, found.extra) == (16, TOLERANCE_TOKENS + THOUGHT_TOKENS)
    twice = chat("Silk.", reasoning_content="Worms spin.", reasoning="Worms spin.")
    assert claims(twice)[Kind.COMPLETION] == found


def test_each_choice_has_an_end() -> None:
    choices = [{"index": at, "message": {"content": "Silk."}} for at in range(3)]
    found = claims(orjson.dumps({"choices": choices}), n=3)[Kind.COMPLETION]
    assert (found.size, found.extra) == (15, 3 * TOLERANCE_TOKENS)


@pytest.mark.parametrize(("stop", "extra"), [("é", 2), (["a", "abc"], 3), ([], 0), (None, 0)])
def test_what_ends_an_answer_is_not_shown(stop: Any, extra: int) -> None:
    found = measure(sample(request(Dialect.COMPLETIONS, stop=stop), b'{"choices":[]}', USAGE), None)
    assert found[1].extra == TOLERANCE_TOKENS + extra


def test_an_answer_without_a_word_can_be_compared() -> None:
    assert claims(chat(""))[Kind.COMPLETION].size == 1


@pytest.mark.parametrize(
    ("told", "is_repeated", "prompt", "claimed"),
    [
        (b'"cached_tokens": 60', True, 100, 60),
        (b'"cache_read_input_tokens":0', True, 100, 60),
        (b'"cached_tokens":null', True, 100, None),
        (b"", True, 100, None),
        (b'"cached_tokens":60', False, 100, None),
        (b'"cached_tokens":60', True, CACHED_PROMPT_MIN - 1, None),
    ],
)
def test_of_a_cache_is_known_what_is_told(
    told: bytes, is_repeated: bool, prompt: int, claimed: int | None
) -> None:
    answer = b"{" + told + b"}" if told else chat("x")
    found = claims(answer, Usage(prompt, min(60, prompt), 1), is_repeated=is_repeated)
    cached = found.get(Kind.CACHED)
    assert (None if cached is None else cached.claimed) == claimed


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"\x00\xff\xfe",
        b"[" * 100_000,
        b'{"choices":' * 50_000,
        b'{"choices":[{"message":{"content":"\\ud800"}}]}',
        b'{"choices":[{"index":' + b"9" * 5000 + b',"message":{"content":"x"}}]}',
        b'{"choices":[{"index":-7,"message":{"content":"x"}},7,null]}',
        b'{"choices":{"0":1}}',
        b'{"choices":[{"message":{"content":' + b"[" * 500 + b"]" * 500 + b"}}]}",
        b"data: \xff\n\ndata: 7\n\ndata: null\n\ndata: [DONE]\n\n",
        b"data: " * 9999,
    ],
)
@pytest.mark.parametrize("dialect", BODIES)
def test_hostile_answers_do_no_harm(answer: bytes, dialect: Dialect) -> None:
    found = measure(sample(request(dialect), answer, Usage(10**9, 0, 10**9)), None)
    assert found[0].claimed == 10**9


def test_what_is_too_long_to_be_kept_still_has_a_prompt() -> None:
    found = sample(request(), b"x" * (KEPT_BYTES_MAX + 1), USAGE)
    found.keep(b"x")
    assert found.answer == []
    assert [claim.group.kind for claim in measure(found, None)] == [Kind.PROMPT]
