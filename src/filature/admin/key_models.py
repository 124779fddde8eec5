"""The JSON of keys and of workers' tokens. A secret is in it once, when it is made."""

from typing import Any, Literal, Self

from pydantic import BaseModel, Field

from filature.admin.amounts import both
from filature.admin.models import UNIX_MS_MAX, Asked, Credits, Name, NanoCredits, OneLine
from filature.store.keys import ApiKey, Period
from filature.store.worker_tokens import WorkerToken


class KeyAsked(Asked):
    """``POST /admin/v1/keys``. A limit that is left out does not limit."""

    account: str
    name: OneLine = ""
    budget: Credits | None = None
    budget_nano: NanoCredits | None = None
    budget_period: Period | None = None
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    concurrency: int | None = None
    models: list[Name] | None = None
    max_coefficient: int | None = Field(None, description="Thousandths: 1000 is 1.0")
    expires_ms: int | None = Field(
        None, le=UNIX_MS_MAX, description="Unix time in milliseconds, up to the year 9999"
    )


class WorkerTokenAsked(Asked):
    """``POST /admin/v1/worker-tokens``. Without ``models`` all may be served."""

    worker: str
    models: list[Name] | None = None


class KeyShown(BaseModel):
    """A key without its secret."""

    object: Literal["key"] = "key"
    id: str
    hint: str
    account: str
    name: str
    state: Literal["active", "expired", "revoked"]
    created_ms: int
    revoked_ms: int | None
    expires_ms: int | None
    budget: str | None
    budget_nano: int | None
    budget_period: str | None
    requests_per_minute: int | None
    tokens_per_minute: int | None
    concurrency: int | None
    models: list[str] | None
    max_coefficient: int | None

    @classmethod
    def fields_of(cls, key: ApiKey, now_ms: int) -> dict[str, Any]:
        limits = key.limits
        state = "active"
        if key.revoked_ms is not None:
            state = "revoked"
        elif limits.expires_ms is not None and limits.expires_ms <= now_ms:
            state = "expired"
        budget: dict[str, Any] = {"budget": None, "budget_nano": None}
        if limits.budget is not None:
            budget = both(budget=limits.budget)
        return {
            "id": key.id,
            "hint": key.hint,
            "account": key.account.partition(":")[2],
            "name": key.name,
            "state": state,
            "created_ms": key.created_ms,
            "revoked_ms": key.revoked_ms,
            "expires_ms": limits.expires_ms,
            "budget_period": limits.budget_period,
            "requests_per_minute": limits.requests_per_minute,
            "tokens_per_minute": limits.tokens_per_minute,
            "concurrency": limits.concurrency,
            "models": None if limits.models is None else sorted(limits.models),
            "max_coefficient": limits.max_coefficient,
        } | budget

    @classmethod
    def of(cls, key: ApiKey, now_ms: int) -> Self:
        return cls(**cls.fields_of(key, now_ms))


class NewKeyShown(KeyShown):
    """A key just made, with its secret: this once."""

    secret: str


class WorkerTokenShown(BaseModel):
    """A worker's token without its secret."""

    object: Literal["worker_token"] = "worker_token"
    id: str
    hint: str
    worker: str
    state: Literal["active", "revoked"]
    created_ms: int
    revoked_ms: int | None
    models: list[str] | None

    @classmethod
    def fields_of(cls, token: WorkerToken) -> dict[str, Any]:
        return {
            "id": token.id,
            "hint": token.hint,
            "worker": token.worker,
            "state": "active" if token.revoked_ms is None else "revoked",
            "created_ms": token.created_ms,
            "revoked_ms": token.revoked_ms,
            "models": None if token.models is None else sorted(token.models),
        }

    @classmethod
    def of(cls, token: WorkerToken) -> Self:
        return cls(**cls.fields_of(token))


class NewWorkerTokenShown(WorkerTokenShown):
    """A token just made, with its secret: this once."""

    secret: str
