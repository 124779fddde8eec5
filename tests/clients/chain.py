"""The chain that the SDKs are driven through: demo engines and ``filature up``, as real processes."""

import itertools
import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx

REPOSITORY = Path(__file__).resolve().parents[2]
FILATURE = REPOSITORY / ".venv" / "bin" / "filature"
BUILD = REPOSITORY / "build" / "clients"
START_S = 20.0
POLL_S = 0.02

ROLES = ("--split-roles",) if os.environ.get("TEST_SPLIT_ROLES") else ()
"""With it all answers come through a worker's tunnel."""
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
    data_dir = BUILD / f"{name}-data"
    shutil.rmtree(data_dir, ignore_errors=True)
    environment["FILATURE_DATA_DIR"] = str(data_dir)
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


def _aliases(models: Mapping[str, str]) -> str:
    """As ``--engine`` takes them. An engine's model name may carry what the engine is to do."""
    return ",".join(f"{alias}:{name}" for alias, name in models.items())


FAILING_ONCE = [f"fails-once-{number}" for number in range(40)]
"""At least one for each entry point."""

FIRST_ENGINE: Mapping[str, str] = {
    "demo": "demo",
    "slow": "demo/tokens=1000;tokens_per_second=20",
    "fails": "demo/status=503",
    "fails-over": "demo/status=503",
    "error-frame": "demo/fault=error-frame;after=3",
    "cut": "demo/fault=cut;after=3",
    **{name: f"demo/status=503;fail_times=1;key={name}" for name in FAILING_ONCE},
}
SECOND_ENGINE: Mapping[str, str] = {"fails-over": "demo"}


class Chain:
    """``filature up`` in front of two demo engines; the second only serves what fails over."""

    def __init__(self, proxy: str, engine: str) -> None:
        self.url = proxy + "/v1"
        self.engine_url = engine + "/v1"
        """Of the first engine."""
        self._failing_once = iter(FAILING_ONCE)
        self._prompts = itertools.count(1)

    def stats(self) -> dict[str, int]:
        """The first engine's own counters."""
        stats: dict[str, int] = httpx.get(
            self.engine_url.removesuffix("/v1") + "/demo/stats"
        ).json()
        return stats

    def new_prompt(self) -> str:
        """One that was not asked before."""
        return f"Tell me about silk, part {next(self._prompts)}."

    def fails_once(self) -> str:
        """A model on which the first request fails."""
        return next(self._failing_once)

    def forgive_first_engine(self) -> None:
        """Make the first engine the first choice again: one that failed is set aside for a while,
        and a success ends that."""
        body = {"model": "demo", "messages": [{"role": "user", "content": "hi"}]}
        httpx.post(self.url + "/chat/completions", json=body).raise_for_status()


@contextmanager
def chain() -> Iterator[Chain]:
    """Both engines and the proxy, all on ports that the system chose."""
    with ExitStack() as stack:
        start = stack.enter_context
        engine = ("demo-engine", "--backend=scripted", "--port=0")
        first = start(server("engine-1", *engine))
        second = start(server("engine-2", *engine))
        engines = (
            f"--engine={first}={_aliases(FIRST_ENGINE)}",
            f"--engine={second}={_aliases(SECOND_ENGINE)}",
        )
        proxy = start(server("proxy", "up", "--port=0", "--admin-port=0", *engines, *ROLES))
        until("the proxy is ready", lambda: httpx.get(proxy + "/ready").is_success, START_S)
        yield Chain(proxy, first)
