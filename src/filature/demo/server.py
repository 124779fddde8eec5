"""The engine: routes, and the way from a request to its answer. Bytes and pace are its parts'."""

import asyncio
import random
import time
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any, Final

import orjson

from filature.demo import faults
from filature.demo.faults import Events, head_bytes
from filature.demo.formats.base import Format, Reply
from filature.demo.formats.choices import ChoicesFormat
from filature.demo.formats.embeddings import embeddings_document
from filature.demo.formats.messages import MessagesFormat
from filature.demo.formats.responses import ResponsesFormat
from filature.demo.http import Connection, Request
from filature.demo.model import ModelBackend
from filature.demo.model_answer import (
    ModelAnswer,
    TaskExchange,
    refuse_what_is_not_offered,
)
from filature.demo.options import Fault, Script, ScriptError, override, override_by_name
from filature.demo.pieces import Counts, Piece, with_finish_apart
from filature.demo.player import Pacer, Player
from filature.demo.question import (
    Question,
    RefusedError,
    check_context,
    parse_json,
    read_question,
    read_tokenizing,
)
from filature.demo.scripted import ScriptedBackend
from filature.demo.stats import EngineStats
from filature.demo.text import seed_of
from filature.wire.dialect import DIALECT_BY_PATH, Dialect

_FORMATS: Final[dict[Dialect, type[ChoicesFormat | MessagesFormat | ResponsesFormat]]] = {
    Dialect.CHAT: ChoicesFormat,
    Dialect.COMPLETIONS: ChoicesFormat,
    Dialect.RESPONSES: ResponsesFormat,
    Dialect.MESSAGES: MessagesFormat,
}
_GET_PATHS: Final = frozenset(
    {"/v1/models", "/health", "/ping", "/version", "/metrics", "/demo/stats"}
)
_POST_PATHS: Final = frozenset({"/tokenize", "/demo/reset", *DIALECT_BY_PATH})
_JSON: Final = b"application/json"


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """Of the whole engine. A request for any of ``models``, or for one of them with ``/`` and
    overrides behind it, is answered."""

    models: tuple[str, ...] = ("demo",)
    context_length: int = 8192
    script: Script = field(default_factory=Script)


