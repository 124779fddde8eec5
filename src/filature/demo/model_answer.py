"""One request's answer by the model, written as the tokens come. Which bytes is the format's part."""

import asyncio
from collections.abc import AsyncGenerator

from filature.demo.faults import LAST_CHUNK, STREAM_TYPE, chunk, head_bytes
from filature.demo.formats.base import Format, Reply
from filature.demo.http import Connection
from filature.demo.model import TOKENS_DEFAULT_MAX, ModelBackend
from filature.demo.options import Fault
from filature.demo.pieces import Counts, Piece, with_finish_apart
from filature.demo.question import Question, RefusedError, check_context
from filature.wire.dialect import Dialect


def refuse_what_is_not_offered(reply: Reply) -> None:
    """Raises ``RefusedError`` for what only the scripted back end can do."""
    question = reply.question
    if question.dialect is Dialect.EMBEDDINGS:
        raise RefusedError(400, "This model makes no embeddings.", "model")
    if question.tool_is_named or question.tool_choice == "required":
        raise RefusedError(400, "This model calls no tools.", "tool_choice")
    if reply.script.fault is not Fault.NONE:
        raise RefusedError(400, "Faults are for the scripted back end.", "x_demo")


class TaskExchange:
    """A task that answers a request, as the connection sees it."""

    def __init__(self) -> None:
        self.task: asyncio.Task[None] | None = None
        self.readable = asyncio.Event()

    def resume(self) -> None:
        self.readable.set()

    def cancel(self) -> None:
        if self.task is not None:
            self.task.cancel()


class ModelAnswer:
    """Answers one request; to be run as a task that is cancelled when the peer has gone."""

    def __init__(
        self,
        connection: Connection,
        model: ModelBackend,
        reply: Reply,
        context: int,
        readable: asyncio.Event,
    ) -> None:
        self._connection = connection
        self._model = model
        self._reply = reply
        self._context = context
        self._readable = readable

    async def run(self, form: Format) -> None:
        """Answer. Raises ``RefusedError`` or ``RuntimeError`` before anything was sent."""
        question = self._reply.question
        limit = await self._measure(question)
        pieces = self._model.generate(question, limit)
        try:
            if question.stream:
                await self._stream(form, pieces)
            else:
                collected = [piece async for piece in pieces]
                for piece in collected:
                    self._reply.counts.add(piece)
                body = form.document(collected)
                head = head_bytes(200, b"application/json", len(body))
                self._connection.write(head + body)
                self._connection.finish()
        finally:
            await pieces.aclose()

    async def _measure(self, question: Question) -> int:
        """Count the prompts; what is left for an answer."""
        tokens = await self._model.count(self._model.prompts_of(question))
        check_context(max(tokens), self._context)
        self._reply.counts = Counts(tokens, [0] * len(tokens), question.n)
        left = self._context - max(tokens)
        return min(left, question.max_tokens or TOKENS_DEFAULT_MAX)

    async def _stream(self, form: Format, pieces: AsyncGenerator[Piece, None]) -> None:
        head = head_bytes(200, STREAM_TYPE, None)
        ends: list[bytes]
        try:
            first = await anext(pieces)
        except StopAsyncIteration:
            first = Piece(finish="stop")
        self._connection.write(head + b"".join(map(chunk, form.lead())))
        self._write(form, first)
        try:
            async for piece in pieces:
                self._write(form, piece)
                if self._connection.is_paused:
                    self._readable.clear()
                    await self._readable.wait()
            ends = form.tail()
        except RuntimeError as error:
            ends = [form.error(f"the model failed: {error}")]
        self._connection.write(b"".join(map(chunk, ends)) + LAST_CHUNK)
        self._connection.finish()

    def _write(self, form: Format, piece: Piece) -> None:
        for part in with_finish_apart([piece]) if self._reply.script.finish_apart else (piece,):
            self._reply.counts.add(part)
            events = form.piece(part)
            if events:
                self._connection.write(b"".join(map(chunk, events)))
