"""``filature key``: API keys made with their limits, listed and revoked."""

import re
import time
from decimal import Decimal
from enum import StrEnum
from typing import Annotated, Any, Final
from urllib.parse import quote

import typer

from filature.cli.connect import CHOICE_WRONG, CommandFailed
from filature.cli.session import Session, command, group
from filature.cli.tables import Column, credits_text, show_json, show_table, time_text
from filature.cli.times import unix_ms

_ONE: Final = 1000
_COEFFICIENT: Final = re.compile(r"[0-9]{1,10}(\.[0-9]{1,3})?")


class Period(StrEnum):
    """After which a budget is new, by UTC."""

    DAY = "day"
    MONTH = "month"
    YEAR = "year"
    TOTAL = "total"


def register(app: typer.Typer) -> None:
    keys = group(app, "key", "API keys: make, list, revoke.")
    for function in (create, list_, revoke):
        command(keys, function)


def create(  # noqa: PLR0913, PLR0917  # a command's options are its arguments
    session: Session,
    account: Annotated[str, typer.Argument(help="The account that pays.")],
    name: Annotated[str, typer.Option(help="To know the key by.")] = "",
    budget: Annotated[str | None, typer.Option(help="Credits per period, with --period.")] = None,
    period: Annotated[Period | None, typer.Option(help="After which the budget is new.")] = None,
    requests_per_minute: Annotated[int | None, typer.Option(help="At most.")] = None,
    tokens_per_minute: Annotated[int | None, typer.Option(help="At most.")] = None,
    concurrency: Annotated[int | None, typer.Option(help="Requests at the same time.")] = None,
    model: Annotated[
        list[str] | None, typer.Option(help="A model that it may use; may be given several times.")
    ] = None,
    max_coefficient: Annotated[
        str | None, typer.Option(help="Use no engine whose prices are multiplied by more: 1.5")
    ] = None,
    expires: Annotated[
        str | None, typer.Option(help="When it ends: 30d, 2027-01-01 or 2027-01-01T12:00 (UTC).")
    ] = None,
) -> None:
    """Make a key. It is shown once: the ledger keeps only its SHA-256."""
    if (budget is None) != (period is None):
        raise CommandFailed("--budget and --period belong together: give both", CHOICE_WRONG)
    now_ms = time.time_ns() // 1_000_000
    asked: dict[str, Any] = {
        "account": account,
        "name": name,
        "budget": budget,
        "budget_period": period,
        "requests_per_minute": requests_per_minute,
        "tokens_per_minute": tokens_per_minute,
        "concurrency": concurrency,
        "models": model or None,
        "max_coefficient": thousandths(max_coefficient, "--max-coefficient"),
        "expires_ms": unix_ms(expires, now_ms, "--expires", ahead=True),
    }
    key = session.api.post(
        "/keys", {name: value for name, value in asked.items() if value is not None}
    )
    if session.as_json:
        show_json(key)
        return
    print(f"Made {key['id']} of the account {key['account']}. This is the key, shown this once:\n")
    print(f"  {key['secret']}")


def list_(
    session: Session,
    account: Annotated[str | None, typer.Option(help="Only keys of this account.")] = None,
) -> None:
    """List keys, without their secrets; a hint is a key's last characters."""
    answer = session.api.get("/keys", account=account)
    if session.as_json:
        show_json(answer)
        return
    show_table(
        [
            *(Column(name) for name in ("key", "hint", "account", "name", "state")),
            Column("made (UTC)", "time"),
            Column("limits"),
        ],
        (
            (
                each["id"],
                f"…{each['hint']}",
                each["account"],
                each["name"],
                each["state"],
                each["created_ms"],
                _limits(each),
            )
            for each in answer["data"]
        ),
        empty="There are no keys yet: filature key create ACCOUNT",
    )


def revoke(
    session: Session, key: Annotated[str, typer.Argument(help="The key's id: key_…")]
) -> None:
    """Refuse a key from now on, for ever."""
    answer = session.api.post(f"/keys/{quote(key, safe='')}/revoke")
    if session.as_json:
        show_json(answer)
    else:
        print(f"{answer['id']} was revoked at {time_text(answer['revoked_ms'])} (UTC).")


def thousandths(text: str | None, option: str) -> int | None:
    """A coefficient as a person writes it, in thousandths. Raises CommandFailed."""
    if text is None:
        return None
    if not _COEFFICIENT.fullmatch(text):
        raise CommandFailed(
            f"{option}: write a number with at most three decimals, such as 1.5; not {text!r}",
            CHOICE_WRONG,
        )
    return int(Decimal(text) * _ONE)


def coefficient_text(thousandth: int) -> str:
    return f"{Decimal(thousandth) / _ONE:f}"


def _limits(key: dict[str, Any]) -> str:
    """In a few words."""
    said = []
    if key["budget_nano"] is not None:
        said.append(f"{credits_text(key['budget_nano'])} credits/{key['budget_period']}")
    for name, unit in (
        ("requests_per_minute", "requests/min"),
        ("tokens_per_minute", "tokens/min"),
        ("concurrency", "at once"),
    ):
        if key[name] is not None:
            said.append(f"{key[name]} {unit}")
    if key["models"] is not None:
        said.append(f"models {' '.join(key['models'])}")
    if key["max_coefficient"] is not None:
        said.append(f"coefficient ≤ {coefficient_text(key['max_coefficient'])}")
    if key["expires_ms"] is not None:
        said.append(f"until {time_text(key['expires_ms'])}")
    return ", ".join(said)
