"""An answer that is JSON: one document or several in a row. Usage is completed and priced in it."""

import re
from collections.abc import Callable
from typing import Final

import orjson

from filature.answer.edits import with_charge, with_debug, with_model
from filature.answer.observer import AnswerObserver
from filature.answer.policy import AnswerPolicy
from filature.answer.pricing import cost_of
from filature.wire.dialect import Dialect
from filature.wire.documents import (
    PARSED_BYTES_MAX,
    Document,
    DocumentSplitter,
    DocumentTooLarge,
    NotJson,
    parse_json,
)

_loads: Final = orjson.loads  # a module's attributes are looked up at each use
_SPACE: Final = b" \t\r\n"
_USAGE_PATH: Final = ("usage",)
_NEEDED: Final = frozenset({b'"usage"', b'"error"', b'"model"', b'"object"', b'"type"'})
_VALUE: Final = re.compile(
    rb'[ \t\r\n]*+:[ \t\r\n]*+(\{[^{}]*+(?:\{[^{}]*+\}[^{}]*+)*+\}|"[^"\\]*+"|null)'
)


class DocumentWriter:
    """Bytes of JSON documents in, what may be handed out returned."""

    __slots__ = (
        "_debug",
        "_dialect",
        "_model_names",
        "_observer",
        "_policy",
        "_splitter",
        "answered",
        "documents",
        "garbage",
        "overflowed",
        "unprocessed_bytes",
    )

    def __init__(
        self,
        dialect: Dialect,
        observer: AnswerObserver,
        policy: AnswerPolicy,
        model_names: tuple[str, str] | None,
        debug: Callable[[], bytes] | None,
    ) -> None:
        self._debug = debug
        self._dialect = dialect
        self._observer = observer
        self._policy = policy
        self._model_names = model_names
        self._splitter: DocumentSplitter | None = None
        self.documents = 0
        """Whole ones."""
        self.answered = False
        """One of them is an answer of the dialect."""
        self.garbage = False
        """Something came that is not JSON; it and what follows passes."""
        self.overflowed = False
        self.unprocessed_bytes = 0

    def feed(self, data: bytes) -> bytes:
        """What may be handed out now."""
        if self.garbage or self.overflowed:
            return self._pass_through(data)
        splitter = self._splitter
        if splitter is None:
            if data.startswith(b"{") and data.endswith(b"}") and len(data) <= PARSED_BYTES_MAX:
                try:
                    payload = _loads(data)
                except orjson.JSONDecodeError:
                    pass  # several documents, or half of one
                else:
                    return self._document(data, payload)
            splitter = self._splitter = DocumentSplitter()
        try:
            documents = splitter.split(data)
        except DocumentTooLarge as too_large:  # two names: mypyc gives one name one type
            return self._documents(too_large.documents) + self._overflow(too_large.rest)
        except NotJson as broken:
            return self._documents(broken.documents) + self._give_up(broken.rest)
        out = self._documents(documents)
        space = splitter.take_space()
        return out if self._swallows() else out + space

    def finish(self, *, clean: bool) -> bytes:
        """What is left when the answer ends."""
        splitter = self._splitter
        if splitter is None or self.garbage or self.overflowed:
            return b""
        out = self._documents(splitter.finish()) if clean else b""
        rest = splitter.take_rest()
        if rest.strip(_SPACE):
            self.unprocessed_bytes += len(rest)
            self.garbage = True
        return out + rest if clean and not self._swallows() else out

    def _documents(self, documents: list[Document]) -> bytes:
        out: list[bytes] = []
        for position, document in enumerate(documents):
            if not self._swallows():
                out.append(document.space)
            try:
                payload = self._payload(document)
            except ValueError:
                rest = document.text + b"".join(
                    later.space + later.text for later in documents[position + 1 :]
                )
                if self._splitter is not None:
                    rest += self._splitter.take_rest()
                out.append(self._give_up(rest))
                break
            out.append(self._document(document.text, payload))
        return b"".join(out)

    def _payload(self, document: Document) -> object:
        """The document's value; of a large object only the members that are needed."""
        text = document.text
        if len(text) <= PARSED_BYTES_MAX or text[:1] != b"{":
            return parse_json(text)
        payload: dict[str, object] = {}
        for start, end in document.strings:
            key = text[start:end]
            if key in _NEEDED:
                value = _VALUE.match(text, end)
                if value is not None:
                    payload[key[1:-1].decode()] = parse_json(value.group(1))
        return payload

    def _document(self, text: bytes, payload: object) -> bytes:
        """One document as the client gets it."""
        observer = self._observer
        if self._swallows():
            return b""
        self.documents += 1
        record, is_answer = observer.document(payload, len(text))
        if observer.error is not None:
            return b"" if self._swallows() else text
        if type(payload) is not dict:
            return text
        if is_answer or self._dialect is Dialect.COUNT_TOKENS:
            self.answered = True
        if is_answer and self._policy.tariff is not None:
            usage = observer.usage()
            cost = cost_of(usage, self._policy.tariff)
            agrees = record is None or observer.agrees(record, usage)
            text = with_charge(text, _USAGE_PATH, self._dialect, record, usage, cost, agrees=agrees)
        if is_answer and self._debug is not None:
            text = with_debug(text, _USAGE_PATH, self._debug())
        if self._model_names is not None:
            name = payload.get("model")
            if type(name) is str and name and name != self._model_names[1]:
                text = with_model(text, ("model",), name, self._model_names[1])
        return text

    def _swallows(self) -> bool:
        return self._observer.error is not None and self._policy.errors == "take"

    def _overflow(self, rest: bytes) -> bytes:
        self.overflowed = True
        return self._pass_through(rest)

    def _give_up(self, rest: bytes) -> bytes:
        if not self.garbage:
            self.unprocessed_bytes -= len(rest) - len(rest.lstrip(_SPACE))  # which parts documents
        self.garbage = True
        return self._pass_through(rest)

    def _pass_through(self, data: bytes) -> bytes:
        self.unprocessed_bytes += len(data)
        if self._swallows():
            return b""
        if self.overflowed and self._dialect is not Dialect.EMBEDDINGS:
            self._observer.meter.unread_bytes += len(data)
        return data
