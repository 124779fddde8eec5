"""Every recorded answer through the postprocessor: what clients see, what is counted, how it ends.

The counts in the tables were read off the recordings by hand.
"""

import itertools
import random
import re
from fractions import Fraction
from math import ceil
from typing import Any, Final

import orjson
import pytest
from tests.conformance.recorded import (
    CHOICES,
    COST,
    DECODERS,
    RECORDINGS,
    STREAMS,
    TARIFF,
    UNARY,
    Recording,
    bytewise,
    every,
    payloads,
    process,
    processor,
    usages,
    without_cost,
)

from filature.answer.completion import Failure
from filature.answer.policy import AnswerPolicy
from filature.answer.usage import Usage

LLAMA: Final = "llama-server-b11434/"
TRANSFORMERS: Final = "transformers-serve-5.23/"
VLLM: Final = "vllm-0.32.0-cpu/"
TWO_PROMPTS: Final = LLAMA + "31-completions-two-prompts-stream"
COUNTS: Final[dict[str, tuple[int, int, int, int]]] = {
    LLAMA + "02-chat-stream-usage": (32, 31, 8, 0),
    LLAMA + "03-chat-stream-usage-continuous": (32, 31, 8, 0),
    LLAMA + "04-chat-nonstream": (32, 31, 8, 0),
    LLAMA + "05-completions-stream": (2, 0, 8, 0),  # on the finish event, unasked
    LLAMA + "06-completions-stream-usage": (2, 1, 8, 0),
    LLAMA + "07-completions-nonstream": (2, 1, 8, 0),
    LLAMA + "08-tools-required-stream": (32, 31, 27, 0),
    LLAMA + "09-tools-required-nonstream": (32, 31, 27, 0),
    LLAMA + "16-n2-stream": (32, 31, 8, 0),  # one record per choice, each with the whole prompt
    LLAMA + "22-stream-options-without-stream": (32, 31, 4, 0),
    LLAMA + "26-max-completion-tokens-long": (32, 31, 300, 0),  # in 100 events
    LLAMA + "29-anthropic-messages-stream": (32, 31, 8, 0),  # input_tokens 1, and 31 cached
    LLAMA + "30-responses-stream": (32, 31, 8, 0),
    TWO_PROMPTS: (4, 1, 8, 0),  # 2 + 2, 0 + 1, 4 + 4
    LLAMA + "36-max-tokens-1": (32, 31, 1, 0),
    LLAMA + "52-zero-token-chat-completions": (32, 31, 1, 0),  # the end token, no text
    LLAMA + "52-zero-token-messages": (32, 31, 10, 0),
    LLAMA + "53-sse-ping-slow-prefill": (6031, 0, 2, 0),
    TRANSFORMERS + "01-chat-stream": (32, 0, 8, 0),
    TRANSFORMERS + "02-chat-stream-usage": (32, 0, 8, 0),
    TRANSFORMERS + "04-chat-nonstream": (32, 0, 8, 0),
    TRANSFORMERS + "05-completions-stream": (2, 0, 8, 0),
    TRANSFORMERS + "07-completions-nonstream": (2, 0, 8, 0),
    TRANSFORMERS + "16-n2-stream": (32, 0, 4, 0),  # one choice, whatever was asked for
    TRANSFORMERS + "21-http10-stream": (32, 0, 4, 0),
    VLLM + "02-chat-stream-usage": (17, 0, 8, 0),
    VLLM + "03-chat-stream-usage-continuous": (17, 0, 8, 0),  # the last of ten
    VLLM + "04-chat-nonstream": (17, 0, 8, 0),
    VLLM + "06-completions-stream-usage": (2, 0, 8, 0),
    VLLM + "07-completions-nonstream": (2, 0, 8, 0),
    VLLM + "08-tools-required-stream": (129, 0, 157, 0),  # in 6 events
    VLLM + "09-tools-required-nonstream": (129, 0, 157, 0),
    VLLM + "16-n2-stream": (17, 0, 8, 0),  # one record over both choices
    VLLM + "26-max-completion-tokens-long": (17, 0, 300, 0),  # in 281 events
    VLLM + "29-anthropic-messages-stream": (17, 0, 8, 0),
    VLLM + "30-responses-stream": (17, 0, 8, 0),
    VLLM + "31-completions-two-prompts-stream": (4, 0, 8, 0),  # one record over both prompts
    VLLM + "36-max-tokens-1": (17, 0, 1, 0),
}
"""Prompt, cached, completion, reasoning tokens, where a record tells. Elsewhere they are estimated."""

