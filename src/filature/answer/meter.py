"""From the records of an answer, and from its content where they do not tell, to its usage.

The rules (``read_record`` gave the numbers, the observer says what each record belongs to):

- A record belongs to one choice, or to the whole request. Of each the largest counts, field by
  field; choices add up in the completion, prompts (choice index // n) add up in the prompt.
- With n > 1, whole-request records that are exactly n are one per choice: completions add up.
- A record that content followed no longer tells the completion, unless every event carries one.
  Then, and where there is none, the completion is estimated, and never below what was recorded.
- What an opening record (Anthropic's ``message_start``) says of the completion is a lower bound.
"""

from collections.abc import Callable
from math import inf
from typing import Final

from filature.answer import estimate
from filature.answer.usage import Record, Usage

_CHOICES_MIN: Final = 128  # told apart even where fewer were asked for; others share the last place


class _Tally:
    """What is known of one choice, or of the whole request."""

    __slots__ = ("cached", "completion", "events", "mark", "prompt", "reasoning", "text_bytes")

    def __init__(self) -> None:
        self.prompt: int | None = None
        self.cached = 0
        self.completion: int | None = None
        self.reasoning = 0
        self.mark = -1  # content events before the last record that told the completion
        self.events = 0
        self.text_bytes = 0

    def add(self, record: Record, mark: int) -> None:
        prompt, cached = record.prompt, record.cached
        completion, reasoning = record.completion, record.reasoning
        if prompt is not None and (self.prompt is None or prompt > self.prompt):
            self.prompt = prompt
        if cached is not None and cached > self.cached:
            self.cached = cached
        if completion is not None:
            self.mark = mark
            if self.completion is None or completion > self.completion:
                self.completion = completion
        if reasoning is not None and reasoning > self.reasoning:
            self.reasoning = reasoning


