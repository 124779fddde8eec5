"""What a worker asks and takes, changed while it runs."""

from pathlib import Path

import pytest

from filature.worker.terms import (
    BYTES_MAX,
    OLD_PRICE_S,
    TERMS_FILE,
    Change,
    Terms,
    TermsError,
    forget_change,
    read_change,
    write_change,
)


def test_without_a_file_nothing_is_changed(tmp_path: Path) -> None:
    assert read_change(tmp_path) == Change()
    forget_change(tmp_path)


def test_what_is_written_is_read_until_it_is_forgotten(tmp_path: Path) -> None:
    write_change(tmp_path, Change(coefficient=900))
    assert read_change(tmp_path) == Change(coefficient=900)
    write_change(tmp_path, Change(coefficient=900, max_requests=3))
    assert read_change(tmp_path) == Change(coefficient=900, max_requests=3)
    forget_change(tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        '{"coefficient": -1}',
        '{"max_requests": 0}',
        '{"max_requests": "many"}',
        '{"coefficent": 900}',
        '{"coefficient": 900' + " " * BYTES_MAX + "}",
    ],
)
def test_a_file_that_cannot_be_used_is_told_of(tmp_path: Path, text: str) -> None:
    (tmp_path / TERMS_FILE).write_text(text)
    with pytest.raises(TermsError, match=TERMS_FILE):
        read_change(tmp_path)


def test_what_is_not_said_is_as_the_worker_was_started() -> None:
    terms = Terms(1000, 64)
    assert not terms.apply(Change(), 0.0)
    assert terms.apply(Change(max_requests=8), 0.0)
    assert (terms.coefficient, terms.max_requests) == (1000, 8)
    assert terms.apply(Change(coefficient=700), 0.0)
    assert (terms.coefficient, terms.max_requests) == (700, 64)


def test_a_raised_price_is_not_asked_of_requests_that_were_promised_less() -> None:
    terms = Terms(1000, 64)
    terms.apply(Change(coefficient=2000), 10.0)
    terms.apply(Change(coefficient=1500), 20.0)
    terms.apply(Change(coefficient=3000), 30.0)
    assert terms.least(30.0) == 1000
    assert terms.least(10.0 + OLD_PRICE_S) == 1500
    assert terms.least(30.0 + OLD_PRICE_S) == 3000
    terms.apply(Change(coefficient=10), 200.0)
    assert terms.least(200.0) == 10
