"""A client's body as an engine is sent it: edited in place, the rest byte for byte as it was.

Decides nothing about what is allowed; that is ``parse``.
"""

import json
import sys
from collections.abc import Set as AbstractSet
from operator import itemgetter
from typing import Any, Final, NamedTuple

import orjson

from filature.request.anthropic import BUDGET_MIN
from filature.request.boundary import DROPPED_FIELDS
from filature.request.cocoon import COCOON_FIELDS
from filature.request.json_body import key_text
from filature.request.parse import ParsedRequest
from filature.wire.dialect import Dialect
from filature.wire.members import members


class _StreamOptions(NamedTuple):
    options: dict[str, bool]
    text: bytes


_NOTHING: Final = _StreamOptions({}, b"{}")
_INCLUDE: Final = _StreamOptions({"include_usage": True}, b'{"include_usage":true}')
_INCLUDE_CONTINUOUS: Final = _StreamOptions(
    {"include_usage": True, "continuous_usage_stats": True},
    b'{"include_usage":true,"continuous_usage_stats":true}',
)
_INT64_CHARS: Final = 20
"""With a sign."""
_ENGINE_MAX_TOKENS: Final = ("n_predict", "max_completion_tokens", "max_tokens")
"""llama.cpp takes them in any dialect, the first that is there; its own one means without end when it is below zero."""

Values = dict[str, bytes]
"""Members by name and the JSON text of the value that each is to have."""


def body_for_engine(
    request: ParsedRequest,
    *,
    model: str,
    include_usage: bool,
    continuous_usage: bool,
    max_tokens: int | None = None,
    both_limits: bool = False,
    for_network: bool = False,
) -> bytes:
    """The body for an engine; ``request.body`` itself when nothing has to change.

    ``model`` is the engine's name of the model. ``include_usage`` and ``continuous_usage`` say
    what its streams can do: a chat or completions stream asks for just that, whatever its client
    asked, and has no ``stream_options`` when nothing is left in them. ``max_tokens`` is the most that
    each choice may come to: what asks for more is lowered to it, and it is set where nothing is asked.
    ``both_limits``: where a chat asks for ``max_completion_tokens`` only, ``max_tokens`` says the same.
    ``for_network``: what a worker of the network is not told is taken out, and each key is there once.
    """
    values: Values = {}
    removed: set[str] = set()
    if model != request.model:
        values["model"] = orjson.dumps(model)
    if request.stream and request.dialect.has_choices:
        _ask_for_usage(request, values, removed, include=include_usage, continuous=continuous_usage)
    cap = request.limits.max_tokens_max
    if max_tokens is not None and (cap is None or max_tokens < cap):
        cap = max_tokens
    if cap is not None:
        _cap_tokens(request, values, cap)
    if both_limits:
        _limit_by_both_names(request, values)
    if request.has_cocoon_fields:
        removed |= COCOON_FIELDS.intersection(request.fields)
    if for_network and not DROPPED_FIELDS.isdisjoint(request.fields):
        removed |= DROPPED_FIELDS.intersection(request.fields)
    body = request.body
    if values or removed:
        replaces = not request.fields.keys().isdisjoint(values)
        if removed or (replaces and not request.searchable):
            body = edit_object(body, values, removed)
        else:
            body = _with_values(request, values)
    return _canonical(body) if for_network and not request.distinct else body


def _canonical(body: bytes) -> bytes:
    """The same with each key once: what was checked is what an engine reads, whichever of two it would take."""
    try:
        return orjson.dumps(orjson.loads(body))
    except (orjson.JSONDecodeError, TypeError):  # large numbers, lone surrogates
        fields = json.loads(body, parse_int=_finite, parse_float=_finite)
        return json.dumps(fields, separators=(",", ":")).encode("ascii")


def _finite(digits: str) -> int | float:
    """A number as it is or as the nearest double: JSON has no infinity, and Python reads no endless integer."""
    if len(digits) <= _INT64_CHARS and digits.lstrip("-").isdigit():
        return int(digits)
    return max(-sys.float_info.max, min(float(digits), sys.float_info.max))


def _with_values(request: ParsedRequest, values: Values) -> bytes:
    """``edit_object`` without a look at the members that stay."""
    body, fields = request.body, request.fields
    edits: list[tuple[int, int, bytes]] = []
    added = b""
    for name, value in values.items():
        if name in fields:
            _, start, end = request.member(name)
            edits.append((start, end, value))
        else:
            added += b',"%b":%b' % (name.encode(), value)
    if added:  # there is a `model` before it, and nothing but white space behind the last brace
        end = body.rindex(b"}")
        edits.append((end, end, added))
    return _apply(body, edits)


