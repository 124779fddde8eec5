"""The engines by URL and which one a request goes to. How they are probed is in ``discovery``."""

import asyncio
import re
import ssl
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import urlsplit

from filature.errors import FilatureError, ModelNotFound, Unavailable
from filature.relay.clock import CoarseClock
from filature.relay.dialing import DialingPool, Origin
from filature.relay.limits import RelayLimits
from filature.relay.upstream import UpstreamPool
from filature.relay.watch import Watch
from filature.request.allowance import Allowance
from filature.wire.dialect import Dialect

SET_ASIDE_S: Final = 1.0
"""After its first failure; doubled with each further one, up to the next."""
SET_ASIDE_MAX_S: Final = 30.0
_VISIBLE: Final = re.compile(r"[!-~]*")
"""What may stand in a head."""
_MEAN_WEIGHT: Final = 0.1
"""Of a new answer in an engine's running mean of seconds."""
COUNTING_MAX: Final = 8
"""Prompts that one engine is counting at once; others wait for theirs."""


class EngineAddressError(ValueError):
    """An ``--engine`` that cannot be understood, or a key that cannot be sent; the message says why."""


def key_in_header(key: str) -> str:
    """An engine's key without white space around it, such as the end of a line. Raises EngineAddressError."""
    key = key.strip()
    if not _VISIBLE.fullmatch(key):
        raise EngineAddressError("a key has visible ASCII characters, and nothing between them")
    return key


@dataclass(frozen=True, slots=True)
class EngineAddress:
    """A parsed ``URL[=alias:upstream-name,…]``."""

    url: str
    tls: bool
    host: str
    port: int
    base_path: str
    """Without a trailing slash and without ``/v1``, which the routes bring."""
    named_models: dict[str, str]
    """The client's name of a model → the engine's; empty: the engine is asked."""

    @property
    def default_port(self) -> int:
        return 443 if self.tls else 80

    @staticmethod
    def parse(text: str) -> "EngineAddress":
        """Raises EngineAddressError."""
        url, _, names = text.partition("=")
        parts = urlsplit(url)
        shown = repr(url) if "@" not in text else "with a user"  # a password is not repeated
        try:
            port = parts.port
        except ValueError:
            raise EngineAddressError(f"engine {shown}: the port is not a number") from None
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise EngineAddressError(
                f"engine {shown}: write it as http://host:port or https://host[:port][/base]"
            )
        if parts.query or parts.fragment or "@" in parts.netloc:
            where = f"{parts.hostname}{parts.path}"
            raise EngineAddressError(f"engine {where!r}: no query, fragment or user belongs in it")
        if not _VISIBLE.fullmatch(url):
            raise EngineAddressError(f"engine {url!r}: write it in visible ASCII characters")
        tls = parts.scheme == "https"
        base = parts.path.rstrip("/").removesuffix("/v1")
        return EngineAddress(
            url=url,
            tls=tls,
            host=parts.hostname,
            port=port or (443 if tls else 80),
            base_path=base,
            named_models=_named_models(text, names),
        )


def _named_models(text: str, names: str) -> dict[str, str]:
    named: dict[str, str] = {}
    for pair in filter(None, names.split(",")):
        alias, colon, upstream = pair.partition(":")
        if not alias or (colon and not upstream) or alias in named:
            raise EngineAddressError(f"engine {text!r}: models are named as alias:upstream-name,…")
        named[alias] = upstream or alias
    return named


@dataclass(slots=True)
class Abilities:
    """What an engine can do, as probed."""

    include_usage: bool = True
    continuous_usage: bool = False
    both_limits: bool = False
    """It takes ``max_tokens`` beside ``max_completion_tokens``: OpenAI refuses both at once, and Ollama heeds only the
    first. Of a worker it is not known; it asks its own engine."""
    misunderstood: dict[str, int] = field(default_factory=dict)
    """Ways of counting a prompt, and how often the engine did not understand: see ``tokenize``."""


