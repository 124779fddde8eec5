"""Tickets: what a proxy promises to pay a worker for one request. Bytes to typed values and back.

A ticket is two base64 texts parted by a dot: a JSON array of the values of ``TICKET_FIELDS``, and keyed BLAKE2b
(RFC 7693) over the first text by a key that only proxies have. A worker reads it and gives it back with its report;
only a proxy can tell a forged one.
"""

import binascii
import hashlib
import hmac
from typing import Any, Final

import orjson

TICKET_HEADER: Final = b"x-filature-ticket"
TICKET_BYTES_MAX: Final = 4096
TICKET_FIELDS: Final = (
    "request",
    "account",
    "key_id",
    "worker",
    "model",
    "dialect",
    "boot",
    "coefficient",
    "tariff_version",
    "prompt_price",
    "cached_price",
    "completion_price",
    "reasoning_price",
    "request_price",
    "fee_bp",
    "held",
    "prompt_tokens",
    "completion_tokens",
    "expires_ms",
)
"""In the order in which they are written; what a newer proxy adds comes behind them."""
_MAC_BYTES: Final = 18


class TicketError(ValueError):
    """A text is no ticket, or not one that was made with the key; the message says why."""


class Ticket:
    """Prices are nano-credits per million tokens with the coefficient applied at billing, as in a tariff;
    ``held`` is nano-credits; ``boot`` names the proxy's process; ``expires_ms`` is Unix time."""

    __slots__ = (*TICKET_FIELDS, "text")

    def __init__(self, values: list[Any], text: bytes) -> None:
        """Raises TicketError."""
        key_id = values[2]
        self.request = _text(values, 0)
        self.account = _text(values, 1)
        self.key_id: str | None = key_id if isinstance(key_id, str) else None
        self.worker = _text(values, 3)
        self.model = _text(values, 4)
        self.dialect = _text(values, 5)
        self.boot = _text(values, 6)
        self.coefficient = _number(values, 7)
        self.tariff_version = _number(values, 8)
        self.prompt_price = _number(values, 9)
        self.cached_price = _number(values, 10)
        self.completion_price = _number(values, 11)
        self.reasoning_price = _number(values, 12)
        self.request_price = _number(values, 13)
        self.fee_bp = _number(values, 14)
        self.held = _number(values, 15)
        self.prompt_tokens = _number(values, 16)
        self.completion_tokens = _number(values, 17)
        self.expires_ms = _number(values, 18)
        self.text = text
        """As it crosses the network."""


def _text(values: list[Any], place: int) -> str:
    value = values[place]
    if isinstance(value, str):
        return value
    raise TicketError(f"the ticket has no {TICKET_FIELDS[place]}")


def _number(values: list[Any], place: int) -> int:
    value = values[place]
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    raise TicketError(f"the ticket has no {TICKET_FIELDS[place]}")


def issue(values: list[Any], key: bytes) -> bytes:
    """The text of a ticket with the values of ``TICKET_FIELDS``."""
    body = binascii.b2a_base64(orjson.dumps(values), newline=False)
    return body + b"." + _mac(body, key)


def read_ticket(text: bytes) -> Ticket:
    """What a ticket says, whoever made it. Raises TicketError."""
    if len(text) > TICKET_BYTES_MAX:
        raise TicketError("the ticket is too long")
    if not text.isascii():  # a report gives it back as a string
        raise TicketError("the ticket cannot be read")
    try:
        values = orjson.loads(binascii.a2b_base64(text.partition(b".")[0]))
    except (binascii.Error, orjson.JSONDecodeError):
        raise TicketError("the ticket cannot be read") from None
    if not isinstance(values, list) or len(values) < len(TICKET_FIELDS):
        raise TicketError("the ticket cannot be read")
    return Ticket(values, text)


def check_ticket(text: bytes, key: bytes) -> Ticket:
    """The same of a ticket that was made with ``key``. Raises TicketError."""
    body, _, mac = text.partition(b".")
    if not hmac.compare_digest(mac, _mac(body, key)):
        raise TicketError("the ticket is forged")
    return read_ticket(text)


def _mac(body: bytes, key: bytes) -> bytes:
    mac = hashlib.blake2b(body, digest_size=_MAC_BYTES, key=key)
    return binascii.b2a_base64(mac.digest(), newline=False)
