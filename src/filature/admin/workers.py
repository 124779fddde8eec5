"""Workers over HTTP: which there are, whether they get requests, what they earned."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

from fastapi import APIRouter, Response

from filature.admin.amounts import both, day_of
from filature.admin.marks import AuditShown, ClaimFigures, MarkShown
from filature.admin.models import FormAsked, Listed, NameInPath, Storable
from filature.admin.tables_csv import csv_response
from filature.admin.worker_models import (
    EarningsLine,
    EarningsShown,
    WorkerDayShown,
    WorkerModelShown,
    WorkerShown,
)
from filature.errors import Conflict, NotFound
from filature.ledger.accounts import Account, worker_account
from filature.store.earnings import Earned, earnings
from filature.store.marks import SUSPENDED
from filature.store.payouts import read_payouts
from filature.store.store import Store
from filature.units import DAY_MS

CSV_COLUMNS: Final = (
    "day",
    "model",
    "settled",
    "voided",
    "prompt",
    "cached",
    "completion",
    "reasoning",
    "charged",
    "charged_nano",
    "fees",
    "fees_nano",
    "earned",
    "earned_nano",
)
_SUMMED: Final = ("settled", "prompt", "cached", "completion", "reasoning", "charged", "fees")


@dataclass(frozen=True, slots=True)
class ModelStanding:
    """A model as a worker offers it. ``prices``: those of a model that has none of its own in the store."""

    id: str
    coefficient: int
    context_length: int | None
    prices: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True)
class WorkerStanding:
    """A worker that has joined, at one moment."""

    name: str
    state: str
    models: Sequence[ModelStanding]
    running: int
    capacity: int
    tunnels: int
    mean_s: float
    failures: int
    version: str
    joined_ms: int


class Registry(Protocol):
    """What a running proxy knows of its workers."""

    def standings(self) -> Sequence[WorkerStanding]:
        """Those that have joined."""
        ...

    def own_engines(self) -> Mapping[str, Collection[str]]:
        """The proxy's own, by name, each with the models that it serves now; workers are none of them."""
        ...

    def disable(self, name: str, *, disabled: bool) -> None:
        """At once, for as long as the process lives. One that is not any more is not suspended either."""
        ...

    def drain(self, name: str) -> bool:
        """Send it no new requests until its process begins anew; whether it has joined."""
        ...

    def figures(self, name: str) -> Sequence[ClaimFigures]:
        """What was sampled of its claims."""
        ...

    def forgive(self, name: str) -> None:
        """Hold nothing against it any more."""
        ...