@dataclass(slots=True)
class ServedModel:
    """A model as one engine serves it."""

    upstream_name: str
    context_length: int | None = None
    created: int = 0
    coefficient: int | None = None
    """Thousandths of the model's price, where its seller names it; None: the operator's for the engine."""
    abilities: Abilities = field(default_factory=Abilities)
    bytes_per_token: float = 4.0
    """Of completion text, as seen so far."""


class Engine:
    """One engine, or a worker that stands before one: its connections, its models, how busy it is and
    whether it failed of late.

    ``pool`` is how it is reached; None: by connections to its address.
    """

    def __init__(
        self,
        address: EngineAddress,
        clock: CoarseClock,
        limits: RelayLimits,
        *,
        api_key: str | None = None,
        tls: ssl.SSLContext | None = None,
        pool: UpstreamPool | None = None,
    ) -> None:
        self.address = address
        self.name = address.url
        self.api_key = api_key
        """By which it is called; no client reads it."""
        self.is_remote = pool is not None
        """A worker of the network: somebody else's."""
        self.allowance: Allowance | None = None
        """What of a request it takes that workers do not take as a rule."""
        self.watch: Watch | None = None
        """Who looks at what it claims."""
        self.running = 0
        """Requests of ours that it answers now."""
        self.elsewhere = 0
        """Answers that it makes or has waiting for others, as it told last."""
        self.answers = 0  # of ours: a request may be for several
        self._answers_most = self._answers_most_before = 0  # since it told last, and before that
        self.asked = 0
        """Requests that it was sent, ever."""
        self.refused = 0
        """Of these, those that it sent back since it was full."""
        self.capacity: int | None = None
        """Requests that it takes at once; None: any number."""
        self.full_until = 0.0  # it said that it takes no more
        self.mean_s = 0.0  # of its answers, as measured
        self.failures = 0  # in a row
        self.set_aside_until = 0.0
        self.lacks: dict[Dialect, float] = {}
        """APIs that it answered it does not have, and until when it is asked for them only where nobody else can be."""
        self.reachable = False
        self.counting = asyncio.Semaphore(COUNTING_MAX)
        self.models: dict[str, ServedModel] = {}
        self.named: dict[str, ServedModel] = {
            alias: ServedModel(upstream) for alias, upstream in address.named_models.items()
        }
        """Those named by hand: among the others once it was asked how long their context is."""
        origin = Origin(address.host, address.port, tls if address.tls else None)
        self.pool = DialingPool(origin, clock, limits) if pool is None else pool
        host = f"[{address.host}]" if ":" in address.host else address.host
        authority = host if address.port == address.default_port else f"{host}:{address.port}"
        fixed = f"host: {authority}\r\naccept-encoding: identity\r\n"
        self._keyless_headers = fixed.encode("latin-1")
        if api_key:
            fixed += f"authorization: Bearer {api_key}\r\n"
        self._fixed_headers = fixed.encode("latin-1")
        self._post_heads = {
            dialect: f"POST {address.base_path}{dialect.path} HTTP/1.1\r\n".encode("ascii")
            + self._fixed_headers
            + b"content-type: application/json\r\n"
            for dialect in Dialect
        }

    def post(self, dialect: Dialect, request_id: bytes, lines: bytes, body: bytes) -> bytes:
        """A whole POST request; ``lines`` are further header lines, each complete."""
        return b"%b%bx-request-id: %b\r\ncontent-length: %d\r\n\r\n%b" % (
            self._post_heads[dialect],
            lines,
            request_id,
            len(body),
            body,
        )

    def get(self, path: str, accept: str = "application/json") -> bytes:
        """A whole GET request to ``path`` below the engine's base path."""
        line = f"GET {self.address.base_path}{path} HTTP/1.1\r\n".encode("ascii")
        return line + self._fixed_headers + f"accept: {accept}\r\n\r\n".encode("ascii")

    def get_health(self) -> bytes:
        """A whole GET request to ``/health``, without the key: no engine asks for one there, and a gateway that does
        might have each of its models answer something, at a price."""
        line = f"GET {self.address.base_path}/health HTTP/1.1\r\n".encode("ascii")
        return line + self._keyless_headers + b"\r\n"

    def post_to(self, path: str, body: bytes) -> bytes:
        """A whole POST request to ``path`` below the engine's base path, which is not a client's."""
        line = f"POST {self.address.base_path}{path} HTTP/1.1\r\n".encode("ascii")
        more = b"content-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(body)
        return line + self._fixed_headers + b"accept: application/json\r\n" + more + body

    def began(self, answers: int) -> None:
        """A request for so many answers is sent to it."""
        self.running += 1
        self.asked += 1
        self.answers += answers
        self._answers_most = max(self._answers_most, self.answers)

    def ended(self, answers: int) -> None:
        """That request is over, however."""
        self.running -= 1
        self.answers -= answers

    def told(self, answers: int | None) -> None:
        """What it says that it makes and has waiting, for whomever; None: it does not say.

        It may say how things were some time ago (SGLang's gauges stand still for up to 30 s), so all counts as ours
        that was at once since it said so the last time but one.
        """
        ours = max(self._answers_most, self._answers_most_before)
        self._answers_most_before, self._answers_most = self._answers_most, self.answers
        self.elsewhere = 0 if answers is None else max(0, answers - ours)

    @property
    def load(self) -> int:
        """How busy it is, by us and by others. Whether it has room is told by our own requests alone: what it told of
        others may be over."""
        return self.running + self.elsewhere

    def failed(self, now: float) -> None:
        """Set aside: longer with each failure in a row."""
        pause = min(SET_ASIDE_S * 2**self.failures, SET_ASIDE_MAX_S)
        self.failures = min(self.failures + 1, 16)
        self.set_aside_until = now + pause

    def lacked(self, dialect: Dialect, now: float) -> None:
        """Set aside for one API that it does not have: it may be started anew with it."""
        self.lacks[dialect] = now + SET_ASIDE_MAX_S

    def succeeded(self, seconds: float) -> None:
        """It gave a whole answer, and took so long for it."""
        self.failures = 0
        self.set_aside_until = 0.0
        mean = self.mean_s
        self.mean_s = mean + _MEAN_WEIGHT * (seconds - mean) if mean else seconds

    def has_room(self, now: float) -> bool:
        """Whether one more request may be sent to it."""
        capacity = self.capacity
        return (capacity is None or self.running < capacity) and self.full_until <= now


