"""What a worker makes of a proxy's answers, whatever they are."""

import pytest
from pydantic import ValidationError

from filature.wire.control import Welcome
from filature.worker.link import LOOK_S, _message, _pause_s


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (b'{"error": {"message": "no"}}', "no"),
        (b'{"error": "no"}', '{"error": "no"}'),
        (b"\xff", "\ufffd"),
        (b"[" * 100_000, "[" * 200),
    ],
)
def test_a_refusal_is_told_in_its_own_words_or_as_it_came(answer: bytes, said: str) -> None:
    assert _message(answer) == said


@pytest.mark.parametrize(
    ("heartbeat_s", "known", "pause_s"),
    [(5.0, True, 5.0), (5.0, False, LOOK_S), (0.0, True, LOOK_S), (1e-9, True, LOOK_S)],
)
def test_no_proxy_is_told_without_a_pause(heartbeat_s: float, known: bool, pause_s: float) -> None:
    assert _pause_s(Welcome(worker="gpu", heartbeat_s=heartbeat_s, known=known)) == pause_s


@pytest.mark.parametrize("heartbeat_s", ["NaN", "Infinity", "-1", "1e300"])
def test_a_pause_is_a_number_of_seconds(heartbeat_s: str) -> None:
    with pytest.raises(ValidationError):
        Welcome.model_validate_json(f'{{"worker": "gpu", "heartbeat_s": {heartbeat_s}}}')
