"""The time of what is stored. Compiled, for every request asks for it."""

import time


def wall_ms() -> int:
    """Unix time in milliseconds."""
    return time.time_ns() // 1_000_000
