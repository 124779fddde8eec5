"""The proxy's settings: names, defaults and meaning. Read from ``FILATURE_…`` and the command line."""

import os
import re
from decimal import Decimal
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import BeforeValidator, Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from filature.admin.amounts import CREDITS_PATTERN
from filature.answer.pricing import Tariff
from filature.errors import StoreError
from filature.relay.engines import EngineAddress, key_in_header
from filature.relay.limits import MIB, RelayLimits
from filature.request.limits import RequestLimits
from filature.store.prices import ModelPrice
from filature.units import NANO_PER_CREDIT, Nano

DATABASE_FILE: Final = "filature.db"

_CREDITS: Final = re.compile(CREDITS_PATTERN)


def _as_written(value: object) -> object:
    """As the commands read credits: a text without signs, exponents and other scripts' digits. Raises ValueError."""
    if isinstance(value, str) and not _CREDITS.fullmatch(value):
        raise ValueError("write credits with at most nine decimals, such as 12.50")
    return value


Price = Annotated[Decimal, BeforeValidator(_as_written), Field(ge=0, le=1_000_000)]


def default_data_dir() -> Path:
    """``$XDG_DATA_HOME/filature`` (XDG Base Directory Specification), else below the home directory.

    Raises StoreError where there is none, as for a user who is not in the system's list.
    """
    base = os.environ.get("XDG_DATA_HOME")
    try:
        return (Path(base) if base else Path.home() / ".local" / "share") / "filature"
    except RuntimeError:
        raise StoreError(
            "This user has no home directory that data could be kept in: give a folder by --data-dir."
        ) from None


