"""``filature account``: accounts opened and shown, and money moved in and out of them."""

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from typing import Annotated, Any, Final
from urllib.parse import quote

import typer

from filature.cli.connect import CommandFailed
from filature.cli.session import Session, command, group
from filature.cli.tables import Column, credits_text, show_fields, show_json, show_table

PAGE: Final = 1000
Name = Annotated[str, typer.Argument(help="The account's name: alice, or worker:NAME.")]
Amount = Annotated[str, typer.Argument(help="Credits, such as 12.50.")]
Id = Annotated[
    str | None,
    typer.Option(
        "--id",
        help="An id of your own for the transfer, such as an invoice's number: the same one again "
        "is done once.",
    ),
]
Note = Annotated[str, typer.Option(help="Kept with the transfer.")]


class KindShown(StrEnum):
    """Kinds of accounts."""

    CLIENT = "client"
    WORKER = "worker"
    FEES = "fees"
    SHORTFALL = "shortfall"
    TREASURY = "treasury"


def register(app: typer.Typer) -> None:
    accounts = group(app, "account", "Prepaid accounts: open, show, top up, refund, pay out.")
    command(accounts, create, begins=True)
    for function in (list_, show, top_up, refund, payout):
        command(accounts, function)


def create(
    session: Session,
    name: Annotated[str, typer.Argument(help="Letters, digits and . _ @ + -")],
    worker: Annotated[
        bool, typer.Option("--worker", help="A worker's account, which earns.")
    ] = False,
) -> None:
    """Open an account. One that is there stays as it is."""
    kind = "worker" if worker else "client"
    account = session.api.post("/accounts", {"name": name, "kind": kind})
    if session.as_json:
        show_json(account)
    elif account["result"] == "exists":
        print(f"The account {account['name']} was there already.")
    else:
        print(f"Opened the account {account['name']}.")


def list_(
    session: Session,
    kind: Annotated[KindShown | None, typer.Option(help="Only accounts of this kind.")] = None,
) -> None:
    """List accounts with their balances, in credits."""
    accounts: list[dict[str, Any]] = []
    answer: dict[str, Any] = {"has_more": True}
    while answer["has_more"]:
        after = accounts[-1]["id"] if accounts else None
        answer = session.api.get("/accounts", kind=kind, after=after, limit=PAGE)
        accounts += answer["data"]
    if session.as_json:
        show_json({"object": "list", "data": accounts})
        return
    amounts = ("balance", "held", "available")
    show_table(
        [Column("account"), Column("kind"), *(Column(name, "amount") for name in amounts)],
        (
            (each["name"], each["kind"], *(each[f"{name}_nano"] for name in amounts))
            for each in accounts
        ),
        empty="There are no accounts yet: filature account create NAME",
    )


def show(session: Session, name: Name) -> None:
    """Show one account, in credits."""
    account = session.api.get(f"/accounts/{quote(name, safe=':')}")
    if session.as_json:
        show_json(account)
        return
    show_fields(
        [
            ("account", "text", account["name"]),
            ("kind", "text", account["kind"]),
            ("balance", "amount", account["balance_nano"]),
            ("held", "amount", account["held_nano"]),
            ("available", "amount", account["available_nano"]),
            ("paid in", "amount", account["credits_nano"]),
            ("spent", "amount", account["debits_nano"]),
            ("requests running", "number", account["holds"]),
        ]
    )


def top_up(session: Session, name: Name, amount: Amount, id_: Id = None, note: Note = "") -> None:
    """Pay credits into an account."""
    _move(session, "top-up", name, amount, id_, note)


def refund(session: Session, name: Name, amount: Amount, id_: Id = None, note: Note = "") -> None:
    """Pay credits back to a client, of what no running request holds."""
    _move(session, "refund", name, amount, id_, note)


def payout(session: Session, name: Name, amount: Amount, id_: Id = None, note: Note = "") -> None:
    """Pay a worker credits that it earned."""
    _move(session, "payout", name, amount, id_, note)


def _move(
    session: Session, movement: str, name: str, amount: str, id_: str | None, note: str
) -> None:
    transfer = id_ or new_id(movement)
    asked = {"amount": amount, "id": transfer, "note": note}
    with told_id(transfer):
        moved = session.api.post(f"/accounts/{quote(name, safe=':')}/{movement}", asked)
    if session.as_json:
        show_json(moved)
        return
    account = moved["account"]
    done = {"top-up": "Topped up", "refund": "Refunded", "payout": "Paid out"}[movement]
    if moved["result"] == "exists":
        done = "Done before, nothing happened now:"
    print(
        f"{done} {account['name']} {credits_text(moved['amount_nano'])} credits (id {moved['id']}); "
        f"available: {credits_text(account['available_nano'])}"
    )


def new_id(movement: str) -> str:
    return f"{movement}-{secrets.token_hex(8)}"


@contextmanager
def told_id(id_: str) -> Iterator[None]:
    """When it is not known whether a transfer was made, say how to find out."""
    try:
        yield
    except CommandFailed as error:
        if error.unknown:
            error.message += (
                f" It is not known whether it was done: give the same again with --id {id_}, and "
                "it is done once."
            )
        raise
