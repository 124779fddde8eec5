"""Samples, requests and a small tokenizer, for the tests beside this."""

from pathlib import Path
from typing import Any, Final

import orjson

from filature.answer.usage import Usage
from filature.relay.watch import Sample
from filature.request.limits import RequestLimits
from filature.request.parse import ParsedRequest, parse_request
from filature.wire.dialect import Dialect

MODEL: Final = "silk/one"
TEMPLATE: Final = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
WORDS: Final = "the worm spins silk and the loom weaves what the worm spins "
BODIES: Final[dict[Dialect, dict[str, Any]]] = {
    Dialect.CHAT: {"messages": [{"role": "user", "content": WORDS}]},
    Dialect.COMPLETIONS: {"prompt": WORDS},
    Dialect.EMBEDDINGS: {"input": WORDS},
    Dialect.RESPONSES: {"input": WORDS},
    Dialect.MESSAGES: {"messages": [{"role": "user", "content": WORDS}], "max_tokens": 9},
    Dialect.COUNT_TOKENS: {"messages": [{"role": "user", "content": WORDS}]},
}


def request(dialect: Dialect = Dialect.CHAT, **fields: Any) -> ParsedRequest:
    body = {"model": "silk/one"} | BODIES[dialect] | fields
    return parse_request(dialect, orjson.dumps(body), RequestLimits())


def chat(text: str | None, **message: Any) -> bytes:
    choice = {"index": 0, "message": {"role": "assistant", "content": text} | message}
    return orjson.dumps({"choices": [choice]})


def sample(
    asked: ParsedRequest, answer: bytes, claimed: Usage, *, is_repeated: bool = False
) -> Sample:
    """One that has ended."""
    found = Sample(asked, MODEL, is_repeated=is_repeated, began_at=0.0)
    found.keep(answer)
    found.claimed = claimed
    return found


def make_tokenizer(folder: Path, model: str = MODEL, template: str = TEMPLATE) -> Any:
    """Trained of some words; put where an operator would."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers  # may be missing

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([WORDS * 3], trainer)
    place = folder / model
    place.mkdir(parents=True)
    tokenizer.save(str(place / "tokenizer.json"))
    (place / "chat_template.jinja").write_text(template, encoding="utf-8")
    return tokenizer
