"""What the commands that serve share: settings from options, what is wrong with them, the loop that runs."""

import errno
import os
import sys
from collections.abc import Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, NoReturn, TypeVar

import typer

from filature.cli.connect import CHOICE_WRONG, FAILED

if TYPE_CHECKING:
    from pydantic_settings import BaseSettings

    from filature.cli.demo_child import DemoChild
    from filature.proxy.settings import ProxySettings

SEVERAL: Final = {"engine": "engines", "proxy": "proxies", "allow_field": "allow_fields"}
"""Options that may be given several times, and the settings that hold what they say."""
_PORT_OPTIONS: Final = "others with --port and --admin-port"

S = TypeVar("S", bound="BaseSettings")

# options of every command that runs a proxy
Host = Annotated[str | None, typer.Option(help="Address to listen on. [127.0.0.1]")]
Port = Annotated[int | None, typer.Option(help="Port for clients and workers. [10080]")]
AdminPort = Annotated[
    int | None, typer.Option(help="Port of the admin API and of metrics. [10081]")
]
TlsCert = Annotated[Path | None, typer.Option(help="Certificate chain (PEM): serve https.")]
TlsKey = Annotated[Path | None, typer.Option(help="The certificate's private key.")]
DataDir = Annotated[
    Path | None,
    typer.Option(help="Folder of the ledger and the admin token. [~/.local/share/filature]"),
]
Tokenizers = Annotated[
    Path | None,
    typer.Option(help="Folder of models' tokenizers, by which workers' claims are recounted."),
]
Database = Annotated[
    str | None,
    typer.Option(
        metavar="URL",
        help="The ledger's database: postgresql://… or sqlite:///…. (a file in --data-dir)",
    ),
]


def option_of(setting: str) -> str:
    """``--allow-field`` of ``allow_fields``; whether a command has it is another question."""
    names = {several: one for one, several in SEVERAL.items()}
    return f"--{names.get(setting, setting).replace('_', '-')}"


def settings_of(command: str, kind: type[S], given: dict[str, Any], files: tuple[str, ...]) -> S:
    """The settings by options, as ``given`` by their names, or one line for each that is wrong.

    ``files``: those that name a file that has to be there.
    """
    from pydantic import ValidationError  # noqa: PLC0415  # --help is quick

    from filature.errors import StoreError  # noqa: PLC0415  # as above

    given = {SEVERAL.get(name, name): value for name, value in given.items() if value != []}
    _say_unknown(command)
    try:
        settings = kind(**given)
    except ValidationError as error:
        lines = []
        for problem in error.errors():
            name = "-".join(str(part) for part in problem["loc"][:1])
            message = problem["msg"].removeprefix("Value error, ")
            missing = problem["type"] == "missing"
            place = option_of(name)
            if name not in given and not missing:  # some have no option
                place = f"{kind.model_config['env_prefix']}{name}".upper()
            lines.append(f"{place}: {'is needed' if missing else message}")
        fail(command, "\n".join(lines), CHOICE_WRONG)
    except StoreError as error:
        fail(command, error.message, CHOICE_WRONG)
    for name in files:
        path: Path | None = getattr(settings, name)
        try:
            there = path is None or path.is_file()
        except OSError as error:
            fail(command, f"{option_of(name)}: {path}: {error.strerror}", CHOICE_WRONG)
        if not there:
            fail(command, f"{option_of(name)}: there is no file {path}", CHOICE_WRONG)
        if path is not None and not os.access(path, os.R_OK):
            fail(command, f"{option_of(name)}: {path} may not be read by this user", CHOICE_WRONG)
    return settings


def _say_unknown(command: str) -> None:
    """Variables that nothing reads: a mistyped one would leave its setting as it is without a word."""
    from filature.proxy.settings import ProxySettings  # noqa: PLC0415  # --help is quick
    from filature.worker.settings import WorkerSettings  # noqa: PLC0415  # as above

    known = {"FILATURE_ADMIN_URL"}
    for kind in (ProxySettings, WorkerSettings):
        prefix = kind.model_config["env_prefix"]
        known.update(f"{prefix}{name}".upper() for name in kind.model_fields)
    for name in sorted(os.environ):
        if name.upper().startswith("FILATURE_") and name.upper() not in known:
            sys.stderr.write(f"filature {command}: {name} is no setting: see docs/settings.md\n")


def default_folder(command: str) -> Path:
    """The data directory where none is given."""
    from filature.errors import StoreError  # noqa: PLC0415  # --help is quick
    from filature.proxy.settings import default_data_dir  # noqa: PLC0415  # as above

    try:
        return default_data_dir()
    except StoreError as error:
        fail(command, error.message, CHOICE_WRONG)


def proxy_settings(command: str, given: dict[str, Any]) -> "ProxySettings":
    from filature.proxy.settings import ProxySettings  # noqa: PLC0415  # --help is quick

    settings = settings_of(command, ProxySettings, given, ("engine_ca", "tls_cert", "tls_key"))
    if (settings.tls_cert is None) != (settings.tls_key is None):
        fail(command, "--tls-cert and --tls-key belong together: give both", CHOICE_WRONG)
    return settings


def serve_proxy(
    command: str, settings: "ProxySettings", child: "DemoChild | None", *, split: bool = False
) -> None:
    """Until it is told to stop. ``split``: the engines are those of a worker, in this process too."""
    from filature.cli.announce import Announcement  # noqa: PLC0415  # --help is quick
    from filature.cli.split_roles import serve_split  # noqa: PLC0415  # as above
    from filature.proxy.app import serve  # noqa: PLC0415  # as above

    listening = Announcement(settings, child).listening
    serving = serve_split(settings, listening) if split else serve(settings, listening)
    run(command, serving, settings.log_level)


def run(command: str, serving: Coroutine[Any, Any, None], log_level: str) -> None:
    """Run a role, and say in one line why it could not."""
    import ssl  # noqa: PLC0415  # --help is quick

    import uvloop  # noqa: PLC0415  # as above

    from filature.errors import StoreError  # noqa: PLC0415  # as above
    from filature.proxy.audit.recount import TokenizersMissing  # noqa: PLC0415  # as above
    from filature.relay.open_files import raise_open_files  # noqa: PLC0415  # as above
    from filature.telemetry.log import configure_logging  # noqa: PLC0415  # as above

    messages = configure_logging(log_level)
    raise_open_files()
    try:
        try:
            uvloop.run(serving)
        finally:
            messages.close()
    except ssl.SSLError as error:
        fail(command, f"TLS: the certificate, key or CA file cannot be used: {error}", CHOICE_WRONG)
    except StoreError as error:
        fail(command, error.message)
    except TokenizersMissing as error:
        fail(command, f"--tokenizers: {error}", CHOICE_WRONG)
    except OSError as error:
        hint = ""
        if error.errno == errno.EADDRINUSE:
            options = "another with --metrics" if command == "worker" else _PORT_OPTIONS
            hint = f"; choose {options} (0: any free one)"
        fail(command, f"cannot listen: {error.strerror or error}{hint}")


def fail(command: str, message: str, status: int = FAILED) -> NoReturn:
    for line in message.splitlines():
        sys.stderr.write(f"filature {command}: {line}\n")
    raise typer.Exit(status)
