"""A store with its admin server in a thread, as a running proxy has it, for commands that ask one."""

import asyncio
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from filature.admin.server import AdminServer
from filature.admin.workers import Registry
from filature.proxy.settings import DATABASE_FILE
from filature.store.data_dir import RunningProxy, admin_token, remove_note, write_note
from filature.store.store import Store
from filature.telemetry.metrics import Metrics

WAIT_S: Final = 20.0


class Running:
    """What runs. ``call`` has something done in its event loop."""

    def __init__(self, folder: Path, workers: Registry | None) -> None:
        self.folder = folder
        self.workers = workers
        self.database = f"sqlite:///{folder / DATABASE_FILE}"
        self.token = admin_token(folder)
        self.loop = asyncio.new_event_loop()
        self.stop = asyncio.Event()
        self.started = threading.Event()
        self.error: BaseException | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.port}"

    async def serve(self) -> None:
        self.store = await Store.open(self.database)
        try:
            self.server = AdminServer(
                Metrics(),
                "127.0.0.1",
                0,
                store=self.store,
                token=self.token,
                workers=self.workers,
            )
            await self.server.start()
            write_note(self.folder, RunningProxy(os.getpid(), self.url, self.store.database.name))
            self.started.set()
            await self.stop.wait()
            await self.server.stop()
        finally:
            remove_note(self.folder, os.getpid())
            await self.store.close()

    def run(self) -> None:
        try:
            self.loop.run_until_complete(self.serve())
        except BaseException as error:  # noqa: BLE001  # told by the test's thread
            self.error = error
        finally:
            self.loop.close()
            self.started.set()


@contextmanager
def serving(folder: Path, workers: Registry | None = None) -> Iterator[Running]:
    running = Running(folder, workers)
    thread = threading.Thread(target=running.run)
    thread.start()
    try:
        assert running.started.wait(WAIT_S)
        if running.error is None:
            yield running
    finally:
        if not running.loop.is_closed():
            running.loop.call_soon_threadsafe(running.stop.set)
        thread.join(WAIT_S)
        if running.error is not None:
            raise running.error
