"""The demonstration engine as a child of ``filature up``; it ends when its parent does, however that ends."""

import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from queue import Empty, Queue
from typing import Final, Self

_START_S: Final = 120.0
"""For the model to be read from a slow disk."""
_STOP_S: Final = 5.0
_MODULE: Final = "filature.cli.demo_process"


class DemoFailedError(Exception):
    """The engine did not start; the message is for a person."""


class DemoChild:
    """A running engine while the context lasts. ``url`` is its address, ``description`` what it is."""

    def __init__(self, backend: str) -> None:
        self._backend = backend
        self._lines: Queue[str | None] = Queue()
        self.url = ""
        self.description = ""

    def __enter__(self) -> Self:
        # a session of its own: Ctrl-C is for the parent, which lets running answers finish
        self._process = subprocess.Popen(  # noqa: S603  # our own interpreter and module
            [sys.executable, "-m", _MODULE, "--port", "0", "--backend", self._backend],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        try:
            self.url = self._told(r"listens at (\S+)")
            self.description = self._told(r"Model: (.+)")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        process = self._process
        process.terminate()
        try:
            process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        self._reader.join()
        if process.stdin is not None:
            process.stdin.close()

    @property
    def status(self) -> int | None:
        """The exit status, or None while it runs."""
        return self._process.poll()

    def _told(self, pattern: str) -> str:
        for line in self._output():
            found = re.search(pattern, line)
            if found:
                return found[1]
        raise DemoFailedError(
            "the demonstration engine did not start; attach one with --engine URL"
        )

    def _output(self) -> Iterator[str]:
        while True:
            try:
                line = self._lines.get(timeout=_START_S)
            except Empty:
                return
            if line is None:
                return
            yield line

    def _read(self) -> None:
        """Read to the end, so that the child never waits for us to."""
        assert self._process.stdout is not None
        with self._process.stdout as output:
            for line in output:
                if not self.description:
                    self._lines.put(line)
        self._lines.put(None)
