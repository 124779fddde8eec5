"""OpenAI's Responses as vLLM 0.32 writes them: numbered, named events around output items."""

from collections.abc import Iterable
from typing import Any

import orjson

from filature.demo.formats.base import Reply, named_event
from filature.demo.pieces import Choice, Finish, Kind, Piece, ToolCall, gather


class ResponsesFormat:
    """Output items one after the other, each opened, filled and closed."""

    def __init__(self, reply: Reply) -> None:
        self._reply = reply
        self._end = reply.script.line_ending.as_bytes
        self._sequence = 0
        self._output: list[dict[str, Any]] = []
        self._open: Kind | None = None
        self._item_id = ""
        self._text = ""
        self._call: ToolCall | None = None
        self._finish: Finish = "stop"

    def _event(self, event: str, **fields: Any) -> bytes:
        payload = fields | {"sequence_number": self._sequence, "type": event}
        self._sequence += 1
        return named_event(event, payload, self._end)

    def lead(self) -> list[bytes]:
        response = self._response("in_progress", [])
        return [
            self._event("response.created", response=response),
            self._event("response.in_progress", response=response),
        ]

    def piece(self, piece: Piece) -> list[bytes]:
        events: list[bytes] = []
        if piece.finish is not None:
            self._finish = piece.finish
            if not piece.text:
                return events
        if piece.kind is not self._open or piece.call is not None:
            events += self._close_item()
            events += self._open_item(piece)
        if piece.text:
            self._text += piece.text
            events.append(self._delta(piece))
        return events

    def _open_item(self, piece: Piece) -> list[bytes]:
        self._open, self._text, self._call = piece.kind, "", piece.call
        index = len(self._output)
        prefix = {Kind.TEXT: "msg", Kind.REASONING: "rs", Kind.TOOL: "fc"}[piece.kind]
        self._item_id = f"{prefix}_{self._reply.id}{index:02x}"
        item = self._item("in_progress")
        if piece.kind is not Kind.TOOL:
            item["content"] = []
        events = [self._event("response.output_item.added", item=item, output_index=index)]
        if piece.kind is not Kind.TOOL:
            part = self._part(logprobs=[])
            events.append(self._on_part("response.content_part.added", part=part))
        return events

    def _item(self, status: str) -> dict[str, Any]:
        """The open item as it stands."""
        return _item(self._item_id, self._open, self._text, self._call, status)

    def _part(self, logprobs: list[Any] | None) -> dict[str, Any]:
        if self._open is Kind.REASONING:
            return {"text": self._text, "type": "reasoning_text"}
        return {"annotations": [], "text": self._text, "type": "output_text", "logprobs": logprobs}

    def _on_part(self, event: str, **fields: Any) -> bytes:
        """An event about the open item's only content part, or about its arguments."""
        place: dict[str, Any] = {"item_id": self._item_id, "output_index": len(self._output)}
        if self._open is not Kind.TOOL:
            place["content_index"] = 0
        return self._event(event, **place, **fields)

    def _delta(self, piece: Piece) -> bytes:
        if piece.kind is Kind.TOOL:
            return self._on_part("response.function_call_arguments.delta", delta=piece.text)
        if piece.kind is Kind.REASONING:
            return self._on_part("response.reasoning_text.delta", delta=piece.text)
        return self._on_part("response.output_text.delta", delta=piece.text, logprobs=[])

    def _close_item(self) -> list[bytes]:
        if self._open is None:
            return []
        if self._open is Kind.TOOL:
            name = self._call.name if self._call is not None else ""
            done = "response.function_call_arguments.done"
            events = [self._on_part(done, arguments=self._text, name=name)]
        else:
            kind = "output_text" if self._open is Kind.TEXT else "reasoning_text"
            more: dict[str, Any] = {"logprobs": []} if self._open is Kind.TEXT else {}
            events = [
                self._on_part(f"response.{kind}.done", text=self._text, **more),
                self._on_part("response.content_part.done", part=self._part(logprobs=None)),
            ]
        item = self._item("completed")
        index = len(self._output)
        events.append(self._event("response.output_item.done", item=item, output_index=index))
        self._output.append(item)
        self._open = None
        return events

    def tail(self) -> list[bytes]:
        status = "incomplete" if self._finish == "length" else "completed"
        # The item is complete even where the response is not, as vLLM has it.
        events = self._close_item()
        response = self._response(status, self._output)
        return [*events, self._event("response.completed", response=response)]

    def error(self, message: str) -> bytes:
        return self._event("error", code="server_error", message=message, param=None)

    def document(self, pieces: Iterable[Piece]) -> bytes:
        (choice,) = gather(pieces, 1)
        status = "incomplete" if choice.finish == "length" else "completed"
        return orjson.dumps(self._response(status, self._whole_output(choice)))

    def _whole_output(self, choice: Choice) -> list[dict[str, Any]]:
        parts: list[tuple[str, Kind, str, ToolCall | None]] = []
        if choice.reasoning:
            parts.append(("rs", Kind.REASONING, choice.reasoning, None))
        if choice.text or not choice.calls:
            parts.append(("msg", Kind.TEXT, choice.text, None))
        parts += [("fc", Kind.TOOL, arguments, call) for call, arguments in choice.calls]
        return [
            _item(f"{prefix}_{self._reply.id}{index:02x}", kind, text, call, "completed")
            for index, (prefix, kind, text, call) in enumerate(parts)
        ]

    def _response(self, status: str, output: list[dict[str, Any]]) -> dict[str, Any]:
        body = self._reply.question.body
        reason = {"reason": "max_output_tokens"} if status == "incomplete" else None
        response = {
            "id": f"resp_{self._reply.id}",
            "created_at": self._reply.created,
            "error": None,
            "incomplete_details": reason,
            "instructions": body.get("instructions"),
            "metadata": body.get("metadata"),
            "model": self._reply.model,
            "object": "response",
            "output": output,
            "parallel_tool_calls": True,
            "temperature": body.get("temperature", 1.0),
            "tool_choice": body.get("tool_choice", "auto"),
            "tools": body.get("tools") or [],
            "top_p": body.get("top_p", 1.0),
            "background": False,
            "max_output_tokens": body.get("max_output_tokens"),
            "previous_response_id": None,
            "reasoning": None,
            "service_tier": "auto",
            "status": status,
            "text": body.get("text"),
            "truncation": "disabled",
            "usage": None,
            "user": body.get("user"),
        }
        if self._reply.tells_usage and status != "in_progress":
            response["usage"] = self._usage()
        return response

    def _usage(self) -> dict[str, Any]:
        counts = self._reply.counts
        return {
            "input_tokens": counts.prompt[0],
            "input_tokens_details": {"cached_tokens": counts.cached[0]},
            "output_tokens": counts.completion[0],
            "output_tokens_details": {
                "reasoning_tokens": counts.reasoning[0],
                "tool_output_tokens": 0,
            },
            "total_tokens": counts.prompt[0] + counts.completion[0],
        }


def _item(
    item_id: str, kind: Kind | None, text: str, call: ToolCall | None, status: str
) -> dict[str, Any]:
    if kind is Kind.TOOL and call is not None:
        return {
            "id": item_id,
            "type": "function_call",
            "call_id": call.id,
            "name": call.name,
            "arguments": text,
            "status": status,
        }
    if kind is Kind.REASONING:
        content = [{"text": text, "type": "reasoning_text"}]
        return {
            "id": item_id,
            "type": "reasoning",
            "summary": [],
            "content": content,
            "status": status,
        }
    part: dict[str, Any] = {
        "annotations": [],
        "text": text,
        "type": "output_text",
        "logprobs": None,
    }
    return {
        "id": item_id,
        "type": "message",
        "role": "assistant",
        "content": [part],
        "status": status,
        "phase": None,
    }