_ESTIMATED_LLAMA: Final = (
    *("01-chat-stream", "10-tools-named-stream", "11-tools-auto-stream", "12-bad-model"),
    *("17-logprobs-stream", "18-too-many-tokens", "20-json-schema-stream", "21-http10-stream"),
    *("24-temperature-invalid", "27-unicode-stream", "28-gzip-accept", "32-stop-stream"),
    *("33-chunked-request", "34-no-content-type", "35-usage-false", "37-max-tokens-0"),
    *("50-server-sigKILL", "50-server-sigTERM", "54-return-progress-timings"),
)
_ESTIMATED_VLLM: Final = (
    *("01-chat-stream", "05-completions-stream", "10-tools-named-stream", "11-tools-auto-stream"),
    *("17-logprobs-stream", "20-json-schema-stream", "21-http10-stream", "27-unicode-stream"),
    *("28-gzip-accept", "32-stop-stream", "33-chunked-request", "34-no-content-type"),
    *("35-usage-false", "50-enginecore-sigkill"),
)
ESTIMATED: Final = {
    *(LLAMA + case for case in _ESTIMATED_LLAMA),
    *(VLLM + case for case in _ESTIMATED_VLLM),
}
"""Streams of text without a record."""

FAILURES: Final = {
    LLAMA + "50-server-sigKILL": Failure.CUT,
    LLAMA + "50-server-sigTERM": Failure.CUT,
    TRANSFORMERS + "37-max-tokens-0": Failure.ERROR_FRAME,  # a string
    VLLM + "50-enginecore-sigkill": Failure.ERROR_FRAME,  # and [DONE] behind it
    **{
        engine + case: Failure.ERROR_FRAME
        for engine in (LLAMA, VLLM)
        for case in (
            *("13-malformed-json", "14-missing-messages", "15-empty-body"),
            *("19-prompt-too-long-stream", "23-404", "25-wrong-type", "43-get-on-post"),
        )
        if engine == LLAMA or case not in ("23-404", "43-get-on-post")
    },
    **{
        VLLM + case: Failure.ERROR_FRAME
        for case in (
            *("12-bad-model", "18-too-many-tokens", "22-stream-options-without-stream"),
            *("24-temperature-invalid", "37-max-tokens-0"),
        )
    },
    VLLM + "41-health": Failure.EMPTY,
}
"""Answers that are not complete, and why."""

ONLY_THE_STATUS_TELLS: Final = {
    TRANSFORMERS + "12-bad-model",
    VLLM + "23-404",
    VLLM + "43-get-on-post",
}
"""Errors of the form ``{"detail": …}``."""

POLICIES: Final = {
    "untouched": AnswerPolicy(errors="pass"),
    "forward": AnswerPolicy(tariff=TARIFF, errors="pass"),
    "requested": AnswerPolicy(strip=True, include_usage=True, tariff=TARIFF, errors="pass"),
    "continuous": AnswerPolicy(
        strip=True, include_usage=True, continuous_usage=True, tariff=TARIFF, errors="pass"
    ),
    "comment": AnswerPolicy(strip=True, tariff=TARIFF, errors="pass"),
    "hide": AnswerPolicy(strip=True, when_unrequested="hide", tariff=TARIFF, errors="pass"),
    "held": AnswerPolicy(strip=True, hold_until_content=True, tariff=TARIFF),
}


def cost_of(usage: Usage) -> int:
    """The tariff by fractions."""
    tokens = (
        (usage.prompt - usage.cached) * TARIFF.prompt
        + usage.cached * TARIFF.cached
        + (usage.completion - usage.reasoning) * TARIFF.completion
        + usage.reasoning * TARIFF.reasoning
    )
    return TARIFF.request + ceil(Fraction(tokens, 10**6) * Fraction(TARIFF.coefficient, 1000))


def test_every_recording_is_in_a_table() -> None:
    named = {recording.name for recording in RECORDINGS}
    assert len(RECORDINGS) == 96
    assert named >= COUNTS.keys() | ESTIMATED | FAILURES.keys() | ONLY_THE_STATUS_TELLS
    assert not COUNTS.keys() & ESTIMATED
    assert {recording.name for recording in STREAMS} - COUNTS.keys() - ESTIMATED == {
        TRANSFORMERS + "37-max-tokens-0"
    }


