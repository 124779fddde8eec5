"""What the kernel is told, and asked, of a connection beside its bytes."""

import asyncio
import fcntl
import select
import socket
import sys
import termios
from typing import Final

_KEEPALIVE_S: Final = 15
_LEFT: Final = getattr(select, "POLLRDHUP", 0)
"""Where a system has no such event, only a connection that is closed both ways is noticed."""


def keep_alive(transport: asyncio.Transport, *, user_timeout_ms: int = 0) -> None:
    """Have the kernel find out that the other side is gone: an idle connection says nothing of itself.

    ``user_timeout_ms``: for what is sent to be taken; 0: as long as the other side is there.
    """
    sock: socket.socket | None = transport.get_extra_info("socket")
    if sock is None:
        return
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (
        ("TCP_KEEPIDLE", _KEEPALIVE_S),
        ("TCP_KEEPINTVL", _KEEPALIVE_S),
        ("TCP_KEEPCNT", 2),
        ("TCP_USER_TIMEOUT", user_timeout_ms),
    ):
        option = getattr(socket, name, None)  # Linux has all of them
        if option is not None:
            sock.setsockopt(socket.IPPROTO_TCP, option, value)


def unsent_bytes(transport: asyncio.Transport) -> int:
    """What waits for the other side, here and in the kernel.

    A kernel's buffer may hold megabytes, and takes more only when a third of it is free.
    """
    waiting = transport.get_write_buffer_size()
    try:
        fileno = transport.get_extra_info("socket").fileno()
        queued = fcntl.ioctl(fileno, termios.TIOCOUTQ, bytes(4))
    except (OSError, AttributeError):
        return waiting  # closed, or a system that does not tell
    return waiting + int.from_bytes(queued, sys.byteorder)


def has_left(transport: asyncio.Transport) -> bool:
    """Whether the other side closed a connection that nothing is read from."""
    poll = select.poll()
    poll.register(transport.get_extra_info("socket").fileno(), _LEFT)
    return bool(poll.poll(0))
