"""``filature ledger``: whether it is sound, all its transfers, its trial balance, and corrections."""

import os
import sys
from contextlib import suppress
from enum import StrEnum
from pathlib import Path
from typing import Annotated
from urllib.parse import quote

import typer

from filature.cli.account import Amount, Id, Note, new_id, told_id
from filature.cli.connect import CHOICE_WRONG, FAILED, CommandFailed
from filature.cli.session import Session, command, group
from filature.cli.tables import Column, credits_text, show_json, show_table


class Form(StrEnum):
    """What an export is written in."""

    JSONL = "jsonl"
    CSV = "csv"


def register(app: typer.Typer) -> None:
    ledger = group(app, "ledger", "The ledger: check, export, trial balance, corrections.")
    for function in (check, export, balance, correct):
        command(ledger, function)


def check(session: Session) -> None:
    """Check all invariants over everything stored. Ends with status 1 when something is wrong."""
    report = session.api.get("/ledger/check")
    if session.as_json:
        show_json(report)
    else:
        counted = ", ".join(
            f"{report[name]} {name.replace('_', ' ')}"
            for name in ("accounts", "transfers", "holds", "usage_records")
        )
        print(f"{'Sound' if report['ok'] else 'NOT sound'}: {counted}.")
        if not report["ok"]:
            show_table(
                [Column("rule"), Column("of"), Column("what is wrong")],
                (
                    (each["invariant"], each["subject"], each["message"])
                    for each in report["violations"]
                ),
            )
            if report["violations_left_out"]:
                print(f"and {report['violations_left_out']} more")
    if not report["ok"]:
        raise typer.Exit(FAILED)


def export(
    session: Session,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="A file; standard output without it.")
    ] = None,
    form: Annotated[
        Form | None, typer.Option("--format", help="JSON lines, or CSV with a head. (jsonl)")
    ] = None,
    account: Annotated[str | None, typer.Option(help="Only transfers of this account.")] = None,
) -> None:
    """Write all transfers, in the order in which they were decided."""
    if form is Form.CSV and session.as_json:
        raise CommandFailed("--json and --format csv: give one of them", CHOICE_WRONG)
    query = {"format": form or Form.JSONL, "account": account}
    if output is None:
        session.api.download("/ledger/export", sys.stdout.buffer, **query)
        sys.stdout.buffer.flush()
        return
    part = output.with_name(f"{output.name}.{os.getpid()}.part")
    try:
        with open(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:  # noqa: PTH123  # with a mode
            session.api.download("/ledger/export", file, **query)
        part.replace(output)
    except OSError as error:
        raise CommandFailed(f"{output}: {error.strerror}") from None
    finally:
        with suppress(OSError):
            part.unlink()


def balance(session: Session) -> None:
    """Show the trial balance, in credits. Ends with status 1 when its sides differ."""
    answer = session.api.get("/ledger/balance")
    if session.as_json:
        show_json(answer)
    else:
        sides = ("debits", "credits", "held_debits", "held_credits")
        show_table(
            [Column("account"), *(Column(side.replace("_", " "), "amount") for side in sides)],
            (
                (line["name"], *(line[f"{side}_nano"] for side in sides))
                for line in (*answer["lines"], answer["total"])
            ),
        )
    if not answer["balanced"]:
        raise typer.Exit(FAILED)


def correct(
    session: Session,
    transfer: Annotated[str, typer.Argument(help="The transfer's id; of a charge the request's.")],
    amount: Amount,
    id_: Id = None,
    note: Note = "",
) -> None:
    """Reverse a part of a transfer, or all of it, by another; nothing is ever changed or deleted."""
    correction = id_ or new_id("correction")
    asked = {"amount": amount, "id": correction, "note": note}
    with told_id(correction):
        done = session.api.post(f"/ledger/transfers/{quote(transfer, safe='')}/correct", asked)
    if session.as_json:
        show_json(done)
        return
    print(
        f"Gave {credits_text(done['amount_nano'])} credits back from {done['debit']} to "
        f"{done['credit']} (id {done['id']})."
    )
