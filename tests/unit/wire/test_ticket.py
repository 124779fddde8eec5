"""Tickets: what one says comes back whole, and only from who made it."""

import base64
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from filature.wire.ticket import (
    TICKET_BYTES_MAX,
    TICKET_FIELDS,
    Ticket,
    TicketError,
    check_ticket,
    issue,
    read_ticket,
)

KEY = bytes(range(32))
TEXTS = {
    "request": "req-1",
    "account": "client:alice",
    "worker": "gpu-1",
    "model": "org/model é",
    "dialect": "chat",
    "boot": "0123456789abcdef",
}
INTEGERS = {
    "coefficient": 900,
    "tariff_version": 3,
    "prompt_price": 100_000_000,
    "cached_price": 10_000_000,
    "completion_price": 400_000_000,
    "reasoning_price": 400_000_001,
    "request_price": 0,
    "fee_bp": 500,
    "held": 123_456_789,
    "prompt_tokens": 17,
    "completion_tokens": 256,
    "expires_ms": 1_800_000_000_000,
}
FIELDS: dict[str, Any] = TEXTS | INTEGERS | {"key_id": "key-1"}


def told(ticket: Ticket) -> dict[str, Any]:
    return {name: getattr(ticket, name) for name in FIELDS}


def values(fields: dict[str, Any]) -> list[Any]:
    return [fields[name] for name in TICKET_FIELDS]


def issued(**changed: Any) -> bytes:
    return issue(values(FIELDS | changed), KEY)


def test_what_was_issued_is_read_and_checked() -> None:
    text = issued()
    for ticket in (read_ticket(text), check_ticket(text, KEY)):
        assert told(ticket) == FIELDS
        assert ticket.text == text


def test_a_ticket_can_stand_in_a_header_and_in_a_report() -> None:
    text = issued()
    assert text.isascii()
    assert text.decode().isprintable()
    assert not set(text) & set(b' ",;')
    assert len(text) < TICKET_BYTES_MAX / 2


@given(
    st.fixed_dictionaries(dict.fromkeys(TEXTS, st.text(max_size=20))),
    st.fixed_dictionaries(dict.fromkeys(INTEGERS, st.integers(0, 2**64 - 1))),
    st.none() | st.text(max_size=20),
    st.binary(min_size=1, max_size=64),
)
def test_any_values_come_back(
    texts: dict[str, str], integers: dict[str, int], key_id: str | None, key: bytes
) -> None:
    fields = texts | integers | {"key_id": key_id}
    assert told(check_ticket(issue(values(fields), key), key)) == fields


@pytest.mark.parametrize("name", TEXTS)
@pytest.mark.parametrize("value", [None, 1, True, ["a"], {"a": "b"}])
def test_a_text_that_is_no_text_is_named(name: str, value: Any) -> None:
    with pytest.raises(TicketError, match=f"no {name}$"):
        check_ticket(issued(**{name: value}), KEY)


@pytest.mark.parametrize("name", INTEGERS)
@pytest.mark.parametrize("value", [None, "1", 1.0, True, False, -1, [1], 1e300])
def test_a_number_that_is_no_number_is_named(name: str, value: Any) -> None:
    with pytest.raises(TicketError, match=f"no {name}$"):
        check_ticket(issued(**{name: value}), KEY)


def test_a_number_beyond_64_bits_is_none() -> None:
    said = orjson.dumps(values(FIELDS)).replace(b"123456789", b"9" * 40)
    text = base64.b64encode(said)
    with pytest.raises(TicketError, match="no held"):
        read_ticket(text + b".")


@pytest.mark.parametrize("value", [None, 1, ["a"]])
def test_a_request_may_have_no_key(value: Any) -> None:
    assert check_ticket(issued(key_id=value), KEY).key_id is None


def test_what_a_newer_proxy_adds_is_passed_over() -> None:
    text = issue([*values(FIELDS), {"a": [1]}, None], KEY)
    assert told(check_ticket(text, KEY)) == FIELDS


# forged


