"""What an exchange is given by admission: what the request may cost, and where its end is settled."""

from collections.abc import Callable, Sequence
from typing import Protocol

from filature.answer.pricing import Tariff
from filature.relay.engines import Engine
from filature.telemetry.record import UsageRecord
from filature.wire.dialect import Dialect


class Wanted(Protocol):
    """What a choice between engines looks at of a request."""

    @property
    def model(self) -> str:
        """The name by which engines are looked for: what an alias stands for."""

    @property
    def dialect(self) -> Dialect:
        """The API that they are asked by."""

    @property
    def engines(self) -> Sequence[Engine]:
        """Those whose price is one that the client accepts, in no order."""

    @property
    def prefix(self) -> int:
        """Equal for requests that begin alike; 0: for none."""

    def allows(self, engine: Engine) -> bool:
        """Whether the engine is one of ``engines``."""

    def coefficient(self, engine: Engine) -> int:
        """Thousandths of the model's price that the engine asks for."""


class Grant(Wanted, Protocol):
    """Money held for one request. It ends once, by ``end``."""

    @property
    def account(self) -> str:
        """Among whose requests it waits for its turn."""

    @property
    def limit(self) -> int | None:
        """Completion tokens of each choice, to be given to the engine; None: the body stays as it is."""

    @property
    def prompt_tokens(self) -> int:
        """The most that is charged, over all prompts."""

    @property
    def completion_tokens(self) -> int:
        """The most that is charged, over all choices."""

    def ticket_line(self, engine: Engine, record: UsageRecord) -> bytes:
        """The header line by which a worker of the network is told what it will be paid for."""

    def tariff(self, engine: Engine) -> Tariff | None:
        """What an answer of the engine costs; None: that is not ours to know."""

    def end(
        self,
        record: UsageRecord,
        committed: Callable[[], None] | None,
        answer: bytes | None = None,
        content_type: bytes = b"",
    ) -> None:
        """Charge ``record.total_cost``, or nothing, and store the record.

        ``committed`` is called when that is stored; from here where there is nothing to wait for. ``answer`` is a
        whole answer's body, which may be kept for a client that asks again.
        """

    def give_up(self) -> None:
        """After ``end``, when ``committed`` came too late: nothing is charged after all.

        ``record`` has been changed to say so.
        """
