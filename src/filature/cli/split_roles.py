"""``filature up --split-roles``: a proxy and a worker in one process, with a real tunnel between them."""

import asyncio
from collections.abc import Callable
from typing import Final

from pydantic import SecretStr

from filature.cli.announce import authority
from filature.proxy.app import Proxy, serve
from filature.proxy.settings import ProxySettings
from filature.worker.app import Worker
from filature.worker.settings import WorkerSettings

WORKER: Final = "local"
"""The worker's name: its account is ``worker:local``."""


async def serve_split(settings: ProxySettings, started: Callable[[Proxy], None]) -> None:
    """As ``proxy.app.serve``; the engines of ``settings`` are the worker's, and the proxy has none."""
    roles = _Roles(settings, started)
    try:
        await serve(settings.model_copy(update={"engines": []}), roles.proxy_listens)
    finally:
        await roles.close()


class _Roles:
    def __init__(self, settings: ProxySettings, started: Callable[[Proxy], None]) -> None:
        self._settings = settings
        self._started = started
        self._starting: asyncio.Task[None] | None = None
        self._worker: Worker | None = None

    def proxy_listens(self, proxy: Proxy) -> None:
        self._started(proxy)
        self._starting = asyncio.get_running_loop().create_task(self._start(proxy))

    async def _start(self, proxy: Proxy) -> None:
        """Give the worker a token that no other process has, and let it dial."""
        store, settings = proxy.store, self._settings
        assert store is not None  # the proxy has started
        for token in store.worker_tokens.list():
            if token.worker == WORKER and token.revoked_ms is None:
                await store.worker_tokens.revoke(token.id)
        secret, _ = await store.worker_tokens.create(WORKER, None)
        certificate = proxy.certificate
        scheme = "http" if certificate is None else "https"
        given = WorkerSettings(
            proxies=[f"{scheme}://{authority(settings.host, proxy.port)}"],
            token=SecretStr(secret),
            engines=settings.engines,
            engine_key=settings.engine_key,
            engine_ca=settings.engine_ca,
            data_dir=settings.data_dir / "worker",
            first_byte_s=settings.first_byte_s,
            progress_s=settings.progress_s,
            request_s=settings.request_s,
            drain_s=settings.drain_s,
            log_level=settings.log_level,
        )
        self._worker = Worker(
            given, proxy_tls=None if certificate is None else certificate.client_context()
        )
        await self._worker.start()

    async def close(self) -> None:
        if self._starting is not None:
            self._starting.cancel()
            await asyncio.gather(self._starting, return_exceptions=True)
        if self._worker is not None:
            await self._worker.close()
