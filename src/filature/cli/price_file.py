"""Files of prices: TOML, JSON or CSV into the body of ``POST /admin/v1/prices/import``. No number becomes a float.

::

    [prices."Qwen/Qwen3-8B"]       in credits per million tokens; names are those of the options of `price set`
    in = 0.20
    cached = 0.02
    out = 0.80

    [aliases]
    gpt-4o-mini = "Qwen/Qwen3-8B"

    [coefficients]                 of an engine, for all its models or for some
    "http://10.0.0.7:8000" = 1.5
    "http://10.0.0.8:8000" = { "*" = 1.0, "Qwen/Qwen3-8B" = 0.9 }

JSON is built alike. CSV has prices only, a row each, and a head: ``model,in,cached,out,…``.
"""

import csv
import json
import re
import tomllib
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

from filature.cli.connect import CHOICE_WRONG, CommandFailed
from filature.cli.key import thousandths

FILE_BYTES_MAX: Final = 4 * 1024 * 1024
_AMOUNTS: Final = {
    "in": "prompt",
    "cached": "cached",
    "out": "completion",
    "reasoning": "reasoning",
    "request": "request",
}
_NUMBERS: Final = ("fee_bp", "template_tokens", "media_tokens")
_WHOLE: Final = re.compile(r"[0-9]{1,18}")
_SECTIONS: Final = ("prices", "aliases", "coefficients")


def read_prices(path: Path) -> dict[str, Any]:
    """The request's body. Raises CommandFailed, which names the place in the file."""
    try:
        with path.open("rb") as file:
            data = file.read(FILE_BYTES_MAX + 1)
        if len(data) > FILE_BYTES_MAX:
            raise CommandFailed(f"{path}: it has more than {FILE_BYTES_MAX} bytes", CHOICE_WRONG)
        content = _parsed(path.suffix.lower(), data.decode("utf-8-sig"))
    except OSError as error:
        raise CommandFailed(f"{path}: {error.strerror}", CHOICE_WRONG) from None
    except (ValueError, csv.Error) as error:
        raise CommandFailed(f"{path}: {error}", CHOICE_WRONG) from None
    try:
        return _body(content)
    except _WrongPlaceError as error:
        raise CommandFailed(f"{path}: {error}", CHOICE_WRONG) from None


class _WrongPlaceError(Exception):
    """Something in the content is not as it should be."""


def _parsed(suffix: str, text: str) -> Any:
    """Raises ValueError."""
    match suffix:
        case ".toml":
            return tomllib.loads(text, parse_float=Decimal)
        case ".json":
            return json.loads(text, parse_float=Decimal, object_pairs_hook=_once_each)
        case ".csv":
            return {"prices": _csv_prices(text)}
    raise ValueError("write prices in a file that ends in .toml, .json or .csv")


def _once_each(members: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of JSON, of whose two prices for one model none is passed over. Raises ValueError."""
    once: dict[str, Any] = {}
    for name, value in members:
        if name in once:
            raise ValueError(f"{name} is there twice")
        once[name] = value
    return once


def _csv_prices(text: str) -> dict[str, dict[str, str]]:
    prices: dict[str, dict[str, str]] = {}
    reader = csv.DictReader(text.splitlines(), strict=True)
    for row in reader:
        model = row.pop("model", None)
        if not model or None in row or None in row.values():
            raise ValueError(
                f"line {reader.line_num}: a row has a model, and as many cells as the head"
            )
        if model in prices:
            raise ValueError(f"line {reader.line_num}: {model} is there twice")
        prices[model] = {name.strip(): cell.strip() for name, cell in row.items() if cell.strip()}
    return prices


def _body(content: Any) -> dict[str, Any]:
    sections = _table(content, "the file")
    for name in sections:
        if name not in _SECTIONS:
            raise _WrongPlaceError(f"{name!r} is none of {', '.join(_SECTIONS)}")
    coefficients = []
    for engine, given in _table(sections.get("coefficients", {}), "coefficients").items():
        by_model = given if isinstance(given, dict) else {"*": given}
        for model, value in by_model.items():
            text = _number(value, f"coefficients.{engine}")
            number = thousandths(text, f"coefficients.{engine}")
            coefficients.append({"engine": engine, "model": model, "coefficient": number})
    aliases = _table(sections.get("aliases", {}), "aliases")
    return {
        "prices": [
            _price(model, _table(price, f"prices.{model}"))
            for model, price in _table(sections.get("prices", {}), "prices").items()
        ],
        "aliases": [{"alias": alias, "model": model} for alias, model in aliases.items()],
        "coefficients": coefficients,
    }


def _price(model: str, given: dict[str, Any]) -> dict[str, Any]:
    price: dict[str, Any] = {"model": model}
    for name, value in given.items():
        place = f"prices.{model}.{name}"
        plain = name.replace("-", "_")
        if name in _AMOUNTS:
            price[_AMOUNTS[name]] = _number(value, place)
        elif plain in _NUMBERS:
            text = _number(value, place)
            if not _WHOLE.fullmatch(text):
                raise _WrongPlaceError(f"{place}: a whole number is needed, not {text[:40]!r}")
            price[plain] = int(text)
        else:
            known = ", ".join((*_AMOUNTS, *_NUMBERS))
            raise _WrongPlaceError(f"{place}: the names are {known}")
    return price


def _table(value: Any, place: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _WrongPlaceError(f"{place}: names with values are needed")
    return value


def _number(value: Any, place: str) -> str:
    """A number as text, whichever way the file wrote it."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool) or not isinstance(value, int | Decimal):
        raise _WrongPlaceError(f"{place}: a number is needed, not {value!r}")
    return f"{value:f}" if isinstance(value, Decimal) else str(value)
