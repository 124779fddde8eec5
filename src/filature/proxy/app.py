"""The proxy's composition root: settings in, a serving process out."""

import asyncio
import contextlib
import logging
import os
import random
import secrets
import socket
import ssl
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Final

from filature.admin.server import AdminServer
from filature.errors import StoreError
from filature.proxy.admission import Admission
from filature.proxy.audit.auditor import Auditor
from filature.proxy.audit.recount import Recounter
from filature.proxy.callers import Callers
from filature.proxy.certificate import Certificate
from filature.proxy.control import Control
from filature.proxy.free_failures import FreeFailures
from filature.proxy.pages import Pages
from filature.proxy.payout_desk import PayoutDesk
from filature.proxy.presence import Presence
from filature.proxy.rates import RateLimiter
from filature.proxy.reports import ReportDesk
from filature.proxy.routes import Routes
from filature.proxy.settings import ProxySettings
from filature.proxy.statements import STATEMENTS_SECRET, StatementDesk
from filature.proxy.tickets import TicketOffice
from filature.proxy.upkeep import DEMO_ACCOUNT, Upkeep, open_demo_account
from filature.proxy.workers import Workers
from filature.relay.clock import CoarseClock
from filature.relay.discovery import watch
from filature.relay.downstream import Downstream
from filature.relay.engines import Engine, EngineAddress, EngineDirectory
from filature.relay.open_files import connections_allowed
from filature.relay.plane import DataPlane, OpenStreams
from filature.relay.role import run
from filature.relay.routing import Router
from filature.relay.tls_listener import TlsListener
from filature.relay.waiting import WaitingRoom
from filature.store.data_dir import RunningProxy, admin_token, remove_note, write_note
from filature.store.idempotency import Idempotency
from filature.store.store import Store
from filature.store.usage_records import RecentUsage
from filature.store.wall import wall_ms
from filature.telemetry.log import RequestLog
from filature.telemetry.metrics import Metrics
from filature.wire.control import KEYS_PATH
from filature.wire.statement import SigningKey

BACKLOG: Final = 4096
ABORT_S: Final = 1.0
"""For connections that were aborted to be gone."""
TICKET_MARGIN_S: Final = 600.0
"""A ticket outlives the longest request by this: clocks differ."""
COMMITS_S: Final = 1.0
"""For what is being committed when the grace for running answers is over."""

log = logging.getLogger(__name__)


