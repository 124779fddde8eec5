"""Keeps a core from idling until its input ends, at the lowest priority: whatever else wants to run does so at once."""

import os
import sys
import threading

NICE = 19
"""With it the kernel accounts the time apart, as that of who gives way."""


def _end_with_input() -> None:
    sys.stdin.read()
    os._exit(0)


def main() -> None:
    os.nice(NICE)
    os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    threading.Thread(target=_end_with_input, daemon=True).start()
    while True:
        pass


if __name__ == "__main__":
    main()
