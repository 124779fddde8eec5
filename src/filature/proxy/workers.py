"""The workers that have joined: a lease for each, and the engine as which requests see it. They dial us."""

import asyncio
import logging
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Final

from filature.admin.marks import ClaimFigures
from filature.admin.workers import ModelStanding, WorkerStanding
from filature.errors import Conflict, Unavailable
from filature.proxy.audit.auditor import Auditor
from filature.proxy.presence import Presence, Seen
from filature.relay.clock import CoarseClock
from filature.relay.engines import Abilities, Engine, EngineAddress, EngineDirectory, ServedModel
from filature.relay.limits import RelayLimits
from filature.relay.open_files import tunnels_allowed
from filature.relay.tunnel import TunnelPool
from filature.request.allowance import Allowance
from filature.store.worker_tokens import WorkerToken
from filature.telemetry.metrics import Metrics
from filature.wire.control import ModelOffered, Standing, Welcome

HEARTBEAT_S: Final = 5.0
LEASE_S: Final = 3 * HEARTBEAT_S
"""After a worker's last heartbeat: three missed ones end it."""
WORKERS_MAX: Final = 10_000
ALLOWANCES_MAX: Final = 1024
REPLACED_MAX: Final = 8
"""Earlier processes of a worker that are remembered, and not let in again while the present one is here."""

log = logging.getLogger(__name__)


class Worker:
    """A process of a worker, from its hello to the end of its lease."""

    __slots__ = (
        "draining",
        "engine",
        "instance",
        "joined_ms",
        "lease_until",
        "replaced",
        "seen",
        "token",
        "told",
        "version",
    )

    def __init__(
        self, token: WorkerToken, engine: Engine, standing: Standing, joined_ms: int
    ) -> None:
        self.token = token
        self.engine = engine
        self.instance = standing.instance
        self.version = standing.version
        self.joined_ms = joined_ms
        self.lease_until = 0.0
        self.replaced: tuple[str, ...] = ()
        """The processes whose place it took, the latest last."""
        self.draining = False
        self.seen: Seen | None = None
        self.told: list[ModelOffered] = []
        """As it offered them, those that it may serve."""

    @property
    def name(self) -> str:
        return self.token.worker

    @property
    def pool(self) -> TunnelPool:
        pool = self.engine.pool
        assert isinstance(pool, TunnelPool)
        return pool

    @property
    def state(self) -> str:
        """``joining`` until a connection of it stands ready, ``draining`` when it takes no more."""
        if self.draining:
            return "draining"
        return "ready" if self.pool.open_connections else "joining"


