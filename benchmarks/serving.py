"""What the small relays share: a port of their own, told in one JSON line, served until the input ends."""

import argparse
import asyncio
import json
import sys
from collections.abc import Callable

import uvloop


async def _serve(factory: Callable[[], asyncio.Protocol]) -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(factory, "127.0.0.1", 0, backlog=4096)
    print(json.dumps({"port": server.sockets[0].getsockname()[1]}), flush=True)
    await loop.run_in_executor(None, sys.stdin.read)
    server.close()


def main(about: str | None, relay: Callable[[int], Callable[[], asyncio.Protocol]]) -> None:
    """Serve as the command line says; ``relay`` makes of the engine's port what makes a client's protocol."""
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("--engine-port", type=int, required=True)
    uvloop.run(_serve(relay(parser.parse_args().engine_port)))
