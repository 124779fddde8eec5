"""The worker's composition root: settings in, a process that sells its engine's tokens out."""

import asyncio
import contextlib
import logging
import random
import secrets
import ssl
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Final

from pydantic import ValidationError

from filature import __version__
from filature.errors import StoreError
from filature.relay.clock import CoarseClock
from filature.relay.discovery import watch
from filature.relay.downstream import Downstream
from filature.relay.engines import Engine, EngineAddress, EngineDirectory, ServedModel
from filature.relay.plane import DataPlane, OpenStreams
from filature.relay.role import run
from filature.relay.routing import Router
from filature.relay.varying_heads import VaryingHeads
from filature.relay.waiting import WaitingRoom
from filature.request.allowance import Allowance
from filature.request.limits import RequestLimits
from filature.telemetry.log import RequestLog
from filature.telemetry.metrics import Metrics
from filature.wire import control
from filature.wire.control import ModelOffered, Standing
from filature.wire.ticket import TICKET_HEADER
from filature.worker.lasting import lasting
from filature.worker.link import ProxyLink
from filature.worker.outbox import Outbox
from filature.worker.places import Places
from filature.worker.service import WorkerService
from filature.worker.settings import OUTBOX_FILE, WorkerSettings
from filature.worker.statements import StatementKeeper
from filature.worker.terms import LOOK_S, Terms, TermsError, forget_change, read_change
from filature.worker.tunnels import ProxyAddress, Tunnels

if TYPE_CHECKING:
    from filature.admin.server import AdminServer

FLUSH_S: Final = 0.1
LAST_WORDS_S: Final = 5.0
"""At the end, to tell each proxy and to deliver what is left."""
OTHERS_KEPT_DAYS: Final = 30
"""Reports for a proxy that is not named any more; by then none would be paid for."""
LEFT_OUT_SHOWN: Final = 8
"""Names of models that are not offered, in the log."""

log = logging.getLogger(__name__)


