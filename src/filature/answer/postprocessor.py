"""AnswerPostprocessor: the engine's bytes in, the client's bytes out, usage on the side.

Its first byte that is not white space decides what an answer is: ``d e i r :`` begin an event
stream (``events.py``), anything else JSON documents (``whole.py``). One leading byte order mark
is dropped.
"""

from collections.abc import Callable
from typing import Final, Literal

from filature.answer import estimate
from filature.answer.bounds import UsageBounds
from filature.answer.completion import COMPLETED, Failure, Verdict
from filature.answer.events import EventWriter
from filature.answer.meter import UsageMeter
from filature.answer.observer import AnswerObserver
from filature.answer.policy import AnswerPolicy
from filature.answer.template import Template
from filature.answer.usage import Usage
from filature.answer.whole import DocumentWriter
from filature.wire.dialect import Dialect
from filature.wire.sse import BOM

LEAD_BYTES_MAX: Final = 64 * 1024
"""White space before an answer above this is not kept: then it counts as JSON documents."""

_SPACE: Final = b" \t\r\n"
_EVENT_STARTS: Final = b"deir:"


class AnswerPostprocessor:
    """One answer of one engine. Sans-I/O; any split of the bytes gives the same output.

    ``n`` and ``prompts`` are what the request asked for. ``prompt_text_bytes`` is a number or is
    called when the prompt must be estimated. ``bytes_per_token`` is the ratio seen for the model.
    ``continuous``: the engine was asked for usage on every event. ``model_names``: the engine's
    name of the model and the client's, which the client gets to see. ``bounds``: the most that can
    have been used; usage and cost keep within them, whatever the engine's records tell.
    ``debug`` makes the member ``"debug":{…}`` that the client asked for beside the usage, at the moment
    in which that is shown.
    """

    __slots__ = (
        "_documents",
        "_events",
        "_finished",
        "_lead",
        "_observer",
        "_template",
        "_writer_arguments",
        "is_metered",
        "mode",
        "policy",
        "started",
    )

    def __init__(  # noqa: PLR0913 - the class is the one door to a package of ten modules
        self,
        dialect: Dialect,
        policy: AnswerPolicy,
        *,
        n: int = 1,
        prompts: int = 1,
        prompt_text_bytes: int | Callable[[], int] = 0,
        bytes_per_token: float = estimate.BYTES_PER_TOKEN,
        continuous: bool = False,
        model_names: tuple[str, str] | None = None,
        bounds: UsageBounds | None = None,
        debug: Callable[[], bytes] | None = None,
    ) -> None:
        choices = dialect.has_choices
        self.is_metered = dialect.is_metered
        """Whether answers of the dialect have usage."""
        meter = UsageMeter(
            n=n if choices and n > 1 else 1,
            prompts=prompts if choices and prompts > 1 else 1,
            prompt_text_bytes=prompt_text_bytes,
            bytes_per_token=bytes_per_token,
            continuous=continuous,
        )
        self.policy = policy
        self._observer = AnswerObserver(dialect, meter, bounds)
        if model_names is not None and model_names[0] == model_names[1]:
            model_names = None
        self._writer_arguments = (dialect, self._observer, policy, model_names, debug)
        self._template: Template | None = None
        self._events: EventWriter | None = None
        self._documents: DocumentWriter | None = None
        self._lead = b""
        self._finished = False
        self.mode: Literal["events", "documents"] | None = None
        """None: nothing but white space came yet."""
        self.started = False
        """Something was handed out: no retry any more."""

    # Bytes -----------------------------------------------------------------------------------

    def recognise(self, data: bytes) -> bytes | None:
        """What may be sent on of one more event like those before; None: not sure, ``feed`` it."""
        template = self._template
        return None if template is None else template.apply(data, self._observer)

    def feed(self, data: bytes) -> bytes:
        """What may be sent on now; ``data`` itself (the same object) if nothing changed."""
        template = self._template
        if template is not None:
            new = template.apply(data, self._observer)
            if new is not None:
                return new
        return self._feed(data)

    def _feed(self, data: bytes) -> bytes:
        if not data:
            return data
        events = self._events
        if events is not None:
            out = events.feed(data)
            self._learn(events)
        elif self._documents is not None:
            out = self._documents.feed(data)
        else:
            out = self._begin(data)
        if out:
            self.started = True
            if out == data:
                return data
        return out

    def _begin(self, data: bytes) -> bytes:
        """Bytes of an answer whose mode is not known yet."""
        if self._lead:
            data = self._lead + data
            self._lead = b""
        start = 3 if data.startswith(BOM) else 0
        text = data[start:].lstrip(_SPACE) if start or data[0] in _SPACE else data
        if (not text or data in (BOM[:1], BOM[:2])) and len(data) <= LEAD_BYTES_MAX:
            self._lead = data
            return b""
        if start and not text.startswith(BOM[:1]):
            data = data[start:]
        if text and text[0] in _EVENT_STARTS:
            self.mode = "events"
            self._events = EventWriter(*self._writer_arguments)
            out = self._events.feed(data)
            self._learn(self._events)
            return out
        self.mode = "documents"
        self._documents = DocumentWriter(*self._writer_arguments)
        return self._documents.feed(data)

    def _learn(self, events: EventWriter) -> None:
        """By which template the next events may leave at once: none while anything is kept, none
        behind the end mark."""
        steady = events.steady and not self._observer.end_mark_seen
        self._template = events.template if steady else None

    def release(self) -> bytes:
        """Give up holding: the content-free events held so far. From then on none is held."""
        events = self._events
        if events is None:
            self.policy = AnswerPolicy(
                strip=self.policy.strip,
                include_usage=self.policy.include_usage,
                continuous_usage=self.policy.continuous_usage,
                when_unrequested=self.policy.when_unrequested,
                tariff=self.policy.tariff,
                errors=self.policy.errors,
            )
            dialect, observer, _, names, debug = self._writer_arguments
            self._writer_arguments = (dialect, observer, self.policy, names, debug)
            return b""
        out = events.release()
        self.started = self.started or bool(out)
        return out

    def finish(self, clean: bool) -> bytes:
        """What is left when the engine's answer ends; ``clean``: HTTP ended properly.

        Empty if nothing was handed out and the answer failed, where events were to be held: the
        caller may try elsewhere.
        """
        if self._finished:
            return b""
        self._finished = True
        self._template = None
        if self._events is not None:
            out = self._events.finish(clean=clean)
        elif self._documents is not None:
            out = self._documents.finish(clean=clean)
        else:
            out = self._lead if clean and not self.policy.hold_until_content else b""
        self.started = self.started or bool(out)
        return out

    # What is known ---------------------------------------------------------------------------

    @property
    def usage(self) -> Usage:
        """The usage so far; all zero before anything came."""
        return Usage() if self.mode is None else self._observer.usage()

    @property
    def usage_claimed(self) -> Usage:
        """``usage`` without bounds: as the engine tells it."""
        return Usage() if self.mode is None else self._observer.claimed

    @property
    def exceeded(self) -> bool:
        """Whether the engine told more usage than ``bounds`` and the answer's bytes allow."""
        return self._observer.exceeded

    @property
    def completion_told(self) -> int:
        """The most completion tokens that the engine's records tell so far, possible or not."""
        return self._observer.completion_told

    @property
    def said_last_word(self) -> bool:
        """Whether an error frame or the dialect's end mark came."""
        observer = self._observer
        return observer.end_mark_seen or observer.error is not None

    @property
    def error(self) -> object:
        """The engine's error frame as it sent it (an object, a string); None if there was none."""
        return self._observer.error

    @property
    def unfinished_bytes(self) -> int:
        """How much of the end of what ``finish`` returned is half an event, which would garble an error behind it."""
        return 0 if self._events is None else self._events.unfinished_bytes

    @property
    def has_last_id(self) -> bool:
        """Whether events have ids, so that no blank line may follow a comment: see ``EventWriter``."""
        return self._events is not None and self._events.has_last_id

    @property
    def has_content(self) -> bool:
        """Whether text, reasoning, tool deltas, or a whole document came."""
        documents = self._documents
        return self._observer.meter.content_events > 0 or (
            documents is not None and documents.documents > 0
        )

    @property
    def progress(self) -> int:
        """Grows with each event that has data and each whole document; comments do not count."""
        documents = self._documents
        return self._observer.events if documents is None else documents.documents

    @property
    def content_events(self) -> int:
        """Events that carried text, reasoning or tool deltas."""
        return self._observer.meter.content_events

    @property
    def content_bytes(self) -> int:
        """Bytes of these in UTF-8, JSON escapes decoded."""
        return self._observer.content_bytes

    @property
    def end_mark_seen(self) -> bool:
        """Whether the dialect's end mark came."""
        return self._observer.end_mark_seen

    @property
    def next_sequence_number(self) -> int:
        """Of the next event in the Responses dialect."""
        return self._observer.next_sequence_number

    @property
    def is_no_answer(self) -> bool:
        """Whether documents came and none of them is an answer of the dialect, such as ``{"detail": …}``."""
        documents = self._documents
        return documents is not None and not (documents.answered or documents.overflowed)

    @property
    def overflowed(self) -> bool:
        """Whether a bound was reached and the rest passes unread."""
        writer = self._events or self._documents
        return writer is not None and writer.overflowed

    @property
    def unprocessed_bytes(self) -> int:
        """The size of what was never understood: a tail, or what passed unread."""
        writer = self._events or self._documents
        return 0 if writer is None else writer.unprocessed_bytes

    def verdict(self, http_clean: bool) -> Verdict:
        """Whether the answer is complete, once it ended; ``http_clean`` as in ``finish``."""
        observer = self._observer
        if observer.error is not None:
            return Verdict(False, Failure.ERROR_FRAME)
        documents = self._documents
        if documents is not None:
            if documents.garbage:
                return Verdict(False, Failure.NOT_AN_ANSWER if http_clean else Failure.CUT)
            if documents.documents or (documents.overflowed and http_clean):
                return COMPLETED
        elif observer.end_mark_seen or (http_clean and observer.all_finished):
            return COMPLETED
        if not http_clean:
            return Verdict(False, Failure.CUT)
        return Verdict(False, Failure.UNFINISHED if self.has_content else Failure.EMPTY)
