"""What an engine serves and can do, and how busy others keep it: asked of it again and again, off the data plane."""

import asyncio
import logging
from itertools import islice, product
from typing import Any, Final

import orjson

from filature.relay.engines import Abilities, Engine, ServedModel
from filature.relay.fetch import FetchError, fetch
from filature.wire.dialect import Dialect
from filature.wire.engine_load import told_load

FETCH_S: Final = 5.0
PROBE_S: Final = 60.0
"""For the one-token request that shows what an engine puts into a stream."""
RETRY_S: Final = 1.0
REFRESH_S: Final = 20.0
METRICS_BYTES_MAX: Final = 1 << 20
"""Of an engine's page of metrics: vLLM's has 64 KiB for each of its processes. Of a longer one nothing is read."""
MODELS_PROBED_MAX: Final = 4
"""Of one engine, until one chats: embedding models may be named first."""
MODELS_MAX: Final = 1000
"""Of one engine; what it names beyond is left out."""
CONTEXT_MAX: Final = 2**31
"""Tokens: what says more of its context says nothing."""
_CONTEXT_NAMES: Final = ("max_model_len", "context_length", "max_context_length", "context_window")
"""In an entry of ``/v1/models``: vLLM's and SGLang's, OpenRouter's, Mistral's, Groq's."""
CREATED_MAX: Final = 2**53
NAMES_SAID_MAX: Final = 8
"""In one line of the log."""

log = logging.getLogger(__name__)


_USAGE_ASKED: Final[tuple[dict[str, dict[str, bool]], ...]] = (
    {"stream_options": {"include_usage": True, "continuous_usage_stats": True}},
    {"stream_options": {"include_usage": True}},
    {},
)
"""From what tells most to what any engine understands."""
_TOKENS_ASKED: Final[tuple[dict[str, int], ...]] = (
    {"max_tokens": 2, "max_completion_tokens": 2},
    {"max_tokens": 2},
)
"""Two, because an engine without continuous usage may still put it on its only event."""
_UNHEALTHY: Final = 503
_NO_KEY: Final = (401, 403)
"""Statuses that a key would change."""


class _Unusable(Exception):
    """Nothing can be asked of an engine now; the message says why."""


async def watch(engine: Engine) -> None:
    """Keep ``engine.models``, ``reachable`` and ``elsewhere`` true, until cancelled."""
    said = ""  # why it could not be used, where it cannot
    while True:
        was_reachable = engine.reachable
        try:
            await _look(engine)
            engine.reachable, said = True, ""
        except _Unusable as reason:
            engine.reachable = False
            engine.models.update(engine.named)
            if str(reason) != said:
                said = str(reason)
                log.warning("engine %s: %s; it is asked again and again", engine.name, said)
        if engine.reachable and not was_reachable:
            names = ", ".join(engine.models) or "none"
            log.info("engine %s answers, models: %s", engine.name, names)
        if engine.reachable:  # whatever comes of asking for its load, all else is asked as often
            await asyncio.gather(asyncio.sleep(REFRESH_S), _ask_load(engine))
        else:
            engine.elsewhere = 0
            await asyncio.sleep(RETRY_S)


async def _ask_health(engine: Engine) -> None:
    """Raises _Unusable where the engine says so: what serves HTTP may have lost what generates, or still load it.

    vLLM, SGLang and llama.cpp do. Of others, and where none is told, nothing follows.
    """
    try:
        status, _ = await fetch(engine.pool, engine.get_health(), timeout_s=FETCH_S)
    except FetchError:
        return
    if status == _UNHEALTHY:
        raise _Unusable(f"it answers {status} on /health")


async def _ask_load(engine: Engine) -> None:
    """Keep ``engine.elsewhere`` true, by its metrics: others may use it, too. What cannot be read tells nothing.

    With the key: llama.cpp asks for it there.
    """
    request = engine.get("/metrics", "text/plain")
    try:
        status, page = await fetch(
            engine.pool, request, timeout_s=FETCH_S, bytes_max=METRICS_BYTES_MAX
        )
    except FetchError:
        status, page = 0, b""
    engine.told(told_load(page) if status == 200 else None)


async def _look(engine: Engine) -> None:
    """Ask for the models once, and probe those that are new. Raises _Unusable."""
    await _ask_health(engine)
    try:
        status, body = await fetch(engine.pool, engine.get("/v1/models"), timeout_s=FETCH_S)
    except FetchError as error:
        raise _Unusable(error.with_ca("--engine-ca")) from None
    told = _told_models(body) if status == 200 else None
    if not engine.named:
        if told is None:
            if not engine.models:
                raise _Unusable(_names_none(engine, status))
            return
        known = set(engine.models)
        new = _take_models(engine, told)
        if known and new.keys() <= known:
            engine.reachable = True  # one that is back is ready while it is probed
    else:
        if told is not None:
            _describe(engine.named, told)
            if not engine.reachable:
                _tell_unlisted(engine, told)
        new = {} if engine.reachable else engine.named
        engine.models.update(engine.named)
    if new:
        abilities = await _probe_some(engine, new)
        for model in new.values():
            model.abilities = abilities or model.abilities
        engine.models.update(new)


