"""Whatever an engine sends and however it is cut: nothing is raised, and the same leaves and is known at the end."""

from typing import Any, Final

from filature.answer.bounds import UsageBounds
from filature.answer.policy import AnswerPolicy
from filature.answer.postprocessor import AnswerPostprocessor
from filature.answer.pricing import Tariff
from filature.wire.dialect import Dialect

_DIALECTS: Final = list(Dialect)
_TARIFF: Final = Tariff(
    prompt=200_000, cached=20_000, completion=800_000, reasoning=900_000, request=7
)
_POLICIES: Final = (
    AnswerPolicy(),
    AnswerPolicy(tariff=_TARIFF, include_usage=True),
    AnswerPolicy(strip=True, tariff=_TARIFF, hold_until_content=True),
    AnswerPolicy(strip=True, when_unrequested="hide", errors="pass"),
    AnswerPolicy(strip=True, continuous_usage=True, include_usage=True, tariff=_TARIFF),
    AnswerPolicy(strip=True, when_unrequested="send", tariff=_TARIFF),
)
_REQUESTS: Final[tuple[dict[str, Any], ...]] = (
    {},
    {"n": 2, "prompts": 2},
    {"continuous": True, "prompt_text_bytes": 40},
    {"model_names": ("up", "alias"), "bounds": UsageBounds(20, 30)},
)
_LINE_ENDS: Final = b"\r\n"
_BOM: Final = b"\xef\xbb\xbf"
_KNOWN: Final = (
    "usage",
    "usage_claimed",
    "exceeded",
    "mode",
    "error",
    "started",
    "has_content",
    "end_mark_seen",
    "content_events",
    "content_bytes",
    "unprocessed_bytes",
    "unfinished_bytes",
    "overflowed",
    "is_no_answer",
    "next_sequence_number",
)


def _cut(body: bytes, how: int) -> list[bytes]:
    """By events, byte by byte, or in pieces of some size."""
    if how == 0:
        return [event + b"\n\n" for event in body.split(b"\n\n")]  # one line end more at the end
    size = 1 if how == 1 else how
    return [body[at : at + size] for at in range(0, len(body), size)]


def _run(
    dialect: Dialect, policy: AnswerPolicy, asked: dict[str, Any], pieces: list[bytes], clean: bool
) -> tuple[bytes, dict[str, Any]]:
    answer = AnswerPostprocessor(dialect, policy, **asked)
    out = b"".join([answer.feed(piece) for piece in pieces]) + answer.finish(clean)
    known = {name: getattr(answer, name) for name in _KNOWN}
    known["verdict"] = answer.verdict(clean)
    return out, known


def check(data: bytes) -> None:
    """The first four bytes choose what was asked and how it is cut; the rest is the engine's."""
    if len(data) < 4:
        return
    dialect = _DIALECTS[data[0] % len(_DIALECTS)]
    policy = _POLICIES[data[1] % len(_POLICIES)]
    asked = _REQUESTS[data[2] % len(_REQUESTS)]
    pieces = _cut(data[4:], data[3] >> 1)
    clean = bool(data[3] & 1)
    cut = _run(dialect, policy, asked, pieces, clean)
    whole = _run(dialect, policy, asked, [b"".join(pieces)], clean)
    assert repr(cut) == repr(whole), (cut, whole)  # nan is never equal to itself
    out, known = whole
    usage = known["usage"]
    assert min(usage.prompt, usage.cached, usage.completion, usage.reasoning) >= 0
    assert usage.cached <= usage.prompt
    assert usage.reasoning <= usage.completion
    if policy == AnswerPolicy() and known["error"] is None and "model_names" not in asked and clean:
        body = b"".join(pieces).rstrip(_LINE_ENDS)  # what is left open at the end is closed
        assert out.rstrip(_LINE_ENDS) in (body, body.removeprefix(_BOM)), (out, body)
