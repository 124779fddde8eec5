"""``filature proxy``: an endpoint whose answers come from workers that join it. Serving is ``filature.proxy``'s."""

from pathlib import Path
from typing import Annotated

import typer

from filature.cli.serving import proxy_settings, serve_proxy


def register(app: typer.Typer) -> None:
    app.command("proxy")(proxy)


def proxy(  # a command's options are its arguments
    host: Annotated[str | None, typer.Option(help="Address to listen on. [127.0.0.1]")] = None,
    port: Annotated[int | None, typer.Option(help="Port for clients and workers. [10080]")] = None,
    admin_port: Annotated[int | None, typer.Option(help="Port for metrics. [10081]")] = None,
    tls_cert: Annotated[
        Path | None, typer.Option(help="Certificate chain (PEM): serve https.")
    ] = None,
    tls_key: Annotated[Path | None, typer.Option(help="The certificate's private key.")] = None,
    data_dir: Annotated[
        Path | None,
        typer.Option(help="Folder of the ledger and the admin token. [~/.local/share/filature]"),
    ] = None,
    database: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="The ledger's database: postgresql://… or sqlite:///…. (a file in --data-dir)",
        ),
    ] = None,
    engine: Annotated[
        list[str] | None,
        typer.Option(metavar="URL", help="An engine of your own beside the workers."),
    ] = None,
) -> None:
    """Serve an OpenAI-compatible endpoint whose engines are at workers: they dial in, with a token.

    `filature worker-token create NAME` makes one. Every setting can also be given as FILATURE_…:
    docs/settings.md.
    """
    given = {name: value for name, value in locals().items() if value is not None}
    if engine:
        given["engines"] = given.pop("engine")
    serve_proxy("proxy", proxy_settings("proxy", given), None)
