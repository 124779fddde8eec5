"""Every recorded answer of a real engine, cut every way: the clients' decoders see what they saw.

Three decoders judge: the openai SDK's, httpx-sse's, and one that follows the standard's wording,
which ``wpt-sse.json`` judges in turn. Token counts are those that the engines reported.
"""

import importlib.util
import json
import random
import re
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any, Final, NamedTuple

import pytest
from httpx_sse._decoders import SSEDecoder as HttpxDecoder
from httpx_sse._decoders import SSELineDecoder as HttpxLineDecoder
from openai._streaming import SSEDecoder as OpenAIDecoder
from tests.property.reference import completed, decode, expected, several, without_cost

from filature.answer.completion import Failure
from filature.answer.policy import AnswerPolicy
from filature.answer.postprocessor import AnswerPostprocessor
from filature.answer.pricing import COST_KEYS, Tariff, cost_of
from filature.answer.usage import Usage
from filature.wire.dialect import Dialect
from filature.wire.sse import EventSplitter, parse_event

DATA: Final = Path(__file__).parents[1] / "data"
CAPTURES: Final = sorted((DATA / "captures").glob("*/*.http"))
WPT: Final = json.loads((DATA / "conformance" / "wpt-sse.json").read_text("utf-8"))["cases"]
TARIFF: Final = Tariff(200_000_000, 20_000_000, 800_000_000, 900_000_000, request=5)
EVERYTHING: Final = AnswerPolicy(tariff=TARIFF, errors="pass")
DIALECTS: Final = {
    "completions": Dialect.COMPLETIONS,
    "anthropic": Dialect.MESSAGES,
    "messages": Dialect.MESSAGES,
    "responses": Dialect.RESPONSES,
}

LLAMA, TRANSFORMERS, VLLM = "llama-server-b11434", "transformers-serve-5.23", "vllm-0.32.0-cpu"
USAGES: Final = {
    f"{LLAMA}/02-chat-stream-usage": Usage(32, 31, 8),
    f"{LLAMA}/03-chat-stream-usage-continuous": Usage(32, 31, 8),
    f"{LLAMA}/04-chat-nonstream": Usage(32, 31, 8),
    f"{LLAMA}/05-completions-stream": Usage(2, 0, 8),
    f"{LLAMA}/06-completions-stream-usage": Usage(2, 1, 8),
    f"{LLAMA}/07-completions-nonstream": Usage(2, 1, 8),
    f"{LLAMA}/08-tools-required-stream": Usage(32, 31, 27),
    f"{LLAMA}/09-tools-required-nonstream": Usage(32, 31, 27),
    f"{LLAMA}/16-n2-stream": Usage(32, 31, 8),
    f"{LLAMA}/22-stream-options-without-stream": Usage(32, 31, 4),
    f"{LLAMA}/26-max-completion-tokens-long": Usage(32, 31, 300),
    f"{LLAMA}/29-anthropic-messages-stream": Usage(32, 31, 8),
    f"{LLAMA}/30-responses-stream": Usage(32, 31, 8),
    f"{LLAMA}/31-completions-two-prompts-stream": Usage(4, 1, 8),
    f"{LLAMA}/36-max-tokens-1": Usage(32, 31, 1),
    f"{LLAMA}/52-zero-token-chat-completions": Usage(32, 31, 1),
    f"{LLAMA}/52-zero-token-messages": Usage(32, 31, 10),
    f"{LLAMA}/53-sse-ping-slow-prefill": Usage(6031, 0, 2),
    f"{TRANSFORMERS}/01-chat-stream": Usage(32, 0, 8),
    f"{TRANSFORMERS}/02-chat-stream-usage": Usage(32, 0, 8),
    f"{TRANSFORMERS}/04-chat-nonstream": Usage(32, 0, 8),
    f"{TRANSFORMERS}/05-completions-stream": Usage(2, 0, 8),
    f"{TRANSFORMERS}/07-completions-nonstream": Usage(2, 0, 8),
    f"{TRANSFORMERS}/16-n2-stream": Usage(32, 0, 4),
    f"{TRANSFORMERS}/21-http10-stream": Usage(32, 0, 4),
    f"{VLLM}/02-chat-stream-usage": Usage(17, 0, 8),
    f"{VLLM}/03-chat-stream-usage-continuous": Usage(17, 0, 8),
    f"{VLLM}/04-chat-nonstream": Usage(17, 0, 8),
    f"{VLLM}/06-completions-stream-usage": Usage(2, 0, 8),
    f"{VLLM}/07-completions-nonstream": Usage(2, 0, 8),
    f"{VLLM}/08-tools-required-stream": Usage(129, 0, 157),
    f"{VLLM}/09-tools-required-nonstream": Usage(129, 0, 157),
    f"{VLLM}/16-n2-stream": Usage(17, 0, 8),
    f"{VLLM}/26-max-completion-tokens-long": Usage(17, 0, 300),
    f"{VLLM}/29-anthropic-messages-stream": Usage(17, 0, 8),
    f"{VLLM}/30-responses-stream": Usage(17, 0, 8),
    f"{VLLM}/31-completions-two-prompts-stream": Usage(4, 0, 8),
    f"{VLLM}/36-max-tokens-1": Usage(17, 0, 1),
}
"""What the engines reported (``captures/README.md``); of all others they reported nothing."""

