"""How the garbage collector is set for a process that relays: it is in the way of every request else."""

import gc
from typing import Final

YOUNG_MAX: Final = 20_000
"""Objects made and not freed before the collector looks at them: at most a few ms of work. Requests and answers make no
cycles, so next to nothing is left for it; by Python's 700 it looks again and again at what many open requests hold."""
_YOUNG_ROUNDS: Final = 20
_OLD_ROUNDS: Final = 100


def tune_collector() -> None:
    """To be called once, when a process has started: what was made so far stays, and is not looked at any more."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG_MAX, _YOUNG_ROUNDS, _OLD_ROUNDS)
