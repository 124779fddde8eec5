"""The wire format is that of the recorded vLLM: same events, same members in the same places."""

import re
from pathlib import Path
from typing import Any

import orjson
import pytest

from filature.demo.formats.base import Format, Reply
from filature.demo.formats.choices import ChoicesFormat
from filature.demo.formats.messages import MessagesFormat
from filature.demo.formats.responses import ResponsesFormat
from filature.demo.options import LineEnding, Script, UsagePlacement
from filature.demo.pieces import Counts, with_finish_apart
from filature.demo.question import read_question
from filature.demo.scripted import ScriptedBackend
from filature.wire.dialect import Dialect

RECORDED = Path(__file__).parents[2] / "data/captures/vllm-0.32.0-cpu"
FORMATS: dict[Dialect, Any] = {
    Dialect.CHAT: ChoicesFormat,
    Dialect.COMPLETIONS: ChoicesFormat,
    Dialect.RESPONSES: ResponsesFormat,
    Dialect.MESSAGES: MessagesFormat,
}


def answer(dialect: Dialect, body: dict[str, Any], script: Script | None = None) -> list[bytes]:
    """The events of a streamed answer, or the one document."""
    script = script or Script()
    question = read_question(dialect, body, 2048)
    question.model = "m"
    cached = [min(script.cached, tokens) for tokens in question.prompt_tokens]
    counts = Counts(question.prompt_tokens, cached, question.n)
    form: Format = FORMATS[dialect](Reply(question, script, counts, "0123456789abcdef", 1))
    pieces = ScriptedBackend().plan(question, script)
    if not question.stream:
        for piece in pieces:
            counts.add(piece)
        return [form.document(pieces)]
    events = form.lead()
    for piece in with_finish_apart(pieces) if script.finish_apart else pieces:
        counts.add(piece)
        events += form.piece(piece)
    return events + form.tail()


def payloads(events: list[bytes]) -> list[Any]:
    lines = b"".join(events).replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
    data = [line[6:] for line in lines if line.startswith(b"data: ")]
    return [orjson.loads(one) for one in data if one != b"[DONE]"]


def shape(value: Any) -> Any:
    """Members in order, without what is in them."""
    if isinstance(value, dict):
        return [(name, shape(member)) for name, member in value.items()]
    return [shape(value[0])] if isinstance(value, list) and value else None


def recorded(name: str) -> tuple[dict[str, Any], list[bytes]]:
    body = orjson.loads((RECORDED / f"{name}.req.json").read_bytes())
    raw = (RECORDED / f"{name}.http").read_bytes().partition(b"\r\n\r\n")[2]
    if not raw.startswith(b"{"):
        chunks = re.split(rb"\r?\n?[0-9a-f]+\r\n(?=data: |event: |\r\n)", raw)
        raw = b"".join(chunk.rstrip() + b"\n\n" for chunk in chunks if chunk.strip())
        return body, [part + b"\n\n" for part in raw.split(b"\n\n") if part.strip()]
    return body, [raw]


def kinds(events: list[bytes]) -> list[Any]:
    """The events' shapes, runs of the same one as one; the document's shape."""
    if events[0].startswith(b"{"):
        return [shape(orjson.loads(events[0]))]
    names = [re.findall(rb"^event: (\S+)$", event, re.MULTILINE) for event in events]
    found: list[Any] = []
    for name, event in zip(names, events, strict=True):
        data = payloads([event])
        kind = (name, shape(data[0]) if data else event)
        if not found or found[-1] != kind:
            found.append(kind)
    return found


@pytest.mark.parametrize(
    ("name", "dialect"),
    [
        ("01-chat-stream", Dialect.CHAT),
        ("02-chat-stream-usage", Dialect.CHAT),
        ("03-chat-stream-usage-continuous", Dialect.CHAT),
        ("05-completions-stream", Dialect.COMPLETIONS),
        ("06-completions-stream-usage", Dialect.COMPLETIONS),
        ("16-n2-stream", Dialect.CHAT),
        ("17-logprobs-stream", Dialect.CHAT),
        ("29-anthropic-messages-stream", Dialect.MESSAGES),
        ("31-completions-two-prompts-stream", Dialect.COMPLETIONS),
    ],
)
def test_streams_have_the_recorded_shape(name: str, dialect: Dialect) -> None:
    body, events = recorded(name)
    made = kinds(answer(dialect, body))
    assert made == kinds(events)


def test_tool_calls_have_the_recorded_shape() -> None:
    body, events = recorded("10-tools-named-stream")
    assert kinds(answer(Dialect.CHAT, body)) == kinds(events)
    finish = payloads(answer(Dialect.CHAT, body))[-1]["choices"][0]["finish_reason"]
    assert finish == payloads(events)[-1]["choices"][0]["finish_reason"] == "stop"


