"""Counts tokens with the tokenizers that the operator supplied. It blocks: never in an event loop.

A model's files are where hubs have them: ``FOLDER/ORG/NAME/tokenizer.json``, and for chats ``chat_template.jinja`` or
``tokenizer_config.json`` with a template in it.
"""

import json
import logging
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from importlib import import_module
from pathlib import Path
from typing import Any, Final, Protocol, Self

from filature.request.parse import ParsedRequest
from filature.wire.dialect import Dialect

MODELS_MAX: Final = 16
"""Loaded at once."""
ABSENT_MAX: Final = 4096
"""Models that are known to have no tokenizer here."""
PIECE_CHARACTERS_MAX: Final = 16 * 1024
"""Counted at once: the library holds the interpreter for that long, some milliseconds."""
TEXT_CHARACTERS_MAX: Final = 1024 * 1024
"""Of what is counted at all."""
BROKEN_TOKENS: Final = 2
"""More, of a character that could not be read: each of its bytes may have been one."""
BODY_BYTES_MAX: Final = 1024 * 1024
"""Of a request whose prompt is counted."""
_TEXT_PARTS: Final = ("text", "input_text", "output_text")
_MESSAGE_MEMBERS: Final = frozenset({"role", "content"})
_UNCOUNTED: Final = (
    "add_generation_prompt",
    "add_special_tokens",
    "chat_template",
    "chat_template_kwargs",
    "continue_final_message",
    "documents",
    "echo",
    "format",
    "functions",
    "output_config",
    "prompt_embeds",
    "reasoning",
    "reasoning_effort",
    "response_format",
    "suffix",
    "text",
    "thinking",
    "tools",
    "truncate_prompt_tokens",
)
"""Fields that change a prompt in ways that are not counted here."""

log = logging.getLogger(__name__)


class TokenizersMissing(Exception):
    """The libraries are not installed, or the folder is not there; the message says which."""


class _Render(Protocol):
    def render(self, **context: Any) -> str: ...


class _Model:
    """A tokenizer, and the template of its chats if there is one."""

    def __init__(
        self, tokenizer: Any, template: _Render | None, special: Mapping[str, str]
    ) -> None:
        self._tokenizer = tokenizer
        self._template = template
        self._special = special

    def count(self, text: str, *, special: bool = False) -> int:
        """Of a text; ``special``: with what begins and ends a prompt."""
        text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        count = 0
        for piece in _pieces(text):
            count += len(self._tokenizer.encode(piece, add_special_tokens=special).ids)
            special = False
        return count

    def count_chat(self, messages: list[dict[str, str]]) -> int | None:
        if self._template is None:
            return None
        text = self._template.render(
            messages=messages, tools=None, add_generation_prompt=True, **self._special
        )
        return None if len(text) > TEXT_CHARACTERS_MAX else self.count(text)


