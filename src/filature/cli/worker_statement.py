"""``filature worker statement``: what a proxy signed that it owes, checked without asking anybody."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from filature.cli.connect import CHOICE_WRONG, FAILED
from filature.cli.serving import fail
from filature.cli.tables import show_fields, show_json

if TYPE_CHECKING:
    from filature.wire.statement import ProxyKey, Statement

_COMMAND = "worker statement verify"


def register(workers: typer.Typer) -> None:
    statements = typer.Typer(help="Earnings statements, which proxies sign.", no_args_is_help=True)
    statements.command("verify")(verify)
    workers.add_typer(statements, name="statement")


def verify(
    file: Annotated[
        Path,
        typer.Argument(metavar="FILE", help="statement.jws in the worker's data directory."),
    ],
    proxy_key: Annotated[
        str | None,
        typer.Option(
            metavar="FILE|TEXT",
            help="The proxy's public key: a JWK set, a JWK, or the key alone in base64url. "
            "(proxy-keys.json beside FILE: the key that the worker saw first)",
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print what it says as JSON.")] = False,
) -> None:
    """Check who signed an earnings statement, and print what is owed. Ends with status 1 when it is forged."""
    from filature.wire.statement import StatementError, check_by  # noqa: PLC0415  # --help is quick
    from filature.worker.statements import read_file  # noqa: PLC0415  # as above

    try:
        text = read_file(file)
    except OSError as error:
        fail(_COMMAND, f"{file} cannot be read: {error.strerror}", CHOICE_WRONG)
    except ValueError as error:
        fail(_COMMAND, f"{file} cannot be read: {error}", CHOICE_WRONG)
    keys = _keys(file, proxy_key)
    try:
        statement = check_by(list(keys), text)
    except StatementError as error:
        fail(_COMMAND, f"{file} is NOT a statement of this proxy: {error}", FAILED)
    key = next(each for each in keys if each.issuer == statement.iss)
    if as_json:
        show_json(
            {"object": "earnings_statement", "proxy": keys[key], "key": key.id}
            | statement.model_dump()
            | {"owed_nano": statement.owed_nano}
        )
    else:
        _show(statement, keys[key], key)


def _keys(file: Path, proxy_key: str | None) -> "dict[ProxyKey, str | None]":
    """Those that it may be signed by, with the proxy that each was pinned for."""
    from filature.wire.statement import StatementError, read_keys  # noqa: PLC0415  # --help is quick
    from filature.worker.statements import (  # noqa: PLC0415  # as above
        KEYS_FILE,
        pinned_keys,
        read_file,
    )

    try:
        if proxy_key is not None:
            given = Path(proxy_key)
            is_file = not proxy_key.lstrip().startswith("{") and given.is_file()
            return dict.fromkeys(read_keys(read_file(given) if is_file else proxy_key))
        pinned = pinned_keys(file.parent / KEYS_FILE)
    except (OSError, ValueError, StatementError) as error:
        fail(_COMMAND, f"the proxy's key: {error}", CHOICE_WRONG)
    if not pinned:
        fail(
            _COMMAND,
            f"there is no {KEYS_FILE} beside {file}: give the proxy's key by --proxy-key",
            CHOICE_WRONG,
        )
    return {key: url for url, keys in pinned.items() for key in keys}


def _show(statement: "Statement", proxy: str | None, key: "ProxyKey") -> None:
    show_fields(
        [
            ("worker", "text", statement.sub),
            ("proxy", "text", proxy),
            ("signed by", "text", key.id),
            ("as of (UTC)", "time", statement.iat * 1000),
            ("requests", "number", statement.requests),
            ("earned", "amount", statement.earned_nano),
            ("paid", "amount", statement.paid_nano),
            ("corrected", "amount", statement.corrected_nano),
            ("owed", "amount", statement.owed_nano),
        ]
    )
