"""What is read with GET: models, a request's usage, the balance, health. Which path is which is data."""

from collections.abc import Callable, Coroutine
from typing import Any, Final
from urllib.parse import unquote

import orjson

from filature.answer.pricing import credits_text
from filature.errors import AuthenticationFailed, Draining, ModelNotFound, NotFound, Unavailable
from filature.proxy.callers import Caller
from filature.relay.engines import EngineDirectory
from filature.relay.http1 import RequestHead
from filature.store.prices import ModelPrice
from filature.store.store import Store
from filature.store.usage_records import RecentUsage
from filature.telemetry.record import UsageRecord
from filature.units import COEFFICIENT_ONE, NANO_ZERO, AccountId

Body = bytes | Coroutine[Any, Any, bytes]
"""A page, or what it has to wait for."""
Page = Callable[[RequestHead, Caller | None], Body]

ID_CHARS_MAX: Final = 128
_KEY_NEEDED: Final = (
    "This is shown to a valid API key of the account: `Authorization: Bearer sk-fil-…`. None was given, or one that "
    "is not valid."
)


class Pages:
    """The pages by their paths. ``caller`` is None where the head brought no key that is valid."""

    def __init__(
        self,
        engines: EngineDirectory,
        store: Store,
        recent: RecentUsage,
        price_of: Callable[[str], ModelPrice | None],
        is_draining: Callable[[], bool],
    ) -> None:
        self._engines = engines
        self._price_of = price_of
        self._store = store
        self._recent = recent
        self._is_draining = is_draining
        self._pages: dict[str, Page] = {
            "/v1/models": self._models,
            "/v1/balance": self._balance,
            "/health": _health,
            "/ready": self._ready,
        }

    def add(self, path: str, page: Page) -> None:
        """A page that another part of the proxy makes."""
        self._pages[path] = page

    def find(self, path: str) -> Page | None:
        page = self._pages.get(path)
        if page is None and path.startswith("/v1/models/"):
            return self._model
        if page is None and path.startswith("/v1/usage/"):
            return self._usage
        return page

    # models

    def _names(self, caller: Caller | None) -> dict[str, str]:
        """What a client may ask for: names of engines' models, and aliases of those; each with the model."""
        served = self._engines.models()
        aliases = self._store.prices.aliases.items()
        named = {name: name for name in served}
        named |= {alias: model for alias, model in aliases if model in served}
        allowed = None if caller is None or caller.key is None else caller.key.limits.models
        if allowed is None:
            return named
        return {name: model for name, model in named.items() if name in allowed or model in allowed}

    def _models(self, head: RequestHead, caller: Caller | None) -> Body:
        entries = [self._model_entry(name, model) for name, model in self._names(caller).items()]
        return orjson.dumps({"object": "list", "data": entries})

    def _model(self, head: RequestHead, caller: Caller | None) -> Body:
        name = unquote(head.path.removeprefix("/v1/models/"))
        model = self._names(caller).get(name)
        if model is None:
            raise ModelNotFound(f"The model {name!r} does not exist here.", param="model")
        return orjson.dumps(self._model_entry(name, model))

    def _model_entry(self, name: str, model: str) -> dict[str, object]:
        served = self._engines.models()[model]
        entry: dict[str, object] = {
            "id": name,
            "object": "model",
            "created": served.created,
            "owned_by": "filature",
        }
        if served.context_length is not None:
            entry["context_length"] = entry["max_model_len"] = served.context_length
        return entry | self._offer(model)

    def _offer(self, model: str) -> dict[str, object]:
        """Who serves it, with how much room (null: it is not known), at which prices per million tokens."""
        engines = [engine for engine in self._engines.engines if model in engine.models]
        room: int | None = 0
        for engine in engines:
            if engine.capacity is None or room is None:
                room = None
            else:
                room += max(0, engine.capacity - engine.running)
        price = self._price_of(model)
        offer: dict[str, object] = {"workers": len(engines), "room": room}
        if price is not None and engines:
            told = [engine.models[model].coefficient for engine in engines]
            known = self._store.prices.coefficient
            coefficients = sorted(
                known(engine.name, model) if each is None else each
                for each, engine in zip(told, engines, strict=True)
            )
            chosen = {"lowest": coefficients[0], "median": coefficients[len(coefficients) // 2]}
            offer["coefficient"] = chosen
            offer["price"] = {
                kind: {name: _per_million(nano, each) for name, each in chosen.items()}
                for kind, nano in (("prompt", price.prompt), ("completion", price.completion))
            }
        return offer

    # money

    def _balance(self, head: RequestHead, caller: Caller | None) -> Body:
        if caller is None:
            raise AuthenticationFailed(_KEY_NEEDED)
        account = self._store.ledger.state.accounts.get(caller.account)
        balance = held = spent = available = NANO_ZERO
        if account is not None:
            balance, held = account.balance, account.held
            available, spent = account.available, account.debits
        amounts = {"available": available, "held": held, "spent": spent, "balance": balance}
        body: dict[str, object] = {
            "object": "balance",
            "account": caller.account.partition(":")[2],
        }
        for name, nano in amounts.items():
            body[name] = orjson.Fragment(credits_text(nano))
            body[f"{name}_nano"] = nano
        return orjson.dumps(body)

    def _usage(self, head: RequestHead, caller: Caller | None) -> Body:
        if caller is None:
            raise AuthenticationFailed(_KEY_NEEDED)
        request_id = unquote(head.path.removeprefix("/v1/usage/"))
        recent = self._recent.get(request_id)
        if recent is not None:
            return _shown(recent, request_id, caller.account)
        return self._stored_usage(request_id, caller.account)

    async def _stored_usage(self, request_id: str, account: AccountId) -> bytes:
        found = None
        if len(request_id) <= ID_CHARS_MAX:
            found = await self._store.usage.get(request_id)
        if found is None or found[0] != account:
            raise _no_usage(request_id)
        return UsageRecord.from_log(found[1]).as_json()

    def _ready(self, head: RequestHead, caller: Caller | None) -> Body:
        if self._is_draining():
            raise Draining
        if self._store.ledger.failing is not None:
            raise Unavailable("The ledger cannot be written to.", code="ledger_unavailable")
        if not self._engines.is_ready:
            raise Unavailable("No engine has answered yet.")
        return b'{"status":"ready"}'


def _per_million(nano: int, coefficient: int) -> orjson.Fragment:
    """Credits for a million tokens, at a coefficient."""
    return orjson.Fragment(credits_text(nano * coefficient // COEFFICIENT_ONE))


def _health(head: RequestHead, caller: Caller | None) -> Body:
    return b'{"status":"ok"}'


def _shown(record: UsageRecord, request_id: str, account: AccountId) -> bytes:
    if record.account != account:  # as if it were not there: an id tells nothing to others
        raise _no_usage(request_id)
    return record.as_json()


def _no_usage(request_id: str) -> NotFound:
    return NotFound(f"No usage record {request_id[:ID_CHARS_MAX]!r}.", code="usage_not_found")