@pytest.mark.parametrize("flip", [0x01, 0x02, 0x20, 0x80])
def test_a_ticket_with_a_changed_byte_is_forged(flip: int) -> None:
    text = issued()
    for index in range(len(text)):
        changed = bytearray(text)
        changed[index] ^= flip
        with pytest.raises(TicketError, match="forged"):
            check_ticket(bytes(changed), KEY)


def test_a_ticket_with_a_byte_more_or_less_is_forged() -> None:
    text = issued()
    for index in range(len(text)):
        for changed in (
            text[:index] + text[index + 1 :],
            text[:index],
            text[:index] + b"." + text[index:],
            text[:index] + b"=" + text[index:],
            text[:index] + b"\n" + text[index:],
        ):
            with pytest.raises(TicketError, match="forged"):
                check_ticket(changed, KEY)
    for more in (b"=", b".", b"\n", b"A"):
        with pytest.raises(TicketError, match="forged"):
            check_ticket(text + more, KEY)


@pytest.mark.parametrize("key", [b"", KEY[:-1], KEY + b"\1", bytes(32)])
def test_a_ticket_of_another_key_is_forged_and_readable(key: bytes) -> None:
    text = issued()
    with pytest.raises(TicketError, match="forged"):
        check_ticket(text, key)
    assert told(read_ticket(text)) == FIELDS


def test_the_end_of_one_ticket_does_not_fit_another() -> None:
    body, dear = issued().partition(b".")[0], issued(held=10**12).partition(b".")[0]
    ending = issued().partition(b".")[2]
    assert told(check_ticket(body + b"." + ending, KEY)) == FIELDS
    with pytest.raises(TicketError, match="forged"):
        check_ticket(dear + b"." + ending, KEY)


# garbage


def test_a_ticket_may_be_so_long() -> None:
    lengths = [len(issued(model="m" * chars)) for chars in range(TICKET_BYTES_MAX)]
    chars = sum(length <= TICKET_BYTES_MAX for length in lengths) - 1
    assert check_ticket(issued(model="m" * chars), KEY).model == "m" * chars
    with pytest.raises(TicketError, match="too long"):
        check_ticket(issued(model="m" * (chars + 1)), KEY)
    padded = issued().ljust(TICKET_BYTES_MAX, b"A")
    assert told(read_ticket(padded)) == FIELDS
    with pytest.raises(TicketError, match="too long"):
        read_ticket(padded + b"A")


@pytest.mark.parametrize("said", [None, [], "text", 7, [FIELDS], FIELDS, values(FIELDS)[:-1]])
def test_what_is_no_array_of_all_cannot_be_read(said: Any) -> None:
    text = base64.b64encode(orjson.dumps(said)) + b".mac"
    with pytest.raises(TicketError, match="cannot be read"):
        read_ticket(text)


@pytest.mark.parametrize(
    "text", [b"", b".", b"..", b"A", b"e30", b"e30=x.", b"\xff\xfe.", b"W" * 4000]
)
def test_what_is_no_ticket_is_refused(text: bytes) -> None:
    with pytest.raises(TicketError):
        read_ticket(text)
    with pytest.raises(TicketError, match="forged"):
        check_ticket(text, KEY)


@pytest.mark.parametrize("more", [b"\xe9", b"\x80"])
def test_what_a_report_could_not_give_back_is_refused(more: bytes) -> None:
    with pytest.raises(TicketError, match="cannot be read"):
        read_ticket(issued() + more)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(
    st.binary()
    | st.binary().map(base64.b64encode)
    | JSON.map(orjson.dumps).map(base64.b64encode)
    | st.fixed_dictionaries({}, optional=dict.fromkeys(FIELDS, JSON))
    .map(lambda changed: orjson.dumps(values(FIELDS | changed)))
    .map(base64.b64encode),
    st.binary(),
)
def test_any_bytes_are_a_ticket_or_none(body: bytes, mac: bytes) -> None:
    for text in (body, body + b"." + mac):
        try:
            read = read_ticket(text)
        except TicketError:
            pass
        else:
            assert read.text == text
        with pytest.raises(TicketError):
            check_ticket(text, KEY)
