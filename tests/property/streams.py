"""Answers as engines may stream them: every dialect, any line ends, well or badly formed."""

import json
import re
from typing import Any

from hypothesis import strategies as st
from tests.property.json_text import CHARACTERS, SPACE, json_text

from filature.answer.policy import AnswerPolicy
from filature.answer.pricing import Tariff
from filature.wire.dialect import Dialect

TARIFF = Tariff(prompt=200_000, cached=20_000, completion=800_000, reasoning=900_000, request=7)
STREAMED = [Dialect.CHAT, Dialect.COMPLETIONS, Dialect.RESPONSES, Dialect.MESSAGES]
TEXTS = st.one_of(st.just(""), st.text(CHARACTERS, max_size=6), st.sampled_from(["a", " b", "c"]))
COUNTS = st.one_of(st.integers(0, 50), st.sampled_from([None, -1, 1.5, 10**12, "7", True]))
POLICIES = st.builds(
    AnswerPolicy,
    strip=st.booleans(),
    include_usage=st.booleans(),
    continuous_usage=st.booleans(),
    when_unrequested=st.sampled_from(["comment", "hide", "send"]),
    hold_until_content=st.booleans(),
    tariff=st.sampled_from([None, TARIFF]),
    errors=st.sampled_from(["take", "pass"]),
)


