"""``filature worker``: sells the tokens of the engine beside it; and what an operator sees of workers."""

import asyncio
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final
from urllib.parse import quote

import typer

from filature.cli import worker_audit, worker_change, worker_statement
from filature.cli.announce import say
from filature.cli.connect import CHOICE_WRONG
from filature.cli.key import coefficient_text
from filature.cli.serving import default_folder, fail, run, settings_of
from filature.cli.session import Session, command, target_of_environment
from filature.cli.tables import Column, credits_text, show_json, show_table
from filature.cli.times import unix_ms
from filature.cli.worker_audit import Name

if TYPE_CHECKING:
    from filature.worker.app import Worker

_LOOK_S: Final = 0.1
_ENGINE_WAIT_S: Final = 5.0
"""Until it is said that no engine answers; then it is waited for silently."""


def register(app: typer.Typer) -> None:
    workers = typer.Typer()
    workers.callback(invoke_without_command=True)(worker)
    app.add_typer(workers, name="worker")
    for function in (
        list_,
        disable,
        enable,
        drain,
        earnings,
        worker_audit.audit,
        worker_audit.clear,
    ):
        command(workers, function)
    worker_change.register(workers)
    worker_statement.register(workers)


# options of the command itself
Proxies = Annotated[
    list[str] | None,
    typer.Option(metavar="URL", help="A proxy to join; may be given several times."),
]
Token = Annotated[
    str | None,
    typer.Option(help="The token that its operator gave you (better: FILATURE_WORKER_TOKEN)."),
]
Engines = Annotated[
    list[str] | None,
    typer.Option(
        metavar="URL[=ALIAS:NAME,…]",
        help="Your OpenAI-compatible engine; may be given several times.",
    ),
]
Coefficient = Annotated[
    int | None,
    typer.Option(help="What you ask, in thousandths of the proxy's prices. [1000]"),
]
MaxRequests = Annotated[int | None, typer.Option(help="Requests at once. [64]")]
EngineKey = Annotated[
    str | None,
    typer.Option(help="The engine's own API key (better: FILATURE_WORKER_ENGINE_KEY)."),
]
EngineCa = Annotated[Path | None, typer.Option(help="CA certificates (PEM) for https engines.")]
ProxyCa = Annotated[Path | None, typer.Option(help="CA certificates (PEM) for https proxies.")]
AllowedFields = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME",
        help="A field that workers do not take as a rule; may be given several times.",
    ),
]
AllowedMedia = Annotated[
    list[str] | None,
    typer.Option(
        metavar="DOMAIN", help="Where the engine may fetch media; may be given several times."
    ),
]
ContextLength = Annotated[
    int | None,
    typer.Option(help="Tokens of the context, where the engine does not tell. [8192]"),
]
DataDir = Annotated[
    Path | None,
    typer.Option(help="Folder of unacknowledged reports. [~/.local/share/filature/worker]"),
]
MetricsAddress = Annotated[
    str | None,
    typer.Option(metavar="HOST:PORT", help="Serve /metrics and /health there. (nothing listens)"),
]


def worker(  # noqa: PLR0913, PLR0917  # a command's options are its arguments
    context: typer.Context,
    proxy: Proxies = None,
    token: Token = None,
    engine: Engines = None,
    coefficient: Coefficient = None,
    max_requests: MaxRequests = None,
    engine_key: EngineKey = None,
    engine_ca: EngineCa = None,
    proxy_ca: ProxyCa = None,
    allow_field: AllowedFields = None,
    allow_media: AllowedMedia = None,
    context_length: ContextLength = None,
    data_dir: DataDir = None,
    metrics: MetricsAddress = None,
) -> None:
    """Join proxies with your engine. Nothing listens here unless you ask for it: the worker dials out.

    The prompts of strangers come to this machine, and your engine answers them. Every setting can also be
    given as FILATURE_WORKER_…: docs/settings.md.
    """
    given: dict[str, Any] = {name: value for name, value in locals().items() if value is not None}
    del given["context"]
    if context.invoked_subcommand is None:
        _serve(given)
    elif given:
        fail("worker", "give a subcommand's options behind it, and no others", CHOICE_WRONG)
    else:
        context.obj = target_of_environment()


def _serve(given: dict[str, Any]) -> None:
    """Run a worker by its options, until it is told to stop."""
    from filature.worker.app import serve  # noqa: PLC0415  # --help is quick
    from filature.worker.settings import WorkerSettings  # noqa: PLC0415  # as above

    settings = settings_of("worker", WorkerSettings, given, ("engine_ca", "proxy_ca"))
    if "data_dir" not in settings.model_fields_set:
        settings = settings.model_copy(update={"data_dir": default_folder("worker") / "worker"})
    run("worker", serve(settings, Announcement().started), settings.log_level)


def list_(session: Session) -> None:
    """List workers, and what each offers: prices are credits per million tokens, at its coefficient."""
    answer = session.api.get("/workers")
    if session.as_json:
        show_json(answer)
        return
    show_table(
        [
            *(Column(name) for name in ("worker", "state", "marks", "model")),
            *(Column(name, "number") for name in ("context", "coefficient")),
            *(Column(name, "amount") for name in ("in", "out")),
            *(Column(name, "number") for name in ("running", "ready", "mean s")),
            Column("version"),
            Column("joined (UTC)", "time"),
        ],
        (
            (
                each["name"],
                each["state"],
                ", ".join(each["marks"]) or None,
                *_offered(model),
                *_standing(each),
            )
            for each in answer["data"]
            for model in each["models"] or [None]
        ),
        empty="There are no workers yet: filature worker-token create NAME",
    )


