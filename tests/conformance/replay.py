"""Sends recorded requests, byte for byte, to a running proxy and tells what became of each.

A case is *accepted* as far as its messages reach the service (``served``): what that answers, a 404
or a complaint about the body's JSON, says nothing about HTTP. It is *refused* when the last answer
is an error and the connection is closed.
"""

import asyncio
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final

import uvloop
from tests.integration.harness import chain, says
from tests.integration.messages import completion, json_answer

from filature.errors import FilatureError
from filature.relay.downstream import DownstreamConnection, Service
from filature.relay.http1 import RequestHead

DEADLINE_S: Final = 2.0
"""Of each phase: an incomplete request is closed after it. Longer than a busy machine stands still."""
AT_ONCE: Final = 100
"""Cases sent at the same time."""
API: Final = b"/v1/chat/completions"
PAGE: Final = b"/v1/models"

_STATUS: Final = re.compile(rb"(?:^|\n|\})HTTP/1\.1 (\d{3}) ")
_REQUEST_LINE: Final = re.compile(
    rb"((?:\r\n)?)([A-Z-]+) (/[!-~]*|http://[!-~]*) (HTTP/1\.[01])(\r\n)"
)


@dataclass
class Trial:
    """What one case came to. ``statuses`` are those of the answers, interim ones left out."""

    sent: bytes
    served: list[tuple[str, str, bytes]] = field(default_factory=list)
    """Method, path and body of each message that was read to its end."""
    passed_over: int = 0
    """Messages refused for their path or method alone; the connection went on."""
    statuses: list[int] = field(default_factory=list)
    answer: bytes = b""
    seconds: float = 0.0
    waited: bool = False
    """It took a deadline to end it: the request was incomplete, or the client kept the connection."""

    @property
    def accepted(self) -> int:
        """Messages accepted as HTTP."""
        return len(self.served) + self.passed_over

    @property
    def refused(self) -> bool:
        """Whether the last answer is one of ours that closes the connection for bad HTTP."""
        return len(self.statuses) > self.accepted and self.statuses[-1] >= 400

    @property
    def incomplete(self) -> bool:
        """Whether the request never ended, so that it was timed out."""
        return self.refused and self.statuses[-1] == 408

    def __str__(self) -> str:
        return f"{self.sent!r}\n-> {self.served} {self.statuses} {self.answer!r}"


class _Watched:
    """The proxy's own service, watched."""

    def __init__(self, service: Service, trials: dict[int, Trial]) -> None:
        self._service = service
        self._trials = trials

    def check(self, head: RequestHead) -> FilatureError | None:
        return self._service.check(head)

    def serve(self, connection: DownstreamConnection, head: RequestHead, body: bytes) -> None:
        self._trial(connection).served.append((head.method, head.path, body))
        self._service.serve(connection, head, body)

    def refuse(
        self, connection: DownstreamConnection, head: RequestHead | None, error: FilatureError
    ) -> None:
        if head is not None and error.status in (404, 405):
            self._trial(connection).passed_over += 1
        self._service.refuse(connection, head, error)

    def _trial(self, connection: DownstreamConnection) -> Trial:
        return self._trials[connection.transport.get_extra_info("peername")[1]]


def addressed_to_the_api(request: bytes) -> bytes:
    """The request with a target that is served, so that its body is read, and with a ``Host``."""
    match = _REQUEST_LINE.match(request)
    if match is None:
        return request
    before, method, _, version, end = match.groups()
    if method in (b"PUT", b"PATCH", b"SOURCE", b"REPORT", b"QUERY"):
        method = b"POST"
    target = PAGE if method in (b"GET", b"HEAD") else API
    line = before + method + b" " + target + b" " + version + end
    rest = request[match.end() :]
    if not re.search(rb"(?i)(?:^|\n)host[ \t]*:", rest.partition(b"\r\n\r\n")[0]):
        line += b"Host: a\r\n"
    return line + rest


def replay(requests: Iterable[bytes]) -> list[Trial]:
    """Every request on a connection of its own, to one proxy."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_replay(list(requests)))


async def _replay(requests: list[bytes]) -> list[Trial]:
    by_port: dict[int, Trial] = {}
    free = asyncio.Semaphore(AT_ONCE)
    deadlines: dict[str, Any] = dict.fromkeys(("head_s", "idle_s", "body_idle_s"), DEADLINE_S)
    async with chain(says(json_answer(completion("hi"))), **deadlines) as running:
        downstream = running.proxy.downstream
        downstream.service = _Watched(downstream.service, by_port)

        async def send(request: bytes) -> Trial:
            trial = Trial(request)
            async with free:
                client = await running.connect()
                by_port[client.writer.get_extra_info("sockname")[1]] = trial
                started = asyncio.get_running_loop().time()
                client.send(request)
                trial.answer = await client.eof()
                trial.seconds = asyncio.get_running_loop().time() - started
                client.leave()
            trial.statuses = [int(s) for s in _STATUS.findall(trial.answer) if int(s) >= 200]
            trial.waited = trial.seconds >= DEADLINE_S
            return trial

        return await asyncio.gather(*map(send, requests))
