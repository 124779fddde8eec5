"""Who is asked how many tokens a prompt is, and for whom the answer holds. How it is asked is ``relay/tokenize.py``.

One's own engine is believed, whoever answers the request afterwards. A worker is believed for itself: the request
then goes to it and to no other, so that a count that is too low takes from nobody but who gave it. (Else a worker
and a client who know each other could have prompts read by others for nothing.)
"""

import asyncio
from heapq import nsmallest
from operator import attrgetter
from typing import Final, NamedTuple

from filature.proxy.offer import Offer
from filature.relay.engines import Engine
from filature.relay.tokenize import exact_prompt_tokens, may_count
from filature.request.parse import ParsedRequest

TOKENIZE_S: Final = 2.0
"""For an engine to count a prompt whose bound does not fit the balance."""
COUNT_S: Final = 4.0
"""For all engines that are asked, one after another."""
WORKERS_ASKED_MAX: Final = 3
"""Of those that may be able to: the least busy ones."""


class Counted(NamedTuple):
    """Tokens, and the offer that they hold for."""

    tokens: int
    offer: Offer


async def count_prompt(offer: Offer, request: ParsedRequest, now: float) -> Counted | None:
    """The prompt's exact tokens, by the first engine that can tell; ``now`` by the coarse clock."""
    name = offer.price.model
    loop = asyncio.get_running_loop()
    end = loop.time() + COUNT_S
    for engine in _asked(offer, request, now):
        model = engine.models.get(name)
        left_s = end - loop.time()
        if model is None or left_s <= 0:
            continue
        tokens = await exact_prompt_tokens(engine, model, request, min(TOKENIZE_S, left_s))
        if tokens is None:
            continue
        if not engine.is_remote:
            return Counted(tokens, offer)
        if name in engine.models:  # it may have left meanwhile
            return Counted(tokens, offer.of([engine]))
    return None


def _asked(offer: Offer, request: ParsedRequest, now: float) -> list[Engine]:
    name, dialect = offer.price.model, request.dialect
    own = [engine for engine in offer.engines if not engine.is_remote]
    if not offer.has_remote:
        return own
    workers = [
        engine
        for engine in offer.engines
        if engine.is_remote
        and engine.has_room(now)
        and engine.set_aside_until <= now
        and name in engine.models
        and may_count(engine.models[name], dialect)
    ]
    return own + nsmallest(WORKERS_ASKED_MAX, workers, key=attrgetter("load"))
