"""Anthropic's messages as vLLM 0.32 writes them: named events, usage at both ends, no ``[DONE]``."""

from collections.abc import Iterable
from typing import Any, Final

import orjson

from filature.demo.formats.base import Reply, named_event
from filature.demo.pieces import Choice, Finish, Kind, Piece, gather

_STOP_REASONS: Final = {"stop": "end_turn", "length": "max_tokens", "tool_calls": "tool_use"}


class MessagesFormat:
    """Content in blocks, one open at a time."""

    def __init__(self, reply: Reply) -> None:
        self._reply = reply
        self._end = reply.script.line_ending.as_bytes
        self._index = -1
        self._open: Kind | None = None
        self._finish: Finish = "stop"
        self._stop: str | None = None

    def _event(self, name: str, **fields: Any) -> bytes:
        return named_event(name, {"type": name, **fields}, self._end)

    def _usage(self, completion: int) -> dict[str, int]:
        counts = self._reply.counts
        cached = counts.cached[0]
        usage = {"input_tokens": counts.prompt[0] - cached, "output_tokens": completion}
        if cached:
            usage |= {"cache_creation_input_tokens": 0, "cache_read_input_tokens": cached}
        return usage

    def _message(
        self, content: list[Any], completion: int, choice: Choice | None
    ) -> dict[str, Any]:
        message: dict[str, Any] = {
            "id": f"chatcmpl-{self._reply.id}",
            "type": "message",
            "role": "assistant",
            "content": content,
            "model": self._reply.model,
            "stop_reason": None
            if choice is None
            else self._stop_reason(choice.finish, choice.stop),
            "stop_sequence": None if choice is None else choice.stop,
        }
        if self._reply.tells_usage:
            message["usage"] = self._usage(completion)
        return message

    @staticmethod
    def _stop_reason(finish: Finish, stop: str | None) -> str:
        return "stop_sequence" if stop is not None else _STOP_REASONS[finish]

    def lead(self) -> list[bytes]:
        return [self._event("message_start", message=self._message([], 0, None))]

    def piece(self, piece: Piece) -> list[bytes]:
        events: list[bytes] = []
        if piece.finish is not None:
            self._finish, self._stop = piece.finish, piece.stop
            if not piece.text:
                return events
        if piece.kind is not self._open or piece.call is not None:
            events += self._open_block(piece)
        if piece.text:
            events.append(
                b'event: content_block_delta%bdata: {"type":"content_block_delta","delta":%b,"index":%d}%b'
                % (self._end, _delta(piece), self._index, self._end * 2)
            )
        return events

    def _open_block(self, piece: Piece) -> list[bytes]:
        events = self._close_block()
        self._index += 1
        self._open = piece.kind
        block: dict[str, Any] = {"type": "text", "text": ""}
        if piece.kind is Kind.REASONING:
            block = {"type": "thinking", "thinking": "", "signature": ""}
        elif piece.call is not None:
            block = {"type": "tool_use", "id": piece.call.id, "name": piece.call.name, "input": {}}
        started = self._event("content_block_start", content_block=block, index=self._index)
        return [*events, started]

    def _close_block(self) -> list[bytes]:
        if self._open is None:
            return []
        return [self._event("content_block_stop", index=self._index)]

    def tail(self) -> list[bytes]:
        reason = self._stop_reason(self._finish, self._stop)
        fields: dict[str, Any] = {"delta": {"stop_reason": reason, "stop_sequence": self._stop}}
        if self._reply.tells_usage:
            fields["usage"] = self._usage(self._reply.counts.completion[0])
        ended = self._event("message_delta", **fields)
        return [*self._close_block(), ended, self._event("message_stop")]

    def error(self, message: str) -> bytes:
        return self._event("error", error={"type": "api_error", "message": message})

    def document(self, pieces: Iterable[Piece]) -> bytes:
        (choice,) = gather(pieces, 1)
        content: list[dict[str, Any]] = []
        if choice.reasoning:
            content.append({"type": "thinking", "thinking": choice.reasoning, "signature": ""})
        if choice.text or not choice.calls:
            content.append({"type": "text", "text": choice.text})
        for call, arguments in choice.calls:
            given = _arguments(arguments)
            content.append({"type": "tool_use", "id": call.id, "name": call.name, "input": given})
        message = self._message(content, self._reply.counts.completion[0], choice)
        return orjson.dumps(message)


def _arguments(text: str) -> Any:
    """What was cut short by a token limit is no JSON."""
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return {}


def _delta(piece: Piece) -> bytes:
    text = orjson.dumps(piece.text)
    if piece.kind is Kind.TEXT:
        return b'{"type":"text_delta","text":%b}' % text
    if piece.kind is Kind.REASONING:
        return b'{"type":"thinking_delta","thinking":%b}' % text
    return b'{"type":"input_json_delta","partial_json":%b}' % text