class DemoEngine:
    """An OpenAI-compatible engine in this process.

    ``start`` and ``close`` it in the same event loop; ``url`` is its root, without ``/v1``. With a
    ``model`` that answers, else the script does; faults are for the script alone.
    """

    def __init__(
        self, options: EngineOptions | None = None, *, model: ModelBackend | None = None
    ) -> None:
        self.options = options or EngineOptions()
        self.stats = EngineStats()
        self.url = ""
        self.port = 0
        self._model = model
        self._scripted = ScriptedBackend()
        self._connections: set[Connection] = set()
        self._server: asyncio.Server | None = None
        self._pacer: Pacer | None = None
        self._all_gone: asyncio.Event = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self, host: str = "127.0.0.1", port: int = 0) -> None:
        """Listen; port 0 is any free one. Raises ``OSError``."""
        loop = asyncio.get_running_loop()
        self._pacer = Pacer(loop)
        self._server = await loop.create_server(
            lambda: Connection(self._handle, self), host, port, backlog=4096
        )
        self.port = self._server.sockets[0].getsockname()[1]
        shown = f"[{host}]" if ":" in host else host
        self.url = f"http://{shown}:{self.port}"

    async def close(self) -> None:
        """Stop at once: running answers are cut."""
        if self._server is None or self._pacer is None:
            return
        self._server.close()
        self._pacer.close()
        for connection in tuple(self._connections):
            connection.abort()
        if self._connections:
            await self._all_gone.wait()
        if self._tasks:
            await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()
        self._server = None

    # What connections tell

    def connected(self, connection: Connection) -> None:
        self._connections.add(connection)
        self._all_gone.clear()
        self.stats.connections += 1
        self.stats.connections_total += 1

    def disconnected(self, connection: Connection) -> None:
        self._connections.discard(connection)
        self.stats.connections -= 1
        if not self._connections:
            self._all_gone.set()

    def ended(self, *, completed: bool, cancelled: bool) -> None:
        self.stats.running -= 1
        if cancelled:
            self.stats.cancelled += 1
        elif completed:
            self.stats.completed += 1
        else:
            self.stats.failed += 1

    # Requests

    def _handle(self, connection: Connection, request: Request) -> None:
        dialect = DIALECT_BY_PATH.get(request.path)
        if dialect is None or request.method != "POST":
            self._serve_page(connection, request)
            return
        self.stats.requests += 1
        self.stats.history.append(
            {
                "method": request.method,
                "path": request.path,
                "query": request.query,
                "headers": request.headers,
                "body": request.body,
            }
        )
        try:
            self._answer(connection, request, dialect)
        except RefusedError as error:
            self.stats.refused += 1
            self._send(connection, error.status, error.body(dialect))

    def _send(
        self,
        connection: Connection,
        status: int,
        body: bytes,
        kind: bytes = _JSON,
        *,
        more: bytes = b"",
    ) -> None:
        connection.write(head_bytes(status, kind, len(body), more=more) + body)
        connection.finish()

    def _answer(self, connection: Connection, request: Request, dialect: Dialect) -> None:
        body = parse_json(request.body)
        script = self._script(body)
        question = read_question(dialect, body, self.options.context_length)
        question.model = body.get("model") or self.options.models[0]
        reply = self._reply(question, script)
        if self._model is not None:
            self._run_model(connection, self._model, reply)
            return
        check_context(max(question.prompt_tokens), self.options.context_length)
        if dialect is Dialect.COUNT_TOKENS:
            counted = {"input_tokens": question.prompt_tokens[0]}
            self._send(connection, 200, orjson.dumps(counted))
        else:
            self._play(connection, reply)

    def _script(self, body: dict[str, Any]) -> Script:
        """The engine's script with what the model's name and ``x_demo`` change in it."""
        script = self.options.script
        name = body.get("model")
        if name is not None and name not in self.options.models:
            pairs = self._pairs(name)
            if pairs is None:
                known = ", ".join(self.options.models)
                message = f"The model `{name}` does not exist. Served here: {known}."
                raise RefusedError(404, message, "model", "NotFoundError")
            script = _overridden(script, pairs)
        given = body.get("x_demo")
        if given is not None:
            script = _overridden(script, given)
        return script

    def _pairs(self, name: Any) -> str | None:
        """What follows the model's own name, if that is one of ours."""
        for own in self.options.models:
            if isinstance(name, str) and name.startswith(own + "/") and "=" in name:
                return name.removeprefix(own + "/")
        return None

    def _reply(self, question: Question, script: Script) -> Reply:
        cached = [min(script.cached, tokens) for tokens in question.prompt_tokens]
        counts = Counts(question.prompt_tokens, cached, question.n)
        identity = f"{random.getrandbits(64):016x}"
        return Reply(question, script, counts, identity, int(time.time()))

    # The scripted back end

    def _play(self, connection: Connection, reply: Reply) -> None:
        question, script = reply.question, reply.script
        fails = script.fault is not Fault.NONE and self.stats.still_fails(
            script.key or question.model, script.fail_times
        )
        if question.dialect is Dialect.EMBEDDINGS:
            output = faults.document_output(embeddings_document(reply), script, fails=fails)
        else:
            pieces = self._scripted.plan(question, script)
            form = _FORMATS[question.dialect](reply)
            if question.stream:
                events = _events(form, pieces, reply)
                output = faults.stream_output(events, form, script, fails=fails)
            else:
                for piece in pieces:
                    reply.counts.add(piece)
                document = form.document(pieces)
                output = faults.document_output(document, script, fails=fails)
        assert self._pacer is not None
        self.stats.running += 1
        player = Player(output, script, connection, self._pacer)
        connection.run(player)
        player.start()

    # The model

    def _run_model(self, connection: Connection, model: ModelBackend, reply: Reply) -> None:
        question = reply.question
        refuse_what_is_not_offered(reply)
        exchange = TaskExchange()

        async def answer() -> None:
            if question.dialect is Dialect.COUNT_TOKENS:
                (tokens,) = await model.count(model.prompts_of(question))
                self._send(connection, 200, orjson.dumps({"input_tokens": tokens}))
                return
            form = _FORMATS[question.dialect](reply)
            context = self.options.context_length
            run = ModelAnswer(connection, model, reply, context, exchange.readable)
            await run.run(form)

        self._run_task(connection, exchange, answer(), question.dialect)

    def _run_task(
        self,
        connection: Connection,
        exchange: TaskExchange,
        work: Coroutine[Any, Any, None],
        dialect: Dialect,
    ) -> None:
        """Let ``work`` answer; what it raises becomes the answer."""

        async def run() -> None:
            try:
                await work
            except (RefusedError, RuntimeError) as raised:
                error = raised
                if not isinstance(error, RefusedError):
                    error = RefusedError(
                        500, f"the model failed: {error}", None, "InternalServerError"
                    )
                self.stats.refused += 1
                head = head_bytes(error.status, _JSON, len(body := error.body(dialect)))
                connection.write(head + body)
                connection.finish(completed=False)

        self.stats.running += 1
        connection.run(exchange)
        exchange.task = asyncio.get_running_loop().create_task(run())
        self._tasks.add(exchange.task)
        exchange.task.add_done_callback(self._tasks.discard)

    # Everything else

    def _serve_page(self, connection: Connection, request: Request) -> None:
        path = request.path
        allowed = "GET" if path in _GET_PATHS else "POST" if path in _POST_PATHS else None
        if allowed is None:
            self._send(connection, 404, b'{"detail":"Not Found"}')
        elif request.method != allowed:
            more = b"allow: %b\r\n" % allowed.encode()
            self._send(connection, 405, b'{"detail":"Method Not Allowed"}', more=more)
        elif path == "/tokenize":
            self._tokenize(connection, request)
        elif path == "/metrics":
            kind = b"text/plain; version=0.0.4; charset=utf-8"
            self._send(connection, 200, self._metrics(), kind)
        else:
            self._send(connection, 200, self._page(path))

    def _page(self, path: str) -> bytes:
        if path == "/v1/models":
            return self._models()
        if path == "/demo/stats":
            return self.stats.as_json()
        if path == "/demo/reset":
            self.stats.reset()
        if path == "/version":
            return b'{"version":"filature-demo"}'
        return b""

    def _models(self) -> bytes:
        created = int(time.time())
        data = [
            {
                "id": name,
                "object": "model",
                "created": created,
                "owned_by": "filature",
                "root": name,
                "parent": None,
                "max_model_len": self.options.context_length,
            }
            for name in self.options.models
        ]
        return orjson.dumps({"object": "list", "data": data})

    def _tokenize(self, connection: Connection, request: Request) -> None:
        """As vLLM: of a ``prompt``, or of ``messages`` in the model's template."""
        try:
            body = parse_json(request.body)
            self._script(body)  # refuses unknown models
            question = read_tokenizing(body, self.options.context_length)
        except RefusedError as error:
            self._send(connection, error.status, error.body(None))
            return
        model = self._model
        if model is None:
            self._send_tokens(connection, question.prompt_tokens[0], question)
            return

        async def count() -> None:
            (tokens,) = await model.count(model.prompts_of(question))
            self._send_tokens(connection, tokens, question)

        exchange = TaskExchange()
        self._run_task(connection, exchange, count(), question.dialect)

    def _send_tokens(self, connection: Connection, count: int, question: Question) -> None:
        first = seed_of(*question.prompts)  # ids of no vocabulary: they are counted, not read
        told = {
            "count": count,
            "max_model_len": self.options.context_length,
            "tokens": [(first + number) % 65536 for number in range(count)],
            "token_strs": None,
        }
        self._send(connection, 200, orjson.dumps(told))

    def _metrics(self) -> bytes:
        name = self.options.models[0].replace("\\", "\\\\").replace('"', '\\"')
        labels = f'{{engine="0",model_name="{name}"}}'
        return (
            "# HELP vllm:num_requests_running Requests that are being answered.\n"
            "# TYPE vllm:num_requests_running gauge\n"
            f"vllm:num_requests_running{labels} {self.stats.running}.0\n"
            "# HELP vllm:num_requests_waiting Requests that wait for their turn.\n"
            "# TYPE vllm:num_requests_waiting gauge\n"
            f"vllm:num_requests_waiting{labels} 0.0\n"
        ).encode()


def _overridden(script: Script, values: Any) -> Script:
    """``values`` are pairs in a text or an object. Raises ``RefusedError``."""
    try:
        if isinstance(values, str):
            return override_by_name(script, values)
        if isinstance(values, dict):
            return override(script, values)
    except ScriptError as error:
        raise RefusedError(400, str(error), "x_demo") from None
    raise RefusedError(400, "x_demo must be an object", "x_demo")


def _events(form: Format, pieces: list[Piece], reply: Reply) -> Events:
    """All events of a stream; the counts go along, for usage on every event."""
    ordered = with_finish_apart(pieces) if reply.script.finish_apart else pieces
    lead = form.lead()
    written: list[list[bytes]] = []
    for piece in ordered:
        reply.counts.add(piece)
        events = form.piece(piece)
        if events:
            written.append(events)
    return Events(lead, written, form.tail())
