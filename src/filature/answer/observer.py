"""Reads an answer and remembers what was in it; the only reader of payloads. It changes nothing.

It is told each event's or document's payload in order. What it knows afterwards is what usage,
verdict and the writing side go by.
"""

from typing import Final, cast

from filature.answer.bounds import UsageBounds, within
from filature.answer.completion import error_in, has_done_mark, is_end_mark
from filature.answer.content import Leaves, choice_leaves, collect, payload_leaves, text_bytes
from filature.answer.meter import UsageMeter
from filature.answer.sighting import Sighting
from filature.answer.usage import Usage, goes_on, read_record
from filature.wire.dialect import Dialect
from filature.wire.documents import PARSED_BYTES_MAX, dump_json, parse_json

# bound once: a look-up in an enumeration costs a call of Python's
_COUNT_TOKENS: Final = Dialect.COUNT_TOKENS
_EMBEDDINGS: Final = Dialect.EMBEDDINGS
_MESSAGES: Final = Dialect.MESSAGES
_RESPONSES: Final = Dialect.RESPONSES

_ENVELOPE: Final = ("id", "object", "created", "model")
_ANSWER_KEYS: Final = {
    Dialect.CHAT: "choices",
    Dialect.COMPLETIONS: "choices",
    Dialect.EMBEDDINGS: "data",
    Dialect.RESPONSES: "output",
    Dialect.MESSAGES: "content",
}
_FINAL_RESPONSE_TYPES: Final = ("response.completed", "response.incomplete", "response.failed")
_CHOICE_MAX: Final = 1 << 20  # larger indices are not told apart
_FIRST: Final = frozenset({0})
_NOTHING: Final = Sighting()
_TOP: Final[tuple[str, ...]] = ("usage",)
_IN_RESPONSE: Final[tuple[str, ...]] = ("response", "usage")
_IN_MESSAGE: Final[tuple[str, ...]] = ("message", "usage")