class ProxySettings(BaseSettings):
    """Every setting of ``filature up``. Times are in seconds, sizes in bytes, prices in credits."""

    # a variable that is set to nothing is one that is not set, as for the commands
    model_config = SettingsConfigDict(env_prefix="FILATURE_", env_ignore_empty=True, extra="ignore")

    engines: Annotated[list[str], NoDecode] = Field(
        default=[],
        description="Engines as URL or URL=alias:upstream-name,…; in the environment parted by spaces",
    )
    engine_key: SecretStr | None = Field(None, description="The engines' own API key")
    engine_ca: Path | None = Field(None, description="CA certificates (PEM) for https engines")
    host: str = Field(
        "127.0.0.1", min_length=1, description="Address that clients and workers connect to"
    )
    port: int = Field(
        10080, ge=0, le=65535, description="Port for clients and workers; 0: any free one"
    )
    tls_cert: Path | None = Field(None, description="Certificate chain (PEM): serve https")
    tls_key: Path | None = Field(None, description="Private key (PEM) of the certificate")
    admin_host: str = Field("127.0.0.1", min_length=1, description="Address of the admin port")
    admin_port: int = Field(
        10081, ge=0, le=65535, description="Port of the admin API and of metrics; 0: any free one"
    )
    cors_origins: Annotated[list[str], NoDecode] = Field(
        default=[], description="Web origins whose pages may call us, or *; parted by spaces"
    )

    data_dir: Path = Field(
        default_factory=default_data_dir,
        description="Folder of the ledger, of the admin token, and of what finds a running proxy",
    )
    database: str | None = Field(
        None,
        description="The ledger's database as URL; filature.db in the data directory when not set",
    )
    admin_token: SecretStr | None = Field(
        None, description="Token of the admin API; made and kept in the data directory when not set"
    )
    keyless: bool | None = Field(
        None,
        description="Serve requests without a key on the account demo; on loopback when not set",
    )
    demo_credit: Price = Field(
        Decimal(10), description="Credits that the account demo is given when it is made"
    )
    usage_days: int = Field(
        90, ge=1, le=36_500, description="Days that usage records are kept in the database"
    )

    price_default: bool = Field(
        True,
        description="Sell models that have no price of their own at the next five; else refuse them",
    )
    price_in: Price = Field(Decimal("0.20"), description="Credits per million prompt tokens")
    price_cached: Price = Field(
        Decimal("0.02"), description="Credits per million prompt tokens that the engine had cached"
    )
    price_out: Price = Field(Decimal("0.80"), description="Credits per million completion tokens")
    price_reasoning: Price | None = Field(
        None, description="Credits per million reasoning tokens; as price_out when not set"
    )
    price_request: Price = Field(Decimal(0), description="Credits per request")
    fee_bp: int = Field(
        0,
        ge=0,
        le=10_000,
        description="Share of a charge that the operator keeps, in basis points; a price that was set has its own",
    )
    completion_tokens_default: int = Field(
        16_384, ge=1, description="Completion tokens held for where a request names no number"
    )
    template_tokens: int = Field(
        512,
        ge=0,
        description="Prompt tokens held for beside the text: chat templates add some; a price that was set has its own",
    )
    media_tokens: int = Field(
        2048,
        ge=0,
        description="Prompt tokens held for, for each image or audio part; a price that was set has its own",
    )
    usage_when_unrequested: Literal["comment", "hide", "send"] = Field(
        "comment", description="What a stream whose client did not ask for usage is given of it"
    )

    tokenizers: Path | None = Field(
        None,
        description="Folder of models' tokenizers as MODEL/tokenizer.json: workers' claims are recounted by them",
    )

    strict: bool = Field(
        False, description="Check all ranges of the API references and refuse unknown fields"
    )
    max_tokens_limit: int | None = Field(
        None, ge=1, description="Cap on completion tokens; a request without a number gets it"
    )
    body_bytes_max: int = Field(32 * MIB, ge=1024, description="Largest request body")
    connections_max: int = Field(
        16_384,
        ge=1,
        description="Client connections at once, at most half of what the system lets a process open",
    )
    usage_records_max: int = Field(20_000, ge=1, description="Usage records kept in memory")

    head_s: float = Field(15, gt=0, description="For a request's head to arrive")
    idle_s: float = Field(75, gt=0, description="Between two requests on a client's connection")
    body_idle_s: float = Field(30, gt=0, description="Without a byte of a request's body")
    client_stall_s: float = Field(
        60, gt=0, description="For a client that does not read what waits for it"
    )
    connect_s: float = Field(5, gt=0, description="For a connection to an engine")
    first_byte_s: float = Field(600, gt=0, description="For an engine's answer to begin")
    progress_s: float = Field(60, gt=0, description="Without data in an answer: a stall")
    wait_s: float = Field(
        30, gt=0, description="For a worker to have room, when all that serve a model are full"
    )
    request_s: float = Field(3600, gt=0, description="For a whole request")
    hold_s: float = Field(15, gt=0, description="For what precedes the first content")
    ping_s: float = Field(15, gt=0, description="Of silence in a stream until a comment is sent")
    drain_s: float = Field(30, ge=0, description="For running answers after SIGTERM")
    retries_max: int = Field(
        2, ge=0, le=10, description="Further engines tried when one fails before any content"
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="Of the log on stderr; each request's line is at info"
    )

    @field_validator("engines", "cors_origins", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return value.split() if isinstance(value, str) else value

    @field_validator("engines")
    @classmethod
    def _understood(cls, value: list[str]) -> list[str]:
        for engine in value:
            EngineAddress.parse(engine)
        return value

    @field_validator("engine_key", "admin_token")
    @classmethod
    def _in_header(cls, value: SecretStr | None) -> SecretStr | None:
        key = "" if value is None else key_in_header(value.get_secret_value())
        return SecretStr(key) if key else None

    @field_validator(
        "price_in", "price_cached", "price_out", "price_reasoning", "price_request", "demo_credit"
    )
    @classmethod
    def _whole_nano(cls, value: Decimal | None) -> Decimal | None:
        if value is not None and value * NANO_PER_CREDIT % 1:
            raise ValueError("a price has at most nine decimals")
        return value

    @property
    def database_url(self) -> str:
        """The database's URL, given or made of the data directory."""
        return self.database or f"sqlite:///{self.data_dir / DATABASE_FILE}"

    @property
    def serves_keyless(self) -> bool:
        """Whether requests need no key: by the setting, else when only this machine can connect."""
        return is_loopback(self.host) if self.keyless is None else self.keyless

    @property
    def demo_credit_nano(self) -> Nano:
        return Nano(_nano(self.demo_credit))

    def default_price(self, model: str) -> ModelPrice:
        """Of a model that has no price of its own: version 0."""
        tariff = self.tariff()
        return ModelPrice(
            model=model,
            version=0,
            prompt=tariff.prompt,
            cached=tariff.cached,
            completion=tariff.completion,
            reasoning=tariff.reasoning,
            request=tariff.request,
            fee_bp=self.fee_bp,
            template_tokens=self.template_tokens,
            media_tokens=self.media_tokens,
            created_ms=0,
        )

    def tariff(self) -> Tariff:
        """The tariff of models that have no price of their own."""
        out = self.price_out if self.price_reasoning is None else self.price_reasoning
        return Tariff(
            prompt=_nano(self.price_in),
            cached=_nano(self.price_cached),
            completion=_nano(self.price_out),
            reasoning=_nano(out),
            request=_nano(self.price_request),
        )

    def relay_limits(self) -> RelayLimits:
        return RelayLimits(
            connections_max=self.connections_max,
            head_s=self.head_s,
            idle_s=self.idle_s,
            body_idle_s=self.body_idle_s,
            body_bytes_max=self.body_bytes_max,
            client_stall_s=self.client_stall_s,
            connect_s=self.connect_s,
            first_byte_s=self.first_byte_s,
            progress_s=self.progress_s,
            wait_s=self.wait_s,
            request_s=self.request_s,
            hold_s=self.hold_s,
            ping_s=self.ping_s,
            drain_s=self.drain_s,
            retries_max=self.retries_max,
        )

    def request_limits(self) -> RequestLimits:
        return RequestLimits(
            body_bytes_max=self.body_bytes_max,
            max_tokens_max=self.max_tokens_limit,
            strict=self.strict,
        )


def is_loopback(host: str) -> bool:
    """Whether only this machine can connect to an address; a name but ``localhost`` is not known to be."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _nano(amount: Decimal) -> int:
    """Credits as nano-credits; the validator has made sure that nothing is lost."""
    return int(amount * NANO_PER_CREDIT)
