"""A role as a process: it is started, drained at the first signal and closed."""

import asyncio
import signal
from collections.abc import Callable
from typing import Protocol, TypeVar

from filature.relay.collector import tune_collector


class Role(Protocol):
    """A proxy, or a worker."""

    async def start(self) -> None: ...

    async def drain(self) -> None:
        """Take nothing new and let what runs end, within a bound."""

    async def close(self) -> None:
        """End what is left, also of a start that failed."""


AnyRole = TypeVar("AnyRole", bound=Role)


async def run(role: AnyRole, started: Callable[[AnyRole], None] | None) -> None:
    """Run it until SIGTERM, SIGINT or SIGHUP, then drain; a second signal ends it at once.

    A SIGHUP that is ignored, as ``nohup`` has it, stays so. ``started`` is called once, when the role has
    started. Raises what its start raises.
    """
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    numbers = [signal.SIGTERM, signal.SIGINT]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        numbers.append(signal.SIGHUP)  # the terminal is gone, and answers may be under way
    for number in numbers:
        loop.add_signal_handler(number, stop.set)
    try:
        await role.start()
        tune_collector()
        if started is not None:
            started(role)
        await stop.wait()
        stop.clear()
        drained = asyncio.ensure_future(role.drain())
        again = asyncio.ensure_future(stop.wait())
        await asyncio.wait((drained, again), return_when=asyncio.FIRST_COMPLETED)
        for task in (drained, again):
            task.cancel()
    finally:
        await role.close()
