"""Which of a name's addresses is dialled.

One that swallows packets would be tried first each time, for all the time that there is: so once it has not answered,
the name's next one is dialled from then on.
"""

import asyncio
import socket


async def resolve(host: str, port: int) -> list[str]:
    """All addresses of a name, in the system's order. Raises OSError."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


class Addresses:
    """Those of one name. At first it is dialled by the name: then what refuses is passed over at once."""

    def __init__(self, host: str, port: int) -> None:
        self._host = host
        self._port = port
        self._turn = 0

    async def pick(self) -> tuple[str, int]:
        """What to dial, and for ``silent`` whose turn it was. Raises OSError."""
        turn = self._turn
        if not turn:
            return self._host, turn
        found = await resolve(self._host, self._port)
        at = turn % len(found)
        return (found[at] if at else self._host), turn

    def silent(self, turn: int) -> None:
        """What was dialled did not answer in time. Several dials that fail at once pass over one address."""
        if turn == self._turn:
            self._turn += 1

    def failed(self, turn: int) -> None:
        """It refused. By the name, all its addresses did; else the others are still to be dialled."""
        if turn:
            self.silent(turn)
