"""The bytes that engine and load generator exchange, built once; no sockets, no clocks.

Answers are in vLLM's wire format (its 0.32 CPU build, as recorded in ``tests/data/captures``): one event per HTTP
chunk, about 240 bytes each, every event of it that carries text marked by one ``MARK`` byte, so that the generator
counts events with one byte search, however the reads are split.
"""

from dataclasses import dataclass
from typing import Final

MODEL: Final = "bench-model"
MARK: Final = b"~"
"""Occurs once in every content event and nowhere else in an answer."""

STAMP_DIGITS: Final = 19
"""Room for the time of sending, in ns since 1970."""

STAMP_ZERO: Final = b"0" * STAMP_DIGITS
PROMPT_TOKENS: Final = 17
TERMINATOR: Final = b"0\r\n\r\n"

STREAM_HEAD: Final = (
    b"HTTP/1.1 200 OK\r\ndate: Mon, 23 Nov 2026 09:20:26 GMT\r\nserver: uvicorn\r\n"
    b"content-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n\r\n"
)

_ID: Final = b"chatcmpl-a4ab6d8ebf2d7775a4ab6d8ebf2d7775"
_EVENT_HEAD: Final = (
    b'data: {"id":"'
    + _ID
    + b'","object":"chat.completion.chunk","created":1795425626,"model":"'
    + MODEL.encode()
    + b'"'
)
_WORDS: Final = (b" the", b" reel", b" of", b" silk", b" turns", b" on", b" and", b" thread")


def chunk(data: bytes) -> bytes:
    """One HTTP/1.1 chunk that carries ``data``."""
    return b"%x\r\n%s\r\n" % (len(data), data)


@dataclass(frozen=True, slots=True)
class StreamAnswer:
    """A streamed answer, cut where the engine writes it.

    ``opening`` is the head and the role event; ``events`` are the paced content events, one chunk each; ``closing`` is
    the usage event, ``[DONE]`` and the last chunk. ``text`` is what a client must have read in the end.
    """

    opening: bytes
    events: tuple[bytes, ...]
    closing: bytes
    text: str

    @property
    def whole(self) -> bytes:
        return self.opening + b"".join(self.events) + self.closing


def _usage(completion: int) -> bytes:
    return (
        b'"usage":{"prompt_tokens":%d,"total_tokens":%d,"completion_tokens":%d,"completion_tokens_details":null}'
        % (PROMPT_TOKENS, PROMPT_TOKENS + completion, completion)
    )


def content_event(index: int, *, text: bytes, last: bool, usage: bool) -> bytes:
    """The ``index``-th content event (from 0), with its blank line, without chunk framing."""
    finish = b'"length","stop_reason":null' if last else b"null"
    choice = (
        b'{"index":0,"delta":{"content":"%s"},"logprobs":null,"finish_reason":%s,"token_ids":null}'
        % (text, finish)
    )
    record = b"," + _usage(index + 1) if usage else b""
    return _EVENT_HEAD + b',"choices":[' + choice + b"]" + record + b"}\n\n"


def stream_answer(
    *, events: int, usage_on_every_event: bool, stamped: bool = False
) -> StreamAnswer:
    """An answer of ``events`` content events; ``stamped`` leaves room (``STAMP_ZERO``) for the time of sending."""
    role = _EVENT_HEAD + (
        b',"choices":[{"index":0,"delta":{"role":"assistant","content":""},"logprobs":null,"finish_reason":null}]'
    )
    role += (b"," + _usage(0) if usage_on_every_event else b"") + b',"prompt_token_ids":null}\n\n'
    texts = [(STAMP_ZERO if stamped else _WORDS[i % len(_WORDS)]) + MARK for i in range(events)]
    contents = tuple(
        chunk(content_event(i, text=text, last=i == events - 1, usage=usage_on_every_event))
        for i, text in enumerate(texts)
    )
    record = (
        _EVENT_HEAD
        + b',"choices":[],'
        + _usage(events)
        + b',"system_fingerprint":"vllm-0.32.0"}\n\n'
    )
    return StreamAnswer(
        opening=STREAM_HEAD + chunk(role),
        events=contents,
        closing=chunk(record) + chunk(b"data: [DONE]\n\n") + TERMINATOR,
        text=b"".join(texts).decode(),
    )


def unary_document(size_bytes: int = 400) -> bytes:
    """A JSON answer of exactly ``size_bytes`` (at least 400)."""
    start = (
        b'{"id":"'
        + _ID
        + b'","object":"chat.completion","created":1795425626,"model":"'
        + MODEL.encode()
        + b'",'
        b'"choices":[{"index":0,"message":{"role":"assistant","content":"'
    )
    end = (
        b'"},"logprobs":null,"finish_reason":"stop"}],'
        b'"usage":{"prompt_tokens":17,"total_tokens":67,"completion_tokens":50,"prompt_tokens_details":null}}'
    )
    room = size_bytes - len(start) - len(end)
    if room < 1:
        msg = f"an answer needs at least {len(start) + len(end) + 1} bytes"
        raise ValueError(msg)
    return start + (b"silk " * (room // 5 + 1))[: room - 1] + MARK + end


def unary_answer(size_bytes: int = 400) -> bytes:
    """Head and body of a unary answer, as one write."""
    body = unary_document(size_bytes)
    head = (
        b"HTTP/1.1 200 OK\r\ndate: Mon, 23 Nov 2026 09:20:26 GMT\r\nserver: uvicorn\r\n"
        b"content-length: %d\r\ncontent-type: application/json\r\n\r\n" % len(body)
    )
    return head + body


def request_body(*, stream: bool, include_usage: bool = False, prompt_bytes: int = 120) -> bytes:
    """A chat request of about ``prompt_bytes`` + 120 bytes, as an SDK writes it."""
    prompt = (
        b"Say in one sentence how a filature reels the silk of many cocoons into one thread. " * 40
    )[:prompt_bytes]
    body = (
        b'{"model":"'
        + MODEL.encode()
        + b'","messages":[{"role":"user","content":"'
        + prompt
        + b'"}],'
    )
    body += b'"max_tokens":50,"temperature":0.7'
    if stream:
        body += b',"stream":true'
        if include_usage:
            body += b',"stream_options":{"include_usage":true}'
    return body + b"}"


def request(host: str, body: bytes) -> bytes:
    """Head and body of a POST to the chat route, with the headers that an SDK sends."""
    head = (
        "POST /v1/chat/completions HTTP/1.1\r\n"
        f"Host: {host}\r\n"
        "Accept: application/json\r\n"
        "User-Agent: filature-bench/1\r\n"
        "Content-Type: application/json\r\n"
        "Authorization: Bearer sk-bench-0123456789abcdef\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def content_length(data: bytes, end: int) -> int:
    """The value of Content-Length in a head that ends at ``end``; 0 where there is none."""
    at = data.find(b"ontent-", 0, end)
    while at >= 0:
        if data[at + 7 : at + 14].lower() == b"length:":
            return int(data[at + 14 : data.index(b"\r", at)])
        at = data.find(b"ontent-", at + 7, end)
    return 0
