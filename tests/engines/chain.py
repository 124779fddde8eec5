"""The chain under test, as real processes: an engine, the tap, ``filature up``, and requests to it."""

import json
import os
import re
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import httpx
from tests.engines.kinds import FILATURE, REPOSITORY, Kind
from tests.engines.tap import Exchange, Tap

T = TypeVar("T")

BUILD = REPOSITORY / "build" / "engines"
ENGINE_START_S = 150.0
PROXY_START_S = 30.0
ANSWER_S = 90.0
POLL_S = 0.02

PRICES = {"in": 3, "cached": 1, "out": 7}
"""Credits per million tokens."""
REQUEST_PRICE_NANO = 1000
"""Per request."""


def until(what: str, condition: Callable[[], T], within_s: float) -> T:
    """Wait for what happens in another process; the first true result."""
    deadline = time.monotonic() + within_s
    while not (result := condition()):
        assert time.monotonic() < deadline, f"not within {within_s} s: {what}"
        time.sleep(POLL_S)
    return result


@contextmanager
def process(
    name: str, command: list[str], directory: Path, environment: Mapping[str, str]
) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    """Run a command in a session of its own, its output in a file; all of it ends with the context."""
    BUILD.mkdir(parents=True, exist_ok=True)
    log_file = BUILD / f"{name}.log"
    # Without the caller's own settings: a FILATURE_* variable would change what is tested.
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("FILATURE_")}
    with log_file.open("wb") as output:
        running = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=directory,
            env={**inherited, **environment},
            start_new_session=True,
        )
    try:
        yield running, log_file
    finally:
        running.terminate()
        with suppress(subprocess.TimeoutExpired):
            running.wait(timeout=10)
        with suppress(ProcessLookupError):
            os.killpg(running.pid, signal.SIGKILL)
        running.wait()


def answers(url: str) -> bool:
    """Whether something speaks HTTP there."""
    try:
        return httpx.get(url, timeout=2).status_code < 500
    except httpx.HTTPError:
        return False


@dataclass
class Engine:
    """A running engine."""

    kind: Kind
    url: str
    process: subprocess.Popen[bytes] | None = None
    """None: not ours."""

    def kill(self) -> None:
        """At once, in the middle of whatever it does."""
        assert self.process is not None
        victim = self.process.pid
        if self.kind.killed_child:
            victim = child(victim, self.kind.killed_child)
        os.kill(victim, signal.SIGKILL)


def child(parent: int, title: str) -> int:
    """A child process by how it calls itself."""
    for pid in Path(f"/proc/{parent}/task/{parent}/children").read_text().split():
        if title.encode() in Path(f"/proc/{pid}/cmdline").read_bytes():
            return int(pid)
    raise AssertionError(f"process {parent} has no child {title}")


