"""What all exchanges of a process share, and the ids and header lines they take from it."""

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, Literal

from filature.answer.policy import AnswerPolicy
from filature.answer.pricing import Tariff
from filature.relay.clock import CoarseClock
from filature.relay.limits import RelayLimits
from filature.relay.routing import Router
from filature.relay.waiting import WaitingRoom
from filature.request.parse import ParsedRequest
from filature.telemetry.metrics import Metrics
from filature.telemetry.record import UsageRecord
from filature.units import RequestId

_RANDOM_BYTES: Final = 4
_IDS_DRAWN: Final = 256
_NUMBERS: Final = [f"{number:03x}" for number in range(_IDS_DRAWN)]
POLICIES_MAX: Final = 4096
"""Of tariffs and what clients ask for; above it they are made anew."""


class RequestIds:
    """Ids of requests: ``req_``, the microsecond in which they were drawn, a number, 32 random bits; in hexadecimal.

    Drawn in batches. In the order of time, so that a database adds them at one end of its index: in any other order
    each would be a page more to write.
    """

    def __init__(
        self, wall: Callable[[], float], draw: Callable[[int], bytes] = os.urandom
    ) -> None:
        self._wall = wall
        self._draw = draw
        self._drawn: list[str] = []

    def next(self) -> RequestId:
        if not self._drawn:
            digits = self._draw(_RANDOM_BYTES * _IDS_DRAWN).hex()
            width = 2 * _RANDOM_BYTES
            prefix = f"req_{int(self._wall() * 1e6):013x}"
            self._drawn = [
                prefix + _NUMBERS[number] + digits[number * width : (number + 1) * width]
                for number in range(_IDS_DRAWN - 1, -1, -1)  # taken from the end
            ]
        return RequestId(self._drawn.pop())


@dataclass(slots=True)
class OpenStreams:
    """Gauges of the data plane, read by the metrics."""

    streams: int = 0


@dataclass(frozen=True, slots=True)
class DataPlane:
    """The exchanges' surroundings; made once, in the role's composition root."""

    router: Router
    clock: CoarseClock
    limits: RelayLimits
    usage_when_unrequested: Literal["comment", "hide", "send"]
    recorders: tuple[Callable[[UsageRecord], object], ...]
    """Each is given the record of every request that ended."""
    wall: Callable[[], float]
    """Unix time in seconds."""
    timer: Callable[[], float]
    """A monotonic time in seconds, of high resolution."""
    open: OpenStreams
    metrics: Metrics
    waiting: WaitingRoom
    passes: bool = False
    """Answers pass as engines send them, but for the model's name: a proxy shows them to the client."""
    _policies: dict[tuple[int, int], AnswerPolicy] = field(default_factory=dict)

    def record(self, record: UsageRecord) -> None:
        for keep in self.recorders:
            keep(record)

    def policy(
        self, request: ParsedRequest, tariff: Tariff | None, *, hold_until_content: bool
    ) -> AnswerPolicy:
        """How an answer to ``request`` is shown, at the prices of ``tariff``. Each is made once."""
        dialect = request.dialect
        passes = self.passes
        strip = not passes and request.stream and dialect.has_choices
        flags = (
            strip
            + 2 * (request.include_usage and not passes)
            + 4 * (request.continuous_usage and not passes)
            + 8 * hold_until_content
            + 16 * dialect.is_metered
        )
        key = (flags, id(tariff))  # which the policy keeps alive: no other has its id
        policy = self._policies.get(key)
        if policy is None:
            if len(self._policies) >= POLICIES_MAX:
                self._policies.clear()
            policy = self._policies[key] = AnswerPolicy(
                strip=strip,
                include_usage=request.include_usage and not passes,
                continuous_usage=request.continuous_usage and not passes,
                when_unrequested=self.usage_when_unrequested,
                hold_until_content=hold_until_content,
                tariff=tariff if dialect.is_metered else None,
                errors="take",
            )
        return policy