class Recounter:
    """The tokenizers of a folder, loaded when first needed."""

    def __init__(self, folder: Path, library: Any, jinja: Any) -> None:
        self._folder = folder
        self._library = library
        self._jinja = jinja
        self._models: dict[str, _Model] = {}
        self._absent: set[str] = set()

    @classmethod
    def of(cls, folder: Path) -> Self:
        """Raises TokenizersMissing."""
        if not folder.is_dir():
            raise TokenizersMissing(f"There is no folder {folder} of tokenizers.")
        try:
            return cls(folder, import_module("tokenizers"), import_module("jinja2.sandbox"))
        except ImportError as error:
            text = f"Tokenizers need more libraries: pip install 'filature[tokenizer]' ({error})."
            raise TokenizersMissing(text) from None

    def completion(self, model: str, texts: Iterable[str]) -> int | None:
        """Tokens of what a model wrote; None: its tokenizer is not here."""
        known, texts = self._model(model), list(texts)
        if known is None or sum(map(len, texts)) > TEXT_CHARACTERS_MAX:
            return None
        broken = sum(text.count("\ufffd") for text in texts)
        return sum(known.count(text) for text in texts) + BROKEN_TOKENS * broken

    def prompt(self, model: str, request: ParsedRequest) -> int | None:
        """Tokens of a request's prompts; None where they cannot be told."""
        known, fields = self._model(model), request.fields
        if (
            known is None
            or request.media_parts
            or request.prompt_ids
            or len(request.body) > BODY_BYTES_MAX
            or any(fields.get(name) is not None for name in _UNCOUNTED)
        ):
            return None
        match request.dialect:
            case Dialect.COMPLETIONS | Dialect.EMBEDDINGS:
                name = "prompt" if request.dialect is Dialect.COMPLETIONS else "input"
                given = fields.get(name)
                texts = [given] if isinstance(given, str) else given
                if not isinstance(texts, list) or not all(isinstance(each, str) for each in texts):
                    return None
                return sum(known.count(text, special=True) for text in texts)
            case Dialect.CHAT:
                messages = _messages(fields.get("messages"), None)
            case Dialect.MESSAGES:
                messages = _messages(fields.get("messages"), fields.get("system"))
            case Dialect.RESPONSES:
                given = fields.get("input")
                items = [{"role": "user", "content": given}] if isinstance(given, str) else given
                messages = _messages(items, fields.get("instructions"))
            case _:
                return None
        if messages is None:
            return None
        try:
            return known.count_chat(messages)
        except Exception:  # noqa: BLE001  # a template refuses as it likes
            return None

    def _model(self, model: str) -> _Model | None:
        known = self._models.get(model)
        if known is not None or model in self._absent:
            return known
        try:
            known = self._load(model)
        except Exception:  # files are the operator's, and names whatever is sold
            log.exception("the tokenizer of %r cannot be used", model)
        if known is None:
            if len(self._absent) < ABSENT_MAX:
                self._absent.add(model)
            return None
        if len(self._models) >= MODELS_MAX:
            del self._models[next(iter(self._models))]
        self._models[model] = known
        return known

    def _load(self, model: str) -> _Model | None:
        place = (self._folder / model).resolve()
        file = place / "tokenizer.json"
        if not place.is_relative_to(self._folder.resolve()) or not file.is_file():
            return None
        tokenizer = self._library.Tokenizer.from_file(str(file))
        tokenizer.no_truncation()
        tokenizer.no_padding()
        config: Any = _json(place / "tokenizer_config.json")
        source = _template(place, config)
        template = None
        if source is not None:
            environment = self._jinja.ImmutableSandboxedEnvironment(
                trim_blocks=True,
                lstrip_blocks=True,
                extensions=["jinja2.ext.loopcontrols"],
            )
            environment.filters["tojson"] = _to_json
            environment.globals["raise_exception"] = _refuse
            environment.globals["strftime_now"] = datetime.now().astimezone().strftime
            template = environment.from_string(source)
        special = {
            name: text
            for name in ("bos_token", "eos_token", "unk_token", "pad_token")
            if (text := _token(config.get(name))) is not None
        }
        return _Model(tokenizer, template, special)


def _pieces(text: str) -> Iterator[str]:
    """Cut where white space is, if there is any: it costs a token here and there."""
    at = 0
    while len(text) - at > PIECE_CHARACTERS_MAX:
        end = at + PIECE_CHARACTERS_MAX
        space = text.rfind(" ", at + 1, end)
        end = end if space < 0 else space
        yield text[at:end]
        at = end
    yield text[at:]


def _messages(items: Any, system: Any) -> list[dict[str, str]] | None:
    """Messages that are nothing but text, as templates take them; None: there are others."""
    found: list[dict[str, str]] = []
    if system is not None:
        text = _text(system)
        if text is None:
            return None
        found.append({"role": "system", "content": text})
    if not isinstance(items, list):
        return None
    for item in items:
        if not isinstance(item, dict) or item.keys() - _MESSAGE_MEMBERS - {"type"}:
            return None
        role, text = item.get("role"), _text(item.get("content"))
        if not isinstance(role, str) or text is None or item.get("type", "message") != "message":
            return None
        found.append({"role": role, "content": text})
    return found


def _text(content: Any) -> str | None:
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        return None
    texts: list[str] = []
    for part in content:
        if not isinstance(part, dict) or part.get("type") not in _TEXT_PARTS:
            return None
        texts.append(str(part.get("text", "")))
    return "\n".join(texts)


def _template(place: Path, config: Mapping[str, Any]) -> str | None:
    file = place / "chat_template.jinja"
    if file.is_file():
        return file.read_text(encoding="utf-8")
    template = config.get("chat_template")
    if isinstance(template, list):  # several, by their names
        template = {each.get("name"): each.get("template") for each in template}.get("default")
    return template if isinstance(template, str) else None


def _json(file: Path) -> dict[str, Any]:
    if not file.is_file():
        return {}
    found = json.loads(file.read_bytes())
    return found if isinstance(found, dict) else {}


def _token(said: Any) -> str | None:
    text = said.get("content") if isinstance(said, dict) else said
    return text if isinstance(text, str) else None


def _to_json(value: Any, indent: int | None = None) -> str:
    """As templates are written for: without HTML's escapes."""
    return json.dumps(value, ensure_ascii=False, indent=indent)


def _refuse(message: str) -> None:
    raise ValueError(message)