class UsageMeter:
    """Adds up one answer. Content and records are told in the order of the answer.

    ``n`` is the number of choices asked for per prompt, ``prompts`` that of prompts in the
    request; ``prompt_text_bytes`` is asked for only when the prompt must be estimated;
    ``continuous``: the engine was asked for a record on every event.
    """

    __slots__ = (
        "_choices",
        "_choices_max",
        "_continuous",
        "_n",
        "_open_completion",
        "_prompt_text_bytes",
        "_prompts",
        "_ratio",
        "_unbroken",
        "_whole",
        "_whole_completions",
        "_whole_count",
        "_whole_reasonings",
        "content_bytes",
        "content_events",
        "one_choice",
        "unread_bytes",
    )

    def __init__(
        self,
        *,
        n: int = 1,
        prompts: int = 1,
        prompt_text_bytes: int | Callable[[], int] = 0,
        bytes_per_token: float = estimate.BYTES_PER_TOKEN,
        continuous: bool = False,
    ) -> None:
        self._n = n
        self._prompts = prompts
        self._prompt_text_bytes = prompt_text_bytes
        self._ratio = bytes_per_token if bytes_per_token > 0 else estimate.BYTES_PER_TOKEN
        self._continuous = continuous
        self._unbroken = False  # a record came with content, as asked
        self._choices: dict[int, _Tally] = {}
        self._choices_max = max(n * prompts, _CHOICES_MIN)
        self._whole: _Tally | None = None
        self._whole_count = 0
        self._whole_completions = 0
        self._whole_reasonings = 0
        self._open_completion = 0
        self.one_choice = n * prompts == 1
        """One choice was asked for: its content need not be told by ``add_choice_content``."""
        self.content_events = 0
        """Events that carried text, reasoning or tool deltas; the observer counts them."""
        self.content_bytes = 0
        """Bytes of these in UTF-8, JSON escapes decoded; the observer counts them."""

        self.unread_bytes = 0
        """Bytes that passed unread, since they were too many; they make every count an estimate."""

    def add_choice_content(self, choice: int, text_bytes: int) -> None:
        """Text of one choice in one event, beside the counts of the whole."""
        tally = self._tally(choice)
        tally.events += 1
        tally.text_bytes += text_bytes

    def add_record(
        self,
        record: Record,
        choice: int | None,
        *,
        with_content: bool,
        opening: bool = False,
        mark: int | None = None,
    ) -> None:
        """A record of one choice, or (None) of the whole request; after its own event's content.

        ``with_content``: its own event carried some. ``opening``: it stands before all content by
        its nature. ``mark``: what ``content_events`` was at the record, where it is told late
        (of the only choice).
        """
        if mark is None:
            mark = self.content_events
        if with_content and self._continuous:
            self._unbroken = True
        if choice is not None:
            tally = self._tally(choice)
            tally.add(record, mark if self.one_choice else tally.events)
            return
        if self._whole is None:
            self._whole = _Tally()
        if opening:
            self._open_completion = max(self._open_completion, record.completion or 0)
            self._whole.add(Record(record.prompt, record.cached, None, None), -1)
            return
        self._whole_count += 1
        self._whole_completions += record.completion or 0
        self._whole_reasonings += record.reasoning or 0
        self._whole.add(record, mark)

    def usage(self) -> Usage:
        """The usage so far, exact or estimated."""
        only = self._only_source()
        if only is not None:
            prompt, completion = only.prompt, only.completion
            assert prompt is not None
            assert completion is not None
            cached, reasoning = only.cached, only.reasoning
            return Usage(
                prompt,
                cached if cached < prompt else prompt,  # noqa: FURB136 - per request, and a call less
                completion,
                reasoning if reasoning < completion else completion,  # noqa: FURB136 - the same
            )
        prompt, cached, prompt_told = self._prompt()
        completion, reasoning, completion_told = self._completion()
        return Usage(
            prompt,
            min(cached, prompt),
            completion,
            min(reasoning, completion),
            not (prompt_told and completion_told),
        )

    def claimed(self) -> Usage:
        """What records tell, and of the completion what events say where they do not; else as ``usage``.

        What is our own guess is nobody's claim: no prompt that was not told, no token by the ratio.
        """
        if self.unread_bytes:
            return self.usage()
        ratio, self._ratio = self._ratio, inf
        usage = self.usage()
        self._ratio = ratio
        prompt = min(usage.prompt, self.told()[0])
        cached = min(usage.cached, prompt)
        return Usage(prompt, cached, usage.completion, usage.reasoning, usage.estimated)

    def told(self) -> tuple[int, int]:
        """The most prompt and completion tokens that records told, believable or not."""
        told, _ = self._told_prompts()
        prompt, completion = sum(told.values()), self._choices_completion()[0]
        whole = self._whole
        if whole is not None:
            prompt = max(prompt, whole.prompt or 0)
            completion = max(completion, self._whole_completion(whole)[0], self._open_completion)
        return prompt, completion

    def _only_source(self) -> _Tally | None:
        """The tally that tells all there is to know, if one does: the usual case."""
        if not self.one_choice or self.unread_bytes:
            return None
        only = self._whole
        if only is None:
            if len(self._choices) != 1:
                return None
            (only,) = self._choices.values()
        elif self._choices:
            return None
        if only.prompt is None or only.completion is None or only.mark != self.content_events:
            return None
        return only

    def _tally(self, choice: int) -> _Tally:
        choice = choice if 0 <= choice < self._choices_max else self._choices_max - 1
        tally = self._choices.get(choice)
        if tally is None:
            tally = self._choices[choice] = _Tally()
        return tally

    def _prompt(self) -> tuple[int, int, bool]:
        """Prompt tokens, cached ones, and whether a record told them all."""
        whole = self._whole
        told, cached = self._told_prompts()
        prompt = sum(told.values())
        cached_tokens = sum(cached.values())
        if whole is not None and whole.prompt is not None:
            return max(whole.prompt, prompt), max(whole.cached, cached_tokens), True
        missing = self._prompts - len(told)
        if missing <= 0:
            return prompt, cached_tokens, True
        size = self._prompt_text_bytes
        text_bytes = size if isinstance(size, int) else size()
        guess = estimate.prompt_tokens(text_bytes * missing // self._prompts)
        return prompt + guess, cached_tokens, False

    def _told_prompts(self) -> tuple[dict[int, int], dict[int, int]]:
        """Prompt tokens and cached ones by prompt, where records of choices told them."""
        told: dict[int, int] = {}
        cached: dict[int, int] = {}
        for choice, tally in self._choices.items():
            if tally.prompt is not None:
                index = choice // self._n
                told[index] = max(told.get(index, 0), tally.prompt)
                cached[index] = max(cached.get(index, 0), tally.cached)
        return told, cached

    def _completion(self) -> tuple[int, int, bool]:
        """Completion tokens, reasoning ones, and whether a record told them all."""
        told, likely, exact = self._choices_completion()
        reasoning = sum(tally.reasoning for tally in self._choices.values())
        whole = self._whole
        if whole is not None and whole.completion is not None:
            whole_told, whole_reasoning = self._whole_completion(whole)
            reasoning = max(reasoning, whole_reasoning)
            told = max(told, whole_told)
            if not self.unread_bytes and (whole.mark == self.content_events or self._unbroken):
                return told, reasoning, True
        if exact and not self.unread_bytes:
            return told, reasoning, True
        if self.unread_bytes:
            likely += self._guess(1, self.unread_bytes)
        completion = max(told, likely, self._open_completion)
        empty = self.content_events == 0 and self.unread_bytes == 0
        return completion, reasoning, empty and self._told_anything()

    def _whole_completion(self, whole: _Tally) -> tuple[int, int]:
        """Completion tokens and reasoning ones that records of the whole request told."""
        if self._n > 1 and self._whole_count == self._n:  # one per choice
            return self._whole_completions, self._whole_reasonings
        return whole.completion or 0, whole.reasoning

    def _choices_completion(self) -> tuple[int, int, bool]:
        """By choice: tokens told, tokens likely, and whether what was told is all."""
        told = likely = 0
        any_fresh = any_guess = False
        for tally in self._choices.values():
            told += tally.completion or 0
            seen = self.content_events if self.one_choice else tally.events
            if tally.completion is not None and (tally.mark == seen or self._unbroken):
                any_fresh = True
                likely += tally.completion
            elif not self.one_choice and (tally.events or tally.completion is not None):
                any_guess = True
                likely += max(tally.completion or 0, self._guess(tally.events, tally.text_bytes))
        if self.one_choice and not any_fresh:
            likely = self._guess(self.content_events, self.content_bytes)
        return told, likely, any_fresh and not any_guess

    def _told_anything(self) -> bool:
        return self._whole is not None or any(
            tally.prompt is not None or tally.completion is not None
            for tally in self._choices.values()
        )

    def _guess(self, events: int, text_bytes: int) -> int:
        return estimate.completion_tokens(events, text_bytes, self._ratio)
