"""From records and content to usage, by example; ``meter.py`` states the rules above them."""

import pytest

from filature.answer.estimate import completion_tokens, prompt_tokens
from filature.answer.meter import UsageMeter
from filature.answer.usage import Record, Usage


def says(meter: UsageMeter, text: str, choice: int = 0) -> None:
    meter.content_events += 1
    meter.content_bytes += len(text)
    if not meter.one_choice:
        meter.add_choice_content(choice, len(text))


def tells(
    meter: UsageMeter,
    prompt: int | None,
    completion: int | None,
    choice: int | None = 0,
    *,
    cached: int | None = None,
    reasoning: int | None = None,
    with_content: bool = False,
) -> None:
    meter.add_record(
        Record(prompt, cached, completion, reasoning), choice, with_content=with_content
    )


class TestOneChoice:
    def test_the_largest_counts_field_by_field(self) -> None:
        meter = UsageMeter()
        tells(meter, 5, 9, cached=2)
        tells(meter, 7, 4, reasoning=3)
        tells(meter, None, None, cached=1)
        assert meter.usage() == Usage(7, 2, 9, 3)

    def test_of_a_choice_and_the_whole_request_too(self) -> None:
        meter = UsageMeter()
        tells(meter, 17, 8)
        tells(meter, 17, 8, None)
        assert meter.usage() == Usage(17, 0, 8)

    def test_parts_are_no_larger_than_what_they_are_parts_of(self) -> None:
        meter = UsageMeter()
        tells(meter, 5, 3, cached=9, reasoning=9)
        assert meter.usage() == Usage(5, 5, 3, 3)
        tells(meter, 5, 3, None, cached=9, reasoning=9)
        assert meter.usage() == Usage(5, 5, 3, 3)

    def test_an_explicit_zero_in_a_final_record_stands(self) -> None:
        for choice in (0, None):
            meter = UsageMeter(prompt_text_bytes=100)
            says(meter, "text")
            tells(meter, 0, 0, choice)
            assert meter.usage() == Usage(0, 0, 0)

    def test_a_record_that_content_followed_tells_the_prompt_only(self) -> None:
        meter = UsageMeter()
        tells(meter, 9, 2)
        for _ in range(5):
            says(meter, "word")
        assert meter.usage() == Usage(9, 0, 5, estimated=True)
        meter = UsageMeter()
        says(meter, "word")
        tells(meter, 9, 7)
        says(meter, "word")
        assert meter.usage() == Usage(9, 0, 7, estimated=True)

    def test_unless_every_event_carries_one(self) -> None:
        meter = UsageMeter(continuous=True)
        says(meter, "word")
        tells(meter, 9, 3, with_content=True)
        says(meter, "word")
        assert meter.usage() == Usage(9, 0, 3)

    def test_which_an_engine_that_was_asked_in_vain_does_not_do(self) -> None:
        meter = UsageMeter(continuous=True)
        tells(meter, 9, 0)
        says(meter, "word")
        assert meter.usage() == Usage(9, 0, 1, estimated=True)

    def test_nothing_told(self) -> None:
        meter = UsageMeter(prompt_text_bytes=40)
        says(meter, "four bytes here.")
        assert meter.usage() == Usage(10, 0, 4, estimated=True)
        assert UsageMeter().usage() == Usage(1, 0, 0, estimated=True)

    def test_only_one_of_the_two_told(self) -> None:
        meter = UsageMeter(prompt_text_bytes=40)
        says(meter, "word")
        tells(meter, None, 3)
        assert meter.usage() == Usage(10, 0, 3, estimated=True)
        meter = UsageMeter()
        says(meter, "word")
        tells(meter, 5, None)
        assert meter.usage() == Usage(5, 0, 1, estimated=True)

    def test_the_size_of_the_prompt_is_asked_for_only_when_needed(self) -> None:
        def never() -> int:
            raise AssertionError

        meter = UsageMeter(prompt_text_bytes=never)
        tells(meter, 5, 3)
        assert meter.usage() == Usage(5, 0, 3)

    def test_the_ratio_seen_for_the_model(self) -> None:
        for ratio, tokens in ((4.0, 5), (2.5, 8), (1000.0, 1), (0.1, 20), (0.0, 5), (-1.0, 5)):
            meter = UsageMeter(bytes_per_token=ratio)
            says(meter, "x" * 20)
            assert meter.usage().completion == tokens

    def test_bytes_that_passed_unread_make_it_an_estimate(self) -> None:
        meter = UsageMeter()
        tells(meter, 5, 3)
        meter.unread_bytes = 100
        assert meter.usage() == Usage(5, 0, 3 + 25, estimated=True)


