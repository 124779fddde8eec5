"""Workers' tokens. All are held in memory; whether a worker may join is decided elsewhere."""

import re
from dataclasses import dataclass
from typing import Any, Final

from filature.errors import InvalidRequest, NotFound
from filature.store.credentials import (
    MODELS_MAX,
    Credential,
    Credentials,
    models_column,
    models_of,
)
from filature.store.schema import worker_tokens

WORKER_CHARS_MAX: Final = 64
_WORKER_NAME: Final = re.compile(rf"[A-Za-z0-9][A-Za-z0-9._-]{{0,{WORKER_CHARS_MAX - 1}}}")


@dataclass(slots=True, kw_only=True)
class WorkerToken(Credential):
    """A token without its secret."""

    worker: str
    """What its account in the ledger is called: ``worker:NAME``."""
    models: frozenset[str] | None
    """Those that it may serve; None: all."""


class WorkerTokens(Credentials[WorkerToken]):
    """All tokens."""

    _table = worker_tokens
    _prefix = "fil-wrk-"
    _id_prefix = "wt_"

    async def create(self, worker: str, models: frozenset[str] | None) -> tuple[str, WorkerToken]:
        """A new token of a worker, which may have others, and its secret, which is told this once."""
        if not _WORKER_NAME.fullmatch(worker):
            raise InvalidRequest(
                f"worker must be 1 to {WORKER_CHARS_MAX} letters, digits and . _ -, beginning with a "
                "letter or digit.",
                param="worker",
            )
        if models is not None and len(models) > MODELS_MAX:
            raise InvalidRequest(f"A token names at most {MODELS_MAX} models.", param="models")
        return await self._issue(worker=worker, models=models_column(models))

    @staticmethod
    def _of(row: dict[str, Any], kept: dict[str, Any]) -> WorkerToken:
        return WorkerToken(**kept, worker=row["worker"], models=models_of(row["models"]))

    @staticmethod
    def _missing(id_: str) -> NotFound:
        return NotFound(
            f"There is no worker token {id_!r}.", param="token", code="worker_token_not_found"
        )
