"""``filature postprocess``: the postprocessor alone, bytes in and bytes out. No network, no settings.

It speaks the seed system's terms: a price per token and multipliers, and a usage line in adjusted
tokens (``answers.md``, "Prices and cost").
"""

import sys
from collections.abc import Iterable
from enum import StrEnum
from io import BufferedReader
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, BinaryIO, Final, cast

import typer

if TYPE_CHECKING:
    from filature.answer.policy import AnswerPolicy
    from filature.answer.pricing import Tariff
    from filature.answer.usage import Usage

MULTIPLIER_ONE: Final = 10_000
_ADJUST_DIVISOR: Final = 10_000_000
"""Of tokens × coefficient × multiplier: a coefficient of 1.0 is 1000."""
_MILLION: Final = 1_000_000
_READ_BYTES: Final = 64 * 1024


class Api(StrEnum):
    """The dialect of the answer."""

    CHAT = "chat"
    COMPLETIONS = "completions"
    EMBEDDINGS = "embeddings"
    RESPONSES = "responses"
    MESSAGES = "messages"


class Multipliers:
    """One for each class of tokens; 10_000 is 1.0."""

    def __init__(self, prompt: int, cached: int, completion: int, reasoning: int) -> None:
        self.prompt = prompt
        self.cached = cached
        self.completion = completion
        self.reasoning = reasoning


def _opened(file: Path) -> BufferedReader:
    """Ends the command where it cannot be read."""
    try:
        return file.open("rb")
    except FileNotFoundError:
        why = f"there is no file {file}"
    except OSError as error:
        why = f"{file}: {error.strerror}"
    sys.stderr.write(f"filature postprocess: {why}\n")
    raise typer.Exit(2)


def register(app: typer.Typer) -> None:
    app.command("postprocess")(postprocess)


def postprocess(  # noqa: PLR0913, PLR0917  # a command's options are its arguments
    file: Annotated[
        Path | None,
        typer.Argument(help="The body of an engine's answer, unframed; standard input without it."),
    ] = None,
    api: Annotated[Api, typer.Option(help="The API that the answer is of.")] = Api.CHAT,
    price_per_token: Annotated[
        int, typer.Option(min=0, help="Nano-credits per token at multiplier and coefficient 1.0.")
    ] = 100,
    coefficient: Annotated[int, typer.Option(min=0, help="1000 is 1.0.")] = 1000,
    prompt_multiplier: Annotated[int, typer.Option(min=0, help="10000 is 1.0.")] = MULTIPLIER_ONE,
    cached_multiplier: Annotated[int, typer.Option(min=0, help="10000 is 1.0.")] = MULTIPLIER_ONE,
    completion_multiplier: Annotated[
        int, typer.Option(min=0, help="10000 is 1.0.")
    ] = MULTIPLIER_ONE,
    reasoning_multiplier: Annotated[
        int, typer.Option(min=0, help="10000 is 1.0.")
    ] = MULTIPLIER_ONE,
    split: Annotated[
        int | None, typer.Option(min=1, help="Feed so many bytes at a time; 1 is byte by byte.")
    ] = None,
    as_requested: Annotated[
        bool,
        typer.Option(
            "--as-requested/--forward-usage",
            help="Take out the usage that a client did not ask for, as the proxy does in chat and "
            "completions streams; or forward everything.",
        ),
    ] = False,
    selftest: Annotated[
        bool, typer.Option("--selftest", help="Run three known answers through it and judge.")
    ] = False,
) -> None:
    """Post-process an engine's answer: what a client gets on stdout, its usage on stderr."""
    multipliers = Multipliers(
        prompt_multiplier, cached_multiplier, completion_multiplier, reasoning_multiplier
    )
    tariff = tariff_of(price_per_token, multipliers, coefficient)
    if selftest:
        from filature.cli.selftest import run  # noqa: PLC0415  # --help is quick

        raise typer.Exit(run())
    stdin = cast(BufferedReader, sys.stdin.buffer)  # which it is, said or not
    source = stdin if file is None else _opened(file)
    with source:
        read = source.read1 if split is None else source.read
        pieces = iter(lambda: read(split or _READ_BYTES), b"")
        usage, unprocessed = process(
            pieces, sys.stdout.buffer, api, policy_of(tariff, as_requested)
        )
    sys.stdout.buffer.flush()
    if unprocessed:
        sys.stderr.write(f"unprocessed data in answer: bytes={unprocessed}\n")
    sys.stderr.write(usage_line(usage, multipliers, coefficient) + "\n")


def tariff_of(price_per_token: int, multipliers: Multipliers, coefficient: int) -> "Tariff":
    """The seed system's prices as a tariff, exactly."""
    from filature.answer.pricing import Tariff  # noqa: PLC0415  # --help is quick

    unit = price_per_token * (_MILLION // MULTIPLIER_ONE)
    return Tariff(
        prompt=unit * multipliers.prompt,
        cached=unit * multipliers.cached,
        completion=unit * multipliers.completion,
        reasoning=unit * multipliers.reasoning,
        coefficient=coefficient,
    )


def policy_of(tariff: "Tariff", as_requested: bool) -> "AnswerPolicy":
    """Forward everything, or what a client gets that asked for nothing."""
    from filature.answer.policy import AnswerPolicy  # noqa: PLC0415  # --help is quick

    return AnswerPolicy(strip=as_requested, tariff=tariff, errors="pass")


def process(
    pieces: Iterable[bytes], sink: BinaryIO, api: Api, policy: "AnswerPolicy"
) -> tuple["Usage", int]:
    """Feed ``pieces`` through, write to ``sink``; the usage and the size of the unread tail."""
    from filature.answer.postprocessor import AnswerPostprocessor  # noqa: PLC0415  # --help is quick
    from filature.wire.dialect import Dialect  # noqa: PLC0415  # as above

    answer = AnswerPostprocessor(Dialect(api.value), policy)
    sink.writelines(answer.feed(piece) for piece in pieces)
    sink.write(answer.finish(True))
    return answer.usage, answer.unprocessed_bytes


def usage_line(usage: "Usage", multipliers: Multipliers, coefficient: int) -> str:
    """``usage: prompt=… cached=… completion=… reasoning=… total=…`` in adjusted tokens."""

    def adjusted(tokens: int, multiplier: int) -> int:
        return tokens * coefficient * multiplier // _ADJUST_DIVISOR

    counts = {
        "prompt": adjusted(usage.prompt - usage.cached, multipliers.prompt),
        "cached": adjusted(usage.cached, multipliers.cached),
        "completion": adjusted(usage.completion - usage.reasoning, multipliers.completion),
        "reasoning": adjusted(usage.reasoning, multipliers.reasoning),
    }
    shown = " ".join(f"{name}={count}" for name, count in counts.items())
    return f"usage: {shown} total={sum(counts.values())}"