class Worker:
    """One worker process. ``await start()``, then ``await drain()`` and ``await close()``.

    It listens nowhere, but for its metrics where ``settings.metrics`` names an address.
    """

    def __init__(
        self, settings: WorkerSettings, *, proxy_tls: ssl.SSLContext | None = None
    ) -> None:
        self.settings = settings
        self._proxy_tls = proxy_tls or ssl.create_default_context(cafile=_path(settings.proxy_ca))
        self.terms = Terms(settings.coefficient, settings.max_requests)
        self._limits = limits = settings.relay_limits()
        self._clock = clock = CoarseClock(time.time)
        key = settings.engine_key.get_secret_value() if settings.engine_key else None
        tls = ssl.create_default_context(cafile=_path(settings.engine_ca))
        self.engines = EngineDirectory(
            Engine(EngineAddress.parse(url), clock, limits, api_key=key, tls=tls)
            for url in settings.engines
        )
        quiet = settings.log_level in ("warning", "error")
        self._request_log = RequestLog(None if quiet else sys.stderr.buffer)
        names = [engine.name for engine in self.engines.engines]
        self.metrics = Metrics(models=self.engines.models, engines=names)
        self._metrics_server: AdminServer | None = None
        self._open = OpenStreams()
        self._waiting = WaitingRoom()
        plane = DataPlane(
            router=Router(clock, random.random),
            clock=clock,
            limits=limits,
            usage_when_unrequested="hide",
            passes=True,
            recorders=(self.metrics.record, self._request_log.write),
            wall=time.time,
            timer=time.perf_counter,
            open=self._open,
            metrics=self.metrics,
            waiting=self._waiting,
        )
        self._places = Places(self.engines, self._waiting, self.terms)
        self.instance = secrets.token_hex(8)
        self._left_out: list[str] = []
        self.outbox = Outbox(settings.data_dir / OUTBOX_FILE)
        self.links = [self._link(url, plane) for url in settings.proxies]
        self._tasks: list[asyncio.Task[None]] = []
        clock.each_tick(self._each_tick)

    def _link(self, url: str, plane: DataPlane) -> ProxyLink:
        settings = self.settings
        tls = self._proxy_tls
        token = settings.token.get_secret_value()
        report = partial(self.outbox.add, url)
        service = WorkerService(plane, self.engines, RequestLimits(), report, self._places)
        service.coefficient = settings.coefficient
        if settings.allow_fields or settings.allow_media:
            fields, media = frozenset(settings.allow_fields), frozenset(settings.allow_media)
            service.allowance = Allowance(fields, media)
        heads = VaryingHeads(TICKET_HEADER, b"x-request-id")
        downstream = Downstream(service, self._clock, self._limits, heads)
        downstream.on_body = service.announce_later
        downstream.bodies.on_full = partial(self.metrics.limit_reached, "bodies_bytes_max")
        tunnels = Tunnels(ProxyAddress.of(url, tls), token, self.instance, downstream)
        link = ProxyLink(tunnels, service, self.outbox, token, self.standing, self._places.free)
        alone = len(settings.proxies) == 1
        link.statements = StatementKeeper(settings.data_dir, url, alone=alone)
        return link

    def _each_tick(self, now: float) -> None:
        self._request_log.flush()
        self._waiting.freed()
        for link in self.links:
            link.service.give_signs(now)
        if self._metrics_server is not None:
            self._gauge()

    def _gauge(self) -> None:
        metrics, engines = self.metrics, self.engines.engines
        metrics.open_streams = self._open.streams
        metrics.requests_running = self._places.running
        metrics.requests_elsewhere = sum(engine.elsewhere for engine in engines)
        metrics.upstream_connections = sum(engine.pool.open_connections for engine in engines)
        metrics.engines_ready = sum(engine.reachable and bool(engine.models) for engine in engines)
        metrics.log_lines_dropped = self._request_log.lines_dropped
        metrics.outbox_reports = len(self.outbox)
        metrics.outbox_reports_dropped = self.outbox.dropped
        metrics.tunnels_ready = sum(link.tunnels.ready for link in self.links)

    def _health(self) -> dict[str, object]:
        joined = sum(link.joined for link in self.links)
        return {"proxies_joined": joined, "draining": self._places.draining}

    @property
    def metrics_port(self) -> int | None:
        """The one taken, after ``start``; None: nothing listens."""
        return None if self._metrics_server is None else self._metrics_server.port

    def _offer(self, name: str, model: ServedModel) -> ModelOffered:
        """Raises ValidationError where no proxy would take it: it would refuse all others with it."""
        return ModelOffered(
            id=name,
            context_length=model.context_length or self.settings.context_length,
            created=model.created,
            coefficient=self.terms.coefficient,
            include_usage=model.abilities.include_usage,
            continuous_usage=model.abilities.continuous_usage,
        )

    def _say_left_out(self, names: list[str]) -> None:
        if names and names != self._left_out:
            shown = ", ".join(repr(name[:64]) for name in names[:LEFT_OUT_SHOWN])
            log.warning("%d models cannot be offered: %s", len(names), shown)
        self._left_out = names

    def standing(self) -> Standing:
        """What is offered now."""
        offered: dict[str, ModelOffered] = {}
        left_out: list[str] = []
        for engine in self.engines.engines:
            if not engine.reachable:
                continue
            for name, model in engine.models.items():
                if name not in offered:
                    try:
                        offered[name] = self._offer(name, model)
                    except ValidationError:
                        left_out.append(name)
        more = list(offered)[control.MODELS_MAX :]
        self._say_left_out(left_out + more)
        return Standing.model_construct(
            instance=self.instance,
            version=__version__,
            models=list(offered.values())[: control.MODELS_MAX],
            capacity=self.terms.max_requests,
            running=min(self._places.load, control.CAPACITY_MAX),
            draining=self._places.draining,
            allowed_fields=self.settings.allow_fields,
            allowed_media=self.settings.allow_media,
        )

    async def start(self) -> None:
        """Begin to watch the engines and to join the proxies.

        Raises StoreError when the outbox cannot be had, OSError when the metrics' address cannot.
        """
        loop = asyncio.get_running_loop()
        self._clock.start(loop)
        await self.outbox.open()
        await self._look_for_others()
        forget_change(self.settings.data_dir)
        await self._show_metrics()
        kept = [lasting(f"engine {e.name}", partial(watch, e)) for e in self.engines.engines]
        kept.append(lasting("the outbox", self._flush_outbox))
        kept.append(lasting("the terms", self._follow_terms))
        kept.append(self._join())
        kept += [link.report() for link in self.links]  # an earlier process may have left some
        self._tasks = [loop.create_task(each) for each in kept]

    async def _look_for_others(self) -> None:
        """Reports for a proxy that is not named are not delivered: the owner is told."""
        before_s = time.time() - OTHERS_KEPT_DAYS * 86400
        others = await self.outbox.forget_others(self.settings.proxies, before_s)
        for proxy, number in others.items():
            log.warning(
                "%d reports are for %s, which is not named: start with --proxy %s to deliver them, "
                "or they are forgotten after %d days",
                number,
                proxy,
                proxy,
                OTHERS_KEPT_DAYS,
            )

    async def _show_metrics(self) -> None:
        address = self.settings.metrics_address
        if address is None:
            return
        from filature.admin.server import AdminServer  # noqa: PLC0415  # a web framework: for who asks

        host, port = address
        server = AdminServer(self.metrics, host, port, health=self._health)
        await server.start()
        self._metrics_server = server
        self._gauge()

    async def _join(self) -> None:
        """Once an engine answers: before that there is nothing to offer."""
        while not (self.engines.is_ready and self.engines.models()):
            await asyncio.sleep(FLUSH_S)
        await asyncio.gather(*(link.run() for link in self.links))

    async def _flush_outbox(self) -> None:
        said = False
        while True:
            await asyncio.sleep(FLUSH_S)
            try:
                await self.outbox.flush()
            except StoreError as error:
                if not said:
                    log.warning("%s", error.message)
                said = True
            if said and not self.outbox.failing:
                log.info("the outbox can be written to again")
                said = False

    async def _follow_terms(self) -> None:
        """What the owner changes while the worker runs; a file that cannot be used changes nothing, and is told of."""
        refused = ""
        while True:
            await asyncio.sleep(LOOK_S)
            try:
                change = read_change(self.settings.data_dir)
            except (TermsError, OSError) as error:
                if refused != str(error):
                    log.warning("the terms stay as they are: %s", error)
                refused = str(error)
                continue
            refused = ""
            terms = self.terms
            if terms.apply(change, self._clock.now):
                log.info(
                    "coefficient %d, at most %d requests", terms.coefficient, terms.max_requests
                )
                await asyncio.gather(*(link.tell() for link in self.links if link.joined))
            for link in self.links:
                link.service.coefficient = terms.least(self._clock.now)

    async def drain(self) -> None:
        """Tell the proxies, let running answers finish within the grace period, end the rest."""
        self._places.draining = True
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LAST_WORDS_S):
                await asyncio.gather(*(link.tell() for link in self.links if link.joined))
        loop = asyncio.get_running_loop()
        for link in self.links:
            link.tunnels.downstream.drain()
        end = loop.time() + self._limits.drain_s
        while self._places.running and loop.time() < end:
            await asyncio.sleep(0.05)
        for link in self.links:
            link.tunnels.downstream.end_all()
        await asyncio.sleep(0)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LAST_WORDS_S):
                with contextlib.suppress(StoreError):  # then they are delivered from memory
                    await self.outbox.flush()
                deliveries = (link.deliver() for link in self.links)
                await asyncio.gather(*deliveries, return_exceptions=True)

    async def close(self) -> None:
        """Stop everything at once; call ``drain`` first."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for link in self.links:
            await link.close()
        await asyncio.sleep(0)  # what was cut off ends, and is reported
        if self._metrics_server is not None:
            await self._metrics_server.stop()
        try:
            async with asyncio.timeout(LAST_WORDS_S):
                with contextlib.suppress(StoreError):
                    await self.outbox.flush()
                await self.outbox.close()
        except TimeoutError:
            log.warning("the outbox did not answer: %d reports may be lost", len(self.outbox))
        self.engines.close()
        self._clock.stop()
        self._request_log.close()


async def serve(settings: WorkerSettings, started: Callable[[Worker], None] | None = None) -> None:
    """Run a worker until a signal. ``started`` is called once, when it dials."""
    await run(Worker(settings), started)


def _path(path: object) -> str | None:
    return None if path is None else str(path)
