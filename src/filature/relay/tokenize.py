"""How many tokens a prompt is, asked of the engine that would read it. A question ahead of a request,
never a part of one.

It is asked where the bound on a prompt does not fit a balance, so it has to be exact or not given at
all: prompts with anything in them that is not text, or that an engine might write differently into
its prompt than into what it counts, are not counted.

==================  ========================================================================
chat                ``/tokenize`` with the messages (vLLM), or ``/apply-template`` and then
                    ``/tokenize`` of what it wrote (llama.cpp)
completions,        ``/tokenize`` of each text (vLLM, SGLang, llama.cpp)
embeddings
responses           as chat, where its input is nothing but messages of text
messages            ``/v1/messages/count_tokens``, the engine's own; else as responses
==================  ========================================================================
"""

import asyncio
from typing import Any, Final

import orjson

from filature.relay.engines import Engine, ServedModel
from filature.relay.fetch import FetchError, fetch
from filature.request.limits import TOKENS_MAX
from filature.request.parse import ParsedRequest
from filature.request.rewrite import body_for_engine
from filature.wire.dialect import Dialect

COUNTED_BYTES_MAX: Final = 2 * 1024 * 1024
"""Of a request's body: one that is longer is held for by its bound."""
TEXTS_MAX: Final = 8
"""Prompts of one request that are counted, one after another."""
MISUNDERSTANDINGS_MAX: Final = 5
"""Refusals of a way of counting that never worked on an engine, until it is not tried there again."""
_WORKS: Final = -1
_ABSENT: Final = (404, 405, 501)

_ASK_CHAT: Final = "tokenize messages"
_ASK_TEXT: Final = "tokenize prompt"
_ASK_TEMPLATE: Final = "apply-template"
_ASK_CONTENT: Final = "tokenize content"
_ASK_MESSAGES: Final = "count_tokens"

_CHAT_FIELDS: Final = (
    "messages",
    "tools",
    "chat_template_kwargs",
    "add_generation_prompt",
    "continue_final_message",
    "add_special_tokens",
)
"""What vLLM takes for counting as for answering."""
_MESSAGES_FIELDS: Final = ("system", "messages", "tools", "tool_choice", "thinking")
_FOR_TEMPLATES: Final = ("chat_template", "chat_template_kwargs", "documents")
"""Engines' own, which they take in other dialects than chat too."""
_UNCOUNTED: Final[dict[Dialect, tuple[str, ...]]] = {
    Dialect.CHAT: (
        "chat_template",
        "documents",
        "function_call",
        "functions",
        "mm_processor_kwargs",
        "reasoning_effort",
        "truncate_prompt_tokens",
    ),
    Dialect.COMPLETIONS: (
        "add_special_tokens",
        "prompt_embeds",
        "suffix",
        "truncate_prompt_tokens",
    ),
    Dialect.EMBEDDINGS: ("add_special_tokens", "messages", "truncate_prompt_tokens"),
    Dialect.RESPONSES: ("reasoning", "tools", *_FOR_TEMPLATES),
    Dialect.MESSAGES: (
        "container",
        "context_management",
        "mcp_servers",
        "output_config",
        *_FOR_TEMPLATES,
    ),
}
"""Fields that may change a prompt in ways which counting does not see."""
_MESSAGE_MEMBERS: Final = frozenset({"type", "role", "content", "id", "status"})
_TEXT_PARTS: Final = ("text", "input_text", "output_text")


_WAYS: Final[dict[Dialect, tuple[str, ...]]] = {
    Dialect.CHAT: (_ASK_CHAT, _ASK_TEMPLATE),
    Dialect.COMPLETIONS: (_ASK_TEXT, _ASK_CONTENT),
    Dialect.EMBEDDINGS: (_ASK_TEXT, _ASK_CONTENT),
    Dialect.RESPONSES: (_ASK_CHAT, _ASK_TEMPLATE),
    Dialect.MESSAGES: (_ASK_MESSAGES, _ASK_CHAT, _ASK_TEMPLATE),
}
"""With which counting begins."""


def may_count(model: ServedModel, dialect: Dialect) -> bool:
    """Whether there is a way in which its engine was not found to be unable."""
    misunderstood = model.abilities.misunderstood
    return any(misunderstood.get(way, 0) < MISUNDERSTANDINGS_MAX for way in _WAYS.get(dialect, ()))


async def exact_prompt_tokens(
    engine: Engine, model: ServedModel, request: ParsedRequest, timeout_s: float
) -> int | None:
    """Tokens of the prompt, over all prompts of the request; None where the engine cannot tell.

    Never takes longer than ``timeout_s`` seconds. What an engine does not understand is remembered
    in ``model.abilities``.
    """
    if (
        len(request.body) > COUNTED_BYTES_MAX
        or request.media_parts
        or any(request.fields.get(name) is not None for name in _UNCOUNTED.get(request.dialect, ()))
    ):
        return None
    try:
        async with asyncio.timeout(timeout_s), engine.counting:
            return await _Question(engine, model, timeout_s).ask(request)
    except (TimeoutError, FetchError):
        return None


