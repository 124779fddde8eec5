"""``filature price``: what models cost, what they may be called, and what engines multiply it by."""

import sys
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

import typer

from filature.cli.key import coefficient_text, thousandths
from filature.cli.session import Session, command, group
from filature.cli.tables import Column, printable, show_json, show_table

Model = Annotated[str, typer.Argument(help="The model's name as engines know it.")]
_CLASSES = ("prompt", "cached", "completion", "reasoning", "request")


def register(app: typer.Typer) -> None:
    prices = group(app, "price", "Prices of models, aliases, and coefficients of engines.")
    for function in (show, set_, withdraw, import_, alias, unalias, coefficient):
        command(prices, function, begins=function not in (show, withdraw, unalias))


def show(
    session: Session,
    model: Annotated[
        str | None, typer.Argument(help="Show all versions of this model's price.")
    ] = None,
) -> None:
    """Show the prices in force, in credits per million tokens, with aliases and coefficients."""
    if model is not None:
        versions = session.api.get(f"/prices/{_path(model)}")
        if session.as_json:
            show_json(versions)
        else:
            _show_prices(versions["data"], versions=True)
        return
    prices = session.api.get("/prices")["data"]
    aliases = session.api.get("/aliases")["data"]
    coefficients = session.api.get("/coefficients")["data"]
    if session.as_json:
        show_json({"prices": prices, "aliases": aliases, "coefficients": coefficients})
        return
    _show_prices(prices, versions=False)
    if aliases:
        print()
        show_table(
            [Column("alias"), Column("model")], ((each["alias"], each["model"]) for each in aliases)
        )
    if coefficients:
        print()
        _show_coefficients(coefficients)


def set_(  # noqa: PLR0913, PLR0917  # a command's options are its arguments
    session: Session,
    model: Model,
    price_in: Annotated[str, typer.Option("--in", help="Credits per million prompt tokens.")],
    out: Annotated[str, typer.Option("--out", help="The same, completion tokens.")],
    cached: Annotated[
        str | None, typer.Option(help="The same, prompt tokens that the engine had cached. [--in]")
    ] = None,
    reasoning: Annotated[
        str | None, typer.Option(help="The same, reasoning tokens. [--out]")
    ] = None,
    request: Annotated[str | None, typer.Option(help="Credits per request. [0]")] = None,
    fee_bp: Annotated[
        int | None, typer.Option(help="The operator's share, in basis points. [0]")
    ] = None,
    template_tokens: Annotated[
        int | None, typer.Option(help="Held for beside a prompt's text. [512]")
    ] = None,
    media_tokens: Annotated[
        int | None, typer.Option(help="Held for, for each image or audio part. [2048]")
    ] = None,
) -> None:
    """Set a model's price: a new version, for requests that come from now on."""
    asked = {
        "prompt": price_in,
        "cached": cached,
        "completion": out,
        "reasoning": reasoning,
        "request": request,
        "fee_bp": fee_bp,
        "template_tokens": template_tokens,
        "media_tokens": media_tokens,
    }
    said = {name: value for name, value in asked.items() if value is not None}
    price = session.api.put(f"/prices/{_path(model)}", said)
    if session.as_json:
        show_json(price)
    else:
        _show_prices([price], versions=True)


def withdraw(session: Session, model: Model) -> None:
    """Sell a model no longer at a price of its own."""
    answer = session.api.delete(f"/prices/{_path(model)}")
    if session.as_json:
        show_json(answer)
    else:
        print(f"{model} has no price of its own any more.")


def import_(
    session: Session,
    file: Annotated[
        Path,
        typer.Argument(
            help="A .toml, .json or .csv file with prices; the first two may have aliases and "
            "coefficients, too."
        ),
    ],
) -> None:
    """Set prices, aliases and coefficients from a file. What it does not name stays as it is."""
    from filature.cli.price_file import read_prices  # noqa: PLC0415  # --help is quick

    asked = read_prices(file)
    done = session.api.post("/prices/import", asked)
    if session.as_json:
        show_json(done)
        return
    print(
        f"Prices set: {len(done['set'])}, as they were: {len(done['unchanged'])}; aliases: "
        f"{done['aliases']}; coefficients: {done['coefficients']}"
    )
    for warning in done["warnings"]:
        _warn(warning)


def alias(
    session: Session,
    name: Annotated[str, typer.Argument(help="What clients say, such as gpt-4o-mini.")],
    model: Model,
) -> None:
    """Let clients call a model by another name."""
    answer = session.api.put(f"/aliases/{_path(name)}", {"model": model})
    if session.as_json:
        show_json(answer)
    else:
        print(f"{answer['alias']} is {answer['model']}.")


def unalias(session: Session, name: Annotated[str, typer.Argument(help="The alias.")]) -> None:
    """Take an alias away."""
    answer = session.api.delete(f"/aliases/{_path(name)}")
    if session.as_json:
        show_json(answer)
    else:
        print(f"{name} is no alias any more.")


def coefficient(
    session: Session,
    engine: Annotated[str, typer.Argument(help="The engine's name: its URL, as --engine had it.")],
    value: Annotated[str, typer.Argument(help="What prices are multiplied by: 1.5")],
    model: Annotated[str, typer.Option(help="For this model alone.")] = "*",
) -> None:
    """Multiply prices where an engine serves: all of them, or those of one model."""
    number = thousandths(value, "VALUE")
    answer = session.api.put(
        "/coefficients", {"engine": engine, "model": model, "coefficient": number}
    )
    if session.as_json:
        show_json(answer)
    else:
        _show_coefficients([answer])
        if answer["warning"]:
            _warn(answer["warning"])


def _warn(warning: str) -> None:
    sys.stderr.write(f"warning: {printable(warning)}\n")


def _show_prices(prices: list[dict[str, Any]], *, versions: bool) -> None:
    titles = dict(zip(_CLASSES, ("in", "cached", "out", "reasoning", "per request"), strict=True))
    columns = [Column("model"), Column("version", "number")]
    columns += [Column(titles[name], "amount") for name in _CLASSES]
    columns += [Column("fee bp", "number"), Column("set (UTC)", "time")]
    names = ["model", "version", *(f"{name}_nano" for name in _CLASSES), "fee_bp", "created_ms"]
    if versions:
        columns += [Column("template", "number"), Column("media", "number")]
        columns += [Column("withdrawn (UTC)", "time")]
        names += ["template_tokens", "media_tokens", "withdrawn_ms"]
    show_table(
        columns,
        ([price[name] for name in names] for price in prices),
        empty="No model has a price of its own: filature price set MODEL --in … --out …",
    )


def _show_coefficients(coefficients: list[dict[str, Any]]) -> None:
    show_table(
        [Column("engine"), Column("model"), Column("coefficient", "number")],
        (
            (each["engine"], each["model"], coefficient_text(each["coefficient"]))
            for each in coefficients
        ),
    )


def _path(name: str) -> str:
    return quote(name, safe="/:")
