import socket

import httpx
import pytest

from filature import __version__
from filature.admin.server import AdminServer
from filature.telemetry.metrics import Metrics


def make_server(port: int = 0) -> AdminServer:
    metrics = Metrics()
    return AdminServer(metrics, "127.0.0.1", port, health=lambda: {"engines": 2})


async def get(server: AdminServer, path: str) -> httpx.Response:
    async with httpx.AsyncClient(trust_env=False) as client:
        return await client.get(f"http://127.0.0.1:{server.port}{path}")


async def test_metrics_and_health_over_a_real_socket() -> None:
    server = make_server()
    await server.start()
    try:
        metrics = await get(server, "/metrics")
        assert metrics.status_code == 200
        assert metrics.headers["content-type"].startswith("text/plain; version=0.0.4")
        assert f'filature_build_info{{version="{__version__}"}} 1.0' in metrics.text
        assert "process_cpu_seconds_total" in metrics.text
        health = await get(server, "/health")
        assert health.json() == {"status": "ok", "engines": 2}
        unknown = await get(server, "/nothing")
        assert unknown.status_code == 404
    finally:
        await server.stop()


async def test_after_stop_nobody_listens() -> None:
    server = make_server()
    await server.start()
    await server.stop()
    await server.stop()
    with pytest.raises(httpx.ConnectError):
        await get(server, "/health")


async def test_a_port_in_use_is_an_oserror() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(OSError, match="in use"):
        await make_server(taken.getsockname()[1]).start()
