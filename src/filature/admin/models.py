"""What all JSON of the admin API is made of; that of each kind of thing is in `…_models.py`. None decides anything."""

from typing import Annotated, Final, Generic, Literal, TypeVar

from fastapi import Path, Query
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from filature.admin.amounts import CREDITS_PATTERN
from filature.units import NANO_MAX

T = TypeVar("T")


def _one_line(text: str) -> str:
    if not text.isprintable():
        raise ValueError("must be printable characters on one line")
    return text


OneLine = Annotated[str, Field(max_length=500), AfterValidator(_one_line)]
Name = Annotated[str, Field(min_length=1, max_length=256), AfterValidator(_one_line)]
Id = Annotated[str, Field(min_length=1, max_length=128), AfterValidator(_one_line)]
OneLineAsked = Annotated[OneLine | None, Query()]
IdInPath = Annotated[Id, Path()]
NameInPath = Annotated[Name, Path()]
Credits = Annotated[
    str,
    Field(
        description="Credits as a decimal in a string",
        json_schema_extra={"pattern": CREDITS_PATTERN},
    ),
]
NanoCredits = Annotated[int, Field(description="Nano-credits: 10⁻⁹ credit")]
Storable = Annotated[int, Field(ge=-NANO_MAX, le=NANO_MAX)]
"""What databases compare numbers with: an int64."""
UNIX_MS_MAX: Final = 253_402_300_799_999
"""The end of the year 9999, behind which no time can be shown."""
Result = Literal["done", "exists"]
Form = Literal["csv", "jsonl"]
FormAsked = Annotated[Form | None, Query(alias="format")]


class Asked(BaseModel):
    """A request's body: nothing is converted and nothing unknown is passed over."""

    model_config = ConfigDict(strict=True, extra="forbid")


class ErrorFields(BaseModel):
    """As in OpenAI's API."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorShown(BaseModel):
    """Every refusal."""

    error: ErrorFields


class Listed(BaseModel, Generic[T]):
    """Some of a kind; ``has_more``: there are others behind the last one."""

    object: Literal["list"] = "list"
    data: list[T]
    has_more: bool = False


class Removed(BaseModel):
    """What is no longer there."""

    object: Literal["removed"] = "removed"
    id: str
