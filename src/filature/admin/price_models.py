"""The JSON of prices, aliases, coefficients, and of files that set many of them."""

from typing import Any, Literal, Self

from pydantic import BaseModel, Field

from filature.admin.amounts import both
from filature.admin.models import Asked, Credits, Name, NanoCredits
from filature.store.prices import ModelPrice


class PriceAsked(Asked):
    """A model's price: credits per million tokens of each class, and per request.

    ``prompt`` and ``completion`` are needed; ``cached`` costs what the prompt does, ``reasoning`` what the
    completion does, and a request nothing, where they are left out.
    """

    prompt: Credits | None = None
    prompt_nano: NanoCredits | None = None
    cached: Credits | None = None
    cached_nano: NanoCredits | None = None
    completion: Credits | None = None
    completion_nano: NanoCredits | None = None
    reasoning: Credits | None = None
    reasoning_nano: NanoCredits | None = None
    request: Credits | None = None
    request_nano: NanoCredits | None = None
    fee_bp: int = Field(0, description="The operator's share of a charge, in basis points")
    template_tokens: int = 512
    media_tokens: int = 2048


class ModelPriceAsked(PriceAsked):
    """A price among others."""

    model: Name


class AliasAsked(Asked):
    """``PUT /admin/v1/aliases/{alias}``."""

    model: Name


class NamedAliasAsked(AliasAsked):
    """An alias among others."""

    alias: Name


class CoefficientAsked(Asked):
    """``PUT /admin/v1/coefficients``."""

    engine: Name
    model: Name = Field("*", description="*: all of the engine's")
    coefficient: int = Field(description="Thousandths: 1000 is 1.0")


class ImportAsked(Asked):
    """``POST /admin/v1/prices/import``."""

    prices: list[ModelPriceAsked] = Field([], max_length=10_000)
    aliases: list[NamedAliasAsked] = Field([], max_length=10_000)
    coefficients: list[CoefficientAsked] = Field([], max_length=10_000)


class PriceShown(BaseModel):
    """One version of a model's price: credits per million tokens, and per request."""

    object: Literal["price"] = "price"
    model: str
    version: int
    prompt: str
    prompt_nano: int
    cached: str
    cached_nano: int
    completion: str
    completion_nano: int
    reasoning: str
    reasoning_nano: int
    request: str
    request_nano: int
    fee_bp: int
    template_tokens: int
    media_tokens: int
    created_ms: int
    withdrawn_ms: int | None = None

    @classmethod
    def of(cls, price: ModelPrice, withdrawn_ms: int | None = None) -> Self:
        amounts: dict[str, Any] = both(
            prompt=price.prompt,
            cached=price.cached,
            completion=price.completion,
            reasoning=price.reasoning,
            request=price.request,
        )
        return cls(
            model=price.model,
            version=price.version,
            fee_bp=price.fee_bp,
            template_tokens=price.template_tokens,
            media_tokens=price.media_tokens,
            created_ms=price.created_ms,
            withdrawn_ms=withdrawn_ms,
            **amounts,
        )


class AliasShown(BaseModel):
    """What clients may call a model."""

    object: Literal["alias"] = "alias"
    alias: str
    model: str


class CoefficientShown(BaseModel):
    """What an engine's prices are multiplied by; of ``*`` those of all its other models."""

    object: Literal["coefficient"] = "coefficient"
    engine: str
    model: str
    coefficient: int
    warning: str | None = Field(None, description="Why it may have no effect, where it was set")


class ImportShown(BaseModel):
    """What an import changed: the models whose price is a new version, and the others."""

    object: Literal["import"] = "import"
    set: list[str]
    unchanged: list[str]
    aliases: int
    coefficients: int
    warnings: list[str] = Field(description="Coefficients that may have no effect")
