"""How a request is to be answered: the engine's defaults and what a request overrides in them.

A request overrides by a body member ``x_demo`` (an object), or, where an SDK sends no members of
its own, by its model's name: ``NAME/fault=cut;after=3``. Pairs are parted by ``,`` ``;`` or ``+``.
What a fault does to the bytes is in ``faults.py``.
"""

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final


class UsagePlacement(StrEnum):
    """Where a streamed answer carries its usage (chat and completions)."""

    SEPARATE = "separate"
    """As vLLM: in an event with ``choices: []``, and on every event, both only where asked for."""
    FINISH = "finish"
    """On the event with ``finish_reason``, asked for or not."""
    EVERY = "every"
    """On every event and in one of its own, asked for or not."""
    NEVER = "never"
    """Nowhere, in whole answers neither."""


class LineEnding(StrEnum):
    """Of the event stream."""

    LF = "lf"
    CRLF = "crlf"
    CR = "cr"

    @property
    def as_bytes(self) -> bytes:
        return {"lf": b"\n", "crlf": b"\r\n", "cr": b"\r"}[self]


class Fault(StrEnum):
    """What goes wrong, on demand."""

    NONE = "none"
    CUT = "cut"
    RESET = "reset"
    STALL = "stall"
    STALL_PINGS = "stall-pings"
    ERROR_FRAME = "error-frame"
    ERROR_STRING = "error-string"
    ERROR_THEN_DONE = "error-then-done"
    EMPTY_200 = "empty-200"
    REFUSE = "refuse"
    STATUS = "status"
    SLOW_HEAD = "slow-head"
    GARBAGE = "garbage"
    WRONG_LENGTH = "wrong-length"
    NO_DONE = "no-done"
    BIG_LINE = "big-line"
    HALF_EVENT = "half-event"


@dataclass(frozen=True, slots=True)
class Script:
    """How one request is answered. Times are in seconds."""

    tokens: int | None = None
    """Length of the answer; None: some dozens, by the prompt. ``max_tokens`` cuts it short."""
    text: str | None = None
    """The answer itself."""
    cached: int = 0
    """Prompt tokens reported as cached, at most all."""
    reasoning: int = 0
    """Tokens of reasoning before the answer."""
    tokens_per_second: float = 0.0
    """0: as fast as the peer reads."""
    prefill_s: float = 0.0
    """Between the head and the first event."""
    tokens_per_event: int = 1
    line_ending: LineEnding = LineEnding.LF
    usage: UsagePlacement = UsagePlacement.SEPARATE
    per_choice: bool = False
    """One usage record per choice, each with the whole prompt, as llama.cpp sends them."""
    finish_apart: bool = False
    """``finish_reason`` on an event without content."""
    split: int | None = None
    """Bytes per HTTP chunk; None: one chunk per event."""
    fault: Fault = Fault.NONE
    after: int | None = None
    """The fault comes once this many events with content went out, with those before them; 0: only
    what precedes content; -1: nothing but the head. None: 3."""
    status: int = 500
    delay_s: float = 5.0
    """Of ``slow-head``: half of the head goes out at once, the rest then."""
    ping_s: float = 1.0
    """Between the pings of ``stall-pings``."""
    by: int = 10
    """Of ``wrong-length``: bytes that the head promises too many (or, negative, too few)."""
    size: int = 1 << 30
    """Bytes of ``big-line``."""
    fail_times: int | None = None
    """Only so many requests with this ``key`` fail; None: all."""
    key: str | None = None
    """What failures are counted by; None: the model's name as asked for."""


class ScriptError(ValueError):
    """An override that names nothing, or has a value that cannot be."""


_SEPARATORS: Final = re.compile(r"[,;+]")
_SHORT: Final = {"tps": "tokens_per_second"}
_FIELDS: Final = {field.name: field for field in dataclasses.fields(Script)}
_AT_LEAST: Final = {"after": -1, "by": -(1 << 20), "tokens_per_event": 1, "split": 1, "status": 200}
_ENUMS: Final = {"usage": UsagePlacement, "line_ending": LineEnding, "fault": Fault}


def override(script: Script, values: Mapping[str, Any]) -> Script:
    """``script`` with other values. Raises ``ScriptError``."""
    changed: dict[str, Any] = {}
    for given, value in values.items():
        name = _SHORT.get(given, given.replace("-", "_"))
        field = _FIELDS.get(name)
        if field is None:
            raise ScriptError(f"x_demo has no {given!r}; it has {', '.join(_FIELDS)}")
        changed[name] = _value(name, str(field.type), value)
        if name == "status":
            changed.setdefault("fault", Fault.STATUS)
    return dataclasses.replace(script, **changed)


def override_by_name(script: Script, pairs: str) -> Script:
    """``script`` with the ``key=value`` pairs that follow a model's name. Raises ``ScriptError``.

    ``fault=status=503`` may be written for ``status=503``.
    """
    values: dict[str, str] = {}
    for pair in _SEPARATORS.split(pairs):
        is_status = pair.startswith("fault=status=")
        name, equals, value = (pair.removeprefix("fault=") if is_status else pair).partition("=")
        if not equals:
            raise ScriptError(f"{pair!r} is not name=value")
        values[name] = value
    return override(script, values)


def _value(name: str, kind: str, value: Any) -> Any:
    if value is None and "None" in kind:
        return None
    try:
        if name in _ENUMS:
            return _ENUMS[name](value)
        if "bool" in kind:
            return {"true": True, "1": True, "false": False, "0": False}[str(value).lower()]
        if "str" in kind:
            return str(value)
        number = float(value) if "float" in kind else int(value)
    except (KeyError, TypeError, ValueError) as error:
        raise ScriptError(f"x_demo.{name} cannot be {value!r}") from error
    if not _AT_LEAST.get(name, 0) <= number < float("inf"):
        raise ScriptError(f"x_demo.{name} cannot be {value!r}")
    return number
