"""The JSON of the admin API: what its requests may say and what its answers look like. It decides nothing."""

from typing import Annotated, Any, Final, Generic, Literal, Self, TypeVar

from fastapi import Path, Query
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from filature.admin.amounts import CREDITS_PATTERN, both, time_of
from filature.ledger.accounts import Account
from filature.ledger.transfers import Transfer
from filature.ledger.trial_balance import TrialLine
from filature.store.keys import ApiKey, Period
from filature.store.prices import ModelPrice
from filature.store.worker_tokens import WorkerToken
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


class Asked(BaseModel):
    """A request's body: nothing is converted and nothing unknown is passed over."""

    model_config = ConfigDict(strict=True, extra="forbid")


class AccountAsked(Asked):
    """``POST /admin/v1/accounts``."""

    name: str
    kind: Literal["client", "worker"] = "client"


class MovementAsked(Asked):
    """A top-up, a refund, a payout or a correction. Give one of the two amounts."""

    amount: Credits | None = None
    amount_nano: NanoCredits | None = None
    id: Id | None = Field(
        None,
        description="The transfer's id, which makes the request safe to repeat; made when left out",
    )
    note: OneLine = ""


class KeyAsked(Asked):
    """``POST /admin/v1/keys``. A limit that is left out does not limit."""

    account: str
    name: OneLine = ""
    budget: Credits | None = None
    budget_nano: NanoCredits | None = None
    budget_period: Period | None = None
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    concurrency: int | None = None
    models: list[Name] | None = None
    max_coefficient: int | None = Field(None, description="Thousandths: 1000 is 1.0")
    expires_ms: int | None = Field(
        None, le=UNIX_MS_MAX, description="Unix time in milliseconds, up to the year 9999"
    )


class WorkerTokenAsked(Asked):
    """``POST /admin/v1/worker-tokens``. Without ``models`` all may be served."""

    worker: str
    models: list[Name] | None = None


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


# Answers


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


class AccountShown(BaseModel):
    """An account's totals. ``spent`` is all that was ever debited."""

    object: Literal["account"] = "account"
    id: str
    name: str
    kind: str
    balance: str
    balance_nano: int
    held: str
    held_nano: int
    available: str
    available_nano: int
    debits: str
    debits_nano: int
    credits: str
    credits_nano: int
    holds: int = Field(description="Requests that money is held for now")
    result: Result | None = None

    @classmethod
    def of(cls, account: Account, holds: int, result: Result | None = None) -> Self:
        amounts: dict[str, Any] = both(
            balance=account.balance,
            held=account.held,
            available=account.available,
            debits=account.debits,
            credits=account.credits,
        )
        name = account.id.partition(":")[2] or account.id
        return cls(
            id=account.id, name=name, kind=account.kind.value, holds=holds, result=result, **amounts
        )


class TransferShown(BaseModel):
    """A row of the ledger."""

    object: Literal["transfer"] = "transfer"
    seq: int | None = None
    id: str
    kind: str
    debit: str
    credit: str
    amount: str
    amount_nano: int
    fee: str
    fee_nano: int
    fee_bp: int
    held: str
    held_nano: int
    at: str
    at_ms: int
    corrects: str | None
    note: str

    @classmethod
    def of(cls, transfer: Transfer, seq: int | None = None) -> Self:
        amounts: dict[str, Any] = both(amount=transfer.amount, fee=transfer.fee, held=transfer.held)
        return cls(
            seq=seq,
            id=transfer.id,
            kind=transfer.kind.value,
            debit=transfer.debit,
            credit=transfer.credit,
            fee_bp=transfer.fee_bp,
            at=time_of(transfer.at_ms),
            at_ms=transfer.at_ms,
            corrects=transfer.corrects,
            note=transfer.note,
            **amounts,
        )


class MovementShown(BaseModel):
    """What became of a top-up, refund or payout, and the account after it."""

    object: Literal["movement"] = "movement"
    result: Result
    id: str
    amount: str
    amount_nano: int
    account: AccountShown


