"""The things measured: nginx, Filature, a bare byte pump and a sketch, each between a generator and an engine."""

import contextlib
import json
import os
import shutil
import string
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.machine import raise_open_files
from benchmarks.processes import (
    ROOT,
    START_TIMEOUT_S,
    StartFailed,
    announced_port,
    children_of,
    free_port,
    running,
    wait_until_ready,
)

BUILD = ROOT / "build" / "bench"
_INSTALL_HINT = (
    "nginx is not here and cannot be fetched; install it (apt-get install nginx, dnf install nginx)"
)


@dataclass(frozen=True, slots=True)
class Relay:
    """A running relay: where it listens and whose CPU time and memory count as its own."""

    name: str
    port: int
    pids: tuple[int, ...]

    @property
    def tls(self) -> bool:
        """Whether its clients speak TLS."""
        return self.name.endswith("-tls")


Start = Callable[[int, int | None], AbstractContextManager[Relay]]
"""Starts a relay in front of an engine's port, on a core."""


def find_nginx() -> Path:
    """The nginx program: the installed one, else one unpacked from the distribution's package into ``build/bench``.

    Unpacking needs no root and starts no service. Raises StartFailed with what to do where that is impossible.
    """
    found = shutil.which("nginx", path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin")
    if found:
        return Path(found)
    unpacked = BUILD / "nginx" / "usr" / "sbin" / "nginx"
    if not unpacked.exists():
        _unpack_nginx(unpacked)
    return unpacked


def _unpack_nginx(program: Path) -> None:
    if not (shutil.which("apt-get") and shutil.which("dpkg-deb")):
        raise StartFailed(_INSTALL_HINT)
    folder = BUILD / "package"
    folder.mkdir(parents=True, exist_ok=True)
    download = ["apt-get", "-qq", "download", "nginx"]
    fetched = subprocess.run(download, cwd=folder, capture_output=True, check=False).returncode == 0
    if not fetched and os.geteuid() == 0:  # the lists of packages may be old or missing
        subprocess.run(["apt-get", "-qq", "update"], capture_output=True, check=False)
        fetched = (
            subprocess.run(download, cwd=folder, capture_output=True, check=False).returncode == 0
        )
    packages = sorted(folder.glob("nginx_*.deb"))
    if not (fetched and packages):
        raise StartFailed(_INSTALL_HINT)
    subprocess.run(["dpkg-deb", "-x", str(packages[-1]), str(BUILD / "nginx")], check=True)
    if subprocess.run([str(program), "-v"], capture_output=True, check=False).returncode:
        raise StartFailed(_INSTALL_HINT)


def nginx_version() -> str:
    done = subprocess.run([str(find_nginx()), "-v"], capture_output=True, text=True, check=True)
    return done.stderr.strip().removeprefix("nginx version: ")


@contextlib.contextmanager
def nginx(engine_port: int, core: int | None) -> Iterator[Relay]:
    """The yardstick, with ``benchmarks/nginx.conf``; only its worker counts."""
    folder = BUILD / f"run-{os.getpid()}-{engine_port}"
    folder.mkdir(parents=True, exist_ok=True)
    port = free_port()
    template = string.Template((ROOT / "benchmarks" / "nginx.conf").read_text(encoding="ascii"))
    configuration = folder / "nginx.conf"
    configuration.write_text(
        template.substitute(
            open_files=raise_open_files(),
            folder=folder,
            engine=f"127.0.0.1:{engine_port}",
            port=port,
        ),
        encoding="ascii",
    )
    command = [str(find_nginx()), "-p", str(folder), "-c", str(configuration), "-e", "stderr"]
    try:
        with running(command, core=core) as child:
            wait_until_ready(child, port, path="/v1/models", timeout_s=START_TIMEOUT_S)
            workers = children_of(child.pid)
            if len(workers) != 1:
                msg = f"nginx has {len(workers)} workers instead of one"
                raise StartFailed(msg)
            yield Relay("nginx", port, tuple(workers))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


CERTIFICATE = ROOT / "tests" / "data" / "tls" / "cert.pem"
_TLS = ["--tls-cert", str(CERTIFICATE), "--tls-key", str(CERTIFICATE.with_name("key.pem"))]
"""Self-signed, of the tests; on an elliptic curve, as most are."""


def filature(engine_port: int, core: int | None) -> AbstractContextManager[Relay]:
    """``filature up`` with one static engine, metering, cost and ledger on."""
    return _alone("filature", engine_port, core, tls=False)


def filature_tls(engine_port: int, core: int | None) -> AbstractContextManager[Relay]:
    """The same, which serves its clients https."""
    return _alone("filature-tls", engine_port, core, tls=True)


def hop(engine_port: int, core: int | None) -> AbstractContextManager[Relay]:
    """``filature proxy`` and ``filature worker`` on one core, without TLS; what both take is counted."""
    return _hop("hop", engine_port, core, tls=False)


def hop_tls(engine_port: int, core: int | None) -> AbstractContextManager[Relay]:
    """The same with TLS on the tunnel, and for the clients, who come to the same port."""
    return _hop("hop-tls", engine_port, core, tls=True)


@contextlib.contextmanager
def _alone(name: str, engine_port: int, core: int | None, *, tls: bool) -> Iterator[Relay]:
    BUILD.mkdir(parents=True, exist_ok=True)
    port, admin_port = free_port(), free_port()
    command = [str(_program()), "up", "--engine", f"http://127.0.0.1:{engine_port}"]
    command += ["--port", str(port), "--admin-port", str(admin_port), *(_TLS if tls else ())]
    log = BUILD / f"{name}.log"
    with _environment() as env, running(command, core=core, log=log, env=env) as child:
        wait_until_ready(child, port, path="/ready", timeout_s=START_TIMEOUT_S, tls=tls)
        time.sleep(0.5)  # its first questions to the engine are not part of the load
        yield Relay(name, port, (child.pid,))


@contextlib.contextmanager
def _hop(name: str, engine_port: int, core: int | None, *, tls: bool) -> Iterator[Relay]:
    BUILD.mkdir(parents=True, exist_ok=True)
    program, port, admin_port = str(_program()), free_port(), free_port()
    proxy = [program, "proxy", "--port", str(port), "--admin-port", str(admin_port)]
    proxy += _TLS if tls else []
    logs = BUILD / f"{name}-proxy.log", BUILD / f"{name}-worker.log"
    with _environment() as env, running(proxy, core=core, log=logs[0], env=env) as serving:
        wait_until_ready(serving, port, path="/health", timeout_s=START_TIMEOUT_S, tls=tls)
        token = [program, "worker-token", "create", "bench", "--json"]
        made = subprocess.run(token, env=env, capture_output=True, text=True, check=True)
        url = f"https://localhost:{port}" if tls else f"http://127.0.0.1:{port}"
        worker = [
            program,
            "worker",
            "--proxy",
            url,
            *(["--proxy-ca", str(CERTIFICATE)] if tls else []),
        ]
        worker += ["--token", json.loads(made.stdout)["secret"], "--max-requests", "4096"]
        worker += ["--engine", f"http://127.0.0.1:{engine_port}"]
        worker += ["--data-dir", env["FILATURE_DATA_DIR"]]
        with running(worker, core=core, log=logs[1], env=env) as dialling:
            wait_until_ready(dialling, port, path="/ready", timeout_s=START_TIMEOUT_S, tls=tls)
            time.sleep(1.0)  # as above, and for its tunnels
            yield Relay(name, port, (serving.pid, dialling.pid))


@contextlib.contextmanager
def _environment() -> Iterator[dict[str, str]]:
    """With a data directory of its own. When the demo account would run dry is not what is measured."""
    data = tempfile.mkdtemp(prefix="filature-bench-")
    try:
        yield {**os.environ, "FILATURE_DATA_DIR": data, "FILATURE_DEMO_CREDIT": "1000000"}
    finally:
        shutil.rmtree(data, ignore_errors=True)


def _program() -> Path:
    named = os.environ.get("FILATURE_BENCH_PROGRAM")
    return Path(named or Path(sys.executable).with_name("filature"))


def pump(engine_port: int, core: int | None) -> AbstractContextManager[Relay]:
    """The bare byte pump of ``benchmarks/pump.py``."""
    return _small("pump", engine_port, core)


def sketch(engine_port: int, core: int | None) -> AbstractContextManager[Relay]:
    """The relay of a hundred lines of ``benchmarks/sketch.py``."""
    return _small("sketch", engine_port, core)


@contextlib.contextmanager
def _small(name: str, engine_port: int, core: int | None) -> Iterator[Relay]:
    command = [sys.executable, "-m", f"benchmarks.{name}", "--engine-port", str(engine_port)]
    with running(command, core=core) as child:
        yield Relay(name, announced_port(child), (child.pid,))


RELAYS: dict[str, Start] = {
    "nginx": nginx,
    "filature": filature,
    "filature-tls": filature_tls,
    "hop": hop,
    "hop-tls": hop_tls,
    "pump": pump,
    "sketch": sketch,
}
