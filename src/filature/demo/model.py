"""The model back end: SmolLM2 on the CPU, run by mistralrs in threads of this process.

What mistralrs 0.9 does and this works around: a ``Runner`` takes one request at a time (a second,
meanwhile, raises "Already borrowed"), and it fails when two prompts are prefilled in one batch. So
one lock is held around each call, another from a request's start to its first token; decoding goes
on side by side. Dropping a stream's iterator ends the generation. Only chat requests stream, so
completions go through that call too: the template adds nothing, and what a chat needs around its
messages is put there by ``prompt_of``.
"""

import asyncio
import os
import queue
import threading
import time
from collections.abc import AsyncGenerator, Iterable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Final, Self

import orjson

from filature.demo.model_files import weights_file
from filature.demo.pieces import Finish, Piece
from filature.demo.question import Message, Question, RefusedError
from filature.wire.dialect import Dialect

RUNNING_MAX: Final = 4
"""Generations side by side; more would make each slower and none sooner done."""
WAITING_MAX: Final = 32
TOKENS_DEFAULT_MAX: Final = 1024
"""Of an answer without a limit of its own: small models tend to go on."""
JOIN_S: Final = 1.0
"""At the end, for the threads that are within a step of the model."""

_SYSTEM: Final = "You are a helpful AI assistant named SmolLM, trained by Hugging Face"
_ROLES: Final = {"system": "system", "developer": "system", "assistant": "assistant"}
_TEMPLATE: Final = Path(__file__).parent / "prompt.jinja"


class ModelLoadError(Exception):
    """The weights or what runs them are missing or unusable."""


def prompt_of(messages: Iterable[Message]) -> str:
    """The messages in ChatML, as the model's own template has it."""
    parts: list[str] = []
    for message in messages:
        role = _ROLES.get(message.role, "user")
        if not parts and role != "system":
            parts.append(f"<|im_start|>system\n{_SYSTEM}<|im_end|>\n")
        parts.append(f"<|im_start|>{role}\n{message.text}<|im_end|>\n")
    parts.append("<|im_start|>assistant\n")
    return "".join(parts)


@dataclass(frozen=True, slots=True)
class _End:
    """No more pieces: all came, or the library failed."""

    error: Exception | None = None


class _Job:
    """One request on its way through the threads. Its results come out in the event loop."""

    def __init__(self, question: Question, prompts: list[str]) -> None:
        self.question = question
        self.prompts = prompts
        self.is_cancelled = False
        """Set by the loop, read by the thread between tokens."""
        self._loop = asyncio.get_running_loop()
        self.results: asyncio.Queue[Piece | _End] = asyncio.Queue()
        """Never longer than the answer, which a limit in tokens bounds."""

    def deliver(self, result: Piece | _End) -> None:
        """From a thread."""
        try:
            self._loop.call_soon_threadsafe(self.results.put_nowait, result)
        except RuntimeError:  # the loop is closed, so nobody waits
            self.is_cancelled = True


