"""How many files and connections the system lets this process have open."""

import errno
import math
import resource
from contextlib import suppress
from typing import Final

FILES_KEPT: Final = 256
"""For the ledger, the log, the admin port and what libraries open."""


NO_MORE: Final = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
"""What the system says to a process that wants another connection, where there can be none now."""


def raise_open_files() -> None:
    """Up to what the system allows: many give a process 1,024, and a hundred times that where it asks."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with suppress(OSError, ValueError):  # some systems have a lower limit of their own
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def connections_allowed(wanted: int) -> int:
    """``wanted``, or how many clients can be had: each may need a connection to an engine, too."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return wanted
    return max(min(wanted, (soft - FILES_KEPT) // 2), 1)


def tunnels_allowed(connections_max: int) -> float:
    """How many connections to engines and workers there can be beside ``connections_max`` clients."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return math.inf
    return max(soft - FILES_KEPT - connections_max, 1)
