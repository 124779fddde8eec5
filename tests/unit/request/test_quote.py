"""What a request can cost at most, by example: bounds of prompts, completions held for, clamps."""

from typing import Any

import pytest
from tests.unit.request.asking import LEAST, parse

from filature.answer.pricing import Tariff, cost_of
from filature.answer.usage import Usage
from filature.request.limits import RequestLimits
from filature.request.parse import ParsedRequest
from filature.request.quote import (
    COMPLETION_TOKENS_DEFAULT,
    LEGACY_COMPLETION_TOKENS,
    PromptRules,
    Quote,
    TooExpensive,
    prompt_bound,
    quote,
)
from filature.units import Nano
from filature.wire.dialect import Dialect

CHAT, COMPLETIONS, EMBEDDINGS = Dialect.CHAT, Dialect.COMPLETIONS, Dialect.EMBEDDINGS
RESPONSES, MESSAGES, COUNT_TOKENS = Dialect.RESPONSES, Dialect.MESSAGES, Dialect.COUNT_TOKENS
GENERATING = (CHAT, COMPLETIONS, RESPONSES, MESSAGES)
NAMES = {RESPONSES: "max_output_tokens"}

RULES = PromptRules(template_tokens=500, message_tokens=10, media_tokens=2000)
TARIFF = Tariff(
    prompt=1_000_000, cached=100_000, completion=2_000_000, reasoning=3_000_000, request=7
)
"""One nano-credit per prompt token, three for the dearest of a completion, seven per request."""
RICH = 10**15


def bound(dialect: Dialect, context: int | None = None, /, **more: Any) -> int:
    return prompt_bound(parse(dialect, **more), RULES, context)


def asking(dialect: Dialect, tokens: int | None, **more: Any) -> ParsedRequest:
    """A request that allows so many tokens."""
    return parse(dialect, **({NAMES.get(dialect, "max_tokens"): tokens} | more))


def quoted(
    request: ParsedRequest,
    *,
    prompt: int = 100,
    available: int = RICH,
    context: int | None = 100_000,
) -> Quote:
    told = quote(request, TARIFF, prompt_tokens=prompt, available=available, context_length=context)
    assert isinstance(told, Quote)
    assert told.hold <= available
    dearest = Usage(told.prompt_tokens, 0, told.completion_tokens, told.completion_tokens)
    assert told.hold == cost_of(dearest, TARIFF).total
    return told


def refused(request: ParsedRequest, *, available: int, prompt: int = 100) -> int:
    told = quote(request, TARIFF, prompt_tokens=prompt, available=available, context_length=100_000)
    assert isinstance(told, TooExpensive)
    assert told.needed > available
    return told.needed


# the prompt


def test_bytes_and_a_template_and_a_few_tokens_per_message() -> None:
    messages = [{"role": "user", "content": "日本"}, {"role": "assistant", "content": "ab"}]
    assert bound(CHAT, messages=messages) == 6 + 2 + 500 + 2 * 10
    tools = [{"type": "function", "function": {"name": "f"}}]
    size = parse(CHAT, tools=tools).prompt_size
    assert bound(CHAT, tools=tools) == size.text_bytes + size.layout_tokens + 500 + 10


def test_the_defaults_of_the_rules() -> None:
    assert PromptRules() == PromptRules(template_tokens=512, message_tokens=16, media_tokens=2048)


@pytest.mark.parametrize(
    ("dialect", "more", "messages"),
    [
        (MESSAGES, {}, 1),
        (MESSAGES, {"system": "x"}, 2),
        (MESSAGES, {"system": [{"type": "text", "text": "x"}] * 3}, 4),
        (RESPONSES, {}, 1),
        (RESPONSES, {"instructions": "x", "input": [{"role": "user", "content": "x"}] * 2}, 3),
        (CHAT, {"messages": [{"role": "user", "content": ["a", "b", "c"]}]}, 3),
        (CHAT, {"messages": [{"role": "user", "content": []}]}, 1),
        (CHAT, {"messages": [{"role": "user"}]}, 1),
        (EMBEDDINGS, {"input": ["a", "b"]}, 2),
        (EMBEDDINGS, {"input": None, "messages": [{"role": "user", "content": "x"}]}, 2),
        (COMPLETIONS, {"prompt": ["a", "b", [1, 2]]}, 3),
    ],
)
def test_what_counts_as_a_message(dialect: Dialect, more: dict[str, Any], messages: int) -> None:
    size = parse(dialect, **more).prompt_size
    assert bound(dialect, **more) == size.text_bytes + size.ids + 500 + 10 * messages


def test_parts_of_tool_results_count_too() -> None:
    result = {"type": "tool_result", "tool_use_id": "1", "content": ["x"] * 7}
    text = {"type": "text", "text": "x"}
    messages = [{"role": "user", "content": [result, text]}]
    assert bound(MESSAGES, messages=messages) == 1 + 7 + 1 + 500 + 10 * (7 + 1)


