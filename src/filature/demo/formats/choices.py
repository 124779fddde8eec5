"""Chat and completions as vLLM 0.32 writes them (recorded in tests/data/captures)."""

import math
from collections.abc import Iterable
from typing import Any, Final

import orjson

from filature.demo.formats.base import Reply
from filature.demo.options import UsagePlacement
from filature.demo.pieces import Choice, Kind, Piece, gather
from filature.demo.text import seed_of, tokens_of
from filature.wire.dialect import Dialect

_FINGERPRINT: Final = "filature-demo"
_MESSAGE_FIELDS: Final = {
    "refusal": None,
    "annotations": None,
    "audio": None,
    "function_call": None,
}


class ChoicesFormat:
    """Events with ``choices``, of one choice each, and the usage that may stand beside them."""

    def __init__(self, reply: Reply) -> None:
        self._reply = reply
        self._question = reply.question
        self._is_chat = reply.question.dialect is Dialect.CHAT
        self._open = len(reply.counts.completion)
        self._tool_index = [-1] * self._open
        self._offsets = [0] * self._open
        end = reply.script.line_ending.as_bytes
        self._end = end * 2
        kind = "chat.completion.chunk" if self._is_chat else "text_completion"
        head = {"id": self._id(), "object": kind, "created": reply.created, "model": reply.model}
        self._head = b"data: " + orjson.dumps(head)[:-1] + b',"choices":['
        member = b'"delta":{"content":' if self._is_chat else b'"text":'
        self._before = [
            b'%b{"index":%d,%b' % (self._head, index, member) for index in range(self._open)
        ]
        after = b'},"logprobs":null,"finish_reason":null,"token_ids":null}]'
        if not self._is_chat:
            after = b',"logprobs":null,"finish_reason":null,"stop_reason":null'
            after += b',"prompt_token_ids":null,"token_ids":null}]'
        self._after = after
        self._plain_after = after + b"}" + self._end
        placement = reply.script.usage
        self._on_every = placement is UsagePlacement.EVERY or (
            placement is UsagePlacement.SEPARATE and reply.question.continuous_usage
        )
        self._on_finish = placement is UsagePlacement.FINISH
        self._apart = placement is UsagePlacement.EVERY or (
            placement is UsagePlacement.SEPARATE and reply.question.include_usage
        )

    def _id(self) -> str:
        return ("chatcmpl-" if self._is_chat else "cmpl-") + self._reply.id

    def lead(self) -> list[bytes]:
        if not self._is_chat:
            return []
        return [
            b'%b{"index":%d,"delta":{"role":"assistant","content":""},"logprobs":null,'
            b'"finish_reason":null}]%b,"prompt_token_ids":null,"prompt_text":null}%b'
            % (self._head, index, self._running_usage(index), self._end)
            for index in range(self._open)
        ]

    def piece(self, piece: Piece) -> list[bytes]:
        index = piece.choice
        if piece.kind is Kind.TEXT and piece.finish is None and self._question.logprobs is None:
            if not self._on_every:  # what nearly all events are
                return [self._before[index] + orjson.dumps(piece.text) + self._plain_after]
            usage = self._running_usage(index)
            text = orjson.dumps(piece.text)
            return [b"%b%b%b%b}%b" % (self._before[index], text, self._after, usage, self._end)]
        return [self._full_event(piece)]

    def _full_event(self, piece: Piece) -> bytes:
        entry: dict[str, Any] = {"index": piece.choice}
        if self._is_chat:
            entry["delta"] = self._delta(piece)
        else:
            entry["text"] = piece.text
        entry["logprobs"] = self._logprobs(piece)
        entry["finish_reason"] = self._finish_reason(piece)
        if not self._is_chat or piece.finish is not None:
            entry["stop_reason"] = piece.stop
        if not self._is_chat:
            entry["prompt_token_ids"] = None
        entry["token_ids"] = None
        usage = self._running_usage(piece.choice)
        fingerprint = b""
        if piece.finish is not None:
            self._open -= 1
            if self._on_finish:
                usage = self._finish_usage(piece.choice)
            if self._open == 0 and not self._apart:
                fingerprint = b',"system_fingerprint":"%b"' % _FINGERPRINT.encode()
        line = self._head + orjson.dumps(entry) + b"]" + usage + fingerprint + b"}"
        return line + self._end

    def _delta(self, piece: Piece) -> dict[str, Any]:
        if piece.kind is Kind.REASONING:
            return {"reasoning": piece.text, "reasoning_content": piece.text}
        if piece.kind is Kind.TEXT:
            return {"content": piece.text} if piece.text else {}
        call: dict[str, Any] = {}
        if piece.call is not None:
            self._tool_index[piece.choice] += 1
            call = {"id": piece.call.id, "type": "function"}
        call["index"] = self._tool_index[piece.choice]
        call["function"] = {} if piece.call is None else {"name": piece.call.name}
        if piece.text or piece.call is None:
            call["function"]["arguments"] = piece.text
        return {"content": None, "tool_calls": [call]}

    def _finish_reason(self, piece: Piece) -> str | None:
        named = self._question.tool_is_named and self._is_chat
        return "stop" if piece.finish == "tool_calls" and named else piece.finish

    def tail(self) -> list[bytes]:
        records: list[bytes] = []
        counts = self._reply.counts
        if self._apart and self._reply.script.per_choice:
            records = [self._finish_usage(index) for index in range(len(counts.completion))]
        elif self._apart:
            records = [self._total_usage()]
        events = [
            b'%b]%b,"system_fingerprint":"%b"}%b'
            % (self._head, record, _FINGERPRINT.encode(), self._end)
            for record in records
        ]
        return [*events, b"data: [DONE]" + self._end]

    def error(self, message: str) -> bytes:
        fields = {"message": message, "type": "InternalServerError", "param": None, "code": 500}
        return b"data: " + orjson.dumps({"error": fields}) + self._end

    def document(self, pieces: Iterable[Piece]) -> bytes:
        counts = self._reply.counts
        choices = gather(pieces, len(counts.completion))
        kind = "chat.completion" if self._is_chat else "text_completion"
        document: dict[str, Any] = {
            "id": self._id(),
            "object": kind,
            "created": self._reply.created,
            "model": self._reply.model,
            "choices": [self._whole(index, choice) for index, choice in enumerate(choices)],
            "service_tier": None,
            "system_fingerprint": _FINGERPRINT,
        }
        if self._reply.tells_usage:
            document["usage"] = orjson.Fragment(self._total_usage(whole=True).partition(b":")[2])
        document |= {"kv_transfer_params": None, "ec_transfer_params": None, "metrics": None}
        return orjson.dumps(document)

    def _whole(self, index: int, choice: Choice) -> dict[str, Any]:
        entry: dict[str, Any] = {"index": index}
        piece = Piece(index, choice.text, finish=choice.finish, stop=choice.stop)
        if self._is_chat:
            message: dict[str, Any] = {"role": "assistant", "content": choice.text}
            message |= _MESSAGE_FIELDS
            if choice.calls:
                message["tool_calls"] = [
                    {
                        "id": call.id,
                        "type": "function",
                        "function": {"name": call.name, "arguments": arguments},
                    }
                    for call, arguments in choice.calls
                ]
            message["reasoning"] = choice.reasoning or None
            entry["message"] = message
        else:
            entry["text"] = choice.text
        entry["logprobs"] = self._logprobs(piece)
        entry["finish_reason"] = self._finish_reason(piece)
        entry |= {"stop_reason": choice.stop, "token_ids": None}
        return entry

    def _running_usage(self, choice: int) -> bytes:
        """The running record as vLLM has it: of this choice, with its own prompt."""
        if not self._on_every:
            return b""
        counts = self._reply.counts
        prompt = counts.prompt[choice // counts.n]
        completion = counts.completion[choice]
        record = b',"usage":{"prompt_tokens":%d,"total_tokens":%d,"completion_tokens":%d'
        record %= (prompt, prompt + completion, completion)
        cached = counts.cached[choice // counts.n]
        if cached:
            record += b',"prompt_tokens_details":{"cached_tokens":%d}' % cached
        reasoning = counts.reasoning[choice]
        if reasoning:
            details = b',"completion_tokens_details":{"reasoning_tokens":%d}}' % reasoning
            return record + details
        return record + b',"completion_tokens_details":null}'

    def _finish_usage(self, choice: int) -> bytes:
        counts = self._reply.counts
        if not self._reply.script.per_choice:
            return self._total_usage() if self._open == 0 else b""
        prompt = choice // counts.n
        return _usage(
            counts.prompt[prompt],
            counts.cached[prompt],
            counts.completion[choice],
            counts.reasoning[choice],
        )

    def _total_usage(self, *, whole: bool = False) -> bytes:
        counts = self._reply.counts
        return _usage(
            sum(counts.prompt),
            sum(counts.cached),
            sum(counts.completion),
            sum(counts.reasoning),
            whole=whole,
        )

    def _logprobs(self, piece: Piece) -> dict[str, Any] | None:
        """Made-up but plausible logarithms: the same token always has the same."""
        top = self._question.logprobs
        if top is None or piece.kind is not Kind.TEXT or not piece.text:
            return None
        tokens = tokens_of(piece.text)
        if self._is_chat:
            return {"content": [_chat_logprob(token, top) for token in tokens]}
        offsets = []
        for token in tokens:
            offsets.append(self._offsets[piece.choice])
            self._offsets[piece.choice] += len(token)
        return {
            "text_offset": offsets,
            "token_logprobs": [_logprob(token) for token in tokens],
            "tokens": tokens,
            "top_logprobs": [
                {entry["token"]: entry["logprob"] for entry in _alternatives(token, top)}
                for token in tokens
            ],
        }


def _usage(
    prompt: int, cached: int, completion: int, reasoning: int, *, whole: bool = False
) -> bytes:
    """``,"usage":{…}``; whole documents name the details even where there are none."""
    record = b',"usage":{"prompt_tokens":%d,"total_tokens":%d,"completion_tokens":%d' % (
        prompt,
        prompt + completion,
        completion,
    )
    if cached:
        record += b',"prompt_tokens_details":{"cached_tokens":%d}' % cached
    elif whole:
        record += b',"prompt_tokens_details":null'
    if reasoning:
        record += b',"completion_tokens_details":{"reasoning_tokens":%d}' % reasoning
    elif whole:
        record += b',"completion_tokens_details":null'
    return record + b"}"


def _logprob(token: str) -> float:
    return -math.log1p(seed_of(token) % 997) / 7


def _alternatives(token: str, count: int) -> list[dict[str, Any]]:
    entries = []
    for rank in range(count):
        other = token if rank == 0 else f"{token}{rank}"
        logprob = _logprob(token) - rank
        entries.append({"token": other, "logprob": logprob, "bytes": list(other.encode())})
    return entries


def _chat_logprob(token: str, top: int) -> dict[str, Any]:
    return {
        "token": token,
        "logprob": _logprob(token),
        "bytes": list(token.encode()),
        "top_logprobs": _alternatives(token, top),
    }