class AnswerObserver:
    """The memory of one answer; ``bounds`` are those of its usage."""

    __slots__ = (
        "_bounds",
        "_dialect",
        "_done_mark",
        "_finished",
        "_pending",
        "_pending_mark",
        "_pending_text",
        "_seen",
        "_sequence_number",
        "_stopped",
        "_tail_bytes",
        "_unread",
        "end_mark_seen",
        "envelope",
        "error",
        "events",
        "meter",
        "payload_bytes",
    )

    def __init__(
        self, dialect: Dialect, meter: UsageMeter, bounds: UsageBounds | None = None
    ) -> None:
        self._bounds = bounds
        self._dialect = dialect
        self._done_mark = has_done_mark(dialect)
        self.meter = meter
        self.error: object = None
        """The engine's error, as it sent it."""
        self.end_mark_seen = False
        self.envelope: dict[str, object] = {}
        """Of a chat or completions stream: what every chunk repeats."""
        self.events = 0
        """Events with data."""
        self.payload_bytes = 0
        """Of JSON, up to the last event with content or a record: none that comes after it changes
        what was shown."""
        self._tail_bytes = 0  # of events since then
        self._seen: set[int] = set()
        self._finished: set[int] = set()
        self._stopped = False
        self._sequence_number = -1
        self._unread: dict[str, object] | None = None  # a document whose text nobody asked for yet
        self._pending: dict[str, object] | None = None  # a record that was not read yet
        self._pending_text = b""  # or the text of one
        self._pending_mark = 0

    # What is known ---------------------------------------------------------------------------

    def usage(self) -> Usage:
        """The usage so far, as much of it as is possible."""
        self._settle()
        usage = self.meter.usage()
        bounds = self._bounds
        if bounds is None:
            return usage
        possible = within(usage, bounds, self.payload_bytes + self.meter.unread_bytes)
        belief = bounds.belief
        if belief is None:
            return possible
        return belief.of(possible, self.content_bytes + self.meter.unread_bytes)

    def agrees(self, told: dict[str, object], usage: Usage) -> bool:
        """Whether a record tells ``usage``, which is charged. One of several choices may tell less."""
        record = read_record(self._dialect, told)
        prompt, cached = record.prompt, record.cached or 0
        if prompt is None and self._dialect is _MESSAGES:  # the message's beginning told it
            claimed = self.claimed
            prompt, cached = claimed.prompt, claimed.cached
        completion, reasoning = record.completion, record.reasoning or 0
        if completion is None and self._dialect is _EMBEDDINGS:
            completion = 0
        if not self.meter.one_choice:
            if prompt is None or completion is None:
                return not usage.estimated
            return prompt <= usage.prompt and completion <= usage.completion
        return (
            prompt == usage.prompt
            and cached == usage.cached
            and completion == usage.completion
            and reasoning == usage.reasoning
        )

    @property
    def claimed(self) -> Usage:
        """The usage as the engine tells it, possible or not, believed or not: see ``UsageMeter.claimed``."""
        self._settle()
        return self.meter.claimed()

    @property
    def exceeded(self) -> bool:
        """Whether the engine told more tokens than are possible."""
        bounds = self._bounds
        if bounds is None:
            return False
        self._settle()
        prompt, completion = self.meter.told()
        most = min(bounds.completion, self.payload_bytes + self.meter.unread_bytes)
        return prompt > bounds.prompt or completion > most

    @property
    def completion_told(self) -> int:
        """The most completion tokens that records told, possible or not."""
        self._settle()
        return self.meter.told()[1]

    @property
    def content_bytes(self) -> int:
        """Bytes of text seen, in UTF-8."""
        if self._unread is not None:
            payload, self._unread = self._unread, None
            self.meter.content_bytes += text_bytes(self._document_leaves(payload))
        return self.meter.content_bytes

    @property
    def only_first_choice(self) -> bool:
        """Whether there was no choice but the first, and no other was asked for."""
        return self.meter.one_choice and self._seen <= _FIRST

    @property
    def all_finished(self) -> bool:
        """Whether every choice that was seen (Anthropic: the message) has its finish reason."""
        return self._stopped or (bool(self._seen) and len(self._seen) == len(self._finished))

    @property
    def next_sequence_number(self) -> int:
        """Of the Responses dialect's next event."""
        if self._sequence_number >= 0:
            return self._sequence_number + 1
        return self.events

    # What is told ----------------------------------------------------------------------------

    def done(self) -> bool:
        """``[DONE]`` came. True if that ends an answer of the dialect: before any choice there is none."""
        self.events += 1
        if not (self._done_mark and self._seen):
            return False
        self.end_mark_seen = True
        return True

    def recognised(self, record: dict[str, object]) -> None:
        """A record of the only choice, on an event whose text was counted already.

        It is remembered, and read when it is needed or when the next one does not go on from it.
        """
        pending = self._pending
        if self._pending_text or (pending is not None and not goes_on(pending, record)):
            self._settle()
        self._pending = record
        self._pending_mark = self.meter.content_events

    def counted_on(self, record: bytes) -> None:
        """As ``recognised``, of a record that is known to go on from the one told here before."""
        if self._pending is not None:
            self._settle()
        self._pending_text = record
        self._pending_mark = self.meter.content_events

    def event(self, name: bytes, payload: object, size_bytes: int) -> Sighting:
        """An event's payload (text where it is not JSON) of so many bytes."""
        sighting = self._event(name, payload)
        self._tail_bytes += size_bytes
        if sighting.content or sighting.usage is not None:
            self.payload_bytes += self._tail_bytes
            self._tail_bytes = 0
        return sighting

    def _event(self, name: bytes, payload: object) -> Sighting:
        self.events += 1
        error = error_in(name, payload)
        if error is not None:
            self.error = _sendable(error)
            return Sighting(error=True)
        if type(payload) is not dict:
            return _NOTHING
        if self._done_mark:
            return self._chunk(payload)
        if self._dialect is _RESPONSES:
            return self._response_event(payload)
        if self._dialect is _MESSAGES:
            return self._message_event(payload)
        return _NOTHING

    def document(self, payload: object, size_bytes: int) -> tuple[dict[str, object] | None, bool]:
        """A whole JSON document; of a very large one only some members, and its size.

        Returns the record in it, and whether it is an answer, which a cost belongs into.
        """
        error = error_in(b"", payload)
        if error is not None:
            self.error = _sendable(error)
            return None, False
        if type(payload) is not dict or self._dialect is _COUNT_TOKENS:
            return None, False
        key = _ANSWER_KEYS.get(self._dialect, "")
        # how MiniMax refuses, with a 200 and a code of its own; but Ollama writes a message of no blocks so
        if payload.get(key, key) is None and not payload.get("stop_reason"):
            return None, False
        self.payload_bytes += size_bytes
        usage = payload.get("usage")
        usage = usage if type(usage) is dict else None
        record = read_record(self._dialect, usage) if usage is not None else None
        if self._dialect is not _EMBEDDINGS:
            told = record is not None and record.completion is not None
            if size_bytes > PARSED_BYTES_MAX and not told:
                self.meter.unread_bytes += size_bytes
            self._document_content(payload, told=told)
        choices = payload.get("choices") if self._done_mark else None
        size = len(choices) if type(choices) is list else 0
        if record is not None:
            choice = _index(choices[0], 0) if size == 1 and type(choices) is list else None
            self.meter.add_record(record, choice, with_content=True)
        final = usage is not None or (size_bytes > PARSED_BYTES_MAX or key in payload)
        return usage, final

    # One dialect each ------------------------------------------------------------------------

    def _chunk(self, payload: dict[str, object]) -> Sighting:
        """A chunk of a chat or completions stream."""
        if not self.envelope.get("id") and "id" in payload:  # Azure's first chunk has an empty one
            self.envelope = {key: payload[key] for key in _ENVELOPE if key in payload}
        choices = payload.get("choices")
        leaves: Leaves = []
        finish = False
        size = 0
        only = 0
        if type(choices) is list:
            size = len(choices)
            for position, choice in enumerate(choices):
                if type(choice) is dict:
                    only = _index(choice, position)
                    found = choice_leaves(choice)
                    if found:
                        leaves += found
                        if not self.meter.one_choice:
                            self.meter.add_choice_content(only, text_bytes(found))
                    self._seen.add(min(only, _CHOICE_MAX))
                    if choice.get("finish_reason"):  # older SGLang and Ollama write "" for none
                        finish = True
                        self._finished.add(min(only, _CHOICE_MAX))
        self._count(leaves)
        usage = payload.get("usage")
        if type(usage) is not dict:
            usage = None
        else:
            self._add(usage, only if size == 1 else None, with_content=bool(leaves))
        leaf = leaves[0] if len(leaves) == 1 else None
        return Sighting(
            content=bool(leaves),
            finish=finish,
            usage=usage,
            final=usage is not None,
            choices=size,
            leaf=leaf,
        )

    def _response_event(self, payload: dict[str, object]) -> Sighting:
        number = payload.get("sequence_number")
        if type(number) is int and number > self._sequence_number:
            self._sequence_number = number
        leaves = payload_leaves(self._dialect, payload)
        end_mark = is_end_mark(self._dialect, payload)
        self.end_mark_seen = self.end_mark_seen or end_mark
        path = _TOP
        usage = payload.get("usage")
        response = payload.get("response")
        if payload.get("type") in _FINAL_RESPONSE_TYPES and type(response) is dict:
            path = _IN_RESPONSE
            usage = response.get("usage")
            if self.meter.content_events == 0:  # an engine that sends no deltas
                collect(response.get("output"), leaves)
        self._count(leaves)
        if type(usage) is not dict:
            usage = None
        else:
            self._add(usage, None, with_content=bool(leaves))
        return Sighting(
            content=bool(leaves),
            end_mark=end_mark,
            usage=usage,
            usage_path=path,
            final=usage is not None or path is _IN_RESPONSE,
            leaf=leaves[0] if len(leaves) == 1 and path is _TOP else None,
        )

    def _message_event(self, payload: dict[str, object]) -> Sighting:
        kind = payload.get("type")
        leaves = payload_leaves(self._dialect, payload)
        self._count(leaves)
        message = payload.get("message")
        if leaves or kind in ("message_start", "message_delta"):
            self._seen.add(0)
        # as with [DONE]: before any message there is none
        end_mark = bool(self._seen) and is_end_mark(self._dialect, payload)
        self.end_mark_seen = self.end_mark_seen or end_mark
        if kind == "message_start" and type(message) is dict:
            usage = message.get("usage")
            if type(usage) is dict:
                self._add(usage, None, opening=True)
            return Sighting(usage_path=_IN_MESSAGE)
        usage = payload.get("usage")
        if type(usage) is not dict:
            usage = None
        else:
            self._add(usage, None, with_content=bool(leaves))
        delta = payload.get("delta")
        finish = kind == "message_delta" and type(delta) is dict and bool(delta.get("stop_reason"))
        self._stopped = self._stopped or finish
        return Sighting(
            content=bool(leaves),
            finish=finish,
            end_mark=end_mark,
            usage=usage,
            final=usage is not None or kind == "message_delta",
            leaf=leaves[0] if len(leaves) == 1 else None,
        )

    # Parts of these --------------------------------------------------------------------------

    def _count(self, leaves: Leaves) -> None:
        if leaves:
            self.meter.content_events += 1
            self.meter.content_bytes += text_bytes(leaves)

    def _add(
        self,
        usage: dict[str, object],
        choice: int | None,
        *,
        opening: bool = False,
        with_content: bool = False,
    ) -> None:
        self._settle()
        record = read_record(self._dialect, usage)
        self.meter.add_record(record, choice, opening=opening, with_content=with_content)

    def _settle(self) -> None:
        """Read the record that was only remembered."""
        pending = self._pending
        if self._pending_text:
            pending = cast(dict[str, object], parse_json(self._pending_text))
            self._pending_text = b""
        if pending is not None:
            self._pending = None
            self.meter.add_record(
                read_record(self._dialect, pending),
                0,
                with_content=True,
                mark=self._pending_mark,
            )

    def _document_content(self, payload: dict[str, object], *, told: bool) -> None:
        """Count a document's text, which can wait if a record tells how many tokens it was."""
        if told and self._unread is None and self.meter.one_choice:
            self._unread = payload
            self.meter.content_events += 1
            return
        self._count(self._document_leaves(payload))
        choices = payload.get("choices")
        if not self.meter.one_choice and type(choices) is list:
            for position, choice in enumerate(choices):
                found = choice_leaves(choice) if type(choice) is dict else []
                if found:
                    self.meter.add_choice_content(_index(choice, position), text_bytes(found))

    def _document_leaves(self, payload: dict[str, object]) -> Leaves:
        if not self._done_mark:
            return payload_leaves(self._dialect, payload)
        leaves: Leaves = []
        choices = payload.get("choices")
        if type(choices) is list:
            for choice in choices:
                if type(choice) is dict:
                    leaves += choice_leaves(choice)
        return leaves


def _sendable(error: object) -> object:
    """The error as it is, but for what could not be written down again."""
    return parse_json(dump_json(error))


def _index(choice: object, position: int) -> int:
    index = choice.get("index") if isinstance(choice, dict) else None
    return index if type(index) is int and index >= 0 else position
