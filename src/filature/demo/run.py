"""The engine as a process: started, told to a person, ended by a signal."""

import asyncio
import os
import signal
import sys
from collections.abc import Callable

import uvloop

from filature.demo.model import ModelBackend
from filature.demo.model_files import CONTEXT_LENGTH, MODEL_NAME
from filature.demo.options import Script
from filature.demo.server import DemoEngine, EngineOptions


def run(
    *,
    use_model: bool,
    models: tuple[str, ...],
    context_length: int | None,
    script: Script,
    host: str,
    port: int,
    listening: Callable[[str, tuple[str, ...]], None],
) -> None:
    """Serve until SIGINT or SIGTERM. ``listening`` gets the URL and the models' names.

    Raises ``ModelLoadError`` and ``OSError``.
    """
    names = models or ((MODEL_NAME,) if use_model else ("demo",))
    context = context_length or (CONTEXT_LENGTH if use_model else 8192)
    options = EngineOptions(models=names, context_length=context, script=script)

    model = ModelBackend.load() if use_model else None

    async def serve() -> None:
        engine = DemoEngine(options, model=model)
        await engine.start(host, port)
        listening(engine.url, names)
        stopped = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, stopped.set)
        await stopped.wait()
        await engine.close()

    uvloop.run(serve())
    if model is not None and not model.close():
        sys.stdout.flush()
        os._exit(0)  # the interpreter cannot end under a thread that is inside the library
