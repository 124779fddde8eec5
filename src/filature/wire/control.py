"""What workers and proxies say to each other beside requests: the bodies of ``/filature/v1/…``, validated."""

from typing import Annotated, Any, Final, Literal

import orjson
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from filature.errors import InvalidRequest
from filature.wire.statement import STATEMENT_CHARS_MAX

PREFIX: Final = "/filature/v1"
HELLO_PATH: Final = f"{PREFIX}/hello"
HEARTBEAT_PATH: Final = f"{PREFIX}/heartbeat"
REPORTS_PATH: Final = f"{PREFIX}/reports"
TUNNEL_PATH: Final = f"{PREFIX}/tunnel"
PAYOUT_REQUESTS_PATH: Final = f"{PREFIX}/payout-requests"
KEYS_PATH: Final = f"{PREFIX}/keys"
"""For everybody: the keys by which earnings statements are checked, as a JWK set."""
TUNNEL_PROTOCOL: Final = "filature-tunnel/1"
"""In ``Upgrade``: behind the answer 101 the side that answered sends the requests."""
INSTANCE_HEADER: Final = "x-filature-instance"
"""Which process of a worker a tunnel belongs to."""

MODELS_MAX: Final = 1000
ALLOWED_MAX: Final = 64
REPORTS_MAX: Final = 512
"""In one delivery."""
CAPACITY_MAX: Final = 65_536
COEFFICIENT_MAX: Final = 1_000_000
_TOKENS_MAX: Final = 2**31

Tokens = Annotated[int, Field(ge=0, le=_TOKENS_MAX)]
_SHOWN: Final = r"^\P{C}*$"
"""Without control characters: it is logged, and shown in an operator's terminal."""
Name = Annotated[str, Field(min_length=1, max_length=256, pattern=_SHOWN)]
Seconds = Annotated[float, Field(ge=0, le=1e12, allow_inf_nan=False)]


class _Message(BaseModel):
    model_config = ConfigDict(extra="ignore")  # newer ones may say more


class ModelOffered(_Message):
    """A model as a worker serves it. ``coefficient``: thousandths of the proxy's price for the model."""

    id: Name
    context_length: Annotated[int, Field(ge=1, le=_TOKENS_MAX)] | None = None
    created: Annotated[int, Field(ge=0, le=2**53)] = 0
    coefficient: Annotated[int, Field(ge=0, le=COEFFICIENT_MAX)] = 1000
    include_usage: bool = True
    continuous_usage: bool = False


class Standing(_Message):
    """What a worker offers now: its hello, and each heartbeat."""

    instance: Annotated[str, Field(pattern="^[0-9a-f]{16}$")]
    """Of its process: a new one begins anew."""
    version: Annotated[str, Field(max_length=64, pattern=_SHOWN)] = ""
    models: Annotated[list[ModelOffered], Field(max_length=MODELS_MAX)]
    capacity: Annotated[int, Field(ge=1, le=CAPACITY_MAX)]
    """Requests at once, over all proxies."""
    running: Annotated[int, Field(ge=0, le=CAPACITY_MAX)] = 0
    """What its engines run and have waiting, for all proxies and whoever else asks them: each answer is one."""
    draining: bool = False
    allowed_fields: Annotated[list[Name], Field(max_length=ALLOWED_MAX)] = []
    """Of requests' bodies, that workers do not take as a rule."""
    allowed_media: Annotated[list[Name], Field(max_length=ALLOWED_MAX)] = []
    """Domains that its engine may fetch media from."""


class Welcome(_Message):
    """The answer to both. ``tunnels``: connections of the worker that stand ready at the proxy."""

    object: Literal["worker"] = "worker"
    worker: str
    heartbeat_s: Seconds
    tunnels: int = 0
    known: bool = True
    """False: the proxy has forgotten the worker, which is to say hello again."""
    refused_models: list[str] = []
    """Those that its token does not allow, or that have no price."""
    statement: Annotated[str, Field(max_length=STATEMENT_CHARS_MAX)] | None = None
    """The latest earnings statement: see ``wire.statement``."""


class Report(_Message):
    """What a worker metered of one request, with the ticket that it came with."""

    id: Name
    ticket: Annotated[str, Field(max_length=4096)]
    outcome: Annotated[str, Field(max_length=64)]
    prompt: Tokens
    cached: Tokens
    completion: Tokens
    reasoning: Tokens
    estimated: bool = False
    started_at: Seconds = 0.0
    total_s: Seconds = 0.0
    streamed: bool = False


class Accepted(_Message):
    """Reports that were dealt with: the worker may forget them. ``verdicts`` says how, by id."""

    object: Literal["reports"] = "reports"
    verdicts: dict[str, str]


class PayoutAsked(_Message):
    """What a worker asks to be paid, nano-credits. The same ``id`` again is the same request."""

    id: Annotated[str, Field(pattern="^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
    amount_nano: Annotated[int, Field(ge=1, lt=2**63)]


class PayoutRequested(_Message):
    """How the request stands: ``open`` until the operator answers it. ``balance_nano``: not paid yet, this included."""

    object: Literal["payout_request"] = "payout_request"
    id: str
    worker: str
    amount_nano: int
    state: Literal["open", "paid", "refused"]
    at_ms: int
    balance_nano: int


def parse(kind: type[_Message], body: bytes) -> Any:
    """Raises InvalidRequest."""
    try:
        return kind.model_validate_json(body)
    except ValidationError as error:
        raise invalid(error) from None


def invalid(error: ValidationError) -> InvalidRequest:
    """Names the first member that is wrong."""
    first = error.errors(include_input=False, include_url=False)[0]
    place = ".".join(str(part) for part in first["loc"]) or None
    return InvalidRequest(f"{place or 'The body'}: {first['msg']}.", param=place)


def read_reports(body: bytes) -> list[dict[str, Any]]:
    """One delivery: ``{"reports": […]}``. Each is as a ``Report``, which whoever needs what it says has to validate.

    Raises ValueError, which says what is wrong.
    """
    told = orjson.loads(body)
    reports = told.get("reports") if type(told) is dict else None
    if type(reports) is not list or not {dict}.issuperset(map(type, reports)):
        raise ValueError("a list of objects is needed")
    if len(reports) > REPORTS_MAX:
        raise ValueError(f"at most {REPORTS_MAX} are taken at once")
    return reports