def _offered(model: dict[str, Any] | None) -> tuple[Any, ...]:
    if model is None:
        return (None,) * 5
    return (
        model["id"],
        model["context_length"],
        coefficient_text(model["coefficient"]),
        model["prompt_nano"],
        model["completion_nano"],
    )


def _standing(worker: dict[str, Any]) -> tuple[Any, ...]:
    if worker["joined_ms"] is None:
        return (None,) * 5
    return (
        f"{worker['running']}/{worker['capacity']}",
        worker["tunnels"],
        f"{worker['mean_s']:.2f}",
        worker["version"],
        worker["joined_ms"],
    )


def disable(session: Session, name: Name) -> None:
    """Send a worker no new requests until it is enabled, also after a restart."""
    _tell(session, name, "disable", "gets no new requests")


def enable(session: Session, name: Name) -> None:
    """Send a worker requests again; one that drains, when it is started anew. What it is marked for stays."""
    draining = "gets requests again when it is started anew: it is draining"
    _tell(session, name, "enable", "gets requests again", draining)


def drain(session: Session, name: Name) -> None:
    """Send a worker no new requests until its process begins anew."""
    _tell(session, name, "drain", "gets no new requests until it is started anew")


def earnings(
    session: Session,
    name: Name,
    since: Annotated[
        str | None, typer.Option(help="From when on: 7d, 2027-01-01 or 2027-01-01T12:00 (UTC).")
    ] = None,
    as_csv: Annotated[bool, typer.Option("--csv", help="Write the rows as CSV.")] = False,
) -> None:
    """Show what a worker earned, by day and model, and what it was not paid yet."""
    since_ms = unix_ms(since, time.time_ns() // 1_000_000, "--since")
    path = f"/workers/{quote(name, safe='')}/earnings"
    if as_csv:
        session.write_csv(path, since_ms=since_ms)
        return
    answer = session.api.get(path, since_ms=since_ms)
    if session.as_json:
        show_json(answer)
        return
    show_table(
        [
            Column("day (UTC)"),
            Column("model"),
            *(Column(name, "number") for name in ("settled", "voided", "prompt", "completion")),
            *(Column(name, "amount") for name in ("charged", "fees", "earned")),
            Column("not charged for"),
        ],
        (
            (
                each["day"],
                each["model"],
                each["settled"],
                sum(each["voided"].values()),
                each["prompt"],
                each["completion"],
                each["charged_nano"],
                each["fees_nano"],
                each["earned_nano"],
                ", ".join(f"{count} {outcome}" for outcome, count in each["voided"].items()),
            )
            for each in answer["data"]
        ),
        empty="Nothing in this time.",
    )
    if answer["days"]:
        print()
        show_table(
            [
                Column("day (UTC)"),
                *(Column(name, "number") for name in ("hours ready", "idle", "refused")),
            ],
            (
                (
                    each["day"],
                    f"{each['ready_s'] / 3600:.2f}",
                    f"{each['idle_s'] / (each['ready_s'] or 1):.0%}",
                    each["refused"],
                )
                for each in answer["days"]
            ),
        )
    print(
        f"Owed to {name}: {credits_text(answer['balance_nano'])} credits, "
        f"paid out so far: {credits_text(answer['paid_out_nano'])}. "
        f"Pay: filature payout create {name} AMOUNT"
    )


def _tell(session: Session, name: str, what: str, done: str, draining: str = "") -> None:
    """``draining`` is said instead of ``done`` where the worker drains."""
    answer = session.api.post(f"/workers/{quote(name, safe='')}/{what}")
    if session.as_json:
        show_json(answer)
    else:
        said = draining if draining and answer["state"] == "draining" else done
        print(f"{name} {said}.")
        if what == "enable" and answer["marks"]:
            print(
                f"It stays marked for {', '.join(answer['marks'])}: `filature worker audit {name}` shows why, "
                f"`filature worker clear {name}` holds nothing against it any more."
            )


class Announcement:
    """Prints once when it begins, once where no engine answers, once for each proxy that was joined."""

    def __init__(self) -> None:
        self._tasks: list[asyncio.Task[None]] = []

    def started(self, worker: "Worker") -> None:
        engines = ", ".join(worker.settings.engines)
        say(f"Filature worker before {engines}; Ctrl-C ends it.")
        if worker.metrics_port is not None and worker.settings.metrics is not None:
            host = worker.settings.metrics.rpartition(":")[0]
            say(f"Metrics: http://{host}:{worker.metrics_port}/metrics")
        loop = asyncio.get_running_loop()
        self._tasks += [loop.create_task(each(worker)) for each in (self._watch, self._wait)]

    async def _watch(self, worker: "Worker") -> None:
        left = list(worker.links)
        while left:
            for link in [link for link in left if link.joined and link.tunnels.ready]:
                taken = [name for name in worker.engines.models() if name not in link.not_taken]
                models = ", ".join(taken) or "no model that it takes: see the log"
                say(f"Joined {link.url} with {models}")
                left.remove(link)
            await asyncio.sleep(_LOOK_S)

    async def _wait(self, worker: "Worker") -> None:
        """A worker without a model joins nobody: say what it waits for."""
        await asyncio.sleep(_ENGINE_WAIT_S)
        engines = worker.engines.engines
        if not any(engine.reachable and engine.models for engine in engines):
            names = ", ".join(engine.name for engine in engines)
            say(
                f"No proxy is joined before an engine tells its models: {names}; asked again and again."
            )
