"""An answer that is an event stream: what of each event is handed out, and when.

``EventWriter`` decides by what the observer saw; it reads no payload itself. Three things keep an
event back: nothing was handed out yet and it has no content (a retry is still possible); it
finishes a choice and the next one may be a usage chunk whose other members move into it; it is
not whole. Comments and blank lines that come meanwhile wait behind it, so order is kept.
"""

from collections.abc import Callable
from typing import Final

from filature.answer.edits import (
    with_charge,
    with_debug,
    with_extra_members,
    with_model,
    without_usage,
)
from filature.answer.observer import AnswerObserver
from filature.answer.policy import AnswerPolicy
from filature.answer.pricing import cost_of, usage_object
from filature.answer.sighting import Sighting
from filature.answer.template import Template, learn
from filature.answer.usage import Usage
from filature.wire.dialect import Dialect
from filature.wire.documents import dump_json, parse_json
from filature.wire.sse import (
    Event,
    EventSplitter,
    EventTooLarge,
    parse_event,
    replace_data,
    terminate,
)

HELD_BYTES_MAX: Final = 1024 * 1024
"""Held events above this are handed out: no engine has so much to say before its first token."""

_MODEL_PATHS: Final = (("model",), ("message", "model"), ("response", "model"))


class EventWriter:
    """Bytes of an event stream in, what may be handed out returned."""

    __slots__ = (
        "_debug",
        "_dialect",
        "_finish_at",
        "_held",
        "_held_bytes",
        "_last_dropped",
        "_last_ended_cr",
        "_model_names",
        "_observer",
        "_policy",
        "_shown",
        "_splitter",
        "_stripping",
        "has_last_id",
        "holding",
        "overflowed",
        "template",
        "unfinished_bytes",
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
        self._splitter = EventSplitter()
        self._stripping = policy.strip and dialect.has_choices
        self._held: list[bytes] = []
        self._held_bytes = 0
        self._finish_at = -1  # which held block is a finish event that may get more members
        self._last_ended_cr = False
        self._last_dropped = False
        self._shown: Usage | None = None  # by the last chunk that has nothing but usage
        self.has_last_id = False
        """Events have ids. Then httpx-sse and openai's SDK take each blank line for an event, also that behind a
        comment."""
        self.holding = policy.hold_until_content
        self.template: Template | None = None
        self.overflowed = False
        self.unprocessed_bytes = 0
        self.unfinished_bytes = 0
        """How much of the end of what ``finish`` returned is half an event."""

    @property
    def steady(self) -> bool:
        """Nothing is kept: what the template takes may leave at once."""
        return not (self._held or self._splitter.kept_bytes or self._last_ended_cr)

    def feed(self, data: bytes) -> bytes:
        """What may be handed out now."""
        out: list[bytes] = []
        if self.overflowed:
            return self._pass_through(data)
        try:
            blocks = self._splitter.split(data)
        except EventTooLarge as error:
            self._blocks(error.blocks, out)
            return b"".join(out) + self._overflow(error.rest)
        self._blocks(blocks, out)
        return b"".join(out)

    def release(self) -> bytes:
        """Hand out what is held, and hold for content no longer."""
        self.holding = False
        out: list[bytes] = []
        self._flush(out)
        return b"".join(out)

    def finish(self, *, clean: bool) -> bytes:
        """What is left when the answer ends."""
        out: list[bytes] = []
        tail = self._splitter.take_rest()
        if tail and clean and self._is_whole(tail):
            self._block(terminate(tail), out)
            tail = b""
        self.unprocessed_bytes += len(tail)
        observer = self._observer
        if observer.error is not None and self._policy.errors == "take":
            return b"".join(out)
        ends = observer.end_mark_seen or observer.all_finished
        if clean and ends:
            self.holding = False
            self._flush(out)
            if not observer.end_mark_seen:
                self._show_usage(out)
        if self.holding:
            return b""  # nothing was handed out: the caller may try again
        self._flush(out)
        if clean:
            self.unfinished_bytes = len(tail)
            out.append(tail)
        return b"".join(out)

    # Blocks ----------------------------------------------------------------------------------

    def _blocks(self, blocks: list[bytes], out: list[bytes]) -> None:
        for block in blocks:
            self._block(block, out)

    def _block(self, block: bytes, out: list[bytes]) -> None:
        if self._last_ended_cr and block == b"\n":  # belongs to the line end before it
            self._last_ended_cr = False
            if not self._last_dropped:
                self._wait_or_leave(block, out)
            return
        self._last_ended_cr = block.endswith(b"\r")
        self._last_dropped = False
        observer = self._observer
        if observer.error is not None and self._policy.errors == "take":
            self._last_dropped = True
            return
        if self.template is not None and not self._held:
            new = self.template.apply(block, observer)
            if new is not None:
                out.append(new)
                return
        event = parse_event(block)
        if event.last_id is not None:
            self.has_last_id = event.last_id != b""
        if event.data is None:
            self._wait_or_leave(block, out)
        elif event.data.strip(b" ") == b"[DONE]":
            self._done(block, out)
        else:
            self._payload(block, event, event.data, out)

    def _payload(self, block: bytes, event: Event, data: bytes, out: list[bytes]) -> None:
        payload: object
        try:
            payload = parse_json(data)
        except ValueError:
            payload = data.decode("utf-8", "replace")
        sighting = self._observer.event(event.name, payload, len(data))
        if sighting.error and self._policy.errors == "take":
            self._last_dropped = True
            if not self.holding:
                self._flush(out)
            self._held.clear()
            self.template = None  # nothing may leave any more
            return
        if type(payload) is not dict or sighting.error:
            self._leave(block, sighting, out)
            return
        if self._is_unrequested(sighting):
            self._last_dropped = True
            self._move_members(data, payload, out)
            return
        new = self._edited(data, payload, sighting)
        stripped = self._strips(sighting)
        written = block if new == data else replace_data(block, event, new)
        self._leave(written, sighting, out)
        if (
            sighting.leaf is not None
            and not sighting.finish
            and sighting.choices <= 1
            and not self.holding
            and self._observer.only_first_choice
            and (sighting.usage is None or stripped)
            and len(event.spans) == 1
        ):
            start, leaf = event.spans[0][0], sighting.leaf
            self.template = learn(block, data, written, new, start, leaf, stripped=stripped)

    def _done(self, block: bytes, out: list[bytes]) -> None:
        is_first = not self._observer.end_mark_seen
        end_mark = self._observer.done()
        if end_mark:
            self.holding = False
            self._flush(out)
            if is_first:
                self._show_usage(out)
        self._leave(block, Sighting(end_mark=end_mark), out)

    # What leaves and what waits --------------------------------------------------------------

    def _leave(self, block: bytes, sighting: Sighting, out: list[bytes]) -> None:
        """An event to hand out, now or later. A finish event that waited waits no more."""
        self._finish_at = -1
        if sighting.content or sighting.end_mark:
            self.holding = False
        if not self.holding:
            self._flush(out)
        if sighting.finish and self._stripping and not self._policy.shows_usage:
            self._finish_at = len(self._held)
        if self.holding or self._finish_at >= 0:
            self._hold(block, out)
        else:
            out.append(block)

    def _wait_or_leave(self, block: bytes, out: list[bytes]) -> None:
        """A block that is no event: behind what waits, if anything does."""
        if self.holding or self._held:
            self._hold(block, out)
        else:
            out.append(block)

    def _hold(self, block: bytes, out: list[bytes]) -> None:
        self._held.append(block)
        self._held_bytes += len(block)
        if self._held_bytes > HELD_BYTES_MAX:
            self.holding = False
            self._flush(out)

    def _flush(self, out: list[bytes]) -> None:
        out += self._held
        self._held.clear()
        self._held_bytes = 0
        self._finish_at = -1

    def _move_members(self, data: bytes, said: dict[str, object], out: list[bytes]) -> None:
        """What else a dropped usage chunk says (``timings``) moves to the finish event."""
        if self._finish_at >= 0:
            block = self._held[self._finish_at]
            event = parse_event(block)
            if event.data is not None:
                payload = parse_json(event.data)
                if type(payload) is dict:
                    new = with_extra_members(event.data, payload, data, said)
                    if new != event.data:
                        self._held[self._finish_at] = replace_data(block, event, new)
        self._finish_at = -1
        if not self.holding:
            self._flush(out)

    # What is taken out and put in ------------------------------------------------------------

    def _is_unrequested(self, sighting: Sighting) -> bool:
        """A chunk that carries nothing but usage, which the client did not ask for."""
        return (
            self._stripping
            and sighting.usage is not None
            and sighting.choices == 0
            and not self._policy.shows_usage
        )

    def _strips(self, sighting: Sighting) -> bool:
        """Whether the record is to be taken out of a chunk that stays."""
        return (
            self._stripping
            and sighting.usage is not None
            and sighting.choices > 0
            and not (self._policy.include_usage and self._policy.continuous_usage)
        )

    def _edited(self, data: bytes, payload: dict[str, object], sighting: Sighting) -> bytes:
        """The payload's text as the client gets it; ``data`` itself if nothing changes."""
        text = data
        if self._strips(sighting):
            text = without_usage(text, sighting.usage_path)
        elif sighting.final and self._policy.tariff is not None:
            usage = self._observer.usage()
            cost = cost_of(usage, self._policy.tariff)
            path, told = sighting.usage_path, sighting.usage
            agrees = told is None or self._observer.agrees(told, usage)
            text = with_charge(text, path, self._dialect, told, usage, cost, agrees=agrees)
        if sighting.usage is not None and sighting.choices == 0:
            self._shown = self._observer.usage()
        if self._debug is not None and sighting.final and sighting.choices == 0:
            text = with_debug(text, sighting.usage_path, self._debug())
        if self._model_names is not None:
            text = self._renamed(text, payload)
        return text

    def _renamed(self, text: bytes, payload: dict[str, object]) -> bytes:
        client_name = self._model_names[1] if self._model_names is not None else ""
        for path in _MODEL_PATHS:
            holder: object = payload if len(path) == 1 else payload.get(path[0])
            name = holder.get("model") if type(holder) is dict else None
            if type(name) is str and name and name != client_name:
                text = with_model(text, path, name, client_name)
        return text

    def _show_usage(self, out: list[bytes]) -> None:
        """Before the end of a stripped stream: the usage, as a chunk or as a comment, if the engine's last chunk
        did not tell it."""
        if not self._stripping or self._observer.error is not None:
            return
        policy = self._policy
        usage = self._observer.usage()
        if usage == self._shown:
            return
        cost = None if policy.tariff is None else cost_of(usage, policy.tariff)
        shown = b'"usage":' + usage_object(self._dialect, usage, cost)
        if self._debug is not None:
            shown += b"," + self._debug()
        if policy.shows_usage:
            envelope = dict(self._observer.envelope)
            if self._model_names is not None and "model" in envelope:
                envelope["model"] = self._model_names[1]
            head = dump_json(envelope)[:-1] + (b"," if envelope else b"")
            out.append(b"data: " + head + b'"choices":[],' + shown + b"}\n\n")
        elif policy.when_unrequested == "comment":
            out.append(b": filature {" + shown + (b"}\n" if self.has_last_id else b"}\n\n"))

    # Ends ------------------------------------------------------------------------------------

    def _is_whole(self, tail: bytes) -> bool:
        """Whether an unterminated event lacks nothing but its blank line."""
        data = parse_event(tail).data
        if data is None:
            return False
        if data.strip(b" ") == b"[DONE]":
            return True
        try:
            parse_json(data)
        except ValueError:
            return False
        return True

    def _overflow(self, rest: bytes) -> bytes:
        """An event is too large: from here on everything passes."""
        self.overflowed = True
        self.template = None
        out: list[bytes] = []
        if self._observer.error is None or self._policy.errors == "pass":
            self.holding = False
            self._flush(out)
        return b"".join(out) + self._pass_through(rest)

    def _pass_through(self, data: bytes) -> bytes:
        self.unprocessed_bytes += len(data)
        if self._observer.error is not None and self._policy.errors == "take":
            return b""
        self._observer.meter.unread_bytes += len(data)
        return data
