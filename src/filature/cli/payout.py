"""``filature payout``: workers paid by an operator, and what the owner of a GPU asks to be paid."""

import secrets
from pathlib import Path
from typing import Annotated, Any, Final
from urllib.parse import quote

import typer

from filature.cli.account import Note, new_id, told_id
from filature.cli.connect import CHOICE_WRONG, FAILED, CommandFailed
from filature.cli.serving import fail
from filature.cli.session import Session, command, group
from filature.cli.tables import Column, credits_text, show_json, show_table

ANSWER_S: Final = 30.0
_REQUEST: Final = "payout request"

Amount = Annotated[str, typer.Argument(metavar="AMOUNT", help="Credits, such as 12.50.")]
Request = Annotated[str, typer.Argument(metavar="ID", help="The payout request's id.")]


def register(app: typer.Typer) -> None:
    payouts = group(app, "payout", "What workers are paid: pay, list, ask for it.")
    for function in (create, list_, refuse):
        command(payouts, function)
    payouts.command("request")(request)


def create(
    session: Session,
    name: Annotated[str | None, typer.Argument(help="The worker's name.")] = None,
    amount: Annotated[str | None, typer.Argument(help="Credits, such as 12.50.")] = None,
    id_: Annotated[
        str | None,
        typer.Option(
            "--id", help="An id of your own for the transfer: the same one again is done once."
        ),
    ] = None,
    request: Annotated[
        str | None,
        typer.Option(help="Pay what a worker asked for, by the request's id, instead; once."),
    ] = None,
    note: Note = "",
) -> None:
    """Record that a worker was paid, never more than its balance."""
    if request is not None:
        if name is not None or id_ is not None:
            raise CommandFailed("--request says who is paid what: give it alone", CHOICE_WRONG)
        _show(session, session.api.post("/payouts", {"request": request, "note": note}))
        return
    if name is None or amount is None:
        raise CommandFailed("give NAME and AMOUNT, or --request ID", CHOICE_WRONG)
    transfer = id_ or new_id("payout")
    asked = {"worker": name, "amount": amount, "id": transfer, "note": note}
    with told_id(transfer):
        paid = session.api.post("/payouts", asked)
    _show(session, paid)


def list_(
    session: Session,
    worker: Annotated[str | None, typer.Option(help="Only those of this worker.")] = None,
    as_csv: Annotated[bool, typer.Option("--csv", help="Write them as CSV.")] = False,
) -> None:
    """List payouts, and requests for some that were not paid."""
    if as_csv:
        session.write_csv("/payouts", worker=worker)
        return
    answer = session.api.get("/payouts", worker=worker)
    if session.as_json:
        show_json(answer)
        return
    show_table(
        [
            Column("time (UTC)", "time"),
            Column("worker"),
            Column("state"),
            *(Column(name, "amount") for name in ("amount", "returned")),
            *(Column(name) for name in ("request", "transfer", "note")),
        ],
        (
            (
                *(each[name] for name in ("at_ms", "worker", "state", "amount_nano")),
                each["returned_nano"] or None,
                *(each[name] for name in ("request", "id", "note")),
            )
            for each in answer["data"]
        ),
        empty="There are no payouts yet: filature payout create NAME AMOUNT",
    )


def refuse(session: Session, request: Request) -> None:
    """Answer a worker's request for a payout with no: its balance stays."""
    answer = session.api.post(f"/payout-requests/{quote(request, safe='')}/refuse")
    if session.as_json:
        show_json(answer)
    else:
        print(f"Refused {answer['request']} of {answer['worker']}.")


def request(
    amount: Amount,
    proxy: Annotated[str, typer.Option(metavar="URL", help="The proxy that owes it.")],
    token: Annotated[
        str,
        typer.Option(
            help="The worker's token (better: FILATURE_WORKER_TOKEN).",
            envvar="FILATURE_WORKER_TOKEN",
            show_envvar=False,
        ),
    ],
    proxy_ca: Annotated[
        Path | None, typer.Option(help="CA certificates (PEM) for an https proxy.")
    ] = None,
    id_: Annotated[
        str | None,
        typer.Option("--id", help="An id of your own: the same one again is the same request."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the answer as JSON.")] = False,
) -> None:
    """Ask a proxy to pay what your worker earned. Its operator pays, and says so by a payout."""
    from filature.admin.amounts import nano_of  # noqa: PLC0415  # --help is quick
    from filature.errors import InvalidRequest  # noqa: PLC0415  # as above

    try:
        nano = nano_of(amount, "AMOUNT")
    except InvalidRequest as error:
        fail(_REQUEST, error.message, CHOICE_WRONG)
    asked = {"id": id_ or f"pr-{secrets.token_hex(8)}", "amount_nano": nano}
    answer = _ask(proxy, token, proxy_ca, asked)
    if as_json:
        show_json(answer)
        return
    print(
        f"Asked {proxy} for {credits_text(answer['amount_nano'])} credits for "
        f"{answer['worker']} (id {answer['id']}, {answer['state']}); its balance there: "
        f"{credits_text(answer['balance_nano'])}"
    )


def _ask(proxy: str, token: str, proxy_ca: Path | None, asked: dict[str, Any]) -> Any:
    """The proxy's answer; ends the command where there is none that is good."""
    import ssl  # noqa: PLC0415  # --help is quick

    import httpx  # noqa: PLC0415  # as above

    from filature.wire.control import PAYOUT_REQUESTS_PATH  # noqa: PLC0415  # as above

    if not proxy.startswith(("http://", "https://")):
        fail(_REQUEST, "--proxy: write it as https://host or http://host:port", CHOICE_WRONG)
    again = f"It is not known whether it was taken: give the same again with --id {asked['id']}."
    try:
        tls = ssl.create_default_context(cafile=None if proxy_ca is None else str(proxy_ca))
    except OSError as error:
        fail(_REQUEST, f"--proxy-ca: {error}", CHOICE_WRONG)
    try:
        answer = httpx.post(
            proxy.rstrip("/") + PAYOUT_REQUESTS_PATH,
            json=asked,
            headers={"authorization": f"Bearer {token}"},
            timeout=ANSWER_S,
            verify=tls,
            trust_env=False,
        )
    except (httpx.InvalidURL, UnicodeError) as error:
        fail(_REQUEST, f"--proxy, --token: {error}", CHOICE_WRONG)
    except httpx.HTTPError as error:
        said = f"{proxy} did not answer: {str(error) or type(error).__name__}."
        fail(_REQUEST, said if isinstance(error, httpx.ConnectError) else f"{said} {again}")
    try:
        told = answer.json()
        good = answer.is_success and told["object"] == "payout_request"
        message = "" if good else str(told["error"]["message"])
    except (ValueError, KeyError, TypeError):
        told, message = None, f"this is no proxy's answer (status {answer.status_code})."
    if message:
        if answer.status_code >= 500:
            message += f" {again}"
        fail(_REQUEST, message, CHOICE_WRONG if answer.status_code == 400 else FAILED)
    return told


def _show(session: Session, paid: Any) -> None:
    if session.as_json:
        show_json(paid)
        return
    done = "Paid" if paid["result"] == "done" else "Done before, nothing happened now: paid"
    print(f"{done} {paid['worker']} {credits_text(paid['amount_nano'])} credits (id {paid['id']}).")