class EngineDirectory:
    """All engines of the process. Which one a request goes to is decided in ``routing``."""

    def __init__(self, engines: Iterable[Engine]) -> None:
        self.engines = list(engines)
        self.more_may_come: Callable[[], bool] = _no_more
        """Whether workers that are not here may serve what nobody does."""

    def nobody(self, model: str) -> FilatureError:
        """Why no engine can be had for ``model``, which none serves."""
        if not any(engine.models or engine.reachable for engine in self.engines):
            if all(engine.is_remote for engine in self.engines):
                return Unavailable("No worker takes requests now.")
            return Unavailable("No engine has answered yet; its models are not known.")
        if self.more_may_come():
            return Unavailable(f"Nobody serves the model {model!r} yet: workers are still joining.")
        names = ", ".join(sorted(self.models())) or "none"
        return ModelNotFound(
            f"The model {model!r} does not exist here. Available: {names}.", param="model"
        )

    def models(self) -> dict[str, ServedModel]:
        """Every model served, by the client's name; the first engine that serves it describes it."""
        served: dict[str, ServedModel] = {}
        for engine in self.engines:
            for name, model in engine.models.items():
                served.setdefault(name, model)
        return served

    @property
    def is_ready(self) -> bool:
        """Whether any engine is known to answer."""
        return any(engine.reachable for engine in self.engines)

    def close(self) -> None:
        for engine in self.engines:
            engine.pool.close()


def _no_more() -> bool:
    """Of engines that are all named at the start."""
    return False
