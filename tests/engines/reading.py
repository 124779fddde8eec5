"""Reads answers for the tests, apart from the product's own readers: events, text, usage, cost."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from tests.engines.chain import PRICES, REQUEST_PRICE_NANO

Json = dict[str, Any]


@dataclass(frozen=True)
class Event:
    name: str
    data: str
    comment: str

    def json(self) -> Json:
        value = json.loads(self.data)
        assert isinstance(value, dict)
        return value


def events(body: bytes) -> list[Event]:
    """Of a whole event stream with LF or CRLF line ends."""
    text = body.decode().replace("\r\n", "\n")
    assert not text or text.endswith("\n\n"), f"the last event is not ended: {text[-200:]!r}"
    found = []
    for block in filter(None, text.split("\n\n")):
        fields: dict[str, list[str]] = {"event": [], "data": [], "": []}
        for line in block.split("\n"):
            name, _, value = line.partition(":")
            fields.setdefault(name, []).append(value.removeprefix(" "))
        found.append(
            Event("".join(fields["event"]), "\n".join(fields["data"]), "\n".join(fields[""]))
        )
    return found


def payloads(body: bytes) -> list[Json]:
    """The JSON objects of a stream, without its end mark."""
    return [event.json() for event in events(body) if event.data and event.data != "[DONE]"]


def text_of(answers: Iterable[Json]) -> str:
    """What the model said, of any dialect's events or documents, first choice only."""
    said = []
    for answer in answers:
        if answer.get("type") == "content_block_delta":
            said.append(answer["delta"].get("text", ""))
        elif answer.get("type") == "response.output_text.delta":
            said.append(answer["delta"])
        for choice in answer.get("choices", ())[:1]:
            part = choice.get("delta") or choice.get("message") or choice
            said.append(part.get("content") or part.get("text") or "")
        if answer.get("type") == "message" and "content" in answer:
            said += [block.get("text", "") for block in answer["content"]]
        if answer.get("object") == "response":
            said += [
                block["text"] for item in answer["output"] for block in item.get("content", ())
            ]
    return "".join(said)


@dataclass(frozen=True)
class Counts:
    prompt: int
    cached: int
    completion: int


def counts(usage: Json) -> Counts:
    """Of a usage object in any dialect."""
    if "prompt_tokens" in usage:
        details = usage.get("prompt_tokens_details") or {}
        cached = details.get("cached_tokens") or 0
        return Counts(usage["prompt_tokens"], cached, usage["completion_tokens"])
    if "cache_read_input_tokens" in usage or "input_tokens_details" not in usage:
        cached = usage.get("cache_read_input_tokens") or 0
        created = usage.get("cache_creation_input_tokens") or 0
        prompt = usage["input_tokens"] + cached + created
        return Counts(prompt, cached, usage["output_tokens"])
    details = usage.get("input_tokens_details") or {}
    return Counts(usage["input_tokens"], details.get("cached_tokens") or 0, usage["output_tokens"])


def usages(answers: Iterable[Json]) -> list[Json]:
    """All usage objects, in order."""
    return [
        place["usage"]
        for answer in answers
        for place in (answer, answer.get("message"), answer.get("response"))
        if isinstance(place, dict) and place.get("usage")
    ]


def engine_usage(body: bytes) -> Counts:
    """What the engine says in the end that it used, in a stream or a document."""
    answers = [json.loads(body)] if body.lstrip().startswith(b"{") else payloads(body)
    told = [counts(usage) for usage in usages(answers)]
    assert told, f"the engine told no usage: {body[-500:]!r}"
    return told[-1]


def cost(used: Counts) -> int:
    """In nano-credits, with the prices of the chain: a credit per million tokens is 1000 nano each."""
    each = (
        (used.prompt - used.cached) * PRICES["in"]
        + used.cached * PRICES["cached"]
        + used.completion * PRICES["out"]
    )
    return REQUEST_PRICE_NANO + each * 1000
