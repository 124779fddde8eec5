"""What ``demo_child.py`` starts: the command ``demo-engine``, which ends when its parent does."""

import os
import signal
import sys
import threading

from filature.cli.main import app


def main() -> None:
    threading.Thread(target=_end_with_parent, daemon=True).start()
    app(["demo-engine", *sys.argv[1:]])


def _end_with_parent() -> None:
    """Standard input ends when the parent does."""
    while os.read(0, 1):  # not by sys.stdin: its lock would be held when the interpreter ends
        pass
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    main()
