"""Connections of somebody who means no good, from a process of their own: ``python strangers.py PORT COUNT ADDRESS``.

They are opened and left as they are: in turn silent, with half a head, refused at a worker's route, and some with
garbage behind a request for a tunnel. One line says that all were; they last until stdin ends. Nothing else is
imported: this has to start quickly.
"""

import resource
import socket
import sys
from contextlib import suppress

HALF_A_HEAD = b"POST /filature/v1/hello HTTP/1.1\r\nHost: proxy\r\nAuthorization: Bearer fil-wrk-"
REFUSED = (
    b"GET /filature/v1/tunnel HTTP/1.1\r\nHost: proxy\r\nConnection: upgrade\r\n"
    b"Upgrade: filature-tunnel/1\r\n\r\n"
)
GARBAGE = REFUSED + b"\x00\xff\x16\x03\x01" * 20
SAID = (b"", HALF_A_HEAD, REFUSED) * 3 + (GARBAGE,)  # a proxy closes the last one soon


def main() -> None:
    port, count, address = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    opened = []
    for number in range(count):
        stranger = socket.create_connection(("127.0.0.1", port), 60, (address, 0))
        with suppress(ConnectionError):  # it had to give way already
            stranger.sendall(SAID[number % len(SAID)])
        opened.append(stranger)
    sys.stdout.write(f"{len(opened)}\n")
    sys.stdout.flush()
    sys.stdin.read()


if __name__ == "__main__":
    main()