class WorkerRoutes:
    """The routes of ``/workers``. ``registry`` None: no proxy runs, and no worker has joined."""

    def __init__(self, store: Store, registry: Registry | None) -> None:
        self._store = store
        self._registry = registry

    def router(self) -> APIRouter:
        router = APIRouter(tags=["workers"])
        router.add_api_route("/workers", self.index, methods=["GET"])
        router.add_api_route("/workers/{name:path}/disable", self.disable, methods=["POST"])
        router.add_api_route("/workers/{name:path}/enable", self.enable, methods=["POST"])
        router.add_api_route("/workers/{name:path}/drain", self.drain, methods=["POST"])
        router.add_api_route("/workers/{name:path}/audit", self.audit, methods=["GET"])
        router.add_api_route("/workers/{name:path}/clear", self.clear, methods=["POST"])
        router.add_api_route(
            "/workers/{name:path}/earnings",
            self.earnings,
            methods=["GET"],
            response_model=EarningsShown,
            responses={200: {"content": {"text/csv": {}}}},
        )
        return router

    async def index(self) -> Listed[WorkerShown]:
        """By name: those that have joined, that have a token, or are disabled."""
        return Listed(data=[self._shown(name) for name in sorted(self._names())])

    async def disable(self, name: NameInPath) -> WorkerShown:
        """Give a worker no new requests until it is enabled, also after a restart; running ones end."""
        self._known(name)
        await self._store.disabled_workers.disable(name)
        if self._registry is not None:
            self._registry.disable(name, disabled=True)
        return self._shown(name)

    async def enable(self, name: NameInPath) -> WorkerShown:
        """Give a worker requests again, also one that was suspended. What it is marked for stays."""
        self._known(name)
        await self._store.disabled_workers.enable(name)
        await self._store.marks.clear(name, SUSPENDED)
        if self._registry is not None:
            self._registry.disable(name, disabled=False)
        return self._shown(name)

    async def drain(self, name: NameInPath) -> WorkerShown:
        """Give a worker no new requests until its process is started anew; running ones end."""
        self._known(name)
        if self._registry is None or not self._registry.drain(name):
            raise Conflict(f"The worker {name} has not joined.", code="worker_away")
        return self._shown(name)

    async def audit(self, name: NameInPath) -> AuditShown:
        """A worker's marks, and what was sampled of its claims."""
        self._known(name)
        figures = [] if self._registry is None else self._registry.figures(name)
        return AuditShown(
            worker=name,
            marks=[MarkShown.of(mark) for mark in self._store.marks.of(name)],
            samples=list(figures),
        )

    async def clear(self, name: NameInPath) -> WorkerShown:
        """Hold nothing against a worker any more. One that was suspended for it gets requests again."""
        self._known(name)
        suspended = any(mark.kind == SUSPENDED for mark in self._store.marks.of(name))
        await self._store.marks.clear(name)
        if self._registry is not None:
            self._registry.forgive(name)
        return await self.enable(name) if suspended else self._shown(name)

    async def earnings(
        self,
        name: NameInPath,
        since_ms: Storable = 0,
        form: FormAsked = None,
    ) -> EarningsShown | Response:
        """Per model and day: what ended from ``since_ms`` on; as JSON, or as CSV."""
        account = self._store.ledger.state.accounts.get(worker_account(name))
        if account is None:
            self._known(name)
        rows = await earnings(self._store.reader, name, since_ms)
        lines = [EarningsLine.of(row, day_of(row.day)) for row in rows]
        if form == "csv":
            return csv_response(CSV_COLUMNS, map(_csv_row, lines))
        payouts = await read_payouts(self._store.reader, worker_account(name))
        amounts: dict[str, Any] = both(
            balance=_balance(account),
            paid_out=sum(payout.amount - payout.returned for payout in payouts),
        )
        total = EarningsLine.of(_total(rows), "")
        since_day = since_ms // DAY_MS
        days = [
            WorkerDayShown.of(each, day_of(each.day))
            for each in await self._store.worker_days.list(name, since_day)
        ]
        return EarningsShown(worker=name, data=lines, total=total, days=days, **amounts)

    def _joined(self) -> dict[str, WorkerStanding]:
        return (
            {}
            if self._registry is None
            else {each.name: each for each in self._registry.standings()}
        )

    def _names(self) -> set[str]:
        tokens = self._store.worker_tokens.list()
        valid = {token.worker for token in tokens if token.revoked_ms is None}
        return valid | self._joined().keys() | self._store.disabled_workers.names()

    def _known(self, name: str) -> None:
        """Raises NotFound. Who had a token may still be meant."""
        had = {token.worker for token in self._store.worker_tokens.list()}
        if name not in had | self._names():
            raise NotFound(
                f"There is no worker {name[:128]!r}.", param="worker", code="worker_not_found"
            )

    def _shown(self, name: str) -> WorkerShown:
        seen = self._joined().get(name)
        disabled = name in self._store.disabled_workers
        marks = sorted({mark.kind for mark in self._store.marks.of(name)})
        if seen is None:
            return WorkerShown(
                name=name,
                state="disabled" if disabled else "away",
                disabled=disabled,
                marks=marks,
                models=[],
                running=0,
                capacity=0,
                tunnels=0,
                mean_s=0,
                failures=0,
                version="",
                joined_ms=None,
            )
        models = [self._model(each) for each in seen.models]
        return WorkerShown(
            name=name,
            state="disabled" if disabled else seen.state,
            disabled=disabled,
            marks=marks,
            models=models,
            running=seen.running,
            capacity=seen.capacity,
            tunnels=seen.tunnels,
            mean_s=seen.mean_s,
            failures=seen.failures,
            version=seen.version,
            joined_ms=seen.joined_ms,
        )

    def _model(self, model: ModelStanding) -> WorkerModelShown:
        price = self._store.prices.in_force.get(model.id)
        prices = model.prices if price is None else (price.prompt, price.completion)
        return WorkerModelShown.priced(model.id, model.context_length, model.coefficient, prices)


def _balance(account: Account | None) -> int:
    return 0 if account is None else account.balance


def _total(rows: Iterable[Earned]) -> Earned:
    total = Earned(0, "")
    for row in rows:
        for name in _SUMMED:
            setattr(total, name, getattr(total, name) + getattr(row, name))
        for outcome, count in row.voided.items():
            total.voided[outcome] = total.voided.get(outcome, 0) + count
    return total


def _csv_row(line: EarningsLine) -> dict[str, Any]:
    voided = " ".join(f"{outcome}={count}" for outcome, count in sorted(line.voided.items()))
    return line.model_dump() | {"voided": voided}
