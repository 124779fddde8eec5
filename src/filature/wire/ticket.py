"""Tickets: what a proxy promises to pay a worker for one request. Bytes to typed values and back.

A ticket is two base64url texts parted by a dot: a JSON object, and a HMAC-SHA-256 over the first text by a key
that only proxies have. A worker reads it and gives it back with its report; only a proxy can tell a forged one.
"""

import base64
import binascii
import hashlib
import hmac
from typing import Any, Final

import orjson

TICKET_HEADER: Final = b"x-filature-ticket"
TICKET_BYTES_MAX: Final = 4096
_MAC_BYTES: Final = 18
_INTEGERS: Final = (
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
_TEXTS: Final = ("request", "account", "worker", "model", "dialect", "boot")


class TicketError(ValueError):
    """A text is no ticket, or not one that was made with the key; the message says why."""


class Ticket:
    """Prices are nano-credits per million tokens with the coefficient applied at billing, as in a tariff;
    ``held`` is nano-credits; ``boot`` names the proxy's process; ``expires_ms`` is Unix time."""

    __slots__ = (*_TEXTS, *_INTEGERS, "key_id", "text")

    def __init__(
        self, texts: dict[str, str], integers: dict[str, int], key_id: str | None, text: bytes
    ) -> None:
        self.request = texts["request"]
        self.account = texts["account"]
        self.worker = texts["worker"]
        self.model = texts["model"]
        self.dialect = texts["dialect"]
        self.boot = texts["boot"]
        self.coefficient = integers["coefficient"]
        self.tariff_version = integers["tariff_version"]
        self.prompt_price = integers["prompt_price"]
        self.cached_price = integers["cached_price"]
        self.completion_price = integers["completion_price"]
        self.reasoning_price = integers["reasoning_price"]
        self.request_price = integers["request_price"]
        self.fee_bp = integers["fee_bp"]
        self.held = integers["held"]
        self.prompt_tokens = integers["prompt_tokens"]
        self.completion_tokens = integers["completion_tokens"]
        self.expires_ms = integers["expires_ms"]
        self.key_id = key_id
        self.text = text
        """As it crosses the network."""


def issue(fields: dict[str, Any], key: bytes) -> bytes:
    """The text of a ticket with ``fields``: those of ``Ticket`` by name."""
    body = base64.urlsafe_b64encode(orjson.dumps(fields))
    return b"%b.%b" % (body, _mac(body, key))


def read_ticket(text: bytes) -> Ticket:
    """What a ticket says, whoever made it. Raises TicketError."""
    if len(text) > TICKET_BYTES_MAX:
        raise TicketError("the ticket is too long")
    try:
        fields = orjson.loads(base64.urlsafe_b64decode(text.partition(b".")[0]))
    except (binascii.Error, orjson.JSONDecodeError):
        raise TicketError("the ticket cannot be read") from None
    if not isinstance(fields, dict):
        raise TicketError("the ticket cannot be read")
    texts: dict[str, str] = {}
    integers: dict[str, int] = {}
    for name in _TEXTS:
        value = fields.get(name)
        if not isinstance(value, str):
            raise TicketError(f"the ticket has no {name}")
        texts[name] = value
    for name in _INTEGERS:
        number = fields.get(name)
        if not isinstance(number, int) or isinstance(number, bool) or number < 0:
            raise TicketError(f"the ticket has no {name}")
        integers[name] = number
    key_id = fields.get("key_id")
    return Ticket(texts, integers, key_id if isinstance(key_id, str) else None, text)


def check_ticket(text: bytes, key: bytes) -> Ticket:
    """The same of a ticket that was made with ``key``. Raises TicketError."""
    body, _, mac = text.partition(b".")
    if not hmac.compare_digest(mac, _mac(body, key)):
        raise TicketError("the ticket is forged")
    return read_ticket(text)


def _mac(body: bytes, key: bytes) -> bytes:
    return base64.urlsafe_b64encode(hmac.digest(key, body, hashlib.sha256)[:_MAC_BYTES])
