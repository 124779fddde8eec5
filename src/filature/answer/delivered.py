"""The text that an answer delivered, put together again from its bytes: for whoever counts it afterwards, never on
the hot path. Which members of a payload are text is decided in ``content``."""

from typing import Final

from filature.answer.content import Leaves, choice_leaves, payload_leaves, text_bytes
from filature.wire.dialect import Dialect
from filature.wire.documents import DocumentSplitter, NotJson, parse_json
from filature.wire.sse import BOM, EventSplitter, EventTooLarge, parse_event

_EVENT_STARTS: Final = b"deir:"
_PLAIN: Final = frozenset(
    {"content", "text", "delta", "reasoning", "reasoning_content", "thinking"}
)
"""Members whose text is what a model wrote, as it wrote it; in others (tool calls) more was written than is there."""


class Delivered:
    """``texts`` are whole: what belongs together was joined. ``plain``: nothing but words for whoever asked."""

    __slots__ = ("plain", "text_bytes", "texts")

    def __init__(self) -> None:
        self.texts: dict[tuple[int, str], str] = {}
        """By choice (in Responses and Messages the item or block) and member."""
        self.text_bytes = 0
        """In UTF-8."""
        self.plain = True

    def add(self, place: int, leaves: Leaves) -> None:
        """Text that goes on from what was added with the same place and member."""
        self.text_bytes += text_bytes(leaves)
        for name, text in leaves:
            if name not in _PLAIN:
                self.plain = False
            key = (place, name)
            self.texts[key] = self.texts.get(key, "") + text


def delivered(dialect: Dialect, answer: bytes) -> Delivered:
    """The text of an answer as an engine sent it; of one that is broken, what came before."""
    found = Delivered()
    answer = answer.removeprefix(BOM).lstrip()
    for payload in _events(answer) if answer[:1] in _STARTS else _documents(answer):
        if type(payload) is dict:
            _read(dialect, payload, found)
    return found


_STARTS: Final = tuple(_EVENT_STARTS[at : at + 1] for at in range(len(_EVENT_STARTS)))


def _events(answer: bytes) -> list[object]:
    splitter = EventSplitter()
    try:
        blocks = splitter.split(answer)
    except EventTooLarge as error:
        blocks = error.blocks
    payloads: list[object] = []
    for block in blocks:
        data = parse_event(block).data
        if data is not None:
            payloads.append(_value(data))
    return payloads


def _documents(answer: bytes) -> list[object]:
    splitter = DocumentSplitter()
    try:
        found = splitter.split(answer) + splitter.finish()
    except NotJson as error:
        found = error.documents
    return [_value(document.text) for document in found]


def _value(text: bytes) -> object:
    try:
        return parse_json(text)
    except ValueError:
        return None


def _read(dialect: Dialect, payload: dict[str, object], found: Delivered) -> None:
    if not dialect.has_choices:
        place = payload.get("output_index", payload.get("index"))
        found.add(place if type(place) is int else 0, payload_leaves(dialect, payload))
        return
    choices = payload.get("choices")
    if type(choices) is list:
        for position, choice in enumerate(choices):
            if type(choice) is dict:
                index = choice.get("index")
                found.add(index if type(index) is int else position, choice_leaves(choice))