def test_responses_have_the_recorded_events() -> None:
    body, events = recorded("30-responses-stream")
    made, kept = payloads(answer(Dialect.RESPONSES, body)), payloads(events)
    runs: list[list[str]] = [[], []]
    for run, several in zip(runs, (made, kept), strict=True):
        for event in several:
            if not run or run[-1] != event["type"]:
                run.append(event["type"])
    assert runs[0] == runs[1]
    assert [event["sequence_number"] for event in made] == list(range(len(made)))
    for kind in set(runs[0]):
        one = next(event for event in made if event["type"] == kind)
        other = next(event for event in kept if event["type"] == kind)
        assert one.keys() == other.keys(), kind
    assert made[-1]["response"]["status"] == kept[-1]["response"]["status"] == "incomplete"


@pytest.mark.parametrize(
    ("name", "dialect"),
    [
        ("04-chat-nonstream", Dialect.CHAT),
        ("07-completions-nonstream", Dialect.COMPLETIONS),
        ("09-tools-required-nonstream", Dialect.CHAT),
    ],
)
def test_documents_have_the_recorded_members(name: str, dialect: Dialect) -> None:
    body, (document,) = recorded(name)
    made, kept = orjson.loads(answer(dialect, body)[0]), orjson.loads(document)
    assert made.keys() <= kept.keys()
    assert made["choices"][0].keys() <= kept["choices"][0].keys()
    assert shape(made["usage"]) == shape(kept["usage"])
    if dialect is Dialect.CHAT:
        messages = made["choices"][0]["message"], kept["choices"][0]["message"]
        assert messages[0].keys() == messages[1].keys()


CHAT = {
    "messages": [{"role": "user", "content": "Say hello"}],
    "stream": True,
    "max_tokens": 3,
    "n": 2,
}
ASKED = CHAT | {"stream_options": {"include_usage": True, "continuous_usage_stats": True}}


def usages(body: dict[str, Any], **script: Any) -> list[tuple[int, str | None, int]]:
    """For each record: choices beside it, the finish, completion tokens."""
    found = []
    for event in payloads(answer(Dialect.CHAT, body, Script(**script))):
        if "usage" in event:
            finish = event["choices"][0]["finish_reason"] if event["choices"] else None
            found.append((len(event["choices"]), finish, event["usage"]["completion_tokens"]))
    return found


def test_where_usage_stands() -> None:
    assert usages(CHAT) == []
    assert usages(ASKED, usage=UsagePlacement.NEVER) == []
    running = [(1, None, count) for count in (0, 0, 1, 1, 2, 2)]
    every = [*running, (1, "length", 3), (1, "length", 3), (0, None, 6)]
    assert usages(ASKED) == every
    assert usages(CHAT, usage=UsagePlacement.EVERY) == every
    assert usages(CHAT, usage=UsagePlacement.FINISH) == [(1, "length", 6)]
    per_choice = {"usage": UsagePlacement.FINISH, "per_choice": True}
    assert usages(CHAT, **per_choice) == [(1, "length", 3), (1, "length", 3)]
    asked = CHAT | {"stream_options": {"include_usage": True}}
    assert usages(asked, per_choice=True) == [(0, None, 3), (0, None, 3)]


@pytest.mark.parametrize("dialect", FORMATS)
@pytest.mark.parametrize("stream", [True, False])
def test_cached_and_reasoning_tokens_are_told(dialect: Dialect, stream: bool) -> None:
    body: dict[str, Any] = {"stream": stream, "max_tokens": 9}
    asked = {Dialect.COMPLETIONS: {"prompt": "a b c d e"}, Dialect.RESPONSES: {"input": "a b c"}}
    body |= asked.get(dialect, {"messages": CHAT["messages"]})
    if dialect is Dialect.RESPONSES:
        body["max_output_tokens"] = 9
    elif dialect is not Dialect.MESSAGES and stream:
        body["stream_options"] = {"include_usage": True}
    events = answer(dialect, body, Script(cached=4, reasoning=2))
    last = (payloads(events) if stream else [orjson.loads(events[0])])[
        -2 if dialect is Dialect.MESSAGES and stream else -1
    ]
    usage = last.get("response", last)["usage"]
    if dialect is Dialect.MESSAGES:
        assert usage["cache_read_input_tokens"] == 4
        assert usage["output_tokens"] == 9
        return
    kinds = ("input", "output") if dialect is Dialect.RESPONSES else ("prompt", "completion")
    assert usage[f"{kinds[0]}_tokens_details"]["cached_tokens"] == 4
    assert usage[f"{kinds[1]}_tokens_details"]["reasoning_tokens"] == 2
    assert usage[f"{kinds[1]}_tokens"] == 9


@pytest.mark.parametrize("dialect", FORMATS)
@pytest.mark.parametrize("ending", LineEnding)
def test_line_endings(dialect: Dialect, ending: LineEnding) -> None:
    body = {
        "prompt": "x",
        "input": "x",
        "messages": CHAT["messages"],
        "max_tokens": 5,
        "stream": True,
    }
    events = b"".join(answer(dialect, body, Script(line_ending=ending)))
    others = {b"\n", b"\r"} - {bytes([byte]) for byte in ending.as_bytes}
    assert not any(other in events for other in others)
    assert events.endswith(ending.as_bytes * 2)
    plain = b"".join(answer(dialect, body))
    assert events.replace(ending.as_bytes, b"\n") == plain
