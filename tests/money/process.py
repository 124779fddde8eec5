"""``filature`` as processes of its own, which a test may kill: the proxy, an engine, the commands."""

import asyncio
import ctypes
import json
import os
import re
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import filature

WAIT_S: Final = 60.0
"""For a process to start, or to end."""
_CAPBSET_DROP: Final = 24
_PAST_PERMISSIONS: Final = (1, 2)
"""CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH: see capabilities(7) and prctl(2)."""
_LINE_BYTES_MAX: Final = 1 << 20


def environment(**settings: str) -> dict[str, str]:
    """Ours without settings of filature's but those given, and with the filature that is tested here."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("FILATURE_")}
    given = {f"FILATURE_{name.upper()}": value for name, value in settings.items()}
    source = str(Path(filature.__file__).parents[1])
    return kept | given | {"PYTHONPATH": source, "NO_COLOR": "1"}


def heed_permissions() -> None:
    """Let this process be bound by the permissions of files after its next ``exec``, root or not."""
    if os.geteuid() == 0:
        libc = ctypes.CDLL(None, use_errno=True)
        for capability in _PAST_PERMISSIONS:
            if libc.prctl(_CAPBSET_DROP, capability, 0, 0, 0):
                raise OSError(ctypes.get_errno(), "prctl")


class Filature:
    """A running command; ``url`` is what it said that it listens at. What it printed is in ``log``."""

    def __init__(self, process: asyncio.subprocess.Process, log: Path) -> None:
        self.process = process
        self.log = log
        self.url = ""
        self.admin_url = ""

    @classmethod
    async def start(
        cls, *words: str, log: Path, prepare: Callable[[], None] | None = None, **settings: str
    ) -> "Filature":
        """Wait until it listens. Fails when it ends instead. ``prepare`` runs first in the new process."""
        with log.open("ab") as errors:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "filature", *words),
                stdout=asyncio.subprocess.PIPE,
                stderr=errors,
                env=environment(**settings),
                limit=_LINE_BYTES_MAX,
                preexec_fn=prepare,
            )
        started = cls(process, log)
        async with asyncio.timeout(WAIT_S):
            await started._read()
        return started

    async def _read(self) -> None:
        assert self.process.stdout is not None
        while line := (await self.process.stdout.readline()).decode():
            listens = re.search(r"listens at (https?://[\w.:]+\d)", line)
            if listens:
                self.url = listens[1]
                admin = re.search(r"metrics: (http://[\w.:]+\d)/metrics", line)
                self.admin_url = admin[1] if admin else ""
                return
        raise AssertionError(f"it ended:\n{self.log.read_text()[-3000:]}")

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    async def kill(self) -> None:
        """As ``kill -9`` does."""
        self.process.kill()
        await self._ended()

    async def stop(self) -> int:
        """As a person does; its status."""
        if self.process.returncode is None:
            self.process.send_signal(signal.SIGTERM)
        return await self._ended()

    async def _ended(self) -> int:
        assert self.process.stdout is not None
        async with asyncio.timeout(WAIT_S):
            await self.process.stdout.read()
            return await self.process.wait()


@asynccontextmanager
async def running_engine(
    directory: Path, *options: str, prepare: Callable[[], None] | None = None
) -> AsyncIterator[Filature]:
    """A scripted engine in a process of its own."""
    engine = await Filature.start(
        *("demo-engine", "--backend", "scripted", "--port", "0", *options),
        log=directory / "engine.log",
        prepare=prepare,
    )
    try:
        yield engine
    finally:
        assert await engine.stop() == 0, engine.log.read_text()


class Installation:
    """A data directory, a database, and what is started on them."""

    prepare: Callable[[], None] | None = None
    """Runs first in each of its processes."""

    def __init__(
        self, directory: Path, engine_url: str, database: str | None = None, **more: str
    ) -> None:
        self.directory = directory
        self.engine_url = engine_url
        self.settings = {
            "data_dir": str(directory / "data"),
            "keyless": "false",
            "log_level": "warning",
            **({} if database is None else {"database": database}),
            **more,
        }

    async def up(self) -> Filature:
        """A proxy that knows its engine's models."""
        words = ("up", "--engine", self.engine_url, "--port", "0", "--admin-port", "0")
        log = self.directory / "proxy.log"
        return await Filature.start(*words, log=log, prepare=self.prepare, **self.settings)

    async def run(self, *words: str) -> tuple[int, str, str]:
        """A command to its end: its status, and what it printed on stdout and on stderr."""
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "filature", *words),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=environment(**self.settings),
            preexec_fn=self.prepare,
        )
        async with asyncio.timeout(WAIT_S):
            out, errors = await process.communicate()
        assert process.returncode is not None
        return process.returncode, out.decode(), errors.decode()

    async def ask(self, *words: str) -> Any:
        """The JSON that a command prints; it has to succeed."""
        status, out, errors = await self.run(*words, "--json")
        assert status == 0, f"{' '.join(words)}: {out}{errors}"
        return json.loads(out)

    async def customer(self, credits_: str, name: str = "alice") -> str:
        """The key of a new account with so much credit."""
        await self.ask("account", "create", name)
        await self.ask("account", "top-up", name, credits_)
        secret: str = (await self.ask("key", "create", name))["secret"]
        return secret

    async def check(self) -> None:
        """``filature ledger check``."""
        status, out, errors = await self.run("ledger", "check")
        assert status == 0, out + errors
        assert out.startswith("Sound"), out