class ModelBackend:
    """The loaded model and the threads that run it. ``close`` ends them."""

    def __init__(self, library: Any, runner: Any) -> None:
        """``library`` is the module ``mistralrs``, ``runner`` its ``Runner`` with the model."""
        self._library = library
        self._runner = runner
        self._calling = threading.Lock()
        self._prefilling = threading.Lock()
        self._jobs: queue.Queue[_Job | None] = queue.Queue()
        self._active = 0
        self._generating: set[_Job] = set()
        self._is_closed = False
        self._threads = [
            threading.Thread(target=self._work, name=f"model-{number}", daemon=True)
            for number in range(RUNNING_MAX)
        ]
        for thread in self._threads:
            thread.start()

    @classmethod
    def load(cls) -> Self:
        """Load the model, which takes a second or so: not in an event loop.

        Raises ``ModelLoadError``.
        """
        weights = weights_file()
        if weights is None:
            raise ModelLoadError("the model's weights are not installed")
        os.environ.setdefault("RUST_LOG", "error")  # read by the library when it loads
        try:
            library: Any = import_module("mistralrs")
            runner = library.Runner(
                library.Which.GGUF(str(weights.parent), weights.name),
                max_seqs=RUNNING_MAX,
                prefix_cache_n=0,  # it would not tell what it took from there
                jinja_explicit=str(_TEMPLATE),
            )
        except (ImportError, ValueError, RuntimeError, OSError) as error:
            raise ModelLoadError(f"the model cannot be loaded: {error}") from error
        return cls(library, runner)

    def close(self, within_s: float = JOIN_S) -> bool:
        """End all generations; whether all threads ended in time: one may be at a long prompt, which
        cannot be broken off, and the interpreter cannot end under it."""
        self._is_closed = True
        for _ in self._threads:
            self._jobs.put(None)
        deadline = time.monotonic() + within_s
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        return not any(thread.is_alive() for thread in self._threads)

    @staticmethod
    def prompts_of(question: Question) -> list[str]:
        if question.dialect is Dialect.COMPLETIONS:
            return question.prompts
        return [prompt_of(question.messages)]

    async def count(self, texts: list[str]) -> list[int]:
        """Tokens of each text, by the model's own tokenizer."""
        return await asyncio.to_thread(self._count, texts)

    def _count(self, texts: list[str]) -> list[int]:
        with self._calling:
            return [len(self._runner.tokenize_text(text, False, None)) for text in texts]

    async def generate(self, question: Question, limit: int) -> AsyncGenerator[Piece, None]:
        """The answer as it comes, of at most ``limit`` tokens per choice.

        The counts on the pieces are exact once a choice's finish is there; before, a piece counts
        one token and may stand for several. Leaving the iteration ends the generation.

        Raises ``RefusedError`` (503) when too many requests wait, ``RuntimeError`` when the library
        fails.
        """
        if self._active >= RUNNING_MAX + WAITING_MAX:
            message = f"All {self._active} places are taken: ask again later."
            raise RefusedError(503, message, kind="ServiceUnavailableError")
        job = _Job(question, self.prompts_of(question))
        job.question.max_tokens = limit
        self._active += 1
        self._jobs.put(job)
        try:
            while not isinstance(result := await job.results.get(), _End):
                yield result
            if result.error is not None:
                raise RuntimeError(str(result.error)) from result.error
        finally:
            job.is_cancelled = True
            self._active -= 1

    # In the threads

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            error: Exception | None = None
            self._generating.add(job)
            try:
                for index in range(len(job.prompts) * job.question.n):
                    self._generate(job, index)
            except Exception as failure:  # noqa: BLE001  # the library's own; told to the client
                error = failure
            self._generating.discard(job)
            job.deliver(_End(error))

    def _is_wanted(self, job: _Job) -> bool:
        return not job.is_cancelled and not self._is_closed

    def _generate(self, job: _Job, index: int) -> None:
        request = self._request(job.question, job.prompts[index // job.question.n])
        with self._prefilling:
            if not self._is_wanted(job):
                return
            with self._calling:
                chunks = iter(self._runner.send_chat_completion_request(request))
            chunk = next(chunks, None)
        told, held, text = 0, 0, ""
        while chunk is not None and self._is_wanted(job):
            choice = chunk.choices[0]
            text += choice.delta.content or ""
            held += 1
            if choice.finish_reason is not None:
                total = chunk.usage.completion_tokens if chunk.usage is not None else told + held
                finish: Finish = "length" if choice.finish_reason == "length" else "stop"
                job.deliver(Piece(index, text, max(0, total - told), finish=finish))
                return
            if text:  # a token may be part of a character: it goes out with the next
                job.deliver(Piece(index, text, held))
                told, held, text = told + held, 0, ""
            chunk = next(chunks, None)

    def _request(self, question: Question, prompt: str) -> Any:
        more: dict[str, Any] = {}
        if question.schema is not None:
            more = {
                "grammar": orjson.dumps(question.schema).decode(),
                "grammar_type": "json_schema",
            }
        return self._library.ChatCompletionRequest(
            model="default",
            messages=[{"role": "user", "content": prompt}],
            max_tokens=question.max_tokens,
            temperature=question.temperature,
            top_p=question.top_p,
            stop_seqs=question.stop or None,
            ignore_eos=question.ignore_eos,
            stream=True,
            **more,
        )
