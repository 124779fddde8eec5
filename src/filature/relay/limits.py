"""Every deadline and bound of the data plane, by name. Values only."""

from dataclasses import dataclass, field
from typing import Final

MIB: Final = 1024 * 1024
_LOOKS_PER_DEADLINE: Final = 4
_LARGEST_BODIES: Final = 32


@dataclass(frozen=True, slots=True)
class RelayLimits:
    """Seconds and bytes; the defaults are those of the settings."""

    # downstream
    connections_max: int = 16_384
    head_s: float = 15.0
    """From the first byte of a request's head to its end, and for a new connection's first head."""
    idle_s: float = 75.0
    """Between two requests on a connection."""
    body_idle_s: float = 30.0
    """Without a byte of the request's body."""
    body_s: float = 600.0
    """For the whole of a request's body."""
    body_bytes_max: int = 32 * MIB
    bodies_bytes_max: int = field(init=False)
    """Of all requests that are being read or answered: so many of the largest; more are refused."""
    pipelined_bytes_max: int = 64 * 1024
    """Of requests that came while another is answered; then reading pauses."""
    write_buffer_bytes: int = 64 * 1024
    """Of an answer that the client has not taken; above it reading from the engine pauses."""
    client_stall_s: float = 60.0
    """A client that does not take what is waiting for it."""
    linger_s: float = 2.0
    """For a refused request's remaining bytes, so that the refusal is not lost to a reset."""

    # upstream
    connect_s: float = 5.0
    first_byte_s: float = 600.0
    """From the request's last byte to the answer's head: a long prefill is legal."""
    progress_s: float = 60.0
    """Without data of the answer while we are reading; a comment is not data."""
    wait_s: float = 30.0
    """For an engine to have room."""
    sign_s: float | None = None
    """For a worker's sign of life after a request; None: an engine gives none."""
    request_s: float = 3600.0
    """For the whole of a request."""
    hold_s: float = 15.0
    """For the head and content-free events before the first content."""
    ping_s: float = 15.0
    """Of silence towards the client, until a comment is sent."""
    idle_connections_max: int = 256
    """Kept to one engine between requests."""
    upstream_idle_s: float = 55.0
    retries_max: int = 2
    """Other engines tried after the first one failed before any content."""
    error_body_bytes_max: int = MIB
    """Of an engine's refusal; the rest is cut."""
    document_bytes_held_max: int = 8 * MIB
    """Of finished JSON documents held for a content length; then they are sent chunked."""
    end_mark_wait_s: float = 1.0
    """For an engine to end its HTTP message after the answer's end mark."""
    after_end_mark_bytes_max: int = 64 * 1024
    """Of what an engine says with the end mark and behind it, above which its message is not waited for."""
    commit_wait_s: float = 10.0
    """For a charge to be stored, until the answer that it is for counts as failed."""
    drain_s: float = 30.0

    look_s: float = field(init=False)
    """Between two looks at a running exchange: a fraction of its shortest deadline."""

    def __post_init__(self) -> None:
        waits = (self.first_byte_s, self.progress_s, self.ping_s, self.hold_s, self.client_stall_s)
        shortest = min(waits)
        object.__setattr__(self, "look_s", shortest / _LOOKS_PER_DEADLINE)
        object.__setattr__(self, "bodies_bytes_max", _LARGEST_BODIES * self.body_bytes_max)
