"""Engines that generate by a tokenizer, and lies about what they generated. Beside ``test_lies.py``.

An honest engine writes tokens of a real vocabulary (trained here, of this project's own documents), one event each,
and tells exactly what it used. A lie changes what is said of that, or what is sent.
"""

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from tests.integration.harness import EngineRequest, RawEngine
from tests.money.telling import EMBEDDINGS, MODEL, Said, Told, answering, asked

from filature.answer.pricing import Tariff, cost_of
from filature.answer.usage import Usage

DOCUMENTS: Final = ("docs/network.md", "docs/architecture.md", "README.md", "docs/from-cocoon.md")
TEMPLATE: Final = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
TARIFF: Final = Tariff(
    prompt=200_000_000, cached=20_000_000, completion=800_000_000, reasoning=800_000_000
)
"""The settings' defaults."""
BLOCK: Final = 16
"""Tokens of a prompt are cached in blocks, as vLLM does."""


def words() -> list[str]:
    root = Path(__file__).parents[2]
    text = " ".join((root / name).read_text(encoding="utf-8") for name in DOCUMENTS)
    return [word for word in text.split() if word.isascii()]


def make_tokenizer(folder: Path) -> Any:
    """Train one of 2,000 tokens and put it where an operator would, with a template."""
    from tokenizers import (
        Tokenizer,
        decoders,
        models,
        pre_tokenizers,
        trainers,
    )

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=2000,
        special_tokens=["<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([" ".join(words())], trainer)
    place = folder / MODEL
    place.mkdir(parents=True)
    tokenizer.save(str(place / "tokenizer.json"))
    (place / "chat_template.jinja").write_text(TEMPLATE, encoding="utf-8")
    return tokenizer


Lie = Callable[[Told, random.Random], Told]


@dataclass
class Spinner:
    """An engine, honest but for ``lie``. ``true`` is what each answer really used, by its text."""

    tokenizer: Any
    chance: random.Random
    lie: Lie | None = None
    lies_one_in: int = 1
    is_marked: Callable[[], bool] = lambda: False
    true: dict[str, Usage] = field(default_factory=dict)
    when_marked: set[str] = field(default_factory=set)
    """Answers that began after it was marked."""
    _seen: dict[str, list[int]] = field(default_factory=dict)
    _words: list[str] = field(default_factory=words)

    def engine(self) -> RawEngine:
        return RawEngine(self.answer, models=(MODEL,))

    def prompt(self, said: Said | str) -> list[int]:
        text = said
        if not isinstance(said, str):
            each = (f"<|im_start|>{m['role']}\n{m['content']}<|im_end|>\n" for m in said)
            text = "".join(each) + "<|im_start|>assistant\n"
        ids: list[int] = self.tokenizer.encode(text).ids
        return ids

    async def answer(self, request: EngineRequest, writer: asyncio.StreamWriter) -> None:
        body = request.json
        said = asked(body)
        ids = self.prompt(said)
        first = said if isinstance(said, str) else said[0]["content"]
        cached = self._cached(first.partition("\n")[0], ids)
        length = self.chance.randint(5, 60)
        start = self.chance.randrange(len(self._words) - length)
        text = " ".join(self._words[start : start + length])
        written = self.tokenizer.encode(text).ids
        pieces = [self.tokenizer.decode([each]) for each in written]
        told = Told(len(ids), cached, len(written) + 1, 0, pieces)  # and the token that ends it
        if request.path == EMBEDDINGS:
            told = Told(len(ids), 0, 0, 0, [])
        true = Usage(told.prompt, told.cached, told.completion)
        if self.lie is not None and self.chance.randrange(self.lies_one_in) == 0:
            told = self.lie(replace(told, pieces=list(pieces)), self.chance)
        request_id = request.headers["x-request-id"]
        self.true[request_id] = true
        if self.is_marked():
            self.when_marked.add(request_id)
        writer.write(answering(request.path, told, stream=bool(body.get("stream"))))

    def _cached(self, key: str, ids: list[int]) -> int:
        before = self._seen.get(key, [])
        same = next(
            (at for at, (a, b) in enumerate(zip(before, ids, strict=False)) if a != b),
            min(len(before), len(ids)),
        )
        self._seen[key] = ids
        return same // BLOCK * BLOCK

    def honest_cost(self, request_id: str) -> int:
        """What an answer is worth; None of what was not asked here."""
        return cost_of(self.true[request_id], TARIFF).total


# Lies


def tenfold(told: Told, _: random.Random) -> Told:
    return replace(told, completion=told.completion * 10)


def a_third_more(told: Told, _: random.Random) -> Told:
    return replace(told, completion=told.completion * 4 // 3 + 2)


def swollen_inside_the_stream(told: Told, _: random.Random) -> Told:
    return replace(told, completion=told.completion * 3, continuous=True)


def invented_prompt(told: Told, _: random.Random) -> Told:
    return replace(told, prompt=told.prompt * 3)


def padded(told: Told, _: random.Random) -> Told:
    """Behind each token three events without a word, told as tokens."""
    pieces = [each for piece in told.pieces for each in (piece, "", "", "")]
    return replace(told, pieces=pieces, completion=len(pieces) + 1)


def split_in_two(told: Told, _: random.Random) -> Told:
    """No usage at all, so that events are counted, and two of them for each token."""
    pieces = [half for piece in told.pieces for half in (piece[:1], piece[1:]) if half]
    return replace(told, pieces=pieces, usage=False)


def split_and_told(told: Told, _: random.Random) -> Told:
    pieces = [letter for piece in told.pieces for letter in piece]
    return replace(told, pieces=pieces, completion=len(pieces) + 1)


def reasoning_never_delivered(told: Told, chance: random.Random) -> Told:
    thoughts = chance.randint(200, 400)
    return replace(told, completion=told.completion + thoughts, reasoning=thoughts)


def nothing_delivered(told: Told, _: random.Random) -> Told:
    """One word, and the price of ten pages."""
    return replace(told, pieces=told.pieces[:1], completion=4000)


def false_cache_miss(told: Told, _: random.Random) -> Told:
    return replace(told, cached=0)


ALL: Final[dict[str, Lie]] = {
    "completion tokens x 10": tenfold,
    "completion tokens x 4/3": a_third_more,
    "usage swollen inside the stream": swollen_inside_the_stream,
    "invented prompt tokens": invented_prompt,
    "padding deltas": padded,
    "tokens split in two, no usage": split_in_two,
    "every letter told as a token": split_and_told,
    "reasoning never delivered": reasoning_never_delivered,
    "answers never delivered": nothing_delivered,
    "false cache misses": false_cache_miss,
}
