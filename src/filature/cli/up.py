"""``filature up``: a proxy with its engines, in one command. Serving itself is ``filature.proxy``'s."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from filature.cli.announce import say
from filature.cli.serving import (
    AdminPort,
    Database,
    DataDir,
    Host,
    Port,
    TlsCert,
    TlsKey,
    fail,
    proxy_settings,
    serve_proxy,
)


class Demo(StrEnum):
    """What stands in when no engine is given."""

    AUTO = "auto"
    MODEL = "model"
    SCRIPTED = "scripted"


def register(app: typer.Typer) -> None:
    app.command("up")(up)


def up(  # noqa: PLR0913, PLR0917  # a command's options are its arguments
    engine: Annotated[
        list[str] | None,
        typer.Option(
            metavar="URL[=ALIAS:NAME,…]",
            help="An OpenAI-compatible engine; may be given several times. ALIAS:NAME names its "
            "models by hand: clients say ALIAS, the engine is asked for NAME.",
        ),
    ] = None,
    engine_key: Annotated[
        str | None, typer.Option(help="The engines' own API key (better: FILATURE_ENGINE_KEY).")
    ] = None,
    engine_ca: Annotated[
        Path | None, typer.Option(help="CA certificates (PEM) for https engines.")
    ] = None,
    host: Host = None,
    port: Port = None,
    admin_port: AdminPort = None,
    tls_cert: TlsCert = None,
    tls_key: TlsKey = None,
    data_dir: DataDir = None,
    database: Database = None,
    price_in: Annotated[
        str | None, typer.Option(help="Credits per million prompt tokens. [0.20]")
    ] = None,
    price_cached: Annotated[str | None, typer.Option(help="The same, cached ones. [0.02]")] = None,
    price_out: Annotated[
        str | None, typer.Option(help="Credits per million completion tokens. [0.80]")
    ] = None,
    price_reasoning: Annotated[
        str | None, typer.Option(help="The same, reasoning ones. (as --price-out)")
    ] = None,
    price_request: Annotated[str | None, typer.Option(help="Credits per request. [0]")] = None,
    split_roles: Annotated[
        bool, typer.Option(help="Run proxy and worker, with a tunnel between them.")
    ] = False,
    demo: Annotated[Demo, typer.Option(help="What answers when there is no --engine.")] = Demo.AUTO,
) -> None:
    """Serve an OpenAI-compatible endpoint in front of your engines.

    Without --engine a small demonstration model answers, on this machine's CPU, or a scripted one
    where that is not installed. Every setting can also be given as FILATURE_…: docs/settings.md.
    """
    given = {name: value for name, value in locals().items() if value is not None}
    del given["demo"], given["split_roles"]
    settings = proxy_settings("up", given)
    if settings.engines:
        serve_proxy("up", settings, None, split=split_roles)
        return
    from filature.cli.demo_child import DemoChild, DemoFailedError  # noqa: PLC0415  # --help is quick

    say("No --engine was given: starting the demonstration engine …")
    try:
        with DemoChild(demo.value) as child:
            settings = settings.model_copy(update={"engines": [child.url]})
            serve_proxy("up", settings, child, split=split_roles)
            ended = child.status
    except DemoFailedError as error:
        fail("up", str(error))
    if ended is not None:
        raise typer.Exit(1)