class TestSeveralChoices:
    def test_records_of_choices_add_up_and_the_prompt_counts_once(self) -> None:
        meter = UsageMeter(n=2)
        for choice, tokens in ((0, 4), (1, 5), (0, 6)):
            says(meter, "word", choice)
            tells(meter, 17, tokens, choice, cached=choice)
        assert meter.usage() == Usage(17, 1, 11)

    def test_prompts_add_up(self) -> None:
        meter = UsageMeter(n=2, prompts=2)
        for choice in range(4):
            tells(meter, 10 + choice, 1, choice, cached=choice)
        assert meter.usage() == Usage(11 + 13, 1 + 3, 4)

    def test_as_many_whole_request_records_as_choices_are_one_each(self) -> None:
        meter = UsageMeter(n=2)
        tells(meter, 32, 4, None, cached=31, reasoning=1)
        tells(meter, 32, 5, None, cached=31, reasoning=2)
        assert meter.usage() == Usage(32, 31, 9, 3)

    def test_fewer_or_more_are_not(self) -> None:
        meter = UsageMeter(n=3)
        for tokens in (4, 5):
            tells(meter, 32, tokens, None)
        assert meter.usage() == Usage(32, 0, 5)
        for tokens in (6, 7):
            tells(meter, 32, tokens, None)
        assert meter.usage() == Usage(32, 0, 7)

    def test_a_choice_without_its_record_is_estimated(self) -> None:
        meter = UsageMeter(n=2)
        says(meter, "x" * 12, 0)
        says(meter, "x" * 20, 1)
        tells(meter, 17, 2, 1)
        assert meter.usage() == Usage(17, 0, 3 + 2, estimated=True)
        says(meter, "x" * 8, 1)
        assert meter.usage() == Usage(17, 0, 3 + 7, estimated=True)
        tells(meter, 17, 4, 1)
        tells(meter, 17, 1, 0)
        assert meter.usage() == Usage(17, 0, 5)

    def test_a_prompt_without_its_record_is_estimated(self) -> None:
        meter = UsageMeter(prompts=2, prompt_text_bytes=80)
        says(meter, "word", 0)
        says(meter, "word", 1)
        tells(meter, 7, 1, 0)
        assert meter.usage() == Usage(7 + 10, 0, 2, estimated=True)

    def test_a_record_of_the_whole_request_tells_all(self) -> None:
        meter = UsageMeter(n=2, prompts=2)
        for choice in range(4):
            says(meter, "some words", choice)
        tells(meter, 9, 8, None)
        assert meter.usage() == Usage(9, 0, 8)

    def test_choices_nobody_asked_for_take_no_memory(self) -> None:
        meter = UsageMeter(n=2)
        for choice in (10**9, -5, 10**18, 1 << 70):
            says(meter, "word", choice)
            tells(meter, 1, 1, choice)
        assert len(meter._choices) == 1


@pytest.mark.parametrize(
    ("events", "size", "tokens"),
    [(0, 0, 0), (1, 1, 1), (1, 4, 1), (1, 5, 2), (9, 20, 9), (9, 3, 3)],
)
def test_completion_estimate(events: int, size: int, tokens: int) -> None:
    assert completion_tokens(events, size, 4.0) == tokens


@pytest.mark.parametrize(("size", "tokens"), [(0, 1), (1, 1), (4, 1), (5, 2), (400, 100)])
def test_prompt_estimate(size: int, tokens: int) -> None:
    assert prompt_tokens(size) == tokens


def test_no_more_is_claimed_to_be_cached_than_was_told_of_the_prompt() -> None:
    meter = UsageMeter(prompts=2, prompt_text_bytes=80)
    tells(meter, 5, 3, cached=9)
    assert meter.usage() == Usage(15, 9, 3, estimated=True)
    assert meter.claimed() == Usage(5, 5, 3, estimated=True)


def test_an_opening_record_is_a_lower_bound() -> None:
    meter = UsageMeter()
    meter.add_record(Record(9, 1, 6, None), None, opening=True, with_content=False)
    assert meter.usage() == Usage(9, 1, 6)
    says(meter, "word")
    assert meter.usage() == Usage(9, 1, 6, estimated=True)
    tells(meter, None, 2, None)
    assert meter.usage() == Usage(9, 1, 2)
