"""One proxy as the worker knows it: said hello to, told how things stand, dialled, delivered reports to."""

import asyncio
import json
import logging
from collections.abc import Callable
from typing import Any, Final

from pydantic import ValidationError

from filature.errors import StoreError
from filature.relay.dialing import DialingPool, Origin
from filature.relay.fetch import FetchError, fetch
from filature.wire import control
from filature.wire.control import Accepted, Standing, Welcome
from filature.worker.lasting import backoff_s, lasting
from filature.worker.outbox import Outbox
from filature.worker.service import WorkerService
from filature.worker.statements import StatementKeeper
from filature.worker.tunnels import Tunnels

ANSWER_S: Final = 10.0
"""For the proxy to answer on its control routes."""
TELL_S: Final = 5.0
"""To a hello or a heartbeat: where one gets lost the next comes before the lease ends."""
BACKOFF_S: Final = 0.5
"""After a proxy did not answer; doubled up to the next."""
BACKOFF_MAX_S: Final = 15.0
LOOK_S: Final = 0.1
"""Between two looks at whether connections are missing."""
DELIVER_S: Final = 1.0
"""Between two deliveries of reports, when there are any."""
NOT_TAKEN_SHOWN: Final = 8
"""Names of models that a proxy does not take, in the log."""

log = logging.getLogger(__name__)


class ProxyLink:
    """``stand`` gives how things stand now, ``room`` how many more requests the worker could take."""

    def __init__(
        self,
        tunnels: Tunnels,
        service: WorkerService,
        outbox: Outbox,
        token: str,
        stand: Callable[[], Standing],
        room: Callable[[], int],
    ) -> None:
        self.url = tunnels.address.url
        self.tunnels = tunnels
        self.joined = False
        """Whether the proxy knows this process."""
        self.statements: StatementKeeper | None = None
        """Of the earnings statements that the proxy gives."""
        self.service = service
        self._outbox = outbox
        self._stand = stand
        self._room = room
        self._seen: int | None = None
        self._refused = ""
        self.not_taken: list[str] = []
        """Models that the proxy does not take, as it said last."""
        self._delivering = asyncio.Lock()
        address, downstream = tunnels.address, tunnels.downstream
        origin = Origin(address.host, address.port, address.tls)
        self._pool = DialingPool(origin, downstream.clock, downstream.limits)
        lines = (
            f"host: {address.authority}",
            f"authorization: Bearer {token}",
            "accept: application/json",
            "accept-encoding: identity",
        )
        self._header_lines = "".join(f"{line}\r\n" for line in lines)

    async def run(self) -> None:
        """Join, and stay so; until cancelled."""
        await asyncio.gather(
            lasting(f"the control of {self.url}", self._keep_joined),
            lasting(f"the dialling of {self.url}", self._keep_ready),
        )

    async def report(self) -> None:
        """Deliver what waits, whether joined or not; until cancelled."""
        await lasting(f"the reporting to {self.url}", self._deliver_now_and_again)

    async def close(self) -> None:
        await self.tunnels.close()
        self._pool.close()

    # control

    async def _keep_joined(self) -> None:
        failures = 0
        while True:
            welcome = await self.tell()
            if welcome is None:
                failures += 1
                await asyncio.sleep(backoff_s(failures, BACKOFF_S, BACKOFF_MAX_S))
                continue
            failures = 0
            await asyncio.sleep(_pause_s(welcome))

    async def tell(self) -> Welcome | None:
        """Say how things stand; None: the proxy did not take it."""
        path = control.HEARTBEAT_PATH if self.joined else control.HELLO_PATH
        answer = await self._post(path, self._stand().model_dump_json(), TELL_S)
        if answer is None:
            return None
        try:
            welcome = Welcome.model_validate_json(answer)
        except ValidationError:
            log.warning("proxy %s: its answer cannot be understood", self.url)
            return None
        if welcome.known and not self.joined:
            if self.statements is not None:
                self.statements.joined()
            log.info("joined %s as %s", self.url, welcome.worker)
            self.tunnels.dial_now()
        self._say_not_taken(welcome.refused_models)
        self.joined = welcome.known
        self.service.name = welcome.worker
        self._seen = welcome.tunnels
        if self.statements is not None:
            await self.statements.take(welcome.statement, welcome.worker, self._keys)
        return welcome

    async def _keys(self) -> bytes | None:
        """Those that the proxy signs statements by."""
        try:
            status, answer = await self._ask("GET", control.KEYS_PATH)
        except FetchError:
            return None
        return answer if status == 200 else None

    async def _post(self, path: str, body: str, timeout_s: float = ANSWER_S) -> bytes | None:
        """The answer's body; None where there is none that is good, which is said once."""
        try:
            status, answer = await self._ask("POST", path, body.encode(), timeout_s)
        except FetchError as error:
            self._say_refused(error.with_ca("--proxy-ca"))
            return None
        if status != 200:
            self._say_refused(f"status {status}: {_message(answer)}")
            return None
        if self._refused:
            log.info("proxy %s answers again", self.url)
            self._refused = ""
            self.tunnels.dial_now()
        return answer

    async def _ask(
        self, method: str, path: str, body: bytes = b"", timeout_s: float = ANSWER_S
    ) -> tuple[int, bytes]:
        """Status and body. Raises FetchError."""
        head = f"{method} {path} HTTP/1.1\r\n{self._header_lines}"
        if method == "POST":
            head += f"content-type: application/json\r\ncontent-length: {len(body)}\r\n"
        request = head.encode("latin-1") + b"\r\n" + body
        return await fetch(self._pool, request, timeout_s=timeout_s)

    def _say_refused(self, reason: str) -> None:
        if reason != self._refused:
            log.warning("proxy %s: %s", self.url, reason)
            self._refused = reason

    def _say_not_taken(self, models: list[str]) -> None:
        if models and models != self.not_taken:
            log.warning(
                "proxy %s does not take %d models, which the token is not for or which have no price there: %s",
                self.url,
                len(models),
                ", ".join(repr(name[:64]) for name in models[:NOT_TAKEN_SHOWN]),
            )
        self.not_taken = models

    # data

    async def _keep_ready(self) -> None:
        while True:
            if self.joined:
                seen, self._seen = self._seen, None
                self.tunnels.keep_ready(self._room(), seen)
            await asyncio.sleep(LOOK_S)

    # reports

    async def _deliver_now_and_again(self) -> None:
        failing = False
        while True:
            await asyncio.sleep(DELIVER_S)
            try:
                await self.deliver()
                failing = False
            except StoreError as error:
                if not failing:
                    log.warning("%s", error.message)
                failing = True

    async def deliver(self) -> None:
        """Send what waits, and forget what was taken. Raises StoreError."""
        async with self._delivering:  # what is on its way is not sent a second time
            await self._deliver()

    async def _deliver(self) -> None:
        while len(self._outbox):
            waiting = await self._outbox.oldest(self.url)
            if waiting is None:
                return
            answer = await self._post(control.REPORTS_PATH, f'{{"reports":[{waiting.lines}]}}')
            if answer is None:
                return
            try:
                verdicts: dict[str, Any] = Accepted.model_validate_json(answer).verdicts
            except ValidationError:
                return
            gone = self._outbox.forget(self.url, waiting, verdicts)
            if not waiting.more or not gone:
                return


def _pause_s(welcome: Welcome) -> float:
    """Until a proxy is told again, which may not ask for it without end."""
    return max(welcome.heartbeat_s if welcome.known else 0.0, LOOK_S)


def _message(answer: bytes) -> str:
    try:
        return str(json.loads(answer)["error"]["message"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return answer[:200].decode("utf-8", "replace")