def edit_object(text: bytes, values: Values, removed: AbstractSet[str]) -> bytes:
    """The JSON object ``text`` with the members of ``values`` set and those of ``removed`` gone.

    Set members keep their place; new ones come last, before any white space at the end.
    """
    found = [(key_text(raw), member) for raw, member in members(text)]
    edits: list[tuple[int, int, bytes]] = []
    kept_end = -1  # the end of the last member that stays
    for index, (name, member) in enumerate(found):
        if name not in removed:
            kept_end = member.value_end
            if name in values:
                edits.append((member.value_start, member.value_end, values[name]))
        elif kept_end >= 0:  # with the comma before it
            edits.append((found[index - 1][1].value_end, member.value_end, b""))
        elif index + 1 < len(found):  # with the comma behind it
            edits.append((member.key_start, found[index + 1][1].key_start, b""))
        else:
            edits.append((member.key_start, member.value_end, b""))
    names = {name for name, _ in found}
    new = [b'"%b":%b' % (name.encode(), v) for name, v in values.items() if name not in names]
    if new:
        end = found[-1][1].value_end if found else text.index(b"{") + 1
        edits.append((end, end, (b"," if kept_end >= 0 else b"") + b",".join(new)))
    return _apply(text, edits)


def _apply(text: bytes, edits: list[tuple[int, int, bytes]]) -> bytes:
    """Replace spans that do not overlap."""
    if len(edits) == 1:
        ((start, end, replacement),) = edits
        return text[:start] + replacement + text[end:]
    edits.sort(key=itemgetter(0))
    pieces: list[bytes] = []
    position = 0
    for start, end, replacement in edits:
        pieces += (text[position:start], replacement)
        position = end
    pieces.append(text[position:])
    return b"".join(pieces)


def _ask_for_usage(
    request: ParsedRequest, values: Values, removed: set[str], *, include: bool, continuous: bool
) -> None:
    # vLLM heeds the second only with the first
    wanted = (_INCLUDE_CONTINUOUS if continuous else _INCLUDE) if include else _NOTHING
    options: dict[str, Any] = request.fields.get("stream_options") or {}
    if options == wanted.options:
        if not options and "stream_options" in request.fields:
            removed.add("stream_options")
    elif options.keys() <= _INCLUDE_CONTINUOUS.options.keys():
        if wanted.options:
            values["stream_options"] = wanted.text
        else:
            removed.add("stream_options")
    else:
        missing = {name: b"true" for name in wanted.options if options.get(name) is not True}
        surplus = options.keys() & (_INCLUDE_CONTINUOUS.options.keys() - wanted.options.keys())
        if missing or surplus:
            _, start, end = request.member("stream_options")
            values["stream_options"] = edit_object(request.body[start:end], missing, surplus)


def _cap_tokens(request: ParsedRequest, values: Values, cap: int) -> None:
    fields, names = request.fields, request.rules.max_tokens
    if not names:
        return
    for name in names:
        value = fields.get(name)
        if value is not None and value > cap:
            values[name] = b"%d" % cap
    if all(fields.get(name) is None for name in names):
        values[names[0]] = b"%d" % cap
    least = fields.get("min_tokens")
    if type(least) is int and least > cap:  # vLLM's; it refuses more than the most
        values["min_tokens"] = b"%d" % cap
    for name in _ENGINE_MAX_TOKENS:
        value = fields.get(name)
        if value is not None and not (type(value) is int and 0 <= value <= cap):
            values[name] = b"%d" % cap
    if request.dialect is Dialect.MESSAGES:
        _lower_budget(request, values, cap)


def _limit_by_both_names(request: ParsedRequest, values: Values) -> None:
    """Chat has two names of one number, and engines that know the older one only."""
    fields, names = request.fields, request.rules.max_tokens
    if len(names) > 1 and names[0] not in values and fields.get(names[0]) is None:
        asked = fields.get(names[1])
        if asked is not None:
            values[names[0]] = values.get(names[1], b"%d" % asked)


def _lower_budget(request: ParsedRequest, values: Values, cap: int) -> None:
    """Anthropic's ``thinking.budget_tokens`` must stay below ``max_tokens``, and has a least value.

    Where no budget is left between the two, thinking is turned off: the answer is worth more.
    """
    thinking = request.fields.get("thinking")
    budget = thinking.get("budget_tokens") if thinking else None
    if "max_tokens" not in values or budget is None or budget < cap:
        return
    if cap <= BUDGET_MIN:
        values["thinking"] = b'{"type":"disabled"}'
        return
    _, start, end = request.member("thinking")
    lowered = b"%d" % (cap - 1)
    values["thinking"] = edit_object(request.body[start:end], {"budget_tokens": lowered}, set())
