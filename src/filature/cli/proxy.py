"""``filature proxy``: an endpoint whose answers come from workers that join it. Serving is ``filature.proxy``'s."""

from typing import Annotated

import typer

from filature.cli.serving import (
    AdminPort,
    Database,
    DataDir,
    Host,
    Port,
    TlsCert,
    TlsKey,
    Tokenizers,
    proxy_settings,
    serve_proxy,
)


def register(app: typer.Typer) -> None:
    app.command("proxy")(proxy)


def proxy(  # noqa: PLR0913, PLR0917  # a command's options are its arguments
    host: Host = None,
    port: Port = None,
    admin_port: AdminPort = None,
    tls_cert: TlsCert = None,
    tls_key: TlsKey = None,
    data_dir: DataDir = None,
    database: Database = None,
    tokenizers: Tokenizers = None,
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
    serve_proxy("proxy", proxy_settings("proxy", given), None)
