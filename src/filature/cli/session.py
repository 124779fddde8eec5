"""What all commands on the admin API share: where the ledger is, ``--json``, and how they fail."""

import inspect
import os
import sys
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any, Concatenate, Final, ParamSpec

import typer

from filature.cli.connect import (
    CHOICE_WRONG,
    FAILED,
    AdminApi,
    CommandFailed,
    Target,
    connected,
)
from filature.errors import FilatureError

P = ParamSpec("P")

_PANEL: Final = "Where the ledger is"
DataDir = Annotated[
    Path | None,
    typer.Option(
        "--data-dir",
        help="Folder of the ledger and of what finds a running proxy (FILATURE_DATA_DIR).",
        rich_help_panel=_PANEL,
    ),
]
Database = Annotated[
    str | None,
    typer.Option(
        "--database",
        help="The ledger's database as URL (FILATURE_DATABASE).",
        rich_help_panel=_PANEL,
    ),
]
AdminUrl = Annotated[
    str | None,
    typer.Option(
        "--admin-url",
        help="The admin API of a proxy, http://host:port (FILATURE_ADMIN_URL).",
        rich_help_panel=_PANEL,
    ),
]
AdminToken = Annotated[
    str | None,
    typer.Option(
        "--admin-token",
        help="Its token (better: FILATURE_ADMIN_TOKEN).",
        rich_help_panel=_PANEL,
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print the answer as JSON.")]


class Session:
    """One call of a command: its target, and the admin API once it is asked for."""

    def __init__(self, target: Target, as_json: bool, *, begins: bool) -> None:
        self.target = target
        self.as_json = as_json
        self._begins = begins
        self._open = ExitStack()
        self._api: AdminApi | None = None

    @property
    def api(self) -> AdminApi:
        """Raises CommandFailed when it cannot be had."""
        if self._api is None:
            self._api = self._open.enter_context(connected(self.target, begins=self._begins))
        return self._api

    def write_csv(self, path: str, **query: object) -> None:
        """An answer as CSV to standard output. Raises CommandFailed, also where JSON was asked for, too."""
        if self.as_json:
            raise CommandFailed("--json and --csv: give one of them", CHOICE_WRONG)
        self.api.download(path, sys.stdout.buffer, format="csv", **query)
        sys.stdout.buffer.flush()

    def close(self) -> None:
        self._open.close()


Command = Callable[Concatenate[Session, P], None]


def group(app: typer.Typer, name: str, about: str) -> typer.Typer:
    """A group of commands below ``app``; the options of its commands may be given before them, too."""
    new = typer.Typer(name=name, help=about, no_args_is_help=True)
    new.callback()(_remember)
    app.add_typer(new, name=name)
    return new


def _remember(
    ctx: typer.Context,
    data_dir: Annotated[Path | None, typer.Option(envvar="FILATURE_DATA_DIR")] = None,
    database: Annotated[str | None, typer.Option(envvar="FILATURE_DATABASE")] = None,
    admin_url: Annotated[str | None, typer.Option(envvar="FILATURE_ADMIN_URL")] = None,
    admin_token: Annotated[str | None, typer.Option(envvar="FILATURE_ADMIN_TOKEN")] = None,
) -> None:
    ctx.obj = Target(data_dir, database, admin_url, admin_token)


def target_of_environment() -> Target:
    """What FILATURE_… say, for a group whose own options are others; an empty one says nothing."""
    names = ("DATA_DIR", "DATABASE", "ADMIN_URL", "ADMIN_TOKEN")
    data_dir, *rest = (os.environ.get(f"FILATURE_{name}") or None for name in names)
    return Target(None if data_dir is None else Path(data_dir), *rest)


def command(group: typer.Typer, function: "Command[P]", *, begins: bool = False) -> None:
    """Make a command of ``function``, which is given a session before its own parameters.

    ``begins``: it may be the first that is asked of a ledger, and makes one where there is none.
    What CommandFailed or an error of the store says goes to stderr, and the command ends with its status.
    """

    def run(ctx: typer.Context, **given: Any) -> None:
        outer = ctx.obj if isinstance(ctx.obj, Target) else Target()
        places = {each.name: given.pop(each.name) for each in fields(Target)}
        said = {place: value for place, value in places.items() if value is not None}
        before = {each.name: getattr(outer, each.name) for each in fields(Target)}
        session = Session(Target(**(before | said)), given.pop("as_json"), begins=begins)
        try:
            try:
                function(session, **given)  # type: ignore[call-arg]  # as its signature says
                sys.stdout.flush()
            finally:
                session.close()
        except BrokenPipeError:
            raise  # whoever reads has enough: typer's
        except OSError as error:  # the disk on which standard output is, as a rule, is full
            if error.filename is not None:
                raise  # of a file, not of what was printed
            sys.stdout = None  # what is left for it fails again
            lost = f"its output is not whole ({error.strerror}); what it changed stays changed"
            sys.stderr.write(f"{ctx.command_path}: {lost}\n")
            raise typer.Exit(FAILED) from None
        except UnicodeEncodeError:  # of bytes that this locale has no characters for
            sys.stderr.write(f"{ctx.command_path}: what was given is no text in this locale\n")
            raise typer.Exit(CHOICE_WRONG) from None
        except (CommandFailed, FilatureError) as error:
            sys.stderr.write(f"{ctx.command_path}: {error.message}\n")
            status = error.status if isinstance(error, CommandFailed) else FAILED
            raise typer.Exit(status) from None

    own = list(inspect.signature(function, eval_str=True).parameters.values())[1:]
    shared = inspect.signature(_shared, eval_str=True).parameters.values()
    context = inspect.Parameter("ctx", inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context)
    keyword = [each.replace(kind=inspect.Parameter.KEYWORD_ONLY) for each in (*own, *shared)]
    run.__signature__ = inspect.Signature([context, *keyword])  # type: ignore[attr-defined]
    run.__annotations__ = {each.name: each.annotation for each in (context, *keyword)}
    run.__doc__ = function.__doc__
    group.command(function.__name__.rstrip("_").replace("_", "-"))(run)


def _shared(
    as_json: Json = False,
    data_dir: DataDir = None,
    database: Database = None,
    admin_url: AdminUrl = None,
    admin_token: AdminToken = None,
) -> None:
    """The parameters that every command has."""
