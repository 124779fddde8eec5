"""``filature worker``: sells the tokens of the engine beside it. The work is ``filature.worker``'s."""

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from filature.cli.serving import run, settings_of

if TYPE_CHECKING:
    from filature.worker.app import Worker

_LOOK_S: Final = 0.1


def register(app: typer.Typer) -> None:
    app.command("worker")(worker)


def worker(  # noqa: PLR0913, PLR0917  # a command's options are its arguments
    proxy: Annotated[
        list[str] | None,
        typer.Option(metavar="URL", help="A proxy to join; may be given several times."),
    ] = None,
    token: Annotated[
        str | None,
        typer.Option(help="The token that its operator gave you (better: FILATURE_WORKER_TOKEN)."),
    ] = None,
    engine: Annotated[
        list[str] | None,
        typer.Option(
            metavar="URL[=ALIAS:NAME,…]",
            help="Your OpenAI-compatible engine; may be given several times.",
        ),
    ] = None,
    coefficient: Annotated[
        int | None,
        typer.Option(help="What you ask, in thousandths of the proxy's prices. [1000]"),
    ] = None,
    max_requests: Annotated[int | None, typer.Option(help="Requests at once. [64]")] = None,
    engine_key: Annotated[
        str | None,
        typer.Option(help="The engine's own API key (better: FILATURE_WORKER_ENGINE_KEY)."),
    ] = None,
    engine_ca: Annotated[
        Path | None, typer.Option(help="CA certificates (PEM) for https engines.")
    ] = None,
    proxy_ca: Annotated[
        Path | None, typer.Option(help="CA certificates (PEM) for https proxies.")
    ] = None,
    context_length: Annotated[
        int | None,
        typer.Option(help="Tokens of the context, where the engine does not tell. [8192]"),
    ] = None,
    data_dir: Annotated[
        Path | None,
        typer.Option(help="Folder of unacknowledged reports. [~/.local/share/filature/worker]"),
    ] = None,
) -> None:
    """Join proxies with your engine. Nothing listens here: the worker dials out.

    The prompts of strangers come to this machine, and your engine answers them. Every setting can also be
    given as FILATURE_WORKER_…: docs/settings.md.
    """
    given: dict[str, Any] = {name: value for name, value in locals().items() if value is not None}
    for name, plural in (("proxy", "proxies"), ("engine", "engines")):
        if name in given:
            given[plural] = given.pop(name)
    from filature.proxy.settings import default_data_dir  # noqa: PLC0415  # --help is quick
    from filature.worker.app import serve  # noqa: PLC0415  # as above
    from filature.worker.settings import WorkerSettings  # noqa: PLC0415  # as above

    settings = settings_of("worker", WorkerSettings, given, ("engine_ca", "proxy_ca"))
    if "data_dir" not in settings.model_fields_set:
        settings = settings.model_copy(update={"data_dir": default_data_dir() / "worker"})
    run("worker", serve(settings, _Announcement().started), settings.log_level)


class _Announcement:
    """Prints once when it begins, once for each proxy that was joined."""

    def __init__(self) -> None:
        self._tasks: list[asyncio.Task[None]] = []

    def started(self, worker: "Worker") -> None:
        engines = ", ".join(worker.settings.engines)
        print(f"Filature worker before {engines}; Ctrl-C ends it.", flush=True)
        self._tasks.append(asyncio.get_running_loop().create_task(self._watch(worker)))

    async def _watch(self, worker: "Worker") -> None:
        left = list(worker.links)
        while left:
            for link in [link for link in left if link.joined and link.tunnels.ready]:
                models = ", ".join(worker.engines.models())
                print(f"Joined {link.url} with {models}", flush=True)
                left.remove(link)
            await asyncio.sleep(_LOOK_S)
