"""``filature up``: a proxy with its engines, in one command. Serving itself is ``filature.proxy``'s."""

import errno
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, NoReturn

import typer

if TYPE_CHECKING:
    from filature.cli.demo_child import DemoChild
    from filature.proxy.settings import ProxySettings

CHOICE_WRONG: Final = 2
"""Exit status for settings that cannot be used; 1 is for what went wrong with good ones."""


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
    host: Annotated[str | None, typer.Option(help="Address to listen on. [127.0.0.1]")] = None,
    port: Annotated[int | None, typer.Option(help="Port for clients. [10080]")] = None,
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
    demo: Annotated[Demo, typer.Option(help="What answers when there is no --engine.")] = Demo.AUTO,
) -> None:
    """Serve an OpenAI-compatible endpoint in front of your engines.

    Without --engine a small demonstration model answers, on this machine's CPU, or a scripted one
    where that is not installed. Every setting can also be given as FILATURE_…: docs/settings.md.
    """
    given = {name: value for name, value in locals().items() if value is not None}
    del given["demo"]
    if engine:
        given["engines"] = given.pop("engine")
    settings = _settings(given)
    if settings.engines:
        _serve(settings, None)
        return
    from filature.cli.demo_child import DemoChild, DemoFailedError  # noqa: PLC0415  # --help is quick

    typer.echo("No --engine was given: starting the demonstration engine …")
    try:
        with DemoChild(demo.value) as child:
            _serve(settings.model_copy(update={"engines": [child.url]}), child)
            ended = child.status
    except DemoFailedError as error:
        _fail(str(error))
    if ended is not None:
        raise typer.Exit(1)


def _settings(given: dict[str, Any]) -> "ProxySettings":
    """The settings, or one line for each that is wrong."""
    from pydantic import ValidationError  # noqa: PLC0415  # --help is quick

    from filature.proxy.settings import ProxySettings  # noqa: PLC0415  # as above

    try:
        settings = ProxySettings(**given)
    except ValidationError as error:
        lines = []
        for problem in error.errors():
            name = "-".join(str(part) for part in problem["loc"][:1])
            message = problem["msg"].removeprefix("Value error, ")
            lines.append(f"--{name.replace('_', '-').replace('engines', 'engine')}: {message}")
        _fail("\n".join(lines), CHOICE_WRONG)
    for name in ("engine_ca", "tls_cert", "tls_key"):
        path: Path | None = getattr(settings, name)
        if path is not None and not path.is_file():
            _fail(f"--{name.replace('_', '-')}: there is no file {path}", CHOICE_WRONG)
    if (settings.tls_cert is None) != (settings.tls_key is None):
        _fail("--tls-cert and --tls-key belong together: give both", CHOICE_WRONG)
    return settings


def _serve(settings: "ProxySettings", child: "DemoChild | None") -> None:
    import ssl  # noqa: PLC0415  # --help is quick

    import uvloop  # noqa: PLC0415  # as above

    from filature.cli.announce import Announcement  # noqa: PLC0415  # as above
    from filature.errors import StoreError  # noqa: PLC0415  # as above
    from filature.proxy.app import serve  # noqa: PLC0415  # as above
    from filature.telemetry.log import configure_logging  # noqa: PLC0415  # as above

    configure_logging(settings.log_level)
    announcement = Announcement(settings, child)
    try:
        uvloop.run(serve(settings, announcement.listening))
    except ssl.SSLError as error:
        _fail(f"TLS: the certificate, key or CA file cannot be used: {error}", CHOICE_WRONG)
    except StoreError as error:
        _fail(error.message)
    except OSError as error:
        hint = ""
        if error.errno == errno.EADDRINUSE:
            hint = "; choose others with --port and --admin-port (0: any free one)"
        _fail(f"cannot listen: {error.strerror or error}{hint}")


def _fail(message: str, status: int = 1) -> NoReturn:
    for line in message.splitlines():
        sys.stderr.write(f"filature up: {line}\n")
    raise typer.Exit(status)
