"""What a worker makes of a proxy's refusals, whatever they are."""

import pytest

from filature.worker.link import _message


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
