"""``filature postprocess``: the postprocessor alone, bytes in and bytes out. No network, no settings."""

import sys
from io import BufferedReader
from pathlib import Path
from typing import Annotated, Final, cast

import typer

from filature.cli.seed_terms import (
    MULTIPLIER_ONE,
    Api,
    Multipliers,
    policy_of,
    process,
    tariff_of,
    usage_line,
)

_READ_BYTES: Final = 64 * 1024


def register(app: typer.Typer) -> None:
    app.command("postprocess")(postprocess)


def _opened(file: Path) -> BufferedReader:
    """Ends the command where it cannot be read."""
    try:
        return file.open("rb")
    except FileNotFoundError:
        why = f"there is no file {file}"
    except OSError as error:
        why = f"{file}: {error.strerror}"
    sys.stderr.write(f"filature postprocess: {why}\n")
    raise typer.Exit(2)


def postprocess(  # noqa: PLR0913, PLR0917  # a command's options are its arguments
    file: Annotated[
        Path | None,
        typer.Argument(help="The body of an engine's answer, unframed; standard input without it."),
    ] = None,
    api: Annotated[Api, typer.Option(help="The API that the answer is of.")] = Api.CHAT,
    price_per_token: Annotated[
        int, typer.Option(min=0, help="Nano-credits per token at multiplier and coefficient 1.0.")
    ] = 100,
    coefficient: Annotated[int, typer.Option(min=0, help="1000 is 1.0.")] = 1000,
    prompt_multiplier: Annotated[int, typer.Option(min=0, help="10000 is 1.0.")] = MULTIPLIER_ONE,
    cached_multiplier: Annotated[int, typer.Option(min=0, help="10000 is 1.0.")] = MULTIPLIER_ONE,
    completion_multiplier: Annotated[
        int, typer.Option(min=0, help="10000 is 1.0.")
    ] = MULTIPLIER_ONE,
    reasoning_multiplier: Annotated[
        int, typer.Option(min=0, help="10000 is 1.0.")
    ] = MULTIPLIER_ONE,
    split: Annotated[
        int | None, typer.Option(min=1, help="Feed so many bytes at a time; 1 is byte by byte.")
    ] = None,
    as_requested: Annotated[
        bool,
        typer.Option(
            "--as-requested/--forward-usage",
            help="Take out the usage that a client did not ask for, as the proxy does in chat and "
            "completions streams; or forward everything.",
        ),
    ] = False,
    selftest: Annotated[
        bool, typer.Option("--selftest", help="Run three known answers through it and judge.")
    ] = False,
) -> None:
    """Post-process an engine's answer: what a client gets on stdout, its usage on stderr."""
    multipliers = Multipliers(
        prompt_multiplier, cached_multiplier, completion_multiplier, reasoning_multiplier
    )
    tariff = tariff_of(price_per_token, multipliers, coefficient)
    if selftest:
        from filature.cli.selftest import run  # noqa: PLC0415  # --help is quick

        raise typer.Exit(run())
    stdin = cast(BufferedReader, sys.stdin.buffer)  # which it is, said or not
    source = stdin if file is None else _opened(file)
    with source:
        read = source.read1 if split is None else source.read
        pieces = iter(lambda: read(split or _READ_BYTES), b"")
        usage, unprocessed = process(
            pieces, sys.stdout.buffer, api, policy_of(tariff, as_requested)
        )
    sys.stdout.buffer.flush()
    if unprocessed:
        sys.stderr.write(f"unprocessed data in answer: bytes={unprocessed}\n")
    sys.stderr.write(usage_line(usage, multipliers, coefficient) + "\n")
