"""A proxy's questions how many tokens a prompt is, put to the worker's engine. No requests: no ticket, no report.

The tunnel is the proxy's, so who asks is known. What is asked is held to what counting needs: three paths, the
models that are offered, texts that could be a request's. Each body is written anew for the engine.
"""

from typing import Any, Final

import orjson

from filature.errors import (
    EngineFailed,
    EngineRefused,
    FilatureError,
    InvalidRequest,
    MethodNotAllowed,
    RequestTooLarge,
    Unavailable,
)
from filature.relay.engines import COUNTING_MAX, Engine, EngineDirectory, ServedModel
from filature.relay.fetch import FetchError, fetch
from filature.relay.http1 import RequestHead
from filature.relay.tokenize import COUNTED_BYTES_MAX
from filature.request.boundary import check_boundary
from filature.request.limits import RequestLimits
from filature.request.parse import parse_request
from filature.request.rewrite import body_for_engine
from filature.wire.dialect import Dialect

QUESTION_PATHS: Final = frozenset({"/tokenize", "/apply-template", Dialect.COUNT_TOKENS.path})
QUESTION_BYTES_MAX: Final = 2 * COUNTED_BYTES_MAX
"""Of a body: a request's, or what a template made of it."""
QUESTIONS_MAX: Final = COUNTING_MAX
"""Of one proxy at once: it asks no more."""
ANSWER_S: Final = 2.0
"""For the engine; a proxy waits no longer."""
_CONTENT_MEMBERS: Final = {"model": str, "content": str, "add_special": bool, "parse_special": bool}
"""Of llama.cpp's own form of ``/tokenize``."""


class Counting:
    """The questions of one proxy."""

    def __init__(self, engines: EngineDirectory, limits: RequestLimits) -> None:
        self._engines = engines
        self._limits = limits
        self._running = 0

    def check(self, head: RequestHead) -> FilatureError | None:
        """Refuse by the head alone, one of QUESTION_PATHS."""
        if head.method != "POST":
            return MethodNotAllowed("Questions are asked by POST.", allow="POST")
        if head.content_length > QUESTION_BYTES_MAX:
            return _too_large()
        return None

    async def answer(self, path: str, body: bytes) -> bytes:
        """What the engine says. Raises FilatureError, with the engine's status where it has one."""
        if self._running >= QUESTIONS_MAX:
            raise Unavailable("This worker is counting as much as it does at once.", code="busy")
        self._running += 1
        try:
            engine, question = self._question(path, body)
            async with engine.counting:
                return await _asked(engine, engine.post_to(path, question))
        finally:
            self._running -= 1

    def _question(self, path: str, body: bytes) -> tuple[Engine, bytes]:
        """Raises InvalidRequest, RequestTooLarge or Unavailable."""
        if len(body) > QUESTION_BYTES_MAX:
            raise _too_large()
        if path == "/tokenize":
            fields = _fields(body)
            if "content" in fields:
                return self._content(fields)
            dialect = Dialect.CHAT if "messages" in fields else Dialect.COMPLETIONS
        else:
            dialect = Dialect.CHAT if path == "/apply-template" else Dialect.COUNT_TOKENS
        request = parse_request(dialect, body, self._limits)
        check_boundary(request)
        if request.media_parts:
            raise InvalidRequest("Only texts are counted.", param="messages")
        engine, model = self._engine(request.model)
        return engine, body_for_engine(
            request,
            model=model.upstream_name,
            include_usage=False,
            continuous_usage=False,
            for_network=True,
        )

    def _content(self, fields: dict[str, Any]) -> tuple[Engine, bytes]:
        for name, value in fields.items():
            if type(value) is not _CONTENT_MEMBERS.get(name):
                raise InvalidRequest("A text is counted by content and model.", param=name)
        engine, model = self._engine(fields.get("model", ""))
        return engine, orjson.dumps(fields | {"model": model.upstream_name})

    def _engine(self, name: str) -> tuple[Engine, ServedModel]:
        for engine in self._engines.engines:
            model = engine.models.get(name)
            if model is not None:
                return engine, model
        # not a 404, by which a proxy would learn that there is no such path
        raise Unavailable(f"The model {name!r} is not served here now.", code="model_not_found")


async def _asked(engine: Engine, question: bytes) -> bytes:
    try:
        status, answer = await fetch(engine.pool, question, timeout_s=ANSWER_S)
    except FetchError as error:
        raise EngineFailed(f"The engine did not count: {error}.") from None
    if status == 200:
        return answer
    if 400 <= status < 500 or status == 501:
        raise EngineRefused("The engine does not count this.", status=status)
    raise EngineFailed(f"The engine answered {status}.")


def _fields(body: bytes) -> dict[str, Any]:
    try:
        fields = orjson.loads(body)
    except orjson.JSONDecodeError:
        fields = None
    if type(fields) is not dict:
        raise InvalidRequest("The body must be a JSON object.")
    return fields


def _too_large() -> RequestTooLarge:
    return RequestTooLarge(f"A question has at most {QUESTION_BYTES_MAX} bytes.")
