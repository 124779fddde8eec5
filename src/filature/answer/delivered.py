"""The text that an answer delivered, put together again from its bytes: for whoever counts it afterwards, never on
the hot path. Only members that clients show are text here: whoever sells tokens may send any others.
"""

from typing import Final

from filature.answer.content import Leaves, collect, text_bytes
from filature.wire.dialect import Dialect
from filature.wire.documents import DocumentSplitter, NotJson, parse_json
from filature.wire.sse import BOM, EventSplitter, EventTooLarge, parse_event

_EVENT_STARTS: Final = (b"d", b"e", b"i", b"r", b":")
ITEMS_MAX: Final = 8
"""Items of Responses and blocks of Messages that are told apart; others share the last place."""

TEXT: Final = "text"
THOUGHT: Final = "thought"
CALL: Final = "call"

_THOUGHTS: Final = ("reasoning", "reasoning_content", "thinking")
"""Of a chat's message; some engines send the same under two of the names."""
_CALLS: Final = ("tool_calls", "function_call")
_SHOWN: Final = frozenset({"arguments", "content", "input", "name", "refusal", "text", *_THOUGHTS})
"""Members of parts, at any depth of a message's content."""
_BLOCK_MEMBERS: Final = {
    "text": TEXT,
    "thinking": THOUGHT,
    "partial_json": CALL,
    "input": CALL,
    "name": CALL,
}
_DELTAS: Final = {
    "response.output_text.delta": TEXT,
    "response.refusal.delta": TEXT,
    "response.reasoning_text.delta": THOUGHT,
    "response.reasoning_summary_text.delta": THOUGHT,
    "response.function_call_arguments.delta": CALL,
    "response.custom_tool_call_input.delta": CALL,
}
_FINAL: Final = ("response.completed", "response.incomplete")
_ITEMS: Final = {"message": TEXT, "reasoning": THOUGHT}
"""Of Responses; all others are calls."""


class Delivered:
    """Texts by their place (choice, item or block) and member: ``TEXT``, ``THOUGHT`` or ``CALL``."""

    __slots__ = ("_pieces", "_places", "text_bytes")

    def __init__(self, places: int) -> None:
        self._places = places
        self._pieces: dict[tuple[int, str], list[str]] = {}
        self.text_bytes = 0
        """In UTF-8."""

    @property
    def texts(self) -> dict[tuple[int, str], str]:
        """Whole: what belongs together is joined."""
        return {key: "".join(pieces) for key, pieces in self._pieces.items()}

    def has(self, member: str) -> int:
        """In how many places there is one."""
        return sum(name == member for _, name in self._pieces)

    def add(self, place: object, member: str, value: object, name: str) -> None:
        """Text that goes on from what was added with the same place and member."""
        leaves: Leaves = []
        collect(value, leaves, name)
        leaves = [(inner, text) for inner, text in leaves if inner == name or inner in _SHOWN]
        if leaves:
            self.text_bytes += text_bytes(leaves)
            at = min(max(place, 0), self._places - 1) if type(place) is int else 0
            self._pieces.setdefault((at, member), []).extend(text for _, text in leaves)


def delivered(dialect: Dialect, answer: bytes, choices: int = 1) -> Delivered:
    """The text of an answer as an engine sent it; of one that is broken, what came before.

    ``choices`` asked for, over all prompts: others share the last one's place.
    """
    found = Delivered(choices if dialect.has_choices else ITEMS_MAX)
    answer = answer.removeprefix(BOM).lstrip()
    for payload in _events(answer) if answer[:1] in _EVENT_STARTS else _documents(answer):
        if type(payload) is not dict:
            continue
        if dialect.has_choices:
            _read_choices(dialect, payload, found)
        elif dialect is Dialect.MESSAGES:
            _read_message(payload, found)
        elif dialect is Dialect.RESPONSES:
            _read_response(payload, found)
    return found


def _events(answer: bytes) -> list[object]:
    splitter = EventSplitter()
    try:
        blocks = splitter.split(answer + b"\n\n")  # the last may lack its end
    except EventTooLarge as error:
        blocks = error.blocks
    found = (parse_event(block).data for block in blocks)
    return [_value(data) for data in found if data is not None]


def _documents(answer: bytes) -> list[object]:
    whole = _value(answer)
    if whole is not None:
        return [whole]  # as nearly all are
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


def _read_choices(dialect: Dialect, payload: dict[str, object], found: Delivered) -> None:
    choices = payload.get("choices")
    for position, choice in enumerate(choices if type(choices) is list else ()):
        if type(choice) is not dict:
            continue
        index = choice.get("index")
        place = index if type(index) is int else position
        if dialect is Dialect.COMPLETIONS:
            found.add(place, TEXT, choice.get("text"), "text")
            continue
        part = choice.get("delta")
        if part is None:
            part = choice.get("message")
        if type(part) is not dict:
            continue
        found.add(place, TEXT, part.get("content"), "content")
        found.add(place, TEXT, part.get("refusal"), "refusal")
        thought = next((name for name in _THOUGHTS if part.get(name)), None)
        if thought is not None:
            found.add(place, THOUGHT, part[thought], thought)
        for name in _CALLS:
            found.add(place, CALL, part.get(name), name)


def _read_message(payload: dict[str, object], found: Delivered) -> None:
    match payload.get("type"):
        case "content_block_delta":
            _read_block(payload.get("index"), payload.get("delta"), found)
        case "content_block_start":
            _read_block(payload.get("index"), payload.get("content_block"), found)
        case "message":
            blocks = payload.get("content")
            for place, block in enumerate(blocks if type(blocks) is list else ()):
                _read_block(place, block, found)


def _read_block(place: object, block: object, found: Delivered) -> None:
    if type(block) is dict:
        for name, member in _BLOCK_MEMBERS.items():
            found.add(place, member, block.get(name), name)


def _read_response(payload: dict[str, object], found: Delivered) -> None:
    kind = payload.get("type")
    if type(kind) is str:
        member = _DELTAS.get(kind)
        if member is not None:
            found.add(payload.get("output_index"), member, payload.get("delta"), "text")
        response = payload.get("response")
        if kind not in _FINAL or found.text_bytes or type(response) is not dict:
            return
        payload = response  # of an engine that sends no deltas
    items = payload.get("output")
    for place, item in enumerate(items if type(items) is list else ()):
        if type(item) is dict:
            of_item = item.get("type")
            member = _ITEMS.get(of_item, CALL) if type(of_item) is str else CALL
            for name in ("summary", "content", "name", "arguments", "input"):
                found.add(place, member, item.get(name), name)
