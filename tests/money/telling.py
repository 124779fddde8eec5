"""What an engine tells of one answer, in each dialect, streamed and whole; and how it is asked there."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from tests.integration.messages import DONE, event, json_answer, stream_answer

MODEL: Final = "silk/one"
TOKENS_MAX: Final = 8000
"""That a request allows: more than any answer has, and than any lie tells of one."""
CHAT: Final = "/v1/chat/completions"
COMPLETIONS: Final = "/v1/completions"
RESPONSES: Final = "/v1/responses"
MESSAGES: Final = "/v1/messages"
EMBEDDINGS: Final = "/v1/embeddings"

Said = list[dict[str, str]]
"""Messages: ``role`` and ``content``."""


@dataclass
class Told:
    """What an engine says of one answer. ``pieces``: the text of each event; of thoughts where ``thought``."""

    prompt: int
    cached: int
    completion: int
    reasoning: int
    pieces: list[str]
    usage: bool = True
    """Whether it tells any usage."""
    continuous: bool = False


def asking(path: str, said: Said) -> dict[str, Any]:
    """A request's body."""
    match path:
        case "/v1/completions":
            return {"prompt": "\n".join(each["content"] for each in said), "max_tokens": TOKENS_MAX}
        case "/v1/responses":
            return {"input": said, "max_output_tokens": TOKENS_MAX}
        case "/v1/messages":
            return {"messages": said, "max_tokens": TOKENS_MAX}
        case "/v1/embeddings":
            return {"input": said[-1]["content"]}
        case _:
            return {"messages": said}


def asked(body: dict[str, Any]) -> Said | str:
    """What a request's body says: messages, or a text without a template."""
    found: Said | str = body.get("messages") or body.get("input") or body["prompt"]
    return found


def answering(path: str, told: Told, *, stream: bool) -> bytes:
    """A whole answer in HTTP."""
    match path:
        case "/v1/responses" if stream:
            return stream_answer([*_response_events(told)])
        case "/v1/responses":
            return json_answer(_response(told))
        case "/v1/messages" if stream:
            return stream_answer([*_message_events(told)])
        case "/v1/messages":
            return json_answer(_message(told))
        case "/v1/embeddings":
            usage = {"prompt_tokens": told.prompt, "total_tokens": told.prompt}
            vector = {"object": "embedding", "index": 0, "embedding": [0.25, 0.5]}
            return json_answer({"object": "list", "data": [vector], "model": MODEL, "usage": usage})
        case _ if stream:
            return stream_answer([*_chunks(told, is_chat=path == CHAT)])
        case _:
            return json_answer(_completion(told, is_chat=path == CHAT))


# Chat and completions


def _usage(told: Told, completion: int | None = None) -> dict[str, Any]:
    completion = told.completion if completion is None else completion
    return {
        "prompt_tokens": told.prompt,
        "completion_tokens": completion,
        "total_tokens": told.prompt + completion,
        "prompt_tokens_details": {"cached_tokens": told.cached},
        "completion_tokens_details": {"reasoning_tokens": told.reasoning},
    }


def _chunks(told: Told, *, is_chat: bool) -> Iterator[bytes]:
    head = {"id": "c", "object": "chunk", "created": 1, "model": MODEL}
    for number, piece in enumerate(told.pieces):
        said: dict[str, Any] = {"delta": {"content": piece}} if is_chat else {"text": piece}
        chunk: dict[str, Any] = head | {"choices": [{"index": 0, "finish_reason": None} | said]}
        if told.continuous:
            chunk["usage"] = _usage(told, told.completion * (number + 1) // len(told.pieces))
        yield event(chunk)
    last: dict[str, Any] = {"delta": {}} if is_chat else {"text": ""}
    yield event(head | {"choices": [{"index": 0, "finish_reason": "stop"} | last]})
    if told.usage:
        yield event(head | {"choices": [], "usage": _usage(told)})
    yield DONE


def _completion(told: Told, *, is_chat: bool) -> dict[str, Any]:
    text = "".join(told.pieces)
    message = {"role": "assistant", "content": text}
    said: dict[str, Any] = {"message": message} if is_chat else {"text": text}
    choice = {"index": 0, "finish_reason": "stop"} | said
    answer: dict[str, Any] = {"id": "c", "created": 1, "model": MODEL, "choices": [choice]}
    return answer | ({"usage": _usage(told)} if told.usage else {})


# Responses


def _response(told: Told) -> dict[str, Any]:
    content = [{"type": "output_text", "text": "".join(told.pieces), "annotations": []}]
    item = {"type": "message", "id": "i", "role": "assistant", "content": content}
    usage = {
        "input_tokens": told.prompt,
        "input_tokens_details": {"cached_tokens": told.cached},
        "output_tokens": told.completion,
        "output_tokens_details": {"reasoning_tokens": told.reasoning},
        "total_tokens": told.prompt + told.completion,
    }
    response = {"id": "r", "object": "response", "model": MODEL, "status": "completed"}
    return response | {"output": [item]} | ({"usage": usage} if told.usage else {})


def _response_events(told: Told) -> Iterator[bytes]:
    begun = {"id": "r", "object": "response", "status": "in_progress", "usage": None}
    payloads: list[dict[str, Any]] = [{"type": "response.created", "response": begun}]
    for piece in told.pieces:
        where = {"item_id": "i", "output_index": 0, "content_index": 0}
        payloads.append({"type": "response.output_text.delta", **where, "delta": piece})
    payloads.append({"type": "response.completed", "response": _response(told)})
    for number, payload in enumerate(payloads):
        yield event(payload | {"sequence_number": number}, payload["type"])


# Messages


def _input(told: Told) -> dict[str, int]:
    return {"input_tokens": told.prompt - told.cached, "cache_read_input_tokens": told.cached}


def _message(told: Told) -> dict[str, Any]:
    message = {"id": "m", "type": "message", "role": "assistant", "model": MODEL}
    message["stop_reason"] = "end_turn"
    content = {"content": [{"type": "text", "text": "".join(told.pieces)}]}
    usage = {"usage": _input(told) | {"output_tokens": told.completion}}
    return message | content | (usage if told.usage else {})


def _message_events(told: Told) -> Iterator[bytes]:
    begun: dict[str, Any] = {"id": "m", "type": "message", "role": "assistant", "content": []}
    if told.usage:
        begun["usage"] = _input(told) | {"output_tokens": 1}
    ended: dict[str, Any] = {"type": "message_delta", "delta": {"stop_reason": "end_turn"}}
    if told.usage:
        ended["usage"] = {"output_tokens": told.completion}
    block = {"type": "text", "text": ""}
    payloads: list[dict[str, Any]] = [
        {"type": "message_start", "message": begun},
        {"type": "content_block_start", "index": 0, "content_block": block},
    ]
    for piece in told.pieces:
        delta = {"type": "text_delta", "text": piece}
        payloads.append({"type": "content_block_delta", "index": 0, "delta": delta})
    payloads += [{"type": "content_block_stop", "index": 0}, ended, {"type": "message_stop"}]
    for payload in payloads:
        yield event(payload, payload["type"])
