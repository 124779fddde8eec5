"""Writes the tables of docs/settings.md and docs/metrics.md from the code. ``--check`` only compares."""

import sys
from decimal import Decimal
from pathlib import Path
from typing import Any

import typer
from pydantic_settings import BaseSettings

from filature.cli.main import app
from filature.cli.serving import option_of
from filature.proxy.settings import ProxySettings
from filature.telemetry.metric_specs import ALL
from filature.worker.settings import WorkerSettings

DOCS = Path(__file__).resolve().parent

SETTINGS_HEAD = """\
# Settings

Made from `filature/proxy/settings.py` by `make docs`; do not edit.

Each is read from the environment variable; those that have an option of `filature up` or `filature proxy` can be given
there, which counts more. An empty variable is one that is not set; one that is no setting is named at the start. Times
are in seconds, sizes in bytes, prices in credits. Lists are parted by spaces.

| variable | option | default | meaning |
| --- | --- | --- | --- |
"""

WORKER_HEAD = """
## Of a worker

Made from `filature/worker/settings.py`; the options are those of `filature worker`.

| variable | option | default | meaning |
| --- | --- | --- | --- |
"""

METRICS_HEAD = """\
# Metrics

Made from `filature/telemetry/metric_specs.py` by `make docs`; do not edit.

`GET /metrics` on the admin port (10081), in Prometheus' text format. Names that begin with `gen_ai` are OpenTelemetry's
semantic conventions for generative AI. Models that no engine told are counted as `other`, so that clients cannot make
new series. Python's own `process_…` and `python_…` are there, too.

A worker shows the same of what passes through it with `filature worker --metrics HOST:PORT`; without that it listens
nowhere. It knows no prices, so its costs are 0; gauges of what a role does not have (a ledger, an outbox) are left out.
`GET /health` is beside it.

| metric | kind | labels | meaning |
| --- | --- | --- | --- |
"""


def settings_page() -> str:
    proxy = _rows(ProxySettings, "FILATURE_", _options_of("up") | _options_of("proxy"))
    return (
        SETTINGS_HEAD
        + proxy
        + WORKER_HEAD
        + _rows(WorkerSettings, "FILATURE_WORKER_", _options_of("worker"))
    )


def _rows(settings: type[BaseSettings], prefix: str, options: set[str]) -> str:
    rows = []
    for name, field in settings.model_fields.items():
        option = option_of(name)
        shown = f"`{option}`" if option in options else ""
        default = (
            "" if field.is_required() else _default(field.get_default(call_default_factory=True))
        )
        rows.append(f"| `{prefix}{name.upper()}` | {shown} | {default} | {field.description} |\n")
    return "".join(rows)


def metrics_page() -> str:
    rows = []
    for metric in ALL:
        labels = ", ".join(f"`{label}`" for label in metric.labels)
        rows.append(f"| `{metric.name}` | {metric.kind} | {labels} | {metric.help} |\n")
    return METRICS_HEAD + "".join(rows)


def pages() -> dict[Path, str]:
    """What the generated files should hold."""
    return {DOCS / "settings.md": settings_page(), DOCS / "metrics.md": metrics_page()}


def _options_of(command: str) -> set[str]:
    group: Any = typer.main.get_command(app)
    return {option for param in group.commands[command].params for option in param.opts}


def _default(value: object) -> str:
    match value:
        case None | []:
            return ""
        case Path() if value == Path():
            return "`~/.local/share/filature/worker`"
        case Path():
            return "`~/.local/share/filature`"
        case bool():
            return f"`{str(value).lower()}`"
        case float() if value == int(value):
            return f"`{int(value)}`"
        case Decimal() | int() | float() | str():
            return f"`{value}`"
        case _:
            raise TypeError(f"no way to show {value!r}")


def main() -> int:
    stale = 0
    for path, text in pages().items():
        if path.exists() and path.read_text() == text:
            continue
        if "--check" in sys.argv:
            sys.stderr.write(f"{path.name} is not current: run `make docs`\n")
            stale = 1
        else:
            path.write_text(text)
    return stale


if __name__ == "__main__":
    sys.exit(main())