@contextmanager
def started(kind: Kind) -> Iterator[Engine]:
    """An engine of our own, on a free port."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [str(part).replace("{port}", str(port)) for part in kind.command]
    with process(kind.name, command, kind.directory, kind.environment) as (running, log_file):
        url = f"http://127.0.0.1:{port}"

        def ready() -> bool:
            assert running.poll() is None, f"{kind.name} ended:\n{tail(log_file)}"
            return answers(f"{url}/health")

        until(f"{kind.name} is ready; see {log_file}", ready, ENGINE_START_S)
        yield Engine(kind, url, running)


def tail(log_file: Path) -> str:
    return log_file.read_text(errors="replace")[-4000:]


@dataclass
class Answer:
    """What a client of the chain was sent."""

    status: int
    headers: httpx.Headers
    reads: list[tuple[float, bytes]] = field(default_factory=list)
    """What arrived, and when (``time.monotonic``)."""
    whole: bool = False
    """The body was ended as HTTP wants it."""

    @property
    def body(self) -> bytes:
        return b"".join(data for _, data in self.reads)

    @property
    def request_id(self) -> str:
        return self.headers["x-request-id"]

    def json(self) -> Any:
        return json.loads(self.body)


class Chain:
    """``filature up`` in front of one engine, with the tap between them."""

    def __init__(self, engine: Engine, tap: Tap, url: str, model: str, upstream: str) -> None:
        self.engine = engine
        self.kind = engine.kind
        self.tap = tap
        self.url = url
        self.model = model
        """As clients call it."""
        self.upstream = upstream
        """As the engine calls it."""
        self.client = httpx.Client(base_url=url, timeout=ANSWER_S)

    @contextmanager
    def open(self, path: str, body: Mapping[str, Any]) -> Iterator[tuple[Answer, Iterator[bytes]]]:
        """Send a request; the answer, filled while what arrives is iterated over."""
        with self.client.stream("POST", path, json={"model": self.model, **body}) as response:
            answer = Answer(response.status_code, response.headers)

            def reads() -> Iterator[bytes]:
                with suppress(httpx.RemoteProtocolError):
                    for data in response.iter_raw():
                        answer.reads.append((time.monotonic(), data))
                        yield data
                    answer.whole = True

            yield answer, reads()

    def ask(self, path: str, body: Mapping[str, Any]) -> tuple[Answer, Exchange]:
        """A whole answer, and what the engine was asked and said for it."""
        answer, exchanges = self.ask_unheard(path, body)
        assert len(exchanges) == 1, f"the engine was asked {len(exchanges)} times"
        return answer, exchanges[0]

    def ask_unheard(self, path: str, body: Mapping[str, Any]) -> tuple[Answer, list[Exchange]]:
        """As ``ask``, when the engine need not have been asked at all."""
        before = len(self.tap.exchanges)
        with self.open(path, body) as (answer, reads):
            for _ in reads:
                pass
        return answer, self.tap.asked(before)

    def record(self, answer: Answer) -> dict[str, Any]:
        """The usage record; it is written when the request has ended in every respect."""

        def found() -> Any:
            response = self.client.get(f"/v1/usage/{answer.request_id}")
            return response.json() if response.is_success else None

        record: dict[str, Any] = until("the usage record", found, 5)
        assert record["id"] == answer.request_id
        return record


@contextmanager
def chain(kind: Kind, given: str | None) -> Iterator[Chain]:
    """``given`` is the ``URL[=alias:upstream]`` of an engine that runs already."""
    with ExitStack() as stack:
        start = stack.enter_context
        if given is None:
            engine = start(started(kind))
            alias, upstream = kind.alias, kind.model
        else:
            url, _, names = given.partition("=")
            engine = Engine(kind, url.rstrip("/").removesuffix("/v1"))
            alias, _, upstream = names.partition(":")
            upstream = upstream or alias
        tap = start(Tap(engine.url))
        names = f"={alias}:{upstream}" if alias else ""
        command = [str(FILATURE), "up", "--port=0", "--admin-port=0", f"--engine={tap.url}{names}"]
        if os.environ.get("TEST_SPLIT_ROLES"):  # answers come through a worker's tunnel
            command.append("--split-roles")
        command += [f"--price-{name}={price}" for name, price in PRICES.items()]
        command.append(f"--price-request={REQUEST_PRICE_NANO / 10**9:.9f}")
        environment = {
            "FILATURE_DATA_DIR": tempfile.mkdtemp(prefix="filature-"),
            "FILATURE_DEMO_CREDIT": "1000",
        }
        if key := os.environ.get("FILATURE_TEST_ENGINE_KEY"):
            environment["FILATURE_ENGINE_KEY"] = key
        running, log_file = start(
            process(f"filature-{kind.name}", command, REPOSITORY, environment)
        )

        def listening() -> str:
            assert running.poll() is None, f"filature ended:\n{tail(log_file)}"
            found = re.search(r"listens at (http://127\.0\.0\.1:\d+)", log_file.read_text())
            return found.group(1) if found else ""

        url = until("filature listens", listening, PROXY_START_S)
        until("filature is ready", lambda: answers(f"{url}/ready"), PROXY_START_S)
        model = alias or httpx.get(f"{url}/v1/models").json()["data"][0]["id"]
        running_chain = Chain(engine, tap, url, model, upstream or model)
        stack.callback(running_chain.client.close)
        yield running_chain