FAILED: Final = {
    f"{LLAMA}/50-server-sigKILL": Failure.CUT,
    f"{LLAMA}/50-server-sigTERM": Failure.CUT,
    f"{TRANSFORMERS}/37-max-tokens-0": Failure.ERROR_FRAME,
    f"{VLLM}/41-health": Failure.EMPTY,
    f"{VLLM}/50-enginecore-sigkill": Failure.ERROR_FRAME,
}
"""Answers with status 200 that are not complete."""


class Capture(NamedTuple):
    """A recorded answer, its framing removed."""

    name: str
    status: int
    body: bytes
    complete: bool
    dialect: Dialect

    @property
    def is_stream(self) -> bool:
        return self.body[:1] in (b"d", b"e", b":")

    def postprocessor(self, policy: AnswerPolicy) -> AnswerPostprocessor:
        return AnswerPostprocessor(
            self.dialect,
            policy,
            n=2 if "16-n2" in self.name else 1,
            prompts=2 if "31-completions-two" in self.name else 1,
        )


@cache
def load(path: Path) -> Capture:
    spec = importlib.util.spec_from_file_location("dechunk", DATA / "captures" / "dechunk.py")
    assert spec is not None
    assert spec.loader is not None
    dechunk: Any = importlib.util.module_from_spec(spec)
    sys.modules["dechunk"] = dechunk  # where its dataclasses look it up
    spec.loader.exec_module(dechunk)
    answer = dechunk.parse(path.read_bytes())
    case = path.stem.removesuffix("-chat-completions")
    dialect = next((DIALECTS[word] for word in DIALECTS if word in case), Dialect.CHAT)
    name = f"{path.parent.name}/{path.stem}"
    return Capture(name, answer.status, answer.body, answer.complete, dialect)


def named(path: Path) -> str:
    return f"{path.parent.name}/{path.stem}"


every_capture = pytest.mark.parametrize("path", CAPTURES, ids=named)
every_stream = pytest.mark.parametrize(
    "path", [path for path in CAPTURES if load(path).is_stream], ids=named
)


def splits(body: bytes, name: str) -> Iterator[list[bytes]]:
    """Whole, byte by byte, event by event, and at random places."""
    yield [body]
    yield [body[at : at + 1] for at in range(len(body))]
    yield re.findall(rb".+?(?:\n\n|\Z)", body, re.DOTALL)
    chance = random.Random(name)
    for mean in (3, 50, 700):
        pieces = []
        at = 0
        while at < len(body):
            step = 1 + int(chance.expovariate(1 / mean))
            pieces.append(body[at : at + step])
            at += step
        yield pieces


def run(capture: Capture, policy: AnswerPolicy) -> tuple[bytes, AnswerPostprocessor]:
    """What leaves, the same however the answer is cut."""
    whole: tuple[bytes, Any] | None = None
    for pieces in splits(capture.body, capture.name):
        answer = capture.postprocessor(policy)
        out = b"".join([answer.feed(piece) for piece in pieces])
        out += answer.finish(capture.complete)
        known = (answer.usage, answer.error, answer.verdict(capture.complete), answer.content_bytes)
        assert whole is None or whole == (out, known)
        whole = (out, known)
    return out, answer


def by_openai(stream: bytes) -> list[tuple[str, str]]:
    events = OpenAIDecoder().iter_bytes(iter([stream]))
    return [(event.event or "message", event.data) for event in events]


def by_httpx_sse(stream: bytes) -> list[tuple[str, str]]:
    lines, decoder = HttpxLineDecoder(), HttpxDecoder()
    text = stream.decode("utf-8", "replace")
    each = (decoder.decode(line) for line in lines.decode(text) + lines.flush())
    return [(event.event or "message", event.data) for event in each if event is not None]


DECODERS: Final[dict[str, Callable[[bytes], list[tuple[str, str]]]]] = {
    "openai": by_openai,
    "httpx-sse": by_httpx_sse,
    "standard": decode,
}
every_decoder = pytest.mark.parametrize("decoder", DECODERS.values(), ids=DECODERS)


def read(events: list[tuple[str, str]]) -> list[tuple[str, Any]]:
    """The events, their data parsed if it is JSON."""
    seen: list[tuple[str, Any]] = []
    for name, data in events:
        try:
            seen.append((name, json.loads(data)))
        except ValueError:
            seen.append((name, data))
    return seen