def test_media_have_a_setting() -> None:
    image = {"type": "image_url", "image_url": {"url": "data:," + "A" * 10_000}}
    messages = [{"role": "user", "content": [image, image]}]
    assert bound(CHAT, messages=messages) == 2 * 2000 + 500 + 2 * 10


@pytest.mark.parametrize(("dialect", "name"), [(COMPLETIONS, "prompt"), (EMBEDDINGS, "input")])
@pytest.mark.parametrize(
    ("prompt", "tokens"),
    [
        ([5, 6, 7], 3),
        ([[5, 6], [7]], 3),
        ([[5, 6], ""], 2 + 500 + 20),
        ([5, "", 6], 2 + 500 + 10),
        ([[5, ""], [6]], 2 + 500 + 20),
    ],
)
def test_ids_are_as_many_as_they_are(dialect: Dialect, name: str, prompt: Any, tokens: int) -> None:
    assert bound(dialect, **{name: prompt}) == tokens


def test_ids_with_more_than_ids_around_them() -> None:
    assert bound(COMPLETIONS, prompt=[5, 6], suffix="ab") == 2 + 2 + 500 + 10


def test_no_prompt_is_longer_than_the_context() -> None:
    assert bound(CHAT, 300) == 300
    assert bound(CHAT, 3000) == 9 + 500 + 10
    assert bound(COMPLETIONS, 300, prompt=["x" * 1000, "x"]) == 600
    assert bound(COMPLETIONS, 2, prompt=[5, 6, 7]) == 2


@pytest.mark.parametrize(
    ("dialect", "more"),
    [
        (CHAT, {"chat_template": "{{ 'x' * 100000 }}"}),
        (CHAT, {"chat_template_kwargs": {"chat_template": "{{ 'x' * 100000 }}"}}),
        (CHAT, {"chat_template_kwargs": {"padding": "max_length", "max_length": 10_000}}),
        (COMPLETIONS, {"prompt": None, "prompt_embeds": "AAAA"}),
        (COMPLETIONS, {"prompt": [1, 2], "prompt_embeds": "AAAA"}),
    ],
)
def test_where_text_says_nothing_the_context_is_the_bound(
    dialect: Dialect, more: dict[str, Any]
) -> None:
    request = parse(dialect, **more)
    assert bound(dialect, 9000, **more) >= 9000
    assert bound(dialect, **more) >= len(request.body)


# the completion


@pytest.mark.parametrize("dialect", GENERATING)
def test_what_the_request_allows(dialect: Dialect) -> None:
    told = quoted(asking(dialect, 30))
    assert told == Quote(100, 30, limit=30, hold=Nano(7 + 100 + 90))
    assert not told.clamped


def test_the_larger_of_two_numbers_since_engines_differ_in_which_they_heed() -> None:
    assert quoted(parse(CHAT, max_tokens=5, max_completion_tokens=50)).limit == 50


@pytest.mark.parametrize("dialect", [CHAT, RESPONSES])
def test_where_it_names_none_the_default(dialect: Dialect) -> None:
    told = quoted(asking(dialect, None))
    assert (told.completion_tokens, told.limit) == (16_384, 16_384)
    assert COMPLETION_TOKENS_DEFAULT == 16_384
    assert quoted(asking(dialect, None), context=None).limit == 16_384


@pytest.mark.parametrize("dialect", [CHAT, RESPONSES])
@pytest.mark.parametrize("context", [2_000, 16_384, 16_384 + 99])
def test_or_the_context_where_the_default_need_not_fit(dialect: Dialect, context: int) -> None:
    told = quoted(asking(dialect, None), context=context)
    assert (told.completion_tokens, told.limit) == (context, None)
    assert quoted(asking(dialect, None), context=16_384 + 100).limit == 16_384


def test_a_completions_request_allows_what_its_api_says() -> None:
    told = quoted(asking(COMPLETIONS, None))
    assert told.limit == told.completion_tokens == LEGACY_COMPLETION_TOKENS == 16


def test_a_number_beyond_the_context_is_lowered_to_it() -> None:
    told = quoted(asking(CHAT, 10**6), context=5_000)
    assert (told.limit, told.completion_tokens) == (5_000, 5_000)


def test_the_cap_of_the_settings_is_what_a_request_allows() -> None:
    capped = RequestLimits(max_tokens_max=40)
    assert quoted(parse(CHAT, capped)).limit == 40
    assert quoted(parse(CHAT, capped, max_tokens=10)).limit == 10


@pytest.mark.parametrize(
    ("dialect", "predicted", "limit"),
    [
        (CHAT, 30, 30),
        (COMPLETIONS, 30, 30),
        (CHAT, -1, 16_384),
        (COMPLETIONS, -1, 16_384),
        (CHAT, 1e9, 16_384),
        (MESSAGES, 30, 8),
        (RESPONSES, 30, 16_384),
    ],
)
def test_llama_cpps_own_number(dialect: Dialect, predicted: Any, limit: int) -> None:
    assert quoted(parse(dialect, n_predict=predicted)).limit == limit


