"""What an exchange is given by admission: what the request may cost, and where its end is settled."""

from collections.abc import Callable
from typing import Protocol

from filature.answer.pricing import Tariff
from filature.relay.engines import Engine
from filature.telemetry.record import UsageRecord


class Grant(Protocol):
    """Money held for one request. It ends once, by ``end``."""

    @property
    def model(self) -> str:
        """The name by which engines are looked for: what an alias stands for."""

    @property
    def limit(self) -> int | None:
        """Completion tokens of each choice, to be given to the engine; None: the body stays as it is."""

    @property
    def prompt_tokens(self) -> int:
        """The most that is charged, over all prompts."""

    @property
    def completion_tokens(self) -> int:
        """The most that is charged, over all choices."""

    def allows(self, engine: Engine) -> bool:
        """Whether the engine's price is one that the client accepts."""

    def tariff(self, engine: Engine) -> Tariff:
        """What an answer of the engine costs."""

    def end(
        self,
        record: UsageRecord,
        committed: Callable[[], None] | None,
        answer: bytes | None = None,
        content_type: bytes = b"",
    ) -> None:
        """Charge ``record.total_cost``, or nothing, and store the record.

        ``committed`` is called when that is stored, and never from here. ``answer`` is a whole
        answer's body, which may be kept for a client that asks again.
        """

    def give_up(self) -> None:
        """After ``end``, when ``committed`` came too late: nothing is charged after all.

        ``record`` has been changed to say so.
        """
