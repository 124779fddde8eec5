"""The proxy's composition root: settings in, a serving process out."""

import asyncio
import logging
import signal
import ssl
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from filature.admin.server import AdminServer
from filature.proxy.routes import Routes
from filature.proxy.settings import ProxySettings
from filature.relay.clock import CoarseClock
from filature.relay.discovery import watch
from filature.relay.downstream import Downstream
from filature.relay.engines import Engine, EngineAddress, EngineDirectory
from filature.relay.plane import DataPlane, OpenStreams
from filature.store.usage_records import RecentUsage
from filature.telemetry.log import RequestLog
from filature.telemetry.metrics import Metrics
from filature.telemetry.record import UsageRecord

BACKLOG: Final = 4096

log = logging.getLogger(__name__)


class Proxy:
    """One proxy process. ``await start()``, then ``await drain()`` and ``await close()``."""

    def __init__(self, settings: ProxySettings) -> None:
        self.settings = settings
        limits = settings.relay_limits()
        self._drain_s = limits.drain_s
        self._clock = CoarseClock(time.time)
        self._open = OpenStreams()
        tls = _engine_tls(settings.engine_ca)
        key = settings.engine_key.get_secret_value() if settings.engine_key else None
        self.engines = EngineDirectory(
            (
                Engine(EngineAddress.parse(url), self._clock, limits, api_key=key, tls=tls)
                for url in settings.engines
            ),
            self._clock,
        )
        quiet = settings.log_level in ("warning", "error")
        self._request_log = RequestLog(None if quiet else sys.stderr.buffer)
        self.usage = RecentUsage(settings.usage_records_max)
        names = [engine.name for engine in self.engines.engines]
        self.metrics = Metrics(models=self.engines.models, engines=names)
        plane = DataPlane(
            engines=self.engines,
            clock=self._clock,
            limits=limits,
            tariff=settings.tariff(),
            usage_when_unrequested=settings.usage_when_unrequested,
            record=self._record,
            wall=time.time,
            timer=time.perf_counter,
            open=self._open,
            metrics=self.metrics,
        )
        routes = Routes(
            plane,
            settings.request_limits(),
            self.usage.get,
            cors_origins=settings.cors_origins,
            is_draining=lambda: self._downstream.draining,
        )
        self._downstream = Downstream(routes, self._clock, limits)
        self._clock.each_tick(self._each_tick)
        self._server: asyncio.Server | None = None
        self._admin: AdminServer | None = None
        self._watches: list[asyncio.Task[None]] = []
        self.port = 0
        self.admin_port = 0

    def _record(self, record: UsageRecord) -> None:
        self.usage.add(record)
        self.metrics.record(record)
        self._request_log.write(record)

    def _each_tick(self, now: float) -> None:
        self._request_log.flush()
        metrics, engines = self.metrics, self.engines.engines
        metrics.open_streams = self._open.streams
        metrics.open_connections = len(self._downstream.connections)
        metrics.requests_running = sum([engine.running for engine in engines])
        metrics.upstream_connections = sum([engine.pool.open_connections for engine in engines])
        metrics.engines_ready = sum(
            [engine.reachable and bool(engine.models) for engine in engines]
        )
        metrics.usage_records_kept = len(self.usage)
        metrics.log_lines_dropped = self._request_log.lines_dropped

    async def start(self) -> None:
        """Listen and begin to watch the engines. Raises OSError when a port is taken."""
        settings = self.settings
        loop = asyncio.get_running_loop()
        self._clock.start(loop)
        tls = _server_tls(settings.tls_cert, settings.tls_key)
        self._server = await loop.create_server(
            self._downstream,
            settings.host,
            settings.port,
            ssl=tls,
            ssl_handshake_timeout=settings.head_s if tls is not None else None,
            backlog=BACKLOG,
        )
        self.port = self._server.sockets[0].getsockname()[1]
        self._admin = AdminServer(self.metrics, settings.admin_host, settings.admin_port)
        await self._admin.start()
        self.admin_port = self._admin.port
        self._watches = [loop.create_task(watch(engine)) for engine in self.engines.engines]

    async def drain(self) -> None:
        """Take no new work, let running answers finish within the grace period, end the rest."""
        if self._server is not None:
            self._server.close()
        self._downstream.drain()
        end = asyncio.get_running_loop().time() + self._drain_s
        while self._downstream.connections and asyncio.get_running_loop().time() < end:
            await asyncio.sleep(0.05)
        self._downstream.end_all()
        await asyncio.sleep(0)

    async def close(self) -> None:
        """Stop everything at once; call ``drain`` first."""
        for task in self._watches:
            task.cancel()
        await asyncio.gather(*self._watches, return_exceptions=True)
        for connection in tuple(self._downstream.connections):
            connection.transport.abort()
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()
        if self._admin is not None:
            await self._admin.stop()
        self.engines.close()
        self._clock.stop()
        self._request_log.close()


async def serve(settings: ProxySettings, started: Callable[[Proxy], None] | None = None) -> None:
    """Run a proxy until SIGTERM or SIGINT, then drain; a second signal ends it at once.

    ``started`` is called once, as soon as the ports are open. Raises OSError when one is taken.
    """
    proxy = Proxy(settings)
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    try:
        await proxy.start()
        if started is not None:
            started(proxy)
        await stop.wait()
        stop.clear()
        drained = asyncio.ensure_future(proxy.drain())
        again = asyncio.ensure_future(stop.wait())
        await asyncio.wait((drained, again), return_when=asyncio.FIRST_COMPLETED)
        for task in (drained, again):
            task.cancel()
    finally:
        await proxy.close()


def _engine_tls(ca: Path | None) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(ca) if ca is not None else None)


def _server_tls(cert: Path | None, key: Path | None) -> ssl.SSLContext | None:
    if cert is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(cert, key)
    return context
