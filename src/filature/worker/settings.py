"""The worker's settings: names, defaults and meaning. Read from ``FILATURE_…`` and the command line."""

import re
from pathlib import Path
from typing import Annotated, Final, Literal
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from filature.relay.engines import EngineAddress, key_in_header
from filature.relay.limits import RelayLimits
from filature.request.allowance import DOMAIN, FIELD
from filature.wire.control import CAPACITY_MAX, COEFFICIENT_MAX

OUTBOX_FILE: Final = "outbox.db"
TUNNEL_IDLE_S: Final = 1800.0
"""After which an unused connection is replaced; proxies wait longer."""
PORT_MAX: Final = 65535
TOKEN: Final = re.compile(r"[!-~]+")
_ORIGIN: Final = re.compile(r"[!\"$->A-~]+")
"""Visible ASCII, without what begins a query or a fragment, or ends a user's name."""
_ADDRESS: Final = re.compile(
    r"(?:\[(?P<v6>[0-9A-Fa-f:.]+)\]|(?P<host>[^\s:/\[\]]+)):(?P<port>[0-9]{1,5})"
)


class WorkerSettings(BaseSettings):
    """Every setting of ``filature worker``. Times are in seconds."""

    model_config = SettingsConfigDict(
        env_prefix="FILATURE_WORKER_", env_ignore_empty=True, extra="ignore"
    )

    proxies: Annotated[list[str], NoDecode] = Field(
        description="Proxies as URL; in the environment parted by spaces"
    )
    token: SecretStr = Field(description="The worker's token, from the operator of the proxies")
    proxy_ca: Path | None = Field(None, description="CA certificates (PEM) for https proxies")
    engines: Annotated[list[str], NoDecode] = Field(
        description="Engines as URL or URL=alias:upstream-name,…; in the environment parted by spaces"
    )
    engine_key: SecretStr | None = Field(None, description="The engines' own API key")
    engine_ca: Path | None = Field(None, description="CA certificates (PEM) for https engines")
    coefficient: int = Field(
        1000,
        ge=0,
        le=COEFFICIENT_MAX,
        description="Thousandths of the proxy's price that are asked",
    )
    max_requests: int = Field(
        64, ge=1, le=CAPACITY_MAX, description="Requests at once, over all proxies"
    )
    allow_fields: Annotated[list[str], NoDecode] = Field(
        default=[],
        description="Fields of requests that workers do not take as a rule, and this one does; parted by spaces",
    )
    allow_media: Annotated[list[str], NoDecode] = Field(
        default=[],
        description="Domains that the engine may fetch media from, each with those below it; parted by spaces",
    )
    context_length: int = Field(
        8192, ge=1, description="Tokens of a model's context, where its engine does not tell"
    )
    data_dir: Path = Field(
        Path(), description="Folder of the outbox; worker in Filature's own when not set"
    )
    first_byte_s: float = Field(600, gt=0, description="For an engine's answer to begin")
    progress_s: float = Field(60, gt=0, description="Without data in an answer: a stall")
    request_s: float = Field(3600, gt=0, description="For a whole request")
    drain_s: float = Field(30, ge=0, description="For running answers after SIGTERM")
    metrics: str | None = Field(
        None,
        description="HOST:PORT on which /metrics and /health are served; nothing listens when not set",
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="Of the log on stderr: debug, info, warning, error"
    )

    @field_validator("allow_fields")
    @classmethod
    def _fields(cls, value: list[str]) -> list[str]:
        for name in value:
            if FIELD.fullmatch(name) is None:
                raise ValueError(f"{name!r} is no field's name")
        return value

    @field_validator("allow_media")
    @classmethod
    def _domains(cls, value: list[str]) -> list[str]:
        domains = [name.lower() for name in value]
        for name in domains:
            if DOMAIN.fullmatch(name) is None:
                raise ValueError(f"{name!r} is no domain: write it as media.example.com")
        return domains

    @field_validator("proxies", "engines", "allow_fields", "allow_media", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return value.split() if isinstance(value, str) else value

    @field_validator("proxies")
    @classmethod
    def _reachable(cls, value: list[str]) -> list[str]:
        if not value:
            raise ValueError("a worker needs a proxy")
        for url in value:
            if not _is_origin(url):
                shown = (
                    url if "@" not in url else "one with a user's name"
                )  # a password is not repeated
                raise ValueError(
                    f"write a proxy as https://host or http://host:port; not {shown!r}"
                )
        return list(dict.fromkeys(url.rstrip("/") for url in value))

    @field_validator("token")
    @classmethod
    def _sendable(cls, value: SecretStr) -> SecretStr:
        """As it may stand in a header; what comes from a file ends in a line end."""
        token = value.get_secret_value().strip()
        if TOKEN.fullmatch(token) is None:
            raise ValueError("a token is letters, digits and signs without spaces")
        return SecretStr(token)

    @field_validator("engines")
    @classmethod
    def _understood(cls, value: list[str]) -> list[str]:
        if not value:
            raise ValueError("a worker needs an engine")
        for engine in value:
            EngineAddress.parse(engine)
        return value

    @field_validator("engine_key")
    @classmethod
    def _in_header(cls, value: SecretStr | None) -> SecretStr | None:
        return None if value is None else SecretStr(key_in_header(value.get_secret_value()))

    @field_validator("metrics")
    @classmethod
    def _an_address(cls, value: str | None) -> str | None:
        if value is not None:
            _host_and_port(value)
        return value

    @property
    def metrics_address(self) -> tuple[str, int] | None:
        """Host and port; None: nothing listens."""
        return None if self.metrics is None else _host_and_port(self.metrics)

    def relay_limits(self) -> RelayLimits:
        return RelayLimits(
            idle_s=TUNNEL_IDLE_S,
            client_stall_s=self.request_s,  # how long its client may be slow is the proxy's to say
            first_byte_s=self.first_byte_s,
            progress_s=self.progress_s,
            request_s=self.request_s,
            drain_s=self.drain_s,
        )


def _is_origin(url: str) -> bool:
    """Whether it is no more than a scheme, a host and a port, and can stand in a head."""
    if not _ORIGIN.fullmatch(url):
        return False
    parts = urlsplit(url)
    try:
        port = parts.port
    except ValueError:
        return False
    return (
        parts.scheme in ("http", "https")
        and bool(parts.hostname)
        and port != 0
        and not parts.path.strip("/")
    )


def _host_and_port(text: str) -> tuple[str, int]:
    """Raises ValueError. Port 0 takes a free one."""
    given = _ADDRESS.fullmatch(text)
    if given is None or int(given["port"]) > PORT_MAX:
        raise ValueError(f"write it as 127.0.0.1:10082 or [::1]:10082; not {text!r}")
    return given["v6"] or given["host"], int(given["port"])
