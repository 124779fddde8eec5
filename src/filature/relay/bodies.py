"""The bodies of all requests of a process that are being read or answered: how many bytes they are, and may be."""

from collections.abc import Callable
from typing import Final

from filature.errors import Unavailable

SMALL_BYTES: Final = 16 * 1024
"""A body up to this is taken however much others hold; in one piece with its head it is not counted."""


class Bodies:
    """At most ``bytes_max``; what comes beyond it is refused, and ``on_full`` called."""

    def __init__(self, bytes_max: int) -> None:
        self.bytes = 0
        self.bytes_max = bytes_max
        self.on_full: Callable[[], None] = _ignore

    def take(self, more: int, size: int) -> bool:
        """Count ``more`` bytes, with which a body has ``size``; False: refuse it. Counted they are in any case."""
        self.bytes += more
        if self.bytes <= self.bytes_max or size <= SMALL_BYTES:
            return True
        self.on_full()
        return False

    def release(self, size: int) -> None:
        """A body of which so much was taken is not needed any more."""
        self.bytes -= size

    def refusal(self) -> Unavailable:
        """What is said to the client of a body that was not taken."""
        text = f"All requests together may hold {self.bytes_max} bytes; try again when others have ended."
        return Unavailable(text, code="overloaded")


def _ignore() -> None:
    """Until there is somebody who counts."""
