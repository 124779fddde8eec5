"""Workers' tokens over HTTP: made, looked at, revoked. A secret is in one answer only: that of its making."""

from fastapi import APIRouter

from filature.admin.key_models import NewWorkerTokenShown, WorkerTokenAsked, WorkerTokenShown
from filature.admin.models import Listed
from filature.store.store import Store


class WorkerTokenRoutes:
    """The routes of ``/worker-tokens``."""

    def __init__(self, store: Store) -> None:
        self._tokens = store.worker_tokens

    def router(self) -> APIRouter:
        router = APIRouter(tags=["worker_tokens"])
        router.add_api_route("/worker-tokens", self.create, methods=["POST"], status_code=201)
        router.add_api_route("/worker-tokens", self.index, methods=["GET"])
        router.add_api_route("/worker-tokens/{token}/revoke", self.revoke, methods=["POST"])
        return router

    async def create(self, asked: WorkerTokenAsked) -> NewWorkerTokenShown:
        """Make a token by which a worker may join. Its ``secret`` is told here and never again."""
        models = None if asked.models is None else frozenset(asked.models)
        secret, token = await self._tokens.create(asked.worker, models)
        return NewWorkerTokenShown(**WorkerTokenShown.fields_of(token), secret=secret)

    async def index(self) -> Listed[WorkerTokenShown]:
        """In the order in which they were made."""
        return Listed(data=[WorkerTokenShown.of(token) for token in self._tokens.list()])

    async def revoke(self, token: str) -> WorkerTokenShown:
        """From now on the token is refused, for ever."""
        return WorkerTokenShown.of(await self._tokens.revoke(token))
