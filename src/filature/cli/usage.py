"""``filature usage``: what was asked, what came of it and what it cost, from the stored usage records."""

import sys
import time
from enum import StrEnum
from typing import Annotated
from urllib.parse import quote

import typer

from filature.cli.session import Session, command, group
from filature.cli.tables import Column, show_fields, show_json, show_table
from filature.cli.times import unix_ms

Account = Annotated[str | None, typer.Option(help="Only this account's.")]
Since = Annotated[
    str | None, typer.Option(help="From then on: 24h, 7d, 2026-07-01 or 2026-07-01T12:00 (UTC).")
]
Until = Annotated[str | None, typer.Option(help="Before then, written alike.")]


class By(StrEnum):
    """What sums are for."""

    ACCOUNT = "account"
    MODEL = "model"
    DAY = "day"
    OUTCOME = "outcome"


def register(app: typer.Typer) -> None:
    usage = group(app, "usage", "Usage records: list, show, add up.")
    for function in (list_, show, sum_):
        command(usage, function)


def list_(  # a command's options are its arguments
    session: Session,
    account: Account = None,
    model: Annotated[str | None, typer.Option(help="Only this model's, as clients said.")] = None,
    outcome: Annotated[str | None, typer.Option(help="Only those that ended so.")] = None,
    since: Since = None,
    until: Until = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="At most so many.")] = 100,
) -> None:
    """List requests, the latest first; costs are in credits."""
    now_ms = _now_ms()
    answer = session.api.get(
        "/usage",
        account=account,
        model=model,
        outcome=outcome,
        since_ms=unix_ms(since, now_ms, "--since"),
        until_ms=unix_ms(until, now_ms, "--until"),
        limit=limit,
    )
    if session.as_json:
        show_json(answer)
        return
    show_table(
        [
            Column("time (UTC)", "time"),
            *(Column(name) for name in ("request", "account", "model", "outcome")),
            *(Column(name, "number") for name in ("prompt", "cached", "completion", "s")),
            Column("cost", "amount"),
        ],
        (
            (
                int(each["timings"]["started_at"] * 1000),
                *(each[name] for name in ("id", "account", "model", "outcome")),
                each["usage"]["prompt_tokens"],
                each["usage"]["cached_tokens"],
                each["usage"]["completion_tokens"],
                f"{each['timings']['total_s']:.2f}",
                each["usage"]["total_cost"],
            )
            for each in answer["data"]
        ),
        empty="There are no such requests.",
    )
    if answer["has_more"]:
        sys.stderr.write(f"These are the latest {limit} of more: --limit shows others.\n")


def show(
    session: Session, request: Annotated[str, typer.Argument(help="The request's id.")]
) -> None:
    """Show one request."""
    record = session.api.get(f"/usage/{quote(request, safe='')}")
    if session.as_json:
        show_json(record)
        return
    usage, timings = record["usage"], record["timings"]
    estimated = " (estimated)" if usage["estimated"] else ""
    show_fields(
        [
            ("request", "text", record["id"]),
            ("time (UTC)", "time", int(timings["started_at"] * 1000)),
            ("account", "text", record["account"]),
            ("key", "text", record["key_id"]),
            ("model", "text", record["model"]),
            ("engine", "text", record["engine"]),
            ("outcome", "text", record["outcome"]),
            ("status", "number", record["status"]),
            ("error", "text", record["error_code"]),
            ("prompt tokens", "number", usage["prompt_tokens"]),
            ("of them cached", "number", usage["cached_tokens"]),
            ("completion tokens", "text", f"{usage['completion_tokens']}{estimated}"),
            ("of them reasoning", "number", usage["reasoning_tokens"]),
            ("cost", "amount", usage["total_cost"]),
            ("held", "amount", record["held"]),
            ("price version", "number", record["tariff_version"]),
            ("first content, s", "number", _seconds(timings["first_content_s"])),
            ("whole answer, s", "number", _seconds(timings["total_s"])),
        ]
    )


def _seconds(value: float | None) -> str | None:
    return None if value is None else f"{value:.3f}"


def sum_(
    session: Session,
    by: Annotated[By, typer.Option(help="What the sums are for.")] = By.DAY,
    account: Account = None,
    since: Since = None,
    until: Until = None,
) -> None:
    """Add up requests and their costs, in credits."""
    now_ms = _now_ms()
    answer = session.api.get(
        "/usage/sums",
        by=by,
        account=account,
        since_ms=unix_ms(since, now_ms, "--since"),
        until_ms=unix_ms(until, now_ms, "--until"),
    )
    if session.as_json:
        show_json(answer)
        return
    sums = [(each["name"], each["requests"], each["cost_nano"]) for each in answer["data"]]
    if sums:
        sums.append(("total", sum(each[1] for each in sums), sum(each[2] for each in sums)))
    show_table(
        [Column(by.value), Column("requests", "number"), Column("cost", "amount")],
        sums,
        empty="There are no such requests.",
    )


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
