"""Recorded answers that end early, or with other line ends: what passes, what it costs, how it counts."""

import itertools
import random
import re
from typing import Any, Final

import orjson
import pytest
from tests.conformance.recorded import (
    CHOICES,
    COST,
    DECODERS,
    STREAMS,
    TARIFF,
    Recording,
    every,
    payloads,
    process,
    without_cost,
)

from filature.answer.completion import COMPLETED, Failure, Verdict
from filature.answer.policy import AnswerPolicy
from filature.answer.usage import Usage

FORWARD: Final = AnswerPolicy(tariff=TARIFF, errors="pass")
COMMENT: Final = AnswerPolicy(strip=True, tariff=TARIFF, errors="pass")
REQUESTED: Final = AnswerPolicy(strip=True, include_usage=True, tariff=TARIFF, errors="pass")
WITH_CHOICES: Final = [recording for recording in STREAMS if recording.dialect in CHOICES]
EVERY_EVENT_TELLS: Final = [
    recording
    for recording in STREAMS
    if recording.name == "vllm-0.32.0-cpu/03-chat-stream-usage-continuous"
]


def is_whole(tail: bytes) -> bool:
    """Whether an event lacks nothing but its blank line."""
    said = [line.partition(b":")[2].strip() for line in tail.split(b"\n") if line[:5] == b"data:"]
    if said == [b"[DONE]"]:
        return True
    try:
        orjson.loads(b"\n".join(said))
    except orjson.JSONDecodeError:
        return False
    return True


def is_text(tail: bytes) -> bool:
    """Whether no character of it is cut, which an SDK stumbles over."""
    try:
        tail.decode()
    except UnicodeDecodeError:
        return False
    return True


def places(recording: Recording) -> list[int]:
    """Where to cut: everywhere around the last events, and here and there before."""
    size = len(recording.body)
    chance = random.Random(recording.name)
    return sorted({*range(max(0, size - 40), size + 1), *chance.choices(range(size + 1), k=20)})


def events_of(recording: Recording) -> list[bytes]:
    return re.findall(rb"(?s).+?\n\n", recording.body)


@every(STREAMS)
def test_half_an_event(recording: Recording) -> None:
    for at in places(recording):
        body = recording.body[:at]
        whole = b"".join(re.findall(rb"(?s).*?\n\n", body))
        tail = body[len(whole) :]
        out, answer = process(recording, FORWARD, [body], clean=False)
        assert COST.sub(b"", out) == whole, f"cut at {at}"
        assert answer.unprocessed_bytes == len(tail), f"cut at {at}"
        out, answer = process(recording, FORWARD, [body], clean=True)
        if is_whole(tail):
            blank = b"\n" if tail.endswith(b"\n") else b"\n\n"
            assert COST.sub(b"", out) == body + blank, f"cut at {at}"
            assert answer.unprocessed_bytes == 0, f"cut at {at}"
        else:
            assert COST.sub(b"", out) == body, f"cut at {at}"
            assert answer.unprocessed_bytes == len(tail), f"cut at {at}"
            for decoder in DECODERS.values() if is_text(tail) else ():
                assert decoder(out)[len(decoder(whole)) :] == [], f"cut at {at}"


@every(WITH_CHOICES)
def test_verdict_after_each_event(recording: Recording) -> None:
    """Complete is what has an end mark, or a finish reason on every choice and a proper end."""
    begun: set[int] = set()
    finished: set[int] = set()
    body, done, failed = b"", False, False
    for event in events_of(recording):
        body += event
        for payload in payloads(event):
            done = done or payload == "[DONE]"
            if isinstance(payload, dict):
                failed = failed or "error" in payload
                for choice in payload.get("choices", ()):
                    begun.add(choice["index"])
                    if choice.get("finish_reason"):
                        finished.add(choice["index"])
        if failed:
            expected = expected_cut = Verdict(False, Failure.ERROR_FRAME)
        else:
            _, answer = process(recording, COMMENT, [body], clean=True)
            short = Failure.UNFINISHED if answer.has_content else Failure.EMPTY
            whole = done or (begun and begun == finished)
            expected = COMPLETED if whole else Verdict(False, short)
            expected_cut = COMPLETED if done else Verdict(False, Failure.CUT)
        for clean, verdict in ((True, expected), (False, expected_cut)):
            out, answer = process(recording, COMMENT, [body], clean=clean)
            assert answer.verdict(clean) == verdict
            # no cost comment, and so no look of an end, where there is none
            assert (b": filature " in out) is verdict.completed


@pytest.mark.parametrize(
    "policy", [FORWARD, COMMENT, REQUESTED], ids=["forward", "comment", "usage"]
)
@every(EVERY_EVENT_TELLS)
def test_exact_at_any_abort(recording: Recording, policy: AnswerPolicy) -> None:
    body = b""
    for event in events_of(recording):
        body += event
        for payload in payloads(event):
            if payload != "[DONE]":
                told = payload["usage"]
        out, answer = process(recording, policy, [body], clean=False, continuous=True)
        assert answer.usage == Usage(told["prompt_tokens"], 0, told["completion_tokens"], 0)
        pieces = [body[at : at + 1] for at in range(len(body))]
        cut, answer = process(recording, policy, pieces, clean=False, continuous=True)
        assert answer.usage == Usage(told["prompt_tokens"], 0, told["completion_tokens"], 0)
        assert cut == out


@pytest.mark.parametrize("end", [b"\r\n", b"\r"], ids=["CRLF", "CR"])
@pytest.mark.parametrize(
    "policy", [FORWARD, COMMENT, REQUESTED], ids=["forward", "comment", "usage"]
)
@every(STREAMS)
def test_other_line_ends(recording: Recording, policy: AnswerPolicy, end: bytes) -> None:
    """The same answer with other line ends means the same, and keeps its own."""
    plain, plain_answer = process(recording, policy)
    body = recording.body.replace(b"\n", end)
    out, answer = process(recording, policy, [body])
    assert answer.usage == plain_answer.usage
    assert answer.verdict(recording.complete) == plain_answer.verdict(recording.complete)
    for decoder in DECODERS.values():
        assert [without_cost(event) for event in decoder(out)] == [
            without_cost(event) for event in decoder(plain)
        ]
    assert out.replace(end, b"\n") == plain  # what was dropped was dropped with its line ends
    if policy is FORWARD:
        assert COST.sub(b"", out) == body
    chance = random.Random(f"{recording.name} {end!r}")
    marks: list[Any] = [
        0,
        *sorted(chance.choices(range(len(body) + 1), k=len(body) // 9)),
        len(body),
    ]
    pieces = [body[a:b] for a, b in itertools.pairwise(marks)]
    assert process(recording, policy, pieces)[0] == out