# Splits ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", POLICIES)
@every(RECORDINGS)
def test_splits_change_nothing(recording: Recording, policy: str) -> None:
    body = recording.body
    whole, answer = process(recording, POLICIES[policy])
    told = (answer.usage, answer.verdict(recording.complete), answer.started, answer.error)
    for seed in ("bytewise", *range(4)):
        if seed == "bytewise":
            pieces = list(bytewise(body))
        else:
            chance = random.Random(f"{recording.name} {seed}")
            size = chance.choice([3, 40, 400])
            places = [
                0,
                *sorted(chance.choices(range(len(body) + 1), k=len(body) // size)),
                len(body),
            ]
            pieces = [body[a:b] for a, b in itertools.pairwise(places)]
        out, cut = process(recording, POLICIES[policy], pieces)
        assert out == whole, f"seed {seed}"
        known = (cut.usage, cut.verdict(recording.complete), cut.started, cut.error)
        assert known == told, f"seed {seed}"


@every(STREAMS)
def test_what_is_not_changed_is_not_copied(recording: Recording) -> None:
    answer = processor(recording, AnswerPolicy(errors="pass"))
    for event in re.findall(rb"(?s).+?\n\n", recording.body):
        assert answer.feed(event) is event


# Counts and verdicts --------------------------------------------------------------------------


@every([recording for recording in RECORDINGS if recording.name in COUNTS])
def test_counts_are_the_recorded_ones(recording: Recording) -> None:
    for name, policy in POLICIES.items():
        _, answer = process(recording, policy)
        assert answer.usage == Usage(*COUNTS[recording.name], estimated=False), name


def texts(payload: Any) -> list[str]:
    """Text, reasoning and tool deltas of a chunk."""
    found: list[Any] = []
    for choice in payload.get("choices", []) if isinstance(payload, dict) else []:
        delta = choice.get("delta") or {}
        found += [choice.get("text"), delta.get("content")]
        found += [delta.get("reasoning"), delta.get("reasoning_content")]
        for call in delta.get("tool_calls") or []:
            found += [call["function"].get("name"), call["function"].get("arguments")]
    return [text for text in found if text]


@every([recording for recording in STREAMS if recording.name in ESTIMATED])
def test_what_no_record_tells_is_estimated(recording: Recording) -> None:
    said = [found for payload in payloads(recording.body) if (found := texts(payload))]
    size = sum(len(text.encode()) for found in said for text in found)
    completion = min(max(len(said), ceil(size / 4)), size)
    for name, policy in POLICIES.items():
        _, answer = process(recording, policy)
        assert answer.usage == Usage(10, 0, completion, 0, estimated=True), name


@every([recording for recording in RECORDINGS if recording.name not in ONLY_THE_STATUS_TELLS])
def test_verdict(recording: Recording) -> None:
    failure = FAILURES.get(recording.name)
    for name, policy in POLICIES.items():
        _, answer = process(recording, policy)
        assert answer.verdict(recording.complete) == (failure is None, failure), name


def test_an_error_frame_is_kept_for_the_caller() -> None:
    by_name = {recording.name: recording for recording in RECORDINGS}
    policy = AnswerPolicy(strip=True, include_usage=True, tariff=TARIFF)
    recording = by_name[VLLM + "50-enginecore-sigkill"]
    out, answer = process(recording, policy)
    assert recording.body.partition(b'data: {"error"')[0] == out
    assert isinstance(answer.error, dict)
    assert answer.error["code"] == 500
    recording = by_name[TRANSFORMERS + "37-max-tokens-0"]
    out, answer = process(recording, policy)
    assert recording.body.partition(b'data: {"error"')[0] == out
    out, answer = process(recording, POLICIES["held"])
    assert out == b""
    assert not answer.started
    assert isinstance(answer.error, str)


# Everything forwarded -------------------------------------------------------------------------


@every(RECORDINGS)
def test_forwarded_but_for_the_cost(recording: Recording) -> None:
    out, answer = process(recording, POLICIES["forward"])
    assert COST.sub(b"", out) == recording.body
    if recording.is_stream:
        records = [record for payload in payloads(recording.body) for record in usages(payload)]
        blocks = recording.body.split(b"\n\n")
        for before, after in zip(blocks, out.split(b"\n\n"), strict=True):
            assert before == after or b'"usage"' in before
    else:
        records = usages(orjson.loads(recording.body)) if recording.body else []
    costs = [tuple(map(int, found[:3])) for found in COST.findall(out)]
    assert len(costs) == len(records)
    assert bool(costs) == (recording.name in COUNTS)
    for prompt, completion, total in costs:
        assert prompt + completion + TARIFF.request == total
    # two prompts, the first told, the other not yet
    assert out.count(b'"estimated"') == (recording.name == TWO_PROMPTS)
    if costs:
        assert costs[-1][2] == cost_of(answer.usage)
        assert Fraction(COST.findall(out)[-1][3].decode()) == Fraction(costs[-1][2], 10**9)


@every(STREAMS)
def test_seen_alike_before_and_after(recording: Recording) -> None:
    out, _ = process(recording, POLICIES["forward"])
    for decoder in DECODERS.values():
        before, after = decoder(recording.body), decoder(out)
        assert [without_cost(event) for event in after] == [without_cost(event) for event in before]
        assert len(before) == recording.body.count(b"data: ")


# What was asked for ---------------------------------------------------------------------------


def shown(before: list[Any], *, usage: bool, continuous: bool) -> list[Any]:
    """What the client is to see of the payloads, by the rules of the API, less any cost."""
    after: list[Any] = []
    for payload in before:
        if not isinstance(payload, dict) or "usage" not in payload:
            after.append(payload)
        elif payload["choices"]:
            kept = dict(payload)
            if not (usage and continuous):
                del kept["usage"]
            after.append(kept)
        elif usage:
            after.append(payload)
        elif after[-1]["choices"][0]["finish_reason"]:
            rest = {key: value for key, value in payload.items() if key not in ("usage", "choices")}
            after[-1] = rest | after[-1]
    return after


@pytest.mark.parametrize("policy", ["requested", "continuous", "comment", "hide"])
@every([recording for recording in STREAMS if recording.dialect in CHOICES])
def test_as_requested(recording: Recording, policy: str) -> None:
    usage, continuous = policy in ("requested", "continuous"), policy == "continuous"
    completed = recording.name not in FAILURES
    out, answer = process(recording, POLICIES[policy])
    for decoder in DECODERS.values():
        before = [without_cost(event)[1] for event in decoder(recording.body)]
        after = [without_cost(event)[1] for event in decoder(out)]
        if usage and completed and not any(told_apart(payload) for payload in before):
            ours = after.pop(-2 if after[-1] == "[DONE]" else -1)
            assert told_apart(ours)
            assert ours["usage"]["completion_tokens"] == answer.usage.completion
        assert after == shown(before, usage=usage, continuous=continuous)
    last = [payload for payload in payloads(out) if told_apart(payload)][-1:]
    assert bool(last) is (usage and completed)
    if last:
        assert last[0]["usage"]["total_cost"] == cost_of(answer.usage)
        assert last[0]["usage"].get("estimated", False) is answer.usage.estimated
    if not usage:
        assert b'"usage"' not in b"".join(re.findall(rb"data:.*", out))


def told_apart(payload: Any) -> bool:
    """Whether it is a chunk that carries nothing but usage."""
    return isinstance(payload, dict) and payload.get("choices") == [] and "usage" in payload


@every([recording for recording in STREAMS if recording.dialect in CHOICES])
def test_unrequested_usage_is_a_comment_before_the_end(recording: Recording) -> None:
    out, answer = process(recording, POLICIES["comment"])
    hidden, _ = process(recording, POLICIES["hide"])
    comments = re.findall(rb": filature (.*)\n\n", out)
    if recording.name in FAILURES:
        assert (comments, out) == ([], hidden)
        return
    usage = answer.usage
    (comment,) = comments
    told = orjson.loads(comment)["usage"]
    assert (told["prompt_tokens"], told["completion_tokens"]) == (usage.prompt, usage.completion)
    assert told["prompt_tokens_details"]["cached_tokens"] == usage.cached
    assert told["total_cost"] == cost_of(usage)
    assert told.get("estimated", False) is usage.estimated
    assert out.replace(b": filature " + comment + b"\n\n", b"") == hidden
    assert out.endswith((comment + b"\n\n", comment + b"\n\ndata: [DONE]\n\n"))


@pytest.mark.parametrize("policy", ["requested", "comment"])
@every([recording for recording in STREAMS if recording.dialect in CHOICES])
def test_events_that_need_no_change_are_not_rewritten(recording: Recording, policy: str) -> None:
    out, _ = process(recording, POLICIES[policy])
    blocks = iter(out.split(b"\n\n"))
    for block in recording.body.split(b"\n\n"):
        if b'"usage"' not in block and b'"finish_reason":"' not in block:
            assert block in blocks  # in this order


@pytest.mark.parametrize("policy", ["requested", "continuous", "comment", "hide"])
@every([*UNARY, *(each for each in STREAMS if each.dialect not in CHOICES)])
def test_other_answers_keep_their_usage(recording: Recording, policy: str) -> None:
    assert process(recording, POLICIES[policy])[0] == process(recording, POLICIES["forward"])[0]


@every(STREAMS)
def test_holding_delays_and_changes_nothing(recording: Recording) -> None:
    if recording.name in FAILURES:
        return
    out, _ = process(recording, POLICIES["held"])
    assert out == process(recording, POLICIES["comment"])[0]
