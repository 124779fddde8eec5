"""A stand-in for the library that runs the demonstration model."""

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

from filature.demo.model import ModelBackend


def chunk(text: str | None, finish: str | None = None, completion: int = 0) -> Any:
    choice = SimpleNamespace(delta=SimpleNamespace(content=text), finish_reason=finish)
    usage = SimpleNamespace(completion_tokens=completion) if finish else None
    return SimpleNamespace(choices=[choice], usage=usage)


@dataclass
class Runner:
    """Behaves as the library's: one call at a time, generation ends when its iterator is dropped."""

    chunks: list[Any]
    gate: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(10**6))
    """One permit per token."""
    error: Exception | None = None
    requests: list[Any] = field(default_factory=list)
    dropped: threading.Event = field(default_factory=threading.Event)
    overlapping_prefills: int = 0
    _prefilling: int = 0

    def tokenize_text(self, text: str, add_special: bool, model: object) -> list[int]:
        return list(range(len(text.split())))

    def send_chat_completion_request(self, request: Any) -> Iterator[Any]:
        self.requests.append(request)
        self._prefilling += 1
        self.overlapping_prefills += self._prefilling > 1
        return self._run()

    def _run(self) -> Iterator[Any]:
        try:
            for number, one in enumerate(self.chunks):
                self.gate.acquire()
                if number == 0:
                    self._prefilling -= 1
                if self.error is not None:
                    raise self.error
                yield one
        finally:
            self.dropped.set()


@asynccontextmanager
async def loaded(runner: Runner) -> AsyncIterator[ModelBackend]:
    library = SimpleNamespace(ChatCompletionRequest=SimpleNamespace)
    backend = ModelBackend(library, runner)
    try:
        yield backend
    finally:
        runner.gate.release(1000)
        assert await asyncio.to_thread(backend.close)
