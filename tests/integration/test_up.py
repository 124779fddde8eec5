"""``filature up`` as a person starts it: a process, what it prints, what can be pasted, how it ends."""

import json
import os
import re
import select
import shlex
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from queue import Empty, Queue
from tempfile import TemporaryDirectory
from typing import Any

import httpx
import pytest

import filature

ROOT = Path(__file__).resolve().parents[2]
FILATURE = [sys.executable, "-m", "filature"]
WAIT_S = 30


def environment(data_home: str) -> dict[str, str]:
    """Ours without settings of filature's, and with the filature that is tested here."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("FILATURE_")}
    source = str(Path(filature.__file__).parents[1])
    return kept | {"PYTHONPATH": source, "NO_COLOR": "1", "XDG_DATA_HOME": data_home}


def _heed_hangups() -> None:
    """Whoever runs the tests may have been told to ignore them, and children would."""
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


class Up:
    """A running ``filature up``; its output is read as it comes."""

    def __init__(self, *arguments: str) -> None:
        self._data = TemporaryDirectory(prefix="filature-")
        self.process = subprocess.Popen(
            [*FILATURE, "up", "--port", "0", "--admin-port", "0", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment(self._data.name),
            preexec_fn=_heed_hangups,  # noqa: PLW1509 - no threads of ours run here
        )
        self.printed: list[str] = []
        self._lines: Queue[str | None] = Queue()
        self._errors: list[str] = []
        self._readers = [
            threading.Thread(target=self._read_output, daemon=True),
            threading.Thread(target=self._read_errors, daemon=True),
        ]
        for reader in self._readers:
            reader.start()

    def until(self, pattern: str) -> re.Match[str]:
        """Wait for a line of output that matches."""
        while True:
            try:
                line = self._lines.get(timeout=WAIT_S)
            except Empty:
                line = None
            assert line is not None, f"no {pattern!r} in:\n{self.output}"
            self.printed.append(line)
            found = re.search(pattern, line)
            if found:
                return found

    @property
    def output(self) -> str:
        return "\n".join([*self.printed, *self._errors])

    def log(self) -> list[dict[str, Any]]:
        """The lines of the log so far."""
        return [json.loads(line) for line in self._errors]

    def stop(self, number: int = signal.SIGTERM) -> int:
        if self.process.poll() is None:
            self.process.send_signal(number)
        status = self.process.wait(WAIT_S)
        for reader in self._readers:
            reader.join(WAIT_S)
        self._data.cleanup()
        return status

    def _read_output(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as output:
            for line in output:
                self._lines.put(line.rstrip("\n"))
        self._lines.put(None)

    def _read_errors(self) -> None:
        assert self.process.stderr is not None
        with self.process.stderr as errors:
            self._errors.extend(line.rstrip("\n") for line in errors)


@contextmanager
def running(*arguments: str) -> Iterator[Up]:
    up = Up(*arguments)
    try:
        yield up
    finally:
        up.stop()


@pytest.fixture(scope="module")
def up() -> Iterator[Up]:
    with running("--demo", "scripted") as started:
        started.until("^curl ")
        yield started


def url_of(up: Up) -> str:
    found = re.search(r"listens at (http://\S+)", up.output)
    assert found is not None
    return found[1]


def admin_of(up: Up) -> str:
    found = re.search(r"metrics: (http://\S+)/metrics", up.output)
    assert found is not None
    return found[1]


def children_of(process: int) -> list[int]:
    tasks = Path(f"/proc/{process}/task").glob("*/children")
    return [int(child) for task in tasks for child in task.read_text().split()]


def is_alive(process: int) -> bool:
    stat = Path(f"/proc/{process}/stat")
    return stat.exists() and stat.read_text().rsplit(")", 1)[1].split()[0] != "Z"


def test_it_says_plainly_which_engine_answers(up: Up) -> None:
    assert re.search(r"^Engine: .*scripted", up.output, re.MULTILINE)


def test_the_curl_it_prints_streams_an_answer_with_its_cost(up: Up) -> None:
    (line,) = [line for line in up.printed if line.startswith("curl ")]
    answer = subprocess.run(
        [*shlex.split(line), "--max-time", "20", "-i"], capture_output=True, text=True, check=True
    ).stdout
    head, _, body = answer.replace("\r\n", "\n").partition("\n\n")
    assert head.startswith("HTTP/1.1 200")
    assert "content-type: text/event-stream" in head.lower()
    assert "data: [DONE]" in body
    assert '"total_cost"' in body, "the cost is shown in a comment"
    found = re.search(r"^x-request-id: (\S+)$", head, re.MULTILINE | re.IGNORECASE)
    assert found is not None
    record = httpx.get(f"{url_of(up)}/v1/usage/{found[1]}", trust_env=False).json()
    assert record["outcome"] == "completed"
    assert record["usage"]["total_cost"] > 0


def test_the_readme_s_python_runs(up: Up, tmp_path: Path) -> None:
    (sample,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    script = tmp_path / "sample.py"
    script.write_text(sample.replace("http://127.0.0.1:10080", url_of(up)))
    done = subprocess.run(
        [sys.executable, script], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "total_cost=" in done.stdout


def test_the_readme_s_curls_run(up: Up) -> None:
    text = (ROOT / "README.md").read_text()
    blocks = re.findall(r"```sh\n(.*?)```", text, re.DOTALL)
    model = httpx.get(f"{url_of(up)}/v1/models", trust_env=False).json()["data"][0]["id"]
    lexed = [shlex.split(block, comments=True) for block in blocks if block.startswith("curl")]
    commands: list[list[str]] = []
    for words in lexed:
        for word in words:
            if word in ("curl", "filature"):
                commands.append([])
            commands[-1].append(word)
    ran = 0
    for command in commands:
        if command[0] != "curl" or any("REQUEST_ID" in word for word in command):
            continue
        words = [
            word.replace("http://127.0.0.1:10080", url_of(up))
            .replace("http://127.0.0.1:10081", admin_of(up))
            .replace("MODEL", model)
            for word in command
        ]
        subprocess.run(
            [*words, "--fail", "--max-time", "20"], check=True, stdout=subprocess.DEVNULL
        )
        ran += 1
    assert ran >= 3


def test_metrics_and_log_tell_of_the_request() -> None:
    with running("--demo", "scripted") as up:
        up.until("^curl ")
        model = httpx.get(f"{url_of(up)}/v1/models", trust_env=False).json()["data"][0]["id"]
        body = {"model": model, "messages": [{"role": "user", "content": "a secret"}]}
        answer = httpx.post(f"{url_of(up)}/v1/chat/completions", json=body, trust_env=False)
        assert answer.status_code == 200
        metrics = httpx.get(f"{admin_of(up)}/metrics", trust_env=False).text
        counted = (
            f'filature_requests_total{{dialect="chat",model="{model}",outcome="completed"}} 1.0'
        )
        assert counted in metrics
        assert up.stop() == 0
        lines = [line for line in up.log() if line["event"] == "request"]
        assert [line["id"] for line in lines] == [answer.headers["x-request-id"]]
        assert "a secret" not in up.output


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_ends_it_and_its_engine(number: int) -> None:
    up = Up("--demo", "scripted")
    up.until("^curl ")
    (child,) = children_of(up.process.pid)
    assert up.stop(number) == 0, up.output
    assert not is_alive(child)


def test_its_engine_does_not_outlive_a_kill() -> None:
    up = Up("--demo", "scripted")
    up.until("^curl ")
    (child,) = children_of(up.process.pid)
    reader = os.pidfd_open(child)
    up.stop(signal.SIGKILL)
    with open(reader, "rb", closefd=True) as pidfd:  # noqa: PTH123  # a descriptor, not a path
        assert select.select([pidfd], [], [], WAIT_S)[0], "the engine lives on"


def test_a_port_in_use_is_one_clear_line(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        done = subprocess.run(
            [*FILATURE, "up", "--engine", "http://127.0.0.1:9", "--port", port],
            capture_output=True,
            text=True,
            timeout=WAIT_S,
            env=environment(str(tmp_path)),
            check=False,
        )
    assert done.returncode == 1
    (line,) = [line for line in done.stderr.splitlines() if not line.startswith("{")]
    assert line.startswith("filature up: cannot listen")
    assert port in line
    assert "--port" in line


def test_an_engine_that_does_not_answer_is_told_and_waited_for() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    with running("--engine", url) as up:
        up.until(f"Engine: {url} does not answer yet")
        answer = httpx.get(f"{url_of(up)}/ready", trust_env=False)
        assert answer.status_code == 503
