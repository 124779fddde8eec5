"""``filature worker change``: what a running worker asks and takes, said by its owner on its machine."""

from pathlib import Path
from typing import Annotated

import typer

from filature.cli.connect import CHOICE_WRONG
from filature.cli.serving import default_folder, fail

_COMMAND = "worker change"


def register(workers: typer.Typer) -> None:
    workers.command("change")(change)


def change(
    coefficient: Annotated[
        int | None, typer.Option(help="What you ask from now on, in thousandths.")
    ] = None,
    max_requests: Annotated[int | None, typer.Option(help="Requests at once, from now on.")] = None,
    data_dir: Annotated[
        Path | None,
        typer.Option(
            envvar="FILATURE_WORKER_DATA_DIR",
            help="The worker's, where it has one of its own. [~/.local/share/filature/worker]",
        ),
    ] = None,
) -> None:
    """Change the price or the capacity of the worker that runs on this machine, until it is started anew.

    Requests that were promised the earlier price are answered at that.
    """
    from pydantic import ValidationError  # noqa: PLC0415  # --help is quick

    from filature.worker.settings import OUTBOX_FILE  # noqa: PLC0415  # as above
    from filature.worker.terms import (  # noqa: PLC0415  # as above
        Change,
        TermsError,
        read_change,
        write_change,
    )

    given = {"coefficient": coefficient, "max_requests": max_requests}
    given = {name: value for name, value in given.items() if value is not None}
    if not given:
        fail(_COMMAND, "give --coefficient, --max-requests or both", CHOICE_WRONG)
    folder = data_dir or default_folder(_COMMAND) / "worker"
    try:
        if not (folder / OUTBOX_FILE).exists():
            fail(_COMMAND, f"{folder} is no worker's data directory: --data-dir", CHOICE_WRONG)
        wanted = Change.model_validate(read_change(folder).model_dump() | given)
        write_change(folder, wanted)
    except ValidationError as error:
        first = error.errors()[0]
        option = str(first["loc"][0]).replace("_", "-")
        fail(_COMMAND, f"--{option}: {first['msg']}", CHOICE_WRONG)
    except (TermsError, OSError) as error:
        fail(_COMMAND, str(error))
    said = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in given.items())
    print(f"From now on: {said}. The worker reads it within a second.")
