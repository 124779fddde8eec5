"""An engine that goes on until its caller leaves, and knows what it generated for whom."""

import asyncio
import random
from typing import Final

from tests.integration.harness import EngineRequest, RawEngine
from tests.integration.messages import (
    DONE,
    LAST_CHUNK,
    STREAM_HEAD,
    chunked,
    delta,
    tokens,
    usage_event,
)

from filature.demo.text import Corpus

PROMPT: Final = 17
"""Tokens of every prompt, as it says."""
EVENT_S: Final = 0.015
"""As a quick engine."""
TURNS: Final = 8
"""Of the loop that all share, between two events at least: so many as it takes to read one, to leave, and for that to
be seen, however slow the machine is."""
TOKENS_PER_EVENT_MAX: Final = 3


class Talker(RawEngine):
    """``counts`` are its completion tokens after each event, by the request's id.

    Its answers have so many ``events`` at least and at most. ``reports``: with usage on each event
    and in one of its own; else it never tells. ``breaks``: each answer is cut off at its end.
    """

    def __init__(
        self,
        chance: random.Random,
        *,
        events: tuple[int, int],
        reports: bool = True,
        breaks: bool = False,
    ) -> None:
        super().__init__(self._talk)
        self.continuous = reports
        self.counts: dict[str, list[int]] = {}
        self._chance = chance
        self._corpus = Corpus()
        self._events = events
        self._reports = reports
        self._breaks = breaks

    async def _talk(self, request: EngineRequest, writer: asyncio.StreamWriter) -> None:
        counts = self.counts[request.headers["x-request-id"]] = []
        events = self._chance.randint(*self._events)
        sizes = [self._chance.randint(1, TOKENS_PER_EVENT_MAX) for _ in range(events)]
        words = iter(self._corpus.passage(self._chance.randrange(10**6), sum(sizes)))
        writer.write(STREAM_HEAD)
        for size in sizes:
            await asyncio.sleep(EVENT_S)
            for _ in range(TURNS):
                await asyncio.sleep(0)
            if request.gone.is_set() or writer.is_closing():
                return
            text = "".join(next(words) for _ in range(size))
            counts.append(size + (counts[-1] if counts else 0))
            usage = tokens(PROMPT, counts[-1]) if self._reports else None
            writer.write(chunked(delta(text, usage=usage)))
        if self._breaks:
            writer.transport.abort()
            return
        last = [delta("", finish="stop"), DONE]
        if self._reports:
            last.insert(1, usage_event(PROMPT, counts[-1]))
        writer.write(b"".join(map(chunked, last)) + LAST_CHUNK)
