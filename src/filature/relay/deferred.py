"""An answer that has to wait for something else than an engine: a database, a count of tokens, a delay."""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any

from filature.errors import Draining, FilatureError, InternalError, StoreError
from filature.relay.downstream import NEVER, DownstreamConnection

log = logging.getLogger(__name__)


class Deferred:
    """Keeps a client's connection while ``work`` runs; then it is answered, or the client has left.

    ``done`` is given what ``work`` returned, ``failed`` the error it ended with; one of them is called,
    once, unless the client is gone. Then ``abandoned`` is.
    """

    def __init__(
        self,
        connection: DownstreamConnection,
        done: Callable[[Any], None],
        failed: Callable[[FilatureError], None],
        abandoned: Callable[[], None] | None = None,
    ) -> None:
        self._connection = connection
        self._done = done
        self._failed = failed
        self._abandoned = abandoned

    def start(self, work: Coroutine[Any, Any, Any]) -> None:
        self._connection.exchange = self
        self._connection.deadline = NEVER  # what it waits for has its own
        self._task = asyncio.get_running_loop().create_task(work)
        self._task.add_done_callback(self._finish)

    def _finish(self, task: "asyncio.Task[Any]") -> None:
        if self._connection.exchange is not self:  # the client left
            if not task.cancelled():
                task.exception()
            if self._abandoned is not None:
                self._abandoned()
            return
        self._connection.exchange = None
        if task.cancelled():
            self._failed(Draining())
            return
        error = task.exception()
        if error is None:
            self._done(task.result())
        elif isinstance(error, StoreError):
            # where the database is, and as whom it is asked, is no client's business; who says no more
            # than that it cannot be written to has told the log why, once
            if error.message != StoreError.default_message:
                log.warning("an answer could not be made: %s", error.message)
            self._failed(StoreError("The ledger cannot be reached now; nothing was charged."))
        elif isinstance(error, FilatureError):
            self._failed(error)
        else:
            task.get_loop().call_exception_handler(
                {"message": "an answer could not be made", "exception": error, "task": task}
            )
            self._failed(InternalError())

    # Answering

    def client_gone(self) -> None:
        self._task.cancel()

    def client_paused(self) -> None:
        """Nothing is being written."""

    def client_resumed(self) -> None:
        """Nothing is being written."""

    def tick(self, now: float) -> None:
        self._connection.deadline = NEVER

    def drain(self) -> None:
        self._task.cancel()