@every_capture
def test_usage_is_what_the_engine_reported(path: Path) -> None:
    capture = load(path)
    _, answer = run(capture, EVERYTHING)
    if capture.name in USAGES:
        assert answer.usage == USAGES[capture.name]
    elif capture.status == 200 and capture.body:
        assert answer.usage.estimated
        assert answer.usage.completion >= answer.content_events


def test_every_usage_is_of_a_capture() -> None:
    names = {named(path) for path in CAPTURES}
    assert USAGES.keys() | FAILED.keys() <= names


@every_capture
def test_verdict(path: Path) -> None:
    capture = load(path)
    if capture.status == 200:
        _, answer = run(capture, EVERYTHING)
        assert answer.verdict(capture.complete).reason == FAILED.get(capture.name)


@every_stream
@every_decoder
def test_decoders_see_the_same_but_for_cost(
    path: Path, decoder: Callable[[bytes], list[tuple[str, str]]]
) -> None:
    capture = load(path)
    out, _ = run(capture, EVERYTHING)
    before = read(decoder(completed(capture.body) if capture.complete else capture.body))
    after = read(decoder(out))
    assert [(name, without_cost(payload)) for name, payload in after] == before


@every_stream
def test_events_without_usage_leave_byte_for_byte(path: Path) -> None:
    capture = load(path)
    out, _ = run(capture, EVERYTHING)
    before, after = EventSplitter(), EventSplitter()
    for old, new in zip(before.split(capture.body), after.split(out), strict=True):
        payload = parse_event(old).data or b""
        if b'"usage":{' not in payload or b"message_start" in payload:
            assert old == new


@every_stream
def test_the_last_usage_has_the_cost(path: Path) -> None:
    capture = load(path)
    out, _ = run(capture, EVERYTHING)
    if capture.name in USAGES:
        payloads = [payload for _, payload in read(decode(out)) if isinstance(payload, dict)]
        usages = [
            payload.get("usage") or payload.get("response", {}).get("usage") for payload in payloads
        ]
        usage = [each for each in usages if each][-1]
        assert list(usage)[-4:] == list(COST_KEYS)
        assert usage["total_cost"] == cost_of(USAGES[capture.name], TARIFF).total


@every_stream
@every_decoder
@pytest.mark.parametrize("asks", [False, True], ids=["asks nothing", "asks usage"])
def test_decoders_see_what_was_asked_for(
    path: Path, decoder: Callable[[bytes], list[tuple[str, str]]], asks: bool
) -> None:
    capture = load(path)
    policy = AnswerPolicy(strip=True, include_usage=asks, tariff=TARIFF, errors="pass")
    out, answer = run(capture, policy)
    body = completed(capture.body) if capture.complete else capture.body
    before = [payload for _, payload in read(decoder(body))]
    after = [without_cost(payload) for _, payload in read(decoder(out))]
    if capture.dialect in (Dialect.CHAT, Dialect.COMPLETIONS):
        shown = expected(before, wants_chunk=asks, wants_every=False)
        if asks and answer.verdict(capture.complete).completed:
            place = len(shown) - (shown[-1] == "[DONE]")
            if not any(isinstance(each, dict) and "usage" in each for each in shown):
                own = after.pop(place)
                assert own["choices"] == []
                assert own["usage"]["completion_tokens"] == answer.usage.completion
        assert after == shown
    else:
        assert after == before


@every_capture
def test_documents_get_nothing_but_a_cost(path: Path) -> None:
    capture = load(path)
    if not capture.is_stream:
        out, _ = run(capture, EVERYTHING)
        assert [without_cost(each) for each in several(out)] == several(capture.body)
        if b'"usage":{' not in capture.body:
            assert out == capture.body


def test_an_error_frame_is_taken_and_what_follows_it() -> None:
    capture = load(DATA / "captures" / VLLM / "50-enginecore-sigkill.http")
    out, answer = run(capture, AnswerPolicy(strip=True, hold_until_content=True, tariff=TARIFF))
    assert isinstance(answer.error, dict)
    assert answer.error["code"] == 500
    assert out == capture.body[: capture.body.index(b'data: {"error"')]


@pytest.mark.parametrize("case", WPT, ids=[case["id"] for case in WPT])
@every_decoder
def test_the_standards_cases(
    case: dict[str, Any], decoder: Callable[[bytes], list[tuple[str, str]]]
) -> None:
    body = case["bytes"].encode("latin1")
    for policy in (AnswerPolicy(), AnswerPolicy(strip=True, tariff=TARIFF)):
        capture = Capture(case["id"], 200, body, complete=False, dialect=Dialect.CHAT)
        out, answer = run(capture, policy)
        kept = out  # and half an event at the end, which was not handed out
        if answer.mode == "events":
            kept += body[len(body) - answer.unprocessed_bytes :]
        assert decode(kept) == [tuple(event) for event in case["expected"]]
        if not body.startswith(b"\xef\xbb\xbf"):  # which only the standard has decoders drop
            assert decoder(kept) == decoder(body)
