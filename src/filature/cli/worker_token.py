"""``filature worker-token``: what workers join with, made, listed and revoked."""

from typing import Annotated, Any
from urllib.parse import quote

import typer

from filature.cli.session import Session, command, group
from filature.cli.tables import Column, show_json, show_table, time_text


def register(app: typer.Typer) -> None:
    tokens = group(app, "worker-token", "Workers' tokens: make, list, revoke.")
    command(tokens, create, begins=True)
    for function in (list_, revoke):
        command(tokens, function)


def create(
    session: Session,
    worker: Annotated[
        str, typer.Argument(help="The worker's name, which its account has: letters, digits, . _ -")
    ],
    model: Annotated[
        list[str] | None,
        typer.Option(help="A model that it may serve; may be given several times."),
    ] = None,
) -> None:
    """Make a token. It is shown once: the ledger keeps only its SHA-256."""
    asked: dict[str, Any] = {"worker": worker}
    if model:
        asked["models"] = model
    token = session.api.post("/worker-tokens", asked)
    if session.as_json:
        show_json(token)
        return
    secret = token["secret"]
    print(
        f"Made {token['id']} of the worker {token['worker']}. This is the token, shown this once:\n"
    )
    print(f"  {secret}\n")
    print("Whoever has the GPU starts the worker by this; URL is where it reaches the proxy:\n")
    print(f"  filature worker --proxy URL --token {secret} --engine http://127.0.0.1:8000")


def list_(session: Session) -> None:
    """List tokens, without their secrets; a hint is a token's last characters."""
    answer = session.api.get("/worker-tokens")
    if session.as_json:
        show_json(answer)
        return
    show_table(
        [
            *(Column(name) for name in ("token", "hint", "worker", "state")),
            Column("made (UTC)", "time"),
            Column("models"),
        ],
        (
            (
                each["id"],
                f"…{each['hint']}",
                each["worker"],
                each["state"],
                each["created_ms"],
                "all" if each["models"] is None else " ".join(each["models"]),
            )
            for each in answer["data"]
        ),
        empty="There are no worker tokens yet: filature worker-token create WORKER",
    )


def revoke(
    session: Session, token: Annotated[str, typer.Argument(help="The token's id: wt_…")]
) -> None:
    """Refuse a token from now on, for ever."""
    answer = session.api.post(f"/worker-tokens/{quote(token, safe='')}/revoke")
    if session.as_json:
        show_json(answer)
    else:
        print(f"{answer['id']} was revoked at {time_text(answer['revoked_ms'])} (UTC).")