def _names_none(engine: Engine, status: int) -> str:
    by_hand = f"name its models by hand (--engine {engine.name}=alias:upstream-name)"
    if status in _NO_KEY:
        by_hand = f"give its key (--engine-key), or {by_hand}"
    return f"it answers {status} on /v1/models and names none: {by_hand}"


def _take_models(engine: Engine, told: dict[str, ServedModel]) -> dict[str, ServedModel]:
    """Let ``engine`` have what it tells now, and return what is to be probed: new models, and all of one that was
    away, which may have been started otherwise."""
    for name in engine.models.keys() - told.keys():
        del engine.models[name]
    for name, known in engine.models.items():
        known.context_length, known.created = told[name].context_length, told[name].created
    return {
        name: engine.models.get(name, model)
        for name, model in told.items()
        if not engine.reachable or name not in engine.models
    }


def _describe(named: dict[str, ServedModel], told: dict[str, ServedModel]) -> None:
    """What the engine tells of models that were named by hand: how long their context is.

    Of one that it does not list, an adapter for example, the shortest that it tells of any: an engine
    refuses a request for more tokens than its context has.
    """
    lengths = [model.context_length for model in told.values() if model.context_length is not None]
    for model in named.values():
        known = told.get(model.upstream_name)
        if known is not None:
            model.context_length, model.created = known.context_length, known.created
        elif lengths:
            model.context_length = min(lengths)


def _tell_unlisted(engine: Engine, told: dict[str, ServedModel]) -> None:
    """Log the models named by hand that an engine may not know: a colon may have been meant as a part of the name."""
    listed = ", ".join(map(repr, islice(told, NAMES_SAID_MAX)))
    for alias, model in engine.named.items():
        if told and model.upstream_name not in told:
            said = (
                "engine %s: %s is named by hand as %r, which the engine does not list; it lists %s"
            )
            log.warning(said, engine.name, alias, model.upstream_name, listed)


def _told_models(body: bytes) -> dict[str, ServedModel] | None:
    """The models of an OpenAI ``/v1/models`` answer; vLLM tells ``max_model_len``, of an adapter its ``parent``'s,
    llama.cpp ``meta.n_ctx``. None: it is no such answer."""
    try:
        listed = orjson.loads(body)["data"]
    except (orjson.JSONDecodeError, KeyError, TypeError):
        return None
    told: dict[str, ServedModel] = {}
    parents: dict[str, str] = {}
    for entry in listed if isinstance(listed, list) else []:
        name = entry.get("id") if isinstance(entry, dict) else None
        if isinstance(name, str) and name and len(told) < MODELS_MAX:
            created = entry.get("created")
            is_time = type(created) is int and 0 <= created <= CREATED_MAX
            told[name] = ServedModel(name, _context_length(entry), created if is_time else 0)
            parents[name] = str(entry.get("parent"))
    for name, model in told.items():
        parent = told.get(parents[name])
        if model.context_length is None and parent is not None:
            model.context_length = parent.context_length
    return told


def _context_length(entry: dict[str, Any]) -> int | None:
    meta = entry.get("meta")
    nested = meta.get("n_ctx") if isinstance(meta, dict) else None
    for value in (*map(entry.get, _CONTEXT_NAMES), nested):
        if type(value) is int and 0 < value <= CONTEXT_MAX:  # `true` is none
            return value
    return None


async def _probe_some(engine: Engine, models: dict[str, ServedModel]) -> Abilities | None:
    """What the engine can do, by the first model that chats; None: nothing is to be seen."""
    for model in islice(models.values(), MODELS_PROBED_MAX):
        try:
            abilities = await _probe(engine, model.upstream_name)
        except FetchError:
            return None
        if abilities is not None:
            return abilities
    return None


async def _probe(engine: Engine, upstream_name: str) -> Abilities | None:
    """Ask for a few streamed tokens with usage on every event, and see what comes; None: the model does not chat.

    Raises FetchError.
    """
    for asked, tokens in product(_USAGE_ASKED, _TOKENS_ASKED):
        body = {
            "model": upstream_name,
            "messages": [{"role": "user", "content": "Hi"}],
            "stream": True,
            **tokens,
            **asked,
        }
        accept = b"accept: text/event-stream\r\n"
        request = engine.post(Dialect.CHAT, b"probe", accept, orjson.dumps(body))
        status, answer = await fetch(engine.pool, request, timeout_s=PROBE_S)
        if status == 200:
            return Abilities(
                include_usage=bool(asked),
                continuous_usage=_is_continuous(answer),
                both_limits=len(tokens) > 1,
            )
        if status not in (400, 422):
            break
    return None


def _is_continuous(answer: bytes) -> bool:
    """Whether usage stood on an event that neither ended the choice nor came alone."""
    for line in answer.splitlines():
        if not line.startswith(b"data: {"):
            continue
        try:
            event = orjson.loads(line[6:])
        except orjson.JSONDecodeError:
            continue
        choices, usage = event.get("choices"), event.get("usage")
        if (
            isinstance(usage, dict)
            and isinstance(choices, list)
            and any(isinstance(c, dict) and not c.get("finish_reason") for c in choices)
        ):
            return True
    return False
