"""Requests' bodies: one while it is read, and how many bytes those of all that are read or answered may be."""

from collections.abc import Callable
from typing import Final

from filature.errors import RequestTooLarge, Unavailable
from filature.relay.http1 import ChunkedDecoder, RequestHead

SMALL_BYTES: Final = 16 * 1024
"""A body up to this is taken however much others hold; in one piece with its head it is not counted."""


class Incoming:
    """A request whose body is being read, of at most ``bytes_max``, until ``deadline``."""

    __slots__ = ("_decoder", "_pieces", "bytes_max", "deadline", "ended", "head", "size")

    def __init__(self, head: RequestHead, bytes_max: int, deadline: float) -> None:
        self.head = head
        self.bytes_max = bytes_max
        self.deadline = deadline
        self.ended = False
        self.size = 0
        """Of what has come, in bytes; more than ``bytes_max`` is for whoever feeds it to refuse."""
        self._decoder = ChunkedDecoder() if head.chunked else None
        self._pieces: list[bytes] = []

    def feed(self, data: bytes) -> bytes:
        """What is behind the body in ``data``. Raises ProtocolError on bad framing."""
        decoder = self._decoder
        if decoder is not None:
            piece = decoder.feed(data)
            rest, self.ended = decoder.rest, decoder.done
        else:
            left = self.head.content_length - self.size
            piece, rest = data[:left], data[left:]
            self.ended = len(piece) == left
        self.size += len(piece)
        self._pieces.append(piece)
        return rest

    def whole(self) -> bytes:
        return b"".join(self._pieces)


def too_large(bytes_max: int) -> RequestTooLarge:
    """What is said to the client of a body that is, or says that it is."""
    return RequestTooLarge(f"the body is above {bytes_max} bytes")


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
