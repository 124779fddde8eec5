"""``filature worker audit`` and ``clear``: what is held against a worker, as the operator sees it."""

from typing import Annotated
from urllib.parse import quote

import typer

from filature.cli.session import Session
from filature.cli.tables import Column, show_json, show_table

Name = Annotated[str, typer.Argument(help="The worker's name.")]


def audit(session: Session, name: Name) -> None:
    """Show what a worker is marked for, and what was sampled of its claims: tokens claimed, and allowed for them."""
    answer = session.api.get(f"/workers/{quote(name, safe='')}/audit")
    if session.as_json:
        show_json(answer)
        return
    numbers = [Column(each, "number") for each in ("samples", "claimed", "allowed")]
    show_table(
        [Column("marked for"), Column("model"), *numbers, Column("since (UTC)", "time")],
        (
            (each["kind"], each["model"], *(each[key.title] for key in numbers), each["at_ms"])
            for each in answer["marks"]
        ),
        empty="It is not marked for anything.",
    )
    show_table(
        [Column("sampled"), Column("model"), *numbers],
        (
            (each["kind"], each["model"], *(each[key.title] for key in numbers))
            for each in answer["samples"]
        ),
        empty="Nothing of it was sampled since the proxy began.",
    )


def clear(session: Session, name: Name) -> None:
    """Hold nothing against a worker any more: it is believed, and paid out again."""
    answer = session.api.post(f"/workers/{quote(name, safe='')}/clear")
    if session.as_json:
        show_json(answer)
    else:
        print(f"Nothing is held against {name}; it is {answer['state']}.")
