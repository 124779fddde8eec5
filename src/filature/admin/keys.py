"""API keys over HTTP: made, looked at, revoked. A secret is in one answer only: that of its making."""

from collections.abc import Callable

from fastapi import APIRouter

from filature.admin.accounts import find_account
from filature.admin.amounts import amount_of
from filature.admin.key_models import KeyAsked, KeyShown, NewKeyShown
from filature.admin.models import Listed
from filature.errors import InvalidRequest
from filature.ledger.accounts import AccountKind
from filature.store.keys import KeyLimits
from filature.store.store import Store


class Keys:
    """The routes of ``/keys``."""

    def __init__(self, store: Store, wall_ms: Callable[[], int]) -> None:
        self._keys = store.keys
        self._ledger = store.ledger
        self._wall_ms = wall_ms

    def router(self) -> APIRouter:
        router = APIRouter(tags=["keys"])
        router.add_api_route("/keys", self.create, methods=["POST"], status_code=201)
        router.add_api_route("/keys", self.index, methods=["GET"])
        router.add_api_route("/keys/{key}", self.show, methods=["GET"])
        router.add_api_route("/keys/{key}/revoke", self.revoke, methods=["POST"])
        return router

    async def create(self, asked: KeyAsked) -> NewKeyShown:
        """Make a key of a client's account. Its ``secret`` is told here and never again."""
        account = find_account(self._ledger, asked.account)
        if account.kind is not AccountKind.CLIENT:
            raise InvalidRequest(f"{account.id} is no client's account.", param="account")
        limits = KeyLimits(
            budget=amount_of(asked.budget, asked.budget_nano, "budget"),
            budget_period=asked.budget_period,
            requests_per_minute=asked.requests_per_minute,
            tokens_per_minute=asked.tokens_per_minute,
            concurrency=asked.concurrency,
            models=None if asked.models is None else frozenset(asked.models),
            max_coefficient=asked.max_coefficient,
            expires_ms=asked.expires_ms,
        )
        now_ms = self._wall_ms()
        if limits.expires_ms is not None and limits.expires_ms <= now_ms:
            raise InvalidRequest("expires_ms is past.", param="expires_ms")
        secret, key = await self._keys.create(account.id, asked.name, limits)
        return NewKeyShown(**KeyShown.fields_of(key, now_ms), secret=secret)

    async def index(self, account: str | None = None) -> Listed[KeyShown]:
        """In the order in which they were made; those of one account, or all."""
        owner = None if account is None else find_account(self._ledger, account).id
        now_ms = self._wall_ms()
        return Listed(data=[KeyShown.of(key, now_ms) for key in self._keys.list(owner)])

    async def show(self, key: str) -> KeyShown:
        return KeyShown.of(self._keys.get(key), self._wall_ms())

    async def revoke(self, key: str) -> KeyShown:
        """From now on the key is refused, for ever."""
        return KeyShown.of(await self._keys.revoke(key), self._wall_ms())