class KeyShown(BaseModel):
    """A key without its secret."""

    object: Literal["key"] = "key"
    id: str
    hint: str
    account: str
    name: str
    state: Literal["active", "expired", "revoked"]
    created_ms: int
    revoked_ms: int | None
    expires_ms: int | None
    budget: str | None
    budget_nano: int | None
    budget_period: str | None
    requests_per_minute: int | None
    tokens_per_minute: int | None
    concurrency: int | None
    models: list[str] | None
    max_coefficient: int | None

    @classmethod
    def fields_of(cls, key: ApiKey, now_ms: int) -> dict[str, Any]:
        limits = key.limits
        state = "active"
        if key.revoked_ms is not None:
            state = "revoked"
        elif limits.expires_ms is not None and limits.expires_ms <= now_ms:
            state = "expired"
        budget: dict[str, Any] = {"budget": None, "budget_nano": None}
        if limits.budget is not None:
            budget = both(budget=limits.budget)
        return {
            "id": key.id,
            "hint": key.hint,
            "account": key.account.partition(":")[2],
            "name": key.name,
            "state": state,
            "created_ms": key.created_ms,
            "revoked_ms": key.revoked_ms,
            "expires_ms": limits.expires_ms,
            "budget_period": limits.budget_period,
            "requests_per_minute": limits.requests_per_minute,
            "tokens_per_minute": limits.tokens_per_minute,
            "concurrency": limits.concurrency,
            "models": None if limits.models is None else sorted(limits.models),
            "max_coefficient": limits.max_coefficient,
        } | budget

    @classmethod
    def of(cls, key: ApiKey, now_ms: int) -> Self:
        return cls(**cls.fields_of(key, now_ms))


class NewKeyShown(KeyShown):
    """A key just made, with its secret: this once."""

    secret: str


class WorkerTokenShown(BaseModel):
    """A worker's token without its secret."""

    object: Literal["worker_token"] = "worker_token"
    id: str
    hint: str
    worker: str
    state: Literal["active", "revoked"]
    created_ms: int
    revoked_ms: int | None
    models: list[str] | None

    @classmethod
    def fields_of(cls, token: WorkerToken) -> dict[str, Any]:
        return {
            "id": token.id,
            "hint": token.hint,
            "worker": token.worker,
            "state": "active" if token.revoked_ms is None else "revoked",
            "created_ms": token.created_ms,
            "revoked_ms": token.revoked_ms,
            "models": None if token.models is None else sorted(token.models),
        }

    @classmethod
    def of(cls, token: WorkerToken) -> Self:
        return cls(**cls.fields_of(token))


class NewWorkerTokenShown(WorkerTokenShown):
    """A token just made, with its secret: this once."""

    secret: str


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


class Removed(BaseModel):
    """What is no longer there."""

    object: Literal["removed"] = "removed"
    id: str


class ImportShown(BaseModel):
    """What an import changed: the models whose price is a new version, and the others."""

    object: Literal["import"] = "import"
    set: list[str]
    unchanged: list[str]
    aliases: int
    coefficients: int
    warnings: list[str] = Field(description="Coefficients that may have no effect")


class UsageSum(BaseModel):
    """Requests and what they cost."""

    object: Literal["usage_sum"] = "usage_sum"
    name: str
    requests: int
    cost: str
    cost_nano: int


class ViolationShown(BaseModel):
    """One thing that is wrong."""

    invariant: str
    subject: str
    message: str


class CheckShown(BaseModel):
    """What was looked at and what is wrong: nothing, of a sound ledger."""

    object: Literal["ledger_check"] = "ledger_check"
    ok: bool
    accounts: int
    transfers: int
    holds: int
    usage_records: int
    violations: list[ViolationShown]
    violations_left_out: int = 0


class BalanceLine(BaseModel):
    """One account's two sides: posted, and held apart from it."""

    name: str
    debits: str
    debits_nano: int
    credits: str
    credits_nano: int
    held_debits: str
    held_debits_nano: int
    held_credits: str
    held_credits_nano: int

    @classmethod
    def of(cls, line: TrialLine) -> Self:
        amounts: dict[str, Any] = both(
            debits=line.debits,
            credits=line.credits,
            held_debits=line.held_debits,
            held_credits=line.held_credits,
        )
        return cls(name=line.name, **amounts)


class BalanceShown(BaseModel):
    """The trial balance."""

    object: Literal["trial_balance"] = "trial_balance"
    balanced: bool
    lines: list[BalanceLine]
    total: BalanceLine
