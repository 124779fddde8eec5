"""The engine as a process: started, told to a person, ended by a signal."""

import asyncio
import signal
from collections.abc import Callable

import uvloop

from filature.demo.model_files import MODEL_NAME
from filature.demo.options import Script
from filature.demo.server import DemoEngine, EngineOptions


class BackendError(Exception):
    """The model could not be loaded."""


def run(
    *,
    use_model: bool,
    models: tuple[str, ...],
    context_length: int,
    script: Script,
    host: str,
    port: int,
    listening: Callable[[str, tuple[str, ...]], None],
) -> None:
    """Serve until SIGINT or SIGTERM. ``listening`` gets the URL and the models' names.

    Raises ``BackendError`` and ``OSError``.
    """
    names = models or ((MODEL_NAME,) if use_model else ("demo",))
    options = EngineOptions(models=names, context_length=context_length, script=script)

    async def serve() -> None:
        engine = DemoEngine(options)
        await engine.start(host, port)
        listening(engine.url, names)
        stopped = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, stopped.set)
        await stopped.wait()
        await engine.close()

    uvloop.run(serve())
