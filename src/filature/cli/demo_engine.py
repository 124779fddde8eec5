"""``filature demo-engine``: an engine in a process of its own. What it does is ``filature.demo``'s."""

from enum import StrEnum
from typing import Annotated, NoReturn

import typer

from filature.demo.options import LineEnding, Script, UsagePlacement


class Backend(StrEnum):
    """What answers."""

    AUTO = "auto"
    MODEL = "model"
    SCRIPTED = "scripted"


def register(app: typer.Typer) -> None:
    app.command("demo-engine")(demo_engine)


def demo_engine(  # noqa: PLR0913, PLR0917  # a command's options are its arguments
    backend: Annotated[Backend, typer.Option(help="What answers.")] = Backend.AUTO,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port; 0: any free one.")] = 8000,
    model: Annotated[
        list[str] | None,
        typer.Option(
            help="Name to serve under; may be given several times. (default: by the backend)"
        ),
    ] = None,
    context_length: Annotated[
        int | None, typer.Option(min=16, help="In tokens. [8192; of the model 2048]")
    ] = None,
    tokens_per_second: Annotated[
        float, typer.Option(min=0, help="Of each scripted stream; 0: as fast as it is read.")
    ] = 100.0,
    prefill_s: Annotated[float, typer.Option(min=0, help="Before the first event.")] = 0.0,
    tokens_per_event: Annotated[int, typer.Option(min=1)] = 1,
    tokens: Annotated[
        int | None, typer.Option(min=0, help="Length of each answer. (default: some dozens)")
    ] = None,
    cached: Annotated[int, typer.Option(min=0, help="Prompt tokens told as cached.")] = 0,
    reasoning: Annotated[int, typer.Option(min=0, help="Tokens of reasoning first.")] = 0,
    line_ending: Annotated[LineEnding, typer.Option()] = LineEnding.LF,
    usage: Annotated[
        UsagePlacement,
        typer.Option(help="Its place in chat and completions streams; separate: where asked for."),
    ] = UsagePlacement.SEPARATE,
    per_choice: Annotated[
        bool, typer.Option("--per-choice", help="One usage record per choice.")
    ] = False,
    finish_apart: Annotated[
        bool, typer.Option("--finish-apart", help="The finish on an event without content.")
    ] = False,
) -> None:
    """Serve a small OpenAI-compatible engine: a real model on the CPU, or scripted text for tests.

    The scripted one takes options per request, faults among them: as a body member x_demo, or in the
    model's name, as in NAME/fault=cut;after=3.
    """
    _serve(
        backend,
        host,
        port,
        tuple(model or ()),
        context_length,
        Script(
            tokens=tokens,
            cached=cached,
            reasoning=reasoning,
            tokens_per_second=tokens_per_second,
            prefill_s=prefill_s,
            tokens_per_event=tokens_per_event,
            line_ending=line_ending,
            usage=usage,
            per_choice=per_choice,
            finish_apart=finish_apart,
        ),
    )


def _serve(
    backend: Backend,
    host: str,
    port: int,
    models: tuple[str, ...],
    context_length: int | None,
    script: Script,
) -> None:
    from filature.demo import available_backend  # noqa: PLC0415  # --help is quick
    from filature.demo.model import ModelLoadError  # noqa: PLC0415  # as above
    from filature.demo.run import run  # noqa: PLC0415  # as above

    available, description = available_backend()
    if backend is Backend.MODEL and available != "model":
        _fail(f"no model: {description.partition(': ')[2]}")
    chosen = available if backend is Backend.AUTO else backend.value
    if chosen == "scripted" and available == "model":
        description = "scripted text, not a model: as asked for"

    def listening(url: str, names: tuple[str, ...]) -> None:
        typer.echo(f"The demonstration engine listens at {url}")
        typer.echo(f"Model: {description}")
        typer.echo(f"Served as: {', '.join(names)}")

    try:
        run(
            use_model=chosen == "model",
            models=models,
            context_length=context_length,
            script=script,
            host=host,
            port=port,
            listening=listening,
        )
    except ModelLoadError as error:
        _fail(str(error))
    except OSError as error:
        _fail(f"cannot listen: {error.strerror or error}")


def _fail(message: str) -> NoReturn:
    typer.echo(f"filature demo-engine: {message}", err=True)
    raise typer.Exit(1)