class _Question:
    """One request's prompt, put to one engine."""

    def __init__(self, engine: Engine, model: ServedModel, timeout_s: float) -> None:
        self._engine = engine
        self._model = model
        self._timeout_s = timeout_s

    async def ask(self, request: ParsedRequest) -> int | None:
        dialect = request.dialect
        if dialect is Dialect.CHAT:
            body = self._spans(request, _CHAT_FIELDS)
            whole = body_for_engine(
                request,
                model=self._model.upstream_name,
                include_usage=False,
                continuous_usage=False,
                for_network=self._engine.is_remote,
            )
            return await self._chat(body, whole)
        if dialect is Dialect.MESSAGES:
            body = self._spans(request, _MESSAGES_FIELDS)
            path = Dialect.COUNT_TOKENS.path
            count = _count(await self._post(_ASK_MESSAGES, path, body, "input_tokens"))
            return await self._messages(request) if count is None else count
        if dialect is Dialect.RESPONSES:
            return await self._messages(request)
        if dialect is Dialect.COMPLETIONS or dialect is Dialect.EMBEDDINGS:
            return await self._prompts(request.fields[request.rules.prompts[0]])
        return None

    # one kind of prompt each

    async def _messages(self, request: ParsedRequest) -> int | None:
        """Messages of another dialect, where there is only one way to read them as a chat."""
        messages = _chat_messages(request.fields)
        body = None if messages is None else self._body({"messages": messages})
        return None if body is None else await self._chat(body, body)

    async def _chat(self, body: bytes, whole: bytes) -> int | None:
        count = _count(await self._post(_ASK_CHAT, "/tokenize", body, "count"))
        if count is not None:
            return count
        prompt = await self._post(_ASK_TEMPLATE, "/apply-template", whole, "prompt")
        return await self._content(prompt) if isinstance(prompt, str) else None

    async def _prompts(self, value: Any) -> int | None:
        """A completions prompt or an embeddings input, as ``fields.prompts`` allows it."""
        if type(value) is not list or int in set(map(type, value)):
            value = [value]
        total = texts = 0
        for prompt in value:
            count: int | None = None
            if type(prompt) is str and texts < TEXTS_MAX:
                texts += 1
                count = await self._text(prompt)
            elif type(prompt) is list and set(map(type, prompt)) == {int}:
                count = len(prompt)
            if count is None:
                return None
            total += count
        return total

    async def _text(self, text: str) -> int | None:
        body = self._body({"prompt": text})
        if body is None:
            return None
        count = _count(await self._post(_ASK_TEXT, "/tokenize", body, "count"))
        return await self._content(text) if count is None else count

    async def _content(self, text: str) -> int | None:
        """llama.cpp's tokens of a text, with its special ones, as it reads every prompt."""
        body = self._body({"content": text, "add_special": True, "parse_special": True})
        if body is None:
            return None
        tokens = await self._post(_ASK_CONTENT, "/tokenize", body, "tokens")
        return len(tokens) if isinstance(tokens, list) and (tokens or not text) else None

    # bodies and answers

    def _spans(self, request: ParsedRequest, names: tuple[str, ...]) -> bytes:
        """A body with some of the request's members, as the client wrote them."""
        out = [b'{"model":' + orjson.dumps(self._model.upstream_name)]
        for name in names:
            if request.fields.get(name) is not None:
                _, start, end = request.member(name)
                out.append(b'"%b":%b' % (name.encode(), request.body[start:end]))
        return b",".join(out) + b"}"

    def _body(self, members: dict[str, Any]) -> bytes | None:
        """None where there is something in it that is no character (an unpaired surrogate)."""
        try:
            return orjson.dumps({"model": self._model.upstream_name} | members)
        except orjson.JSONEncodeError:
            return None

    async def _post(self, way: str, path: str, body: bytes, wanted: str) -> object:
        """The member ``wanted`` of the engine's answer; None if it has none or will not be asked.

        Raises FetchError, which says nothing of the way.
        """
        misunderstood = self._model.abilities.misunderstood
        times = misunderstood.get(way, 0)
        if times >= MISUNDERSTANDINGS_MAX:
            return None
        engine = self._engine
        request = engine.post_to(path, body)
        status, answer = await fetch(engine.pool, request, timeout_s=self._timeout_s)
        told = _object(answer) if status == 200 else None
        if told is not None and told.get(wanted) is not None:
            misunderstood[way] = _WORKS
            return told[wanted]
        if times != _WORKS and status < 500:
            # an answer without it is one to another question: `/tokenize` is llama.cpp's too
            absent = told is not None or status in _ABSENT
            misunderstood[way] = MISUNDERSTANDINGS_MAX if absent else times + 1
        return None


def _object(answer: bytes) -> dict[str, Any] | None:
    try:
        told = orjson.loads(answer)
    except orjson.JSONDecodeError:
        return None
    return told if type(told) is dict else None


def _count(value: object) -> int | None:
    return value if type(value) is int and 0 <= value <= TOKENS_MAX else None


def _chat_messages(fields: dict[str, Any]) -> list[dict[str, Any]] | None:
    """The messages of Responses or Messages as those of a chat; None unless all of them is text."""
    if any(fields.get(name) is not None for name in ("tools", "thinking")):
        return None
    messages: list[dict[str, Any]] = []
    system = fields.get("instructions") or fields.get("system")
    if system is not None:
        messages.append({"role": "system", "content": system})
    given = fields.get("input") or fields.get("messages")
    if type(given) is str:
        given = [{"role": "user", "content": given}]
    messages += given or ()
    out: list[dict[str, Any]] = []
    for message in messages:
        content = _text_content(message.get("content"))
        role = message.get("role")
        if content is None or type(role) is not str or not message.keys() <= _MESSAGE_MEMBERS:
            return None
        if message.get("type", "message") != "message":
            return None
        out.append({"role": role, "content": content})
    return out


def _text_content(content: Any) -> Any:
    """Text, or parts that are all text; else None."""
    if type(content) is str:
        return content
    parts: list[dict[str, str]] = []
    for part in content if type(content) is list else ():
        text = part.get("text") if type(part) is dict and part.get("type") in _TEXT_PARTS else None
        if type(text) is not str:
            return None
        parts.append({"type": "text", "text": text})
    return parts[0]["text"] if len(parts) == 1 else parts or None