def some(**members: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """An object with any of the members."""
    return st.fixed_dictionaries({}, optional=members)


OPENAI_USAGE = some(
    prompt_tokens=COUNTS,
    completion_tokens=COUNTS,
    total_tokens=COUNTS,
    reasoning_tokens=COUNTS,
    prompt_tokens_details=st.one_of(st.none(), some(cached_tokens=COUNTS)),
    completion_tokens_details=st.one_of(st.none(), some(reasoning_tokens=COUNTS)),
    cost=st.just(1),
)
ANTHROPIC_USAGE = some(
    input_tokens=COUNTS,
    output_tokens=COUNTS,
    cache_read_input_tokens=COUNTS,
    cache_creation_input_tokens=COUNTS,
)
RESPONSES_USAGE = some(
    input_tokens=COUNTS,
    output_tokens=COUNTS,
    input_tokens_details=some(cached_tokens=COUNTS),
    output_tokens_details=some(reasoning_tokens=COUNTS),
)
DELTAS = some(
    content=st.one_of(st.none(), TEXTS),
    role=st.just("assistant"),
    reasoning_content=TEXTS,
    tool_calls=st.lists(
        st.fixed_dictionaries({"index": st.just(0), "function": some(name=TEXTS, arguments=TEXTS)}),
        max_size=2,
    ),
)
CHOICES = st.lists(
    st.fixed_dictionaries(
        {"index": st.integers(0, 2)},
        optional={
            "delta": DELTAS,
            "text": TEXTS,
            "finish_reason": st.sampled_from([None, None, "", "stop", "length"]),
        },
    ),
    max_size=2,
)
ERRORS = st.sampled_from(
    [
        {"error": "a string"},
        {"error": {"message": "boom", "code": 500}},
        {"type": "error", "error": {"type": "overloaded_error", "message": "busy"}},
        {"type": "response.failed", "response": {"error": {"message": "boom"}}},
        {"object": "error", "message": "boom"},
    ]
)
CHUNKS = st.fixed_dictionaries(
    {},
    optional={
        "id": st.just("c-1"),
        "object": st.just("chunk"),
        "created": st.just(1),
        "model": st.sampled_from(["up", "other"]),
        "choices": CHOICES,
        "usage": st.one_of(st.none(), OPENAI_USAGE),
        "timings": st.just({"predicted_n": 3, "usage": {"not": "ours"}}),
    },
)
RESPONSE_EVENTS = st.one_of(
    st.builds(
        lambda text, number: {
            "type": "response.output_text.delta",
            "delta": text,
            "sequence_number": number,
        },
        TEXTS,
        st.integers(0, 9),
    ),
    st.builds(
        lambda kind, usage: {"type": kind, "response": {"model": "up", "usage": usage}},
        st.sampled_from(
            [
                "response.created",
                "response.in_progress",
                "response.completed",
                "response.incomplete",
            ]
        ),
        st.one_of(st.none(), RESPONSES_USAGE),
    ),
)
MESSAGE_EVENTS = st.one_of(
    st.builds(
        lambda usage: {"type": "message_start", "message": {"model": "up", "usage": usage}},
        ANTHROPIC_USAGE,
    ),
    st.builds(
        lambda text: {
            "type": "content_block_delta",
            "delta": {"type": "text_delta", "text": text},
            "index": 0,
        },
        TEXTS,
    ),
    st.builds(
        lambda usage: {"type": "message_delta", "delta": {"stop_reason": "end_turn"}} | usage,
        some(usage=ANTHROPIC_USAGE),
    ),
    st.sampled_from([{"type": "ping"}, {"type": "message_stop"}]),
)
PAYLOADS = {
    Dialect.CHAT: CHUNKS,
    Dialect.COMPLETIONS: CHUNKS,
    Dialect.RESPONSES: RESPONSE_EVENTS,
    Dialect.MESSAGES: MESSAGE_EVENTS,
}
LINE_ENDS = st.sampled_from(["\n", "\n", "\n", "\r\n", "\r"])


@st.composite
def payload_text(draw: st.DrawFn, payload: Any) -> str:
    """JSON as engines mostly write it, or as they might."""
    style = draw(st.integers(0, 3))
    if style == 0:
        return draw(json_text(payload))
    separators = (",", ":") if style < 3 else (", ", ": ")
    return json.dumps(payload, ensure_ascii=draw(st.booleans()), separators=separators)


@st.composite
def event_text(draw: st.DrawFn, payload_text: str, *, well_formed: bool = True) -> str:
    """One event that carries the text, with its blank line."""
    end = draw(LINE_ENDS)
    lines = []
    if draw(st.integers(0, 5)) == 0:
        lines.append(draw(st.sampled_from(["event: x", "id: 1", ": ping", "retry: 9", "odd"])))
    pieces = payload_text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    lines += [draw(st.sampled_from(["data: ", "data: ", "data:"])) + piece for piece in pieces]
    if draw(st.integers(0, 5)) == 0:
        lines.append(draw(st.sampled_from(["event: y", "id: 1", ": ping", "data"])))
    if not well_formed:
        end = draw(LINE_ENDS)
        return "".join(line + draw(LINE_ENDS) for line in lines) + end
    return end.join([*lines, "", ""])


@st.composite
def parts(draw: st.DrawFn, dialect: Dialect, *, faults: bool = True) -> bytes:
    """One part of a stream: an event, a comment, blank lines, something odd."""
    kind = draw(st.integers(0, 11))
    if kind == 0:
        return draw(
            st.sampled_from(
                [b": ping\n\n", b":\n\n", b"\n", b"\r\n", b"\r", b"\n\n\n", b": x\r\n\r\n"]
            )
        )
    if kind == 1:
        return draw(event_text("[DONE]")).encode()
    if kind == 2 and faults:
        odd = st.sampled_from(["null", "[1]", "{", "plain text", "7", '{"a":NaN}', '"\\ud800"'])
        return draw(event_text(draw(odd), well_formed=False)).encode()
    if kind == 3 and faults:
        return draw(event_text(draw(payload_text(draw(ERRORS))))).encode()
    payload = draw(PAYLOADS[dialect])
    return draw(event_text(draw(payload_text(payload)))).encode("utf-8", "surrogatepass")


@st.composite
def text_runs(draw: st.DrawFn, dialect: Dialect, shape: dict[str, Any]) -> bytes:
    """Events of one shape that differ in their text only, as most do, with usage on them or not."""
    out = b""
    continuous = draw(st.booleans())
    for number, text in enumerate(draw(st.lists(TEXTS, min_size=2, max_size=5))):
        payload = dict(shape)
        if dialect is Dialect.CHAT:
            payload["choices"] = [{"index": 0, "delta": {"content": text}, "finish_reason": None}]
        elif dialect is Dialect.COMPLETIONS:
            payload["choices"] = [{"index": 0, "text": text, "finish_reason": None}]
        elif dialect is Dialect.MESSAGES:
            payload = {"type": "content_block_delta", "delta": {"type": "text_delta", "text": text}}
        else:
            payload = {"type": "response.output_text.delta", "delta": text}
        if continuous and dialect in (Dialect.CHAT, Dialect.COMPLETIONS):
            payload["usage"] = {"prompt_tokens": 5, "completion_tokens": number + 1}
        out += b"data: " + json.dumps(payload, separators=(",", ":")).encode() + b"\n\n"
    return out


@st.composite
def streams(draw: st.DrawFn, dialect: Dialect, *, faults: bool = True) -> bytes:
    """A whole event stream, perhaps cut off somewhere."""
    shape = draw(PAYLOADS[dialect])
    part, run = parts(dialect, faults=faults), text_runs(dialect, shape)
    if draw(st.booleans()):
        body = b"".join(draw(st.lists(st.one_of(part, run), min_size=1, max_size=8)))
    else:  # most of an answer is alike, and then something else comes
        body = b"".join(draw(st.tuples(part, run, part, run, part)))
    if faults and draw(st.integers(0, 2)) == 0:
        body = body[: draw(st.integers(0, len(body)))]
    return (
        draw(st.sampled_from([b"", b"", b"", b"\xef\xbb\xbf", b"\n", b"\xef\xbb\xbf\r\n"])) + body
    )


@st.composite
def documents(draw: st.DrawFn, dialect: Dialect) -> bytes:
    """JSON documents in a row, perhaps cut off, perhaps with something else between them."""
    usage = {
        Dialect.RESPONSES: RESPONSES_USAGE,
        Dialect.MESSAGES: ANTHROPIC_USAGE,
    }.get(dialect, OPENAI_USAGE)
    answer = st.fixed_dictionaries(
        {},
        optional={
            "model": st.sampled_from(["up", "other"]),
            "choices": CHOICES,
            "output": st.just([{"type": "message", "content": [{"text": "hi"}]}]),
            "content": st.just([{"type": "text", "text": "hi"}]),
            "data": st.just([{"embedding": [0.5, -1e-3]}]),
            "usage": st.one_of(st.none(), usage),
        },
    )
    value = st.one_of(
        answer, answer, answer, ERRORS, st.sampled_from([None, 7, [1, "]"], "a}", {}])
    )
    out = b""
    for payload in draw(st.lists(value, min_size=1, max_size=4)):
        text = draw(st.one_of(payload_text(payload), payload_text(payload), st.just("{]")))
        out += (draw(SPACE) + text).encode("utf-8", "surrogatepass")
        out += draw(st.sampled_from([b"", b"\n", b"\r\n"]))
    if draw(st.booleans()):
        out = out[: draw(st.integers(0, len(out)))]
    return out


@st.composite
def cuts(draw: st.DrawFn, data: bytes) -> list[bytes]:
    """The bytes in pieces: one by one, by a few, event by event, or anywhere."""
    size = draw(st.sampled_from([1, 2, 3, 7, 50, 0, -1, -1]))
    if size < 0:
        return re.findall(rb".+?(?:\n\n|\Z)", data, re.DOTALL)
    if size:
        return [data[at : at + size] for at in range(0, len(data), size)]
    places = sorted(draw(st.lists(st.integers(0, len(data)), max_size=12)))
    return [data[a:b] for a, b in zip([0, *places], [*places, len(data)], strict=True)]
