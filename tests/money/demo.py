"""The demonstration engine in the tests' own process."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from filature.demo.options import Script
from filature.demo.server import DemoEngine, EngineOptions


@asynccontextmanager
async def demo_engine(context_length: int = 8192, **script: Any) -> AsyncIterator[DemoEngine]:
    """A scripted one; ``script`` is how it answers where a request says nothing else."""
    engine = DemoEngine(EngineOptions(context_length=context_length, script=Script(**script)))
    await engine.start()
    try:
        yield engine
    finally:
        await engine.close()
