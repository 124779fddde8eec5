"""Keeps going what ends only by a defect of ours: that is said, and it begins anew after a pause."""

import asyncio
import logging
import random
from collections.abc import Callable, Coroutine
from typing import Any, Final

BACKOFF_S: Final = 0.5
"""After it ended; doubled each time, up to the next."""
BACKOFF_MAX_S: Final = 15.0
"""What went on for longer than this begins anew as if for the first time."""

log = logging.getLogger(__name__)


async def lasting(what: str, run: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """``run`` again and again, until cancelled. ``what`` it is, for the log."""
    loop = asyncio.get_running_loop()
    failures = 0
    while True:
        began = loop.time()
        try:
            await run()
            return
        except Exception:
            log.exception("%s ended unexpectedly; it is tried again", what)
        failures = 0 if loop.time() - began > BACKOFF_MAX_S else failures + 1
        await asyncio.sleep(backoff_s(failures, BACKOFF_S, BACKOFF_MAX_S))


def backoff_s(failures: int, first_s: float, most_s: float) -> float:
    """Seconds until what failed is tried again: ``first_s``, doubled with each failure, at most ``most_s``; drawn at
    random from the upper half of that, so that not all come at once."""
    pause_s = min(first_s * 2.0 ** min(failures, 8), most_s)
    return pause_s * random.uniform(0.5, 1)  # noqa: S311 - jitter