class Workers:
    """The registry. ``sold``: whether a model has a price, without which nothing is served."""

    def __init__(
        self,
        engines: EngineDirectory,
        clock: CoarseClock,
        limits: RelayLimits,
        metrics: Metrics,
        wall_ms: Callable[[], int],
        sold: Callable[[str], bool],
    ) -> None:
        self._engines = engines
        self._clock = clock
        self._limits = limits
        self._metrics = metrics
        self._wall_ms = wall_ms
        self._sold = sold
        self._workers: dict[str, Worker] = {}
        self._allowances: dict[tuple[frozenset[str], frozenset[str]], Allowance] = {}
        self._disabled: set[str] = set()
        self._drained: dict[str, str] = {}  # by name, the process that was
        self._attached = 0  # connections since the last tick, at which the metrics counted all
        self._said_full = False
        self._gathers_until = clock.now + LEASE_S
        self.tunnels_max = tunnels_allowed(limits.connections_max)
        self.statement: Callable[[str], str | None] = _no_statement
        """A worker's latest earnings statement."""
        self.presence: Presence | None = None
        """Who adds up how long workers are there."""
        self.auditor: Auditor | None = None
        """Who looks at what workers claim."""
        self.default_prices: tuple[int, int] | None = None
        """Of models that have no price of their own, for an operator to see."""
        clock.each_tick(self._end_leases)

    def list(self) -> list[Worker]:
        """In the order in which they joined."""
        return list(self._workers.values())

    def standings(self) -> Sequence[WorkerStanding]:
        """As an operator looks at them."""
        return [
            WorkerStanding(
                name=worker.name,
                state="disabled" if self.is_disabled(worker.name) else worker.state,
                models=[
                    ModelStanding(
                        id=model.id,
                        coefficient=model.coefficient,
                        context_length=model.context_length,
                        prices=self.default_prices,
                    )
                    for model in worker.told
                ],
                running=worker.engine.running,
                capacity=worker.engine.capacity or 0,
                tunnels=worker.pool.idle_connections,
                mean_s=worker.engine.mean_s,
                failures=worker.engine.failures,
                version=worker.version,
                joined_ms=worker.joined_ms,
            )
            for worker in self._workers.values()
        ]

    def own_engines(self) -> Mapping[str, Collection[str]]:
        """Those that are no workers, with their models."""
        return {
            each.name: each.models.keys() for each in self._engines.engines if not each.is_remote
        }

    def are_expected(self, tokens: Iterable[WorkerToken]) -> bool:
        """Whether workers of these tokens may be on their way: those of an earlier process come back within a lease."""
        if self._clock.now >= self._gathers_until:
            return False
        return any(each.revoked_ms is None and each.worker not in self._workers for each in tokens)

    def get(self, name: str) -> Worker | None:
        return self._workers.get(name)

    def hello(self, token: WorkerToken, standing: Standing) -> Welcome:
        """A worker's process begins, in place of an earlier one of the same name. Raises Conflict."""
        before = self._workers.get(token.worker)
        replaced: tuple[str, ...] = ()
        if before is not None and before.instance != standing.instance:
            if standing.instance in before.replaced:
                text = f"Another process has taken the place of this one as {token.worker}."
                raise Conflict(text, code="worker_replaced")
            replaced = (*before.replaced, before.instance)[-REPLACED_MAX:]
            self._remove(before, "was started anew")
            before = None
        if before is None:
            if len(self._workers) >= WORKERS_MAX:
                raise Conflict("Too many workers have joined.", code="workers_max")
            address = EngineAddress(token.worker, False, "worker", 80, "", {})
            pool = TunnelPool(self._clock, self._limits)
            engine = Engine(address, self._clock, self._limits, pool=pool)
            if self.auditor is not None:
                engine.watch = self.auditor.watch(token.worker)
            before = Worker(token, engine, standing, self._wall_ms())
            before.replaced = replaced
            self._workers[token.worker] = before
            self._engines.engines.append(engine)
            self._metrics.know_engine(token.worker)
            log.info("worker %s joined, version %s", token.worker, standing.version)
        return self._stand(before, token, standing)

    def heartbeat(self, token: WorkerToken, standing: Standing) -> Welcome:
        """What has changed since; ``known`` False where the hello has to be said again."""
        worker = self._workers.get(token.worker)
        if worker is None or worker.instance != standing.instance:
            return Welcome(worker=token.worker, heartbeat_s=HEARTBEAT_S, known=False)
        return self._stand(worker, token, standing)

    def attach(self, token: WorkerToken, instance: str, transport: asyncio.Transport) -> None:
        """A connection that the worker dialled; of a process that is not known it is closed."""
        worker = self._workers.get(token.worker)
        if worker is None or worker.instance != instance:
            transport.abort()
        else:
            self._attached += 1
            worker.pool.attach(transport)

    def check_room(self) -> None:
        """Raises Unavailable where one connection more would be at the cost of clients."""
        if (self._metrics.upstream_connections or 0) + self._attached < self.tunnels_max:
            return
        self._metrics.limit_reached("tunnels_max")
        if not self._said_full:
            self._said_full = True
            log.warning(
                "workers may open no more than %d connections: see ulimit -n", self.tunnels_max
            )
        text = "This proxy has as many connections as its system lets it have."
        raise Unavailable(text, code="tunnels_max")

    def knows(self, token: WorkerToken, instance: str) -> bool:
        """Whether ``attach`` would take a connection."""
        worker = self._workers.get(token.worker)
        return worker is not None and worker.instance == instance

    def disable(self, name: str, *, disabled: bool) -> None:
        """Give a worker no new requests, or give it some again; also one that is not here."""
        (self._disabled.add if disabled else self._disabled.discard)(name)
        if not disabled and self.auditor is not None:
            self.auditor.reinstate(name)
        worker = self._workers.get(name)
        if worker is not None:
            self._offer(worker)

    def drain(self, name: str) -> bool:
        """Give a worker no new requests until its process begins anew; whether it is here."""
        worker = self._workers.get(name)
        if worker is None:
            return False
        self._drained[name] = worker.instance
        worker.draining = True
        self._offer(worker)
        return True

    def figures(self, name: str) -> Sequence[ClaimFigures]:
        """What was sampled of a worker's claims."""
        return [] if self.auditor is None else self.auditor.figures(name)

    def forgive(self, name: str) -> None:
        """Hold nothing against a worker any more."""
        if self.auditor is not None:
            self.auditor.forgive(name)

    def is_disabled(self, name: str) -> bool:
        return name in self._disabled

    def _stand(self, worker: Worker, token: WorkerToken, standing: Standing) -> Welcome:
        worker.token = token
        worker.lease_until = self._clock.now + LEASE_S
        drained = self._drained.get(worker.name) == worker.instance
        worker.draining = standing.draining or drained
        worker.engine.capacity = standing.capacity
        worker.engine.told(standing.running)
        worker.engine.allowance = self._allowance(standing)
        allowed = token.models
        worker.told = [m for m in standing.models if allowed is None or m.id in allowed]
        self._offer(worker)
        if self.presence is not None:
            now, engine = self._clock.now, worker.engine
            is_ready = bool(engine.models) and worker.state == "ready"
            worker.seen = self.presence.heard(
                worker.name, engine, worker.seen, now, is_ready=is_ready
            )
        refused = [m.id for m in standing.models if m.id not in worker.engine.models]
        return Welcome(
            worker=token.worker,
            heartbeat_s=HEARTBEAT_S,
            tunnels=worker.pool.idle_connections,
            refused_models=[] if worker.draining or self.is_disabled(worker.name) else refused,
            statement=self.statement(worker.name),
        )

    def _allowance(self, standing: Standing) -> Allowance | None:
        """Workers that allow the same have the same object."""
        fields, media = frozenset(standing.allowed_fields), frozenset(standing.allowed_media)
        if not fields and not media:
            return None
        key = (fields, media)
        if key not in self._allowances:
            if len(self._allowances) >= ALLOWANCES_MAX:
                self._allowances.clear()
            self._allowances[key] = Allowance(fields, media)
        return self._allowances[key]

    def _offer(self, worker: Worker) -> None:
        """Let the engine's models be those that requests may be sent for now."""
        engine = worker.engine
        told = [] if worker.draining or self.is_disabled(worker.name) else worker.told
        sold = {model.id: model for model in told if self._sold(model.id)}
        for name in engine.models.keys() - sold.keys():
            del engine.models[name]
        for name, model in sold.items():
            served = engine.models.get(name)
            if served is None:
                served = engine.models[name] = ServedModel(name)
            served.context_length = model.context_length
            served.created = model.created
            served.coefficient = model.coefficient
            if (
                served.abilities.include_usage != model.include_usage
                or served.abilities.continuous_usage != model.continuous_usage
            ):
                served.abilities = Abilities(model.include_usage, model.continuous_usage)
        engine.reachable = bool(engine.models)

    def _end_leases(self, now: float) -> None:
        self._attached = 0
        for worker in [w for w in self._workers.values() if w.lease_until < now]:
            self._remove(worker, "was not heard of any more")
        revoked = [w for w in self._workers.values() if w.token.revoked_ms is not None]
        for worker in revoked:
            self._remove(worker, "has a token that was revoked")

    def _remove(self, worker: Worker, why: str) -> None:
        """No new requests; what runs on its connections may end."""
        del self._workers[worker.name]
        self._engines.engines.remove(worker.engine)
        worker.engine.models.clear()
        worker.engine.pool.close()
        log.info("worker %s %s", worker.name, why)


def _no_statement(worker: str) -> None:
    """Until there is somebody who makes them."""
