"""Quotes: a hold covers whatever may be charged, and a clamp is the most that the balance pays."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from tests.unit.request.asking import parse

from filature.answer.pricing import Tariff, cost_of
from filature.answer.usage import Usage
from filature.request.parse import ParsedRequest
from filature.request.quote import PromptRules, Quote, TooExpensive, prompt_bound, quote
from filature.wire.dialect import Dialect

PRICES = st.one_of(st.integers(0, 20), st.integers(0, 10**13))
TARIFFS = st.builds(
    Tariff,
    prompt=PRICES,
    cached=PRICES,
    completion=PRICES,
    reasoning=PRICES,
    request=PRICES,
    coefficient=st.integers(0, 5000),
)
TOKENS = st.none() | st.integers(1, 40) | st.integers(1, 10**6)


@st.composite
def requests(draw: st.DrawFn) -> ParsedRequest:
    """A request of any dialect, with and without a number of tokens and several choices."""
    dialect = draw(st.sampled_from(list(Dialect)))
    more: dict[str, Any] = {}
    if dialect is Dialect.RESPONSES:
        more["max_output_tokens"] = draw(TOKENS)
    elif dialect is Dialect.MESSAGES:
        more["max_tokens"] = draw(st.integers(0, 10**6))
    elif dialect.has_choices:
        more["max_tokens"] = draw(TOKENS)
        more["n"] = n = draw(st.integers(1, 4))
        more["best_of"] = draw(st.integers(n, 8))
        more["n_predict"] = draw(st.none() | st.integers(-1, 50))
    if dialect is Dialect.COMPLETIONS:
        more["prompt"] = draw(st.lists(st.text(max_size=5), min_size=1, max_size=3))
    return parse(dialect, **more)


CONTEXTS = st.none() | st.integers(1, 40_000)


@st.composite
def usages(draw: st.DrawFn, told: Quote) -> Usage:
    """Any within the bounds of a quote."""
    prompt = draw(st.integers(0, told.prompt_tokens))
    completion = draw(st.integers(0, told.completion_tokens))
    return Usage(prompt, draw(st.integers(0, prompt)), completion, draw(st.integers(0, completion)))


@given(requests(), TARIFFS, st.integers(0, 50_000), st.integers(0, 10**12), CONTEXTS, st.data())
def test_a_hold_covers_whatever_may_be_charged(
    request: ParsedRequest,
    tariff: Tariff,
    prompt_tokens: int,
    available: int,
    context_length: int | None,
    data: st.DataObject,
) -> None:
    told = quote(
        request,
        tariff,
        prompt_tokens=prompt_tokens,
        available=available,
        context_length=context_length,
    )
    if isinstance(told, TooExpensive):
        assert told.needed > available
        return
    assert 0 <= told.hold <= available
    assert told.prompt_tokens == prompt_tokens
    if not request.dialect.is_metered:
        assert told.hold == 0
        return
    used = data.draw(usages(told))
    assert cost_of(used, tariff).total <= told.hold


@given(requests(), TARIFFS, st.integers(0, 50_000), st.integers(0, 10**12), CONTEXTS)
def test_a_clamp_is_the_most_that_the_balance_pays(
    request: ParsedRequest,
    tariff: Tariff,
    prompt_tokens: int,
    available: int,
    context_length: int | None,
) -> None:
    def ask(available: int) -> Quote | TooExpensive:
        return quote(
            request,
            tariff,
            prompt_tokens=prompt_tokens,
            available=available,
            context_length=context_length,
        )

    told, unclamped = ask(available), ask(10**30)
    assert isinstance(unclamped, Quote)
    assert not unclamped.clamped
    choices = request.best_of * request.prompts
    if isinstance(told, TooExpensive):
        # what is said to be needed is enough, and nothing less is
        assert isinstance(ask(told.needed), Quote)
        assert isinstance(ask(told.needed - 1), TooExpensive)
    elif told.clamped:
        assert told.limit is not None
        assert told.completion_tokens == told.limit * choices
        assert 0 < told.completion_tokens < unclamped.completion_tokens
        more = Usage(prompt_tokens, 0, told.completion_tokens + choices, 0)
        dearest = Tariff(
            max(tariff.prompt, tariff.cached),
            0,
            max(tariff.completion, tariff.reasoning),
            0,
            tariff.request,
            tariff.coefficient,
        )
        fits = unclamped.limit is None and told.limit + prompt_tokens == context_length
        assert fits or cost_of(more, dearest).total > available
    else:
        assert told == unclamped


MESSAGES = st.lists(
    st.fixed_dictionaries(
        {"role": st.sampled_from(["user", "assistant"])},
        optional={
            "content": st.text(max_size=20)
            | st.lists(
                st.fixed_dictionaries({"type": st.just("text"), "text": st.text(max_size=9)})
            ),
            "name": st.text(max_size=5),
        },
    ),
    min_size=1,
    max_size=6,
)


@given(MESSAGES, st.sampled_from([Dialect.CHAT, Dialect.MESSAGES]))
def test_a_prompt_of_one_token_per_byte_in_a_wordy_template_is_within_its_bound(
    messages: list[dict[str, Any]], dialect: Dialect
) -> None:
    request = parse(dialect, messages=messages)
    tokens = 500  # what the template begins and ends with
    for message in messages:
        content = message.get("content") or ""
        texts = [content] if isinstance(content, str) else [part["text"] for part in content]
        tokens += 15 + len(message.get("name", "").encode())
        tokens += sum(len(text.encode()) for text in texts) + max(0, len(texts) - 1)
    assert tokens <= prompt_bound(request, PromptRules(), None)
