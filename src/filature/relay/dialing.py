"""The pool of an engine that is dialled when a request finds no idle connection to it."""

import asyncio
import ssl
from dataclasses import dataclass
from typing import cast

from filature.relay.addresses import Addresses
from filature.relay.clock import CoarseClock
from filature.relay.limits import RelayLimits
from filature.relay.open_files import NO_MORE
from filature.relay.tls import dial
from filature.relay.upstream import Caller, UpstreamConnection, UpstreamPool


@dataclass(frozen=True, slots=True)
class Origin:
    """Where an engine listens. ``tls`` None: plain HTTP."""

    host: str
    port: int
    tls: ssl.SSLContext | None


class DialingPool(UpstreamPool):
    """The connections to one origin, as many as there are requests."""

    def __init__(self, origin: Origin, clock: CoarseClock, limits: RelayLimits) -> None:
        super().__init__(clock, limits)
        self._origin = origin
        self._addresses = Addresses(origin.host, origin.port)
        self._connecting: dict[Caller, asyncio.Task[None]] = {}

    def send(self, caller: Caller, request: bytes, *, fresh: bool = False) -> None:
        """As the base; ``fresh`` takes no idle connection."""
        connection = None if fresh else self._take_idle()
        if connection is not None:
            connection.send(caller, request, reused=True)
            return
        task = asyncio.get_running_loop().create_task(self._connect(caller, request))
        self._connecting[caller] = task
        task.add_done_callback(lambda _: self._connecting.pop(caller, None))

    def cancel(self, caller: Caller) -> None:
        task = self._connecting.pop(caller, None)
        if task is not None:
            task.cancel()

    def close(self) -> None:
        super().close()
        for task in tuple(self._connecting.values()):
            task.cancel()

    async def _connect(self, caller: Caller, request: bytes) -> None:
        origin = self._origin
        connection = UpstreamConnection(self)
        addresses, turn = self._addresses, 0
        try:
            async with asyncio.timeout(self.limits.connect_s):
                host, turn = await addresses.pick()
                await dial(
                    cast(asyncio.Protocol, connection), host, origin.port, origin.tls, origin.host
                )
        except asyncio.CancelledError:
            connection.gone()  # it may have been made, and uvloop closes it without a word
            raise
        except TimeoutError:
            connection.gone()
            addresses.silent(turn)
            caller.on_lost(f"no connection within {self.limits.connect_s:g} s")
        except OSError as error:
            addresses.failed(turn)
            reason = f"cannot connect: {error.strerror or error}"
            caller.on_lost(reason, ours=error.errno in NO_MORE)
        except UnicodeError:  # the look-up's, of labels that no name has
            caller.on_lost(f"cannot connect: {origin.host} is no host name")
        else:
            connection.send(caller, request, reused=False)
