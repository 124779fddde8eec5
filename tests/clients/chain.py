"""The chain that the SDKs are driven through: demo engines and ``filature up``, as real processes."""

import json
import os
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

REPOSITORY = Path(__file__).resolve().parents[2]
FILATURE = REPOSITORY / ".venv" / "bin" / "filature"
BUILD = REPOSITORY / "build" / "clients"
START_S = 20.0
POLL_S = 0.02

ENGINE_ERROR = "the engine failed on demand"
"""In the message of the error frame that the demo engine sends."""

_URL = re.compile(r"http://127\.0\.0\.1:(\d+)")


@contextmanager
def server(name: str, *arguments: str) -> Iterator[str]:
    """Run ``filature ARGUMENTS`` and yield the first URL that it prints. Its output is kept."""
    BUILD.mkdir(parents=True, exist_ok=True)
    log_file = BUILD / f"{name}.log"
    # Without the caller's own settings: a FILATURE_* variable would change what is tested.
    environment = {k: v for k, v in os.environ.items() if not k.startswith("FILATURE_")}
    with log_file.open("wb") as output:
        process = subprocess.Popen(
            [FILATURE, *arguments], stdout=output, stderr=subprocess.STDOUT, env=environment
        )
    try:
        deadline = time.monotonic() + START_S
        while (found := _URL.search(log_file.read_text(errors="replace"))) is None:
            assert process.poll() is None, f"{name} ended:\n{log_file.read_text()}"
            assert time.monotonic() < deadline, f"{name} printed no URL:\n{log_file.read_text()}"
            time.sleep(POLL_S)
        yield found.group()
    finally:
        process.terminate()
        process.wait(timeout=15)


def until(what: str, condition: Callable[[], bool], within_s: float) -> None:
    """Wait for something that happens in another process."""
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, f"not within {within_s} s: {what}"
        time.sleep(POLL_S)


@dataclass(frozen=True, slots=True)
class Chain:
    """``filature up`` in front of two demo engines; the second only serves what fails over."""

    url: str
    """Of the proxy, ending in ``/v1``."""
    engine_url: str
    """Of the first engine, ending in ``/v1``."""
    second_engine_url: str

    def stats(self) -> dict[str, int]:
        """The first engine's own counters."""
        root = self.engine_url.removesuffix("/v1")
        stats: dict[str, int] = httpx.get(root + "/demo/stats").json()
        return stats

    def post(self, body: dict[str, object]) -> httpx.Response:
        """One chat completion without any SDK."""
        return httpx.post(self.url + "/chat/completions", json=body, timeout=20.0)


@contextmanager
def chain() -> Iterator[Chain]:
    """Both engines and the proxy, all on ports that the system chose."""
    with ExitStack() as stack:
        start = stack.enter_context
        first = start(server("engine-1", "demo-engine", "--scripted", "--port", "0"))
        second = start(server("engine-2", "demo-engine", "--scripted", "--port", "0"))
        proxy = start(
            server(
                "proxy",
                "up",
                "--port=0",
                "--admin-port=0",
                f"--engine={first}={json.dumps(0)}",
                f"--engine={second}",
            )
        )
        until("the proxy is ready", lambda: httpx.get(proxy + "/ready").is_success, START_S)
        yield Chain(proxy + "/v1", first + "/v1", second + "/v1")
