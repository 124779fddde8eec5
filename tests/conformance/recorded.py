"""The recorded answers of real engines, put through the postprocessor and read as clients read. It judges nothing."""

import contextlib
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

import httpx
import httpx_sse
import orjson
import pytest
from openai._streaming import SSEDecoder

from filature.answer.policy import AnswerPolicy
from filature.answer.postprocessor import AnswerPostprocessor
from filature.answer.pricing import Tariff
from filature.wire.dialect import Dialect

CAPTURES: Final = Path(__file__).parents[1] / "data" / "captures"
PROMPT_TEXT_BYTES: Final = 40  # what a prompt that no record tells is estimated from: 10 tokens
TARIFF: Final = Tariff(
    prompt=150_000, cached=15_000, completion=600_000, reasoning=700_000, request=3, coefficient=900
)

COST: Final = re.compile(
    rb'(?:,"estimated":true)?,"prompt_total_cost":(\d+),"completion_total_cost":(\d+),"total_cost":(\d+)'
    rb',"cost":(\d+(?:\.\d+)?)'
)
COST_KEYS: Final = ("prompt_total_cost", "completion_total_cost", "total_cost", "cost", "estimated")
CHOICES: Final = (Dialect.CHAT, Dialect.COMPLETIONS)
_LINE_END: Final = re.compile(r"\r\n|\n|\r")


@dataclass(frozen=True)
class Recording:
    """One engine's answer to one request, transfer framing removed."""

    name: str
    """Folder and case, as in ``vllm-0.32.0-cpu/02-chat-stream-usage``."""
    status: int
    is_stream: bool
    body: bytes
    complete: bool
    """Whether HTTP ended properly."""
    dialect: Dialect
    n: int
    prompts: int


def _dechunked(framed: bytes) -> tuple[bytes, bool]:
    """The data of a chunked body, and whether its last chunk came."""
    data, at = b"", 0
    while (line_end := framed.find(b"\r\n", at)) >= 0:
        size = int(framed[at:line_end], 16)
        if size == 0:
            return data, framed[line_end:] == b"\r\n\r\n"
        at = line_end + 2
        data += framed[at : at + size]
        at += size + 2
    return data, False


def _dialect(case: str) -> Dialect:
    if "messages" in case and "missing" not in case:
        return Dialect.MESSAGES
    if "responses" in case:
        return Dialect.RESPONSES
    return Dialect.COMPLETIONS if re.match(r"\d+-completions-", case) else Dialect.CHAT


def _load(path: Path) -> Recording:
    head, _, body = path.read_bytes().partition(b"\r\n\r\n")
    complete = True
    if b"transfer-encoding: chunked" in head.lower():
        body, complete = _dechunked(body)
    elif (length := re.search(rb"(?im)^content-length: *(\d+)", head)) is not None:
        complete = len(body) == int(length.group(1))
    asked: Any = None
    # none for a GET or where the body was not kept; broken where it was so on purpose
    with contextlib.suppress(FileNotFoundError, orjson.JSONDecodeError):
        asked = orjson.loads(path.with_suffix(".req.json").read_bytes())
    asked = asked if isinstance(asked, dict) else {}
    prompt = asked.get("prompt")
    return Recording(
        name=f"{path.parent.name}/{path.stem}",
        status=int(head[9:12]),
        is_stream=b"text/event-stream" in head.lower(),
        body=body,
        complete=complete,
        dialect=_dialect(path.stem),
        n=asked.get("n", 1),
        prompts=len(prompt) if isinstance(prompt, list) else 1,
    )


RECORDINGS: Final = [_load(path) for path in sorted(CAPTURES.glob("*/*.http"))]
STREAMS: Final = [recording for recording in RECORDINGS if recording.is_stream]
UNARY: Final = [recording for recording in RECORDINGS if not recording.is_stream]


class Seen(NamedTuple):
    """An event as a client gets it."""

    type: str
    data: str
    id: str = ""
    retry: int | None = None


def seen_by_the_standard(stream: bytes) -> list[Seen]:
    """What WHATWG HTML 9.2.6 dispatches, whatever else clients do with it."""
    text = stream.decode("utf-8", "replace").removeprefix("\ufeff")
    events: list[Seen] = []
    kind, data, last_id = "", "", ""
    retry: int | None = None
    for line in _LINE_END.split(text)[:-1]:  # what has no end of line is no line yet
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if not line:
            if data:
                events.append(Seen(kind or "message", data[:-1], last_id, retry))
            kind, data, retry = "", "", None
        elif field == "event":
            kind = value
        elif field == "data":
            data += value + "\n"
        elif field == "id" and "\0" not in value:
            last_id = value
        elif field == "retry" and re.fullmatch("[0-9]+", value):
            retry = int(value)
    return events


def seen_by_openai(stream: bytes) -> list[Seen]:
    events = SSEDecoder().iter_bytes(iter([stream]))
    return [
        Seen(event.event or "message", event.data, event.id or "", event.retry) for event in events
    ]


def seen_by_httpx_sse(stream: bytes) -> list[Seen]:
    response = httpx.Response(
        200, headers={"content-type": "text/event-stream; charset=utf-8"}, content=stream
    )
    return [
        Seen(event.event or "message", event.data, event.id, event.retry)
        for event in httpx_sse.EventSource(response).iter_sse()
    ]


DECODERS: Final[dict[str, Callable[[bytes], list[Seen]]]] = {
    "standard": seen_by_the_standard,
    "openai": seen_by_openai,
    "httpx_sse": seen_by_httpx_sse,
}


def bytewise(data: bytes) -> Iterator[bytes]:
    return (data[at : at + 1] for at in range(len(data)))


def every(recordings: list[Recording]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("recording", recordings, ids=lambda recording: recording.name)


def processor(
    recording: Recording, policy: AnswerPolicy, *, continuous: bool = False
) -> AnswerPostprocessor:
    return AnswerPostprocessor(
        recording.dialect,
        policy,
        n=recording.n,
        prompts=recording.prompts,
        prompt_text_bytes=PROMPT_TEXT_BYTES,
        continuous=continuous,
    )


def process(
    recording: Recording,
    policy: AnswerPolicy,
    pieces: Iterable[bytes] | None = None,
    *,
    clean: bool | None = None,
    continuous: bool = False,
) -> tuple[bytes, AnswerPostprocessor]:
    """The whole output; ``pieces`` None is the whole body, ``clean`` None as it was recorded."""
    answer = processor(recording, policy, continuous=continuous)
    out = [answer.feed(piece) for piece in pieces or [recording.body]]
    return b"".join(out) + answer.finish(recording.complete if clean is None else clean), answer


def payloads(stream: bytes) -> list[Any]:
    """What its events say; text where they are not JSON."""
    found: list[Any] = []
    for event in seen_by_the_standard(stream):
        try:
            found.append(orjson.loads(event.data))
        except orjson.JSONDecodeError:
            found.append(event.data)
    return found


def usages(payload: Any) -> list[dict[str, Any]]:
    """The records that a cost goes into: not the one in ``message_start``."""
    if not isinstance(payload, dict):
        return []
    records = [payload.get("usage"), (payload.get("response") or {}).get("usage")]
    return [record for record in records if record]


def without_cost(event: Seen) -> tuple[Any, ...]:
    try:
        payload = orjson.loads(event.data)
    except orjson.JSONDecodeError:
        return tuple(event)
    for record in usages(payload):
        for key in COST_KEYS:
            record.pop(key, None)
    return (event.type, payload, event.id, event.retry)
