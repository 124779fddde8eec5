"""What fuzzing begins with: recorded answers, their requests, and the public cases of HTTP/1.1 and event streams.

Before each stand the bytes by which its target's ``check`` chooses what is asked of it; they are counted up.
"""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

from tests.conformance.recorded import CAPTURES, RECORDINGS

_CASES: Final = CAPTURES.with_name("conformance")
_BYTES_MAX: Final = 3000
"""Of a seed: small ones are tried more often."""
_EVENTS_KEPT: Final = 4
"""Of a recorded stream's end, and of its beginning."""
_HEAD_END: Final = b"\r\n\r\n"
_DIALECTS: Final = 5


def _shortened(body: bytes) -> bytes:
    events = body.split(b"\n\n")
    if len(events) > 2 * _EVENTS_KEPT:
        body = b"\n\n".join(events[:_EVENTS_KEPT] + events[-_EVENTS_KEPT:])
    return body[:_BYTES_MAX]


def _texts(value: Any) -> Iterator[bytes]:
    """All strings in a JSON value."""
    if isinstance(value, str):
        yield value.encode("utf-8", "surrogatepass")
    elif isinstance(value, list | dict):
        for each in value.values() if isinstance(value, dict) else value:
            yield from _texts(each)


def _cases(name: str) -> list[bytes]:
    text = (_CASES / f"{name}.json").read_text(encoding="utf-8")
    return [each[:_BYTES_MAX] for each in _texts(json.loads(text))]


def _answers() -> Iterator[bytes]:
    bodies = [_shortened(recording.body) for recording in RECORDINGS]
    bodies += [text for text in _cases("wpt-sse") if b":" in text]
    for number, body in enumerate(bodies):
        for dialect in range(_DIALECTS):
            yield bytes([dialect, number % 6, number % 4, 7 * number % 256]) + body


def _requests() -> Iterator[bytes]:
    for number, path in enumerate(sorted(CAPTURES.glob("*/*.req.json"))):
        for dialect in range(_DIALECTS):
            yield bytes([dialect, 37 * number % 256]) + path.read_bytes()[:_BYTES_MAX]


def _framing() -> Iterator[bytes]:
    messages = [path.read_bytes()[:_BYTES_MAX] for path in sorted(CAPTURES.glob("*/*.http"))]
    messages += [text for name in ("llhttp", "http11probe") for text in _cases(name)]
    for number, message in enumerate(each for each in messages if b"HTTP/" in each):
        head, _, body = message.partition(_HEAD_END)
        yield bytes([1 if head.startswith(b"HTTP/") else 0]) + head
        yield bytes([2 + 4 * (number % 60)]) + body


SEEDS: Final[dict[str, Callable[[], Iterator[bytes]]]] = {
    "answers": _answers,
    "requests": _requests,
    "framing": _framing,
}
"""By target."""


def write(target: str, folder: Path) -> None:
    """Each into a file of its own, beside what was found earlier."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(SEEDS[target]()):
        (folder / f"seed-{number:04d}").write_bytes(seed)
