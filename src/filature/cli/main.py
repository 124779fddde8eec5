"""``filature``: the commands put together. What a command does is in its own file."""

import io
import os
import sys
from typing import Annotated

import typer

from filature import __version__
from filature.cli import (
    account,
    db,
    demo_engine,
    key,
    ledger,
    payout,
    postprocess,
    price,
    proxy,
    up,
    usage,
    worker,
    worker_token,
)

app = typer.Typer(
    name="filature",
    help="An OpenAI-compatible inference network: answers relayed unbroken, metered and priced.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"filature {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    """Options of all commands."""
    _have_standard_streams()


def _have_standard_streams() -> None:
    """Started without one of them, the first files and sockets that are opened would be given their numbers."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode))  # noqa: PTH123, SIM115 - for as long as we live
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors == "strict":
        sys.stdout.reconfigure(
            errors="backslashreplace"
        )  # as stderr: not every locale has all names


for _group in (
    up,
    proxy,
    worker,
    account,
    key,
    worker_token,
    payout,
    price,
    usage,
    ledger,
    db,
    postprocess,
    demo_engine,
):
    _group.register(app)