def test_llama_cpp_is_told_where_an_answer_without_end_ends() -> None:
    assert quoted(parse(CHAT, n_predict=-1), context=4_000).limit == 4_000
    assert quoted(parse(CHAT, n_predict=-1, max_tokens=9), context=4_000).limit == 9


def test_times_best_of_and_prompts() -> None:
    told = quoted(asking(COMPLETIONS, 10, n=2, best_of=3, prompt=["a", "b"]))
    assert (told.completion_tokens, told.limit) == (60, 10)


@pytest.mark.parametrize("dialect", [CHAT, COMPLETIONS])
@pytest.mark.parametrize("more", [{"n_cmpl": 8}, {"n": 1, "n_cmpl": 8}, {"n": 8, "n_cmpl": 1}])
def test_times_llama_cpps_own_n(dialect: Dialect, more: dict[str, Any]) -> None:
    request = asking(dialect, 10, **more)
    assert (request.n, request.best_of) == (8, 8)
    assert quoted(request).completion_tokens == 80


def test_embeddings_have_no_completion() -> None:
    assert quoted(parse(EMBEDDINGS, max_tokens=50)) == Quote(100, 0, None, Nano(107))


def test_counting_tokens_costs_nothing() -> None:
    free = quote(parse(COUNT_TOKENS), TARIFF, prompt_tokens=9, available=0, context_length=None)
    assert free == Quote(9, 0, None, Nano(0))


def test_the_dearest_prices_count() -> None:
    odd = Tariff(prompt=10**6, cached=5 * 10**6, completion=4 * 10**6, reasoning=10**6)
    told = quote(asking(CHAT, 10), odd, prompt_tokens=100, available=RICH, context_length=None)
    assert isinstance(told, Quote)
    assert told.hold == 500 + 40


def test_the_coefficient_counts_and_the_request_is_not_multiplied() -> None:
    dear = Tariff(10**6, 0, 3 * 10**6, 0, request=7, coefficient=1500)
    told = quote(asking(CHAT, 11), dear, prompt_tokens=100, available=RICH, context_length=None)
    assert isinstance(told, Quote)
    assert told.hold == 7 + 200  # 199.5, rounded up


# too little for all of it


@pytest.mark.parametrize("dialect", GENERATING)
def test_the_completion_is_clamped_to_what_fits(dialect: Dialect) -> None:
    told = quoted(asking(dialect, 500), available=7 + 100 + 25 * 3 + 2)
    assert told == Quote(100, 25, limit=25, hold=Nano(7 + 100 + 75), clamped=True)


@pytest.mark.parametrize("dialect", [CHAT, RESPONSES])
@pytest.mark.parametrize("context", [None, 8192, 100_000])
def test_also_where_the_request_names_no_number(dialect: Dialect, context: int | None) -> None:
    told = quoted(asking(dialect, None), available=7 + 100 + 75, context=context)
    assert (told.limit, told.clamped) == (25, True)


def test_one_token_per_choice_is_enough_and_one_nano_less_is_not() -> None:
    request = asking(CHAT, 500, n=4)
    told = quoted(request, available=7 + 100 + 12)
    assert (told.completion_tokens, told.limit) == (4, 1)
    assert refused(request, available=7 + 100 + 11) == 7 + 100 + 12
    assert refused(request, available=0) == 7 + 100 + 12


def test_an_exact_fit_is_not_clamped() -> None:
    assert not quoted(asking(CHAT, 25), available=7 + 100 + 75).clamped


def test_nothing_is_clamped_where_there_is_no_completion() -> None:
    assert refused(parse(EMBEDDINGS), available=106) == 107
    assert quoted(asking(MESSAGES, 0), available=107) == Quote(100, 0, 0, Nano(107))
    assert refused(asking(MESSAGES, 0), available=106) == 107


def test_a_clamp_that_nobody_asked_for_fits_into_the_context() -> None:
    """An engine refuses a number that does not fit there beside the prompt."""
    told = quoted(asking(CHAT, None), prompt=3_000, available=7 + 3_000 + 12_000, context=5_000)
    assert (told.limit, told.hold) == (2_000, 7 + 3_000 + 6_000)
    # what the client itself asked for fits, or is refused without us
    told = quoted(asking(CHAT, 4_500), prompt=3_000, available=7 + 3_000 + 12_000, context=5_000)
    assert told.limit == 4_000
    # a bound as large as the context says nothing
    told = quoted(asking(CHAT, None), prompt=5_000, available=7 + 5_000 + 12_000, context=5_000)
    assert told.limit == 4_000


def test_free_completions_are_no_reason_to_divide_by_nothing() -> None:
    free = Tariff(10**6, 0, 0, 0)
    told = quote(asking(CHAT, 500), free, prompt_tokens=9, available=8, context_length=None)
    assert told == TooExpensive(Nano(9))


def test_every_dialect_is_quoted() -> None:
    for dialect in LEAST:
        request = parse(dialect)
        prompt = prompt_bound(request, RULES, 8192)
        told = quote(request, TARIFF, prompt_tokens=prompt, available=RICH, context_length=8192)
        assert isinstance(told, Quote)
        assert (told.hold > prompt) == dialect.is_metered