class Proxy:
    """One proxy process. ``await start()``, then ``await drain()`` and ``await close()``.

    Raises TokenizersMissing.
    """

    def __init__(self, settings: ProxySettings) -> None:
        self.settings = settings
        wanted = settings.connections_max
        limits = replace(settings.relay_limits(), connections_max=connections_allowed(wanted))
        if limits.connections_max < wanted:
            log.info("at most %d client connections: see ulimit -n", limits.connections_max)
        self._drain_s = limits.drain_s
        self._clock = CoarseClock(time.time)
        self._open = OpenStreams()
        self._waiting = WaitingRoom()
        tls = _engine_tls(settings.engine_ca)
        key = settings.engine_key.get_secret_value() if settings.engine_key else None
        self.engines = EngineDirectory(
            Engine(EngineAddress.parse(url), self._clock, limits, api_key=key, tls=tls)
            for url in settings.engines
        )
        quiet = settings.log_level in ("warning", "error")
        self._request_log = RequestLog(None if quiet else sys.stderr.buffer)
        self.usage = RecentUsage(settings.usage_records_max)
        names = [engine.name for engine in self.engines.engines]
        self.metrics = Metrics(models=self.engines.models, engines=names)
        plane = DataPlane(
            router=Router(self._clock, random.random),
            clock=self._clock,
            limits=limits,
            usage_when_unrequested=settings.usage_when_unrequested,
            recorders=(self.usage.add, self.metrics.record, self._request_log.write),
            wall=time.time,
            timer=time.perf_counter,
            open=self._open,
            metrics=self.metrics,
            waiting=self._waiting,
        )
        self._plane = plane
        folder = settings.tokenizers
        self._recounter = None if folder is None else Recounter.of(folder)
        self._auditor: Auditor | None = None  # from start() on
        self.store: Store | None = None  # from start() to close()
        self._downstream: Downstream | None = None
        self._clock.each_tick(self._each_tick)
        self._server: asyncio.Server | TlsListener | None = None
        self._admin: AdminServer | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self.certificate: Certificate | None = None
        self.port = 0
        self.admin_port = 0

    def _each_tick(self, now: float) -> None:
        self._request_log.flush()
        self._waiting.freed()  # a worker may have come
        metrics, engines = self.metrics, self.engines.engines
        metrics.open_streams = self._open.streams
        if self._downstream is not None:
            metrics.open_connections = len(self._downstream.connections)
        metrics.requests_running = sum([engine.running for engine in engines])
        metrics.requests_elsewhere = sum([engine.elsewhere for engine in engines])
        metrics.upstream_connections = sum([engine.pool.open_connections for engine in engines])
        metrics.engines_ready = sum(
            [engine.reachable and bool(engine.models) for engine in engines]
        )
        metrics.usage_records_kept = len(self.usage)
        metrics.log_lines_dropped = self._request_log.lines_dropped
        if self.store is not None:
            writer = self.store.writer
            writer.look(now)
            metrics.ledger_failing = int(writer.failing is not None)
            metrics.ledger_commits = writer.batches
            metrics.ledger_transfers = writer.transfers
            metrics.ledger_holds = len(self.store.ledger.state.holds)

    def _routes(self, store: Store, ticket_key: bytes, statements: StatementDesk) -> Routes:
        settings, plane = self.settings, self._plane
        boot = secrets.token_hex(8)
        keyless = DEMO_ACCOUNT if settings.serves_keyless else None
        idempotency = Idempotency(store.writer, wall_ms)
        rates = RateLimiter(store.spending, monotonic_s=lambda: self._clock.now, wall_ms=wall_ms)
        self._admission = Admission(
            ledger=store.ledger,
            prices=store.prices,
            engines=self.engines,
            idempotency=idempotency,
            rates=rates,
            failures=FreeFailures(lambda: self._clock.now),
            clock=self._clock,
            tickets=TicketOffice(ticket_key, boot, settings.request_s + TICKET_MARGIN_S),
            default_price=settings.default_price if settings.price_default else None,
            completion_tokens_default=settings.completion_tokens_default,
            request_s=settings.request_s,
        )
        self._auditor = self._open_to_workers(store, statements)
        presence = self.workers.presence = Presence(store.worker_days, wall_ms)
        self._upkeep = Upkeep(store, idempotency, self._admission, presence, settings.usage_days)
        reports = ReportDesk(
            store,
            idempotency,
            self.usage,
            ticket_key,
            boot,
            wall_ms,
            self._auditor.compare,
            rates.spend,
        )
        pages = Pages(self.engines, store, self.usage, self._admission.price_of, self._is_draining)
        pages.add(KEYS_PATH, statements.keys)
        return Routes(
            plane,
            settings.request_limits(),
            Callers(store.keys, wall_ms, keyless=keyless, origins=settings.cors_origins),
            self._admission,
            idempotency,
            pages,
            Control(store.worker_tokens, self.workers, reports, PayoutDesk(store)),
            cors_origins=settings.cors_origins,
        )

    def _open_to_workers(self, store: Store, statements: StatementDesk) -> Auditor:
        """The registry that workers join, and who judges what they claim."""
        self.workers = Workers(
            self.engines,
            self._clock,
            self._plane.limits,
            self.metrics,
            wall_ms,
            self._admission.sells,
        )
        self.engines.more_may_come = lambda: self.workers.are_expected(store.worker_tokens.list())
        auditor = Auditor(
            store.marks,
            store.disabled_workers,
            self.metrics,
            self._clock,
            wall_ms,
            random.random,
            lambda name: self.workers.disable(name, disabled=True),
            self._recounter,
        )
        self.workers.auditor = auditor
        for name in store.disabled_workers.names():
            self.workers.disable(name, disabled=True)
        self.workers.statement = statements.of
        if self.settings.price_default:
            price = self.settings.default_price("any")
            self.workers.default_prices = (price.prompt, price.completion)
        return auditor

    @property
    def auditor(self) -> Auditor:
        """There after ``start``."""
        assert self._auditor is not None, "not started"
        return self._auditor

    @property
    def downstream(self) -> Downstream:
        """The clients' side; there after ``start``."""
        assert self._downstream is not None, "not started"
        return self._downstream

    def _is_draining(self) -> bool:
        return self._downstream is None or self._downstream.draining

    async def start(self) -> None:
        """Open the ledger, listen and begin to watch the engines.

        Raises StoreError when the ledger cannot be had, OSError when a port is taken.
        """
        settings = self.settings
        loop = asyncio.get_running_loop()
        self._clock.start(loop)
        self.store = store = await Store.open(settings.database_url)
        if settings.serves_keyless:
            await open_demo_account(store.ledger, settings.demo_credit_nano)
        signing = SigningKey(await store.secret(STATEMENTS_SECRET))
        statements = StatementDesk(store.reader, signing, time.time)
        routes = self._routes(store, await store.secret("tickets"), statements)
        await self._upkeep.begin()
        self._downstream = Downstream(routes, self._clock, self._plane.limits)
        self._downstream.on_full = partial(self.metrics.limit_reached, "connections_max")
        self._downstream.bodies.on_full = partial(self.metrics.limit_reached, "bodies_bytes_max")
        try:
            await self._listen(self._downstream)
        except (socket.gaierror, UnicodeError) as error:  # the latter of labels that no name has
            raise OSError(f"{settings.host!r} is no address here: {error}") from None
        token = settings.admin_token
        secret = admin_token(settings.data_dir) if token is None else token.get_secret_value()
        self._admin = AdminServer(
            self.metrics,
            settings.admin_host,
            settings.admin_port,
            store=store,
            token=secret,
            workers=self.workers,
        )
        await self._admin.start()
        self.admin_port = self._admin.port
        host = f"[{settings.admin_host}]" if ":" in settings.admin_host else settings.admin_host
        url = f"http://{host}:{self.admin_port}"
        write_note(settings.data_dir, RunningProxy(os.getpid(), url, store.database.name))
        self._tasks += [loop.create_task(watch(engine)) for engine in self.engines.engines]
        self._tasks.append(loop.create_task(self._upkeep.run()))
        self._tasks.append(loop.create_task(statements.run()))

    async def _listen(self, downstream: Downstream) -> None:
        settings = self.settings
        server: asyncio.Server | TlsListener
        loop = asyncio.get_running_loop()
        if settings.tls_cert is None or settings.tls_key is None:  # they come together
            server = await loop.create_server(
                downstream, settings.host, settings.port, backlog=BACKLOG
            )
        else:
            self.certificate = Certificate(settings.tls_cert, settings.tls_key)
            server = await TlsListener.open(
                downstream,
                settings.host,
                settings.port,
                context=self.certificate.context,
                handshake_s=settings.head_s,
                backlog=BACKLOG,
                on_full=partial(self.metrics.limit_reached, "handshakes_max"),
            )
            self._tasks.append(loop.create_task(self.certificate.follow(server)))
        self._server = server
        self.port = server.sockets[0].getsockname()[1]

    async def drain(self) -> None:
        """Take no new work, let running answers finish within the grace period, end the rest."""
        if self._server is not None:
            self._server.close()
        downstream = self._downstream
        if downstream is None:
            return
        downstream.drain()
        end = asyncio.get_running_loop().time() + self._drain_s
        while downstream.connections and asyncio.get_running_loop().time() < end:
            await asyncio.sleep(0.05)
        if self.store is not None and self.store.ledger.failing is None:
            # whose charge is on its way gets its end
            with contextlib.suppress(StoreError, TimeoutError):
                async with asyncio.timeout(COMMITS_S):
                    await self.store.ledger.flush()
        downstream.end_all()
        await asyncio.sleep(0)

    async def close(self) -> None:
        """Stop everything at once; call ``drain`` first."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._server is not None:
            self._server.close()
            await asyncio.sleep(0)  # what was accepted just now becomes a connection
        if self._downstream is not None:
            self._downstream.end_all()  # it is not their clients who leave
            for connection in tuple(self._downstream.connections):
                connection.transport.abort()
            end = asyncio.get_running_loop().time() + ABORT_S
            while self._downstream.connections and asyncio.get_running_loop().time() < end:
                await asyncio.sleep(0.01)  # what was still running ends, and is settled
        if self._server is not None:
            await self._server.wait_closed()
        if self._admin is not None:
            await self._admin.stop()
        if self._auditor is not None:
            await self._auditor.close()
            await self._upkeep.end()
        self.engines.close()
        self._clock.stop()
        if self.store is not None:
            remove_note(self.settings.data_dir, os.getpid())
            await self.store.close()
        self._request_log.close()


async def serve(settings: ProxySettings, started: Callable[[Proxy], None] | None = None) -> None:
    """Run a proxy until a signal. ``started`` is called once, as soon as the ports are open.

    Raises OSError when one is taken.
    """
    await run(Proxy(settings), started)


def _engine_tls(ca: Path | None) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(ca) if ca is not None else None)
