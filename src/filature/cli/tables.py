"""Tables for people, and JSON for programs, on standard output. What they show is the caller's.

In a terminal that is wide enough a table has a ruled head; elsewhere it is plain text without a limit of
width, one row a line: a narrow terminal wraps it, and what is copied from there is whole. Whatever comes
from a store is shown without what could command a terminal.
"""

import io
import sys
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Final, Literal, NamedTuple

from filature.units import NANO_PER_CREDIT

Kind = Literal["text", "amount", "number", "time"]
NOTHING: Final = "-"
_WIDTH_MAX: Final = 1_000_000
_DECIMALS_MIN: Final = 2


class Column(NamedTuple):
    """A title, and what the cells are: text, nano-credits, a number, or Unix milliseconds; None is no value."""

    title: str
    kind: Kind = "text"


def show_table(
    columns: Sequence[Column], rows: Iterable[Sequence[Any]], *, empty: str = "Nothing."
) -> None:
    """Print a table, or ``empty`` where there are no rows."""
    cells = [list(row) for row in rows]
    if not cells:
        print(empty)
        return
    shown = [
        _column(column.kind, [row[place] for row in cells]) for place, column in enumerate(columns)
    ]
    _print(columns, list(zip(*shown, strict=True)))


def show_fields(fields: Iterable[tuple[str, Kind, Any]]) -> None:
    """Print one thing: a name and a value a line."""
    names, values = [], []
    for name, kind, value in fields:
        names.append(name)
        values.append(_column(kind, [value])[0])
    width = max(map(len, names))
    for name, value in zip(names, values, strict=True):
        print(f"{name.ljust(width)}  {value}")


def show_json(answer: object) -> None:
    """Print an answer of the admin API as it was, indented."""
    import orjson  # noqa: PLC0415  # --help is quick

    text = orjson.dumps(answer, default=_exact, option=orjson.OPT_INDENT_2)
    sys.stdout.write(text.decode() + "\n")


def credits_text(nano: int, decimals: int = _DECIMALS_MIN) -> str:
    """Nano-credits in credits, exactly, with at least ``decimals``."""
    sign = "-" if nano < 0 else ""
    whole, part = divmod(abs(nano), NANO_PER_CREDIT)
    digits = f"{part:09d}"
    kept = max(decimals, len(digits.rstrip("0")))
    return f"{sign}{whole}.{digits[:kept]}"


def time_text(unix_ms: int) -> str:
    """In UTC, to the second."""
    return f"{datetime.fromtimestamp(unix_ms // 1000, UTC):%Y-%m-%d %H:%M:%S}"


def printable(text: str) -> str:
    """Without characters that are no text: a terminal would obey some of them."""
    return "".join(each if each.isprintable() else "\N{REPLACEMENT CHARACTER}" for each in text)


def _column(kind: Kind, values: list[Any]) -> list[str]:
    if kind == "amount":  # all with as many decimals, so that they stand below each other
        given = [value for value in values if value is not None]
        decimals = max((len(credits_text(each).partition(".")[2]) for each in given), default=0)
        return [NOTHING if each is None else credits_text(each, decimals) for each in values]
    if kind == "time":
        return [NOTHING if each is None else time_text(each) for each in values]
    return [NOTHING if each is None or each == "" else printable(str(each)) for each in values]


def _print(columns: Sequence[Column], rows: list[tuple[str, ...]]) -> None:
    from rich import box  # noqa: PLC0415  # --help is quick
    from rich.console import Console  # noqa: PLC0415  # as above
    from rich.table import Table  # noqa: PLC0415  # as above
    from rich.text import Text  # noqa: PLC0415  # as above

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for column in columns:
        table.add_column(
            column.title,
            justify="right" if column.kind in ("amount", "number") else "left",
            no_wrap=True,
            overflow="fold",
        )
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    if sys.stdout.isatty():
        terminal = Console(highlight=False)
        unbounded = terminal.options.update(max_width=_WIDTH_MAX)
        if terminal.measure(table, options=unbounded).maximum <= terminal.width:
            terminal.print(table)
            return
    table.box = None
    plain = io.StringIO()
    Console(file=plain, width=_WIDTH_MAX, highlight=False, color_system=None).print(table)
    for line in plain.getvalue().splitlines():
        print(line.rstrip())


def _exact(value: object) -> Any:
    import orjson  # noqa: PLC0415  # as above

    if isinstance(value, Decimal):
        return orjson.Fragment(f"{value:f}")
    raise TypeError
