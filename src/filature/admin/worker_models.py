"""The JSON of the admin API on workers, what they earned and their payouts. It decides nothing."""

from typing import Any, Literal, Self

from pydantic import BaseModel, Field

from filature.admin.amounts import both, time_of
from filature.admin.models import Asked, Credits, Id, NanoCredits, OneLine, Result
from filature.store.availability import WorkerDay
from filature.store.earnings import Earned
from filature.store.payouts import Payout, PayoutRequest, request_of
from filature.units import COEFFICIENT_ONE


class WorkerModelShown(BaseModel):
    """A model that a worker offers, and its price at the worker's coefficient."""

    id: str
    context_length: int | None
    coefficient: int = Field(description="Thousandths: 1000 is 1.0")
    prompt: str | None = Field(description="Credits per million tokens; null: it has no price")
    prompt_nano: int | None
    completion: str | None
    completion_nano: int | None

    @classmethod
    def priced(
        cls,
        model: str,
        context_length: int | None,
        coefficient: int,
        prices: tuple[int, int] | None,
    ) -> Self:
        """``prices``: nano-credits per million prompt and completion tokens, at a coefficient of one."""
        amounts: dict[str, Any] = dict.fromkeys(
            ("prompt", "prompt_nano", "completion", "completion_nano")
        )
        if prices is not None:
            prompt, completion = (-(-each * coefficient // COEFFICIENT_ONE) for each in prices)
            amounts = both(prompt=prompt, completion=completion)
        return cls(id=model, context_length=context_length, coefficient=coefficient, **amounts)


class WorkerShown(BaseModel):
    """A worker: joining, ready, draining, disabled, or away where it has not joined."""

    object: Literal["worker"] = "worker"
    name: str
    state: str
    disabled: bool
    marks: list[str] = Field(description="What it is marked for: see its audit")
    models: list[WorkerModelShown]
    running: int
    capacity: int
    tunnels: int = Field(description="Connections of it that stand ready")
    mean_s: float = Field(description="Of its answers, as measured")
    failures: int = Field(description="In a row, now")
    version: str
    joined_ms: int | None


class EarningsLine(BaseModel):
    """One model on one day (UTC): what was settled, what cost nothing, and the money."""

    day: str
    model: str = Field(description="Empty: of requests whose records are no longer kept")
    settled: int
    voided: dict[str, int] = Field(description="Requests that cost nothing, by outcome")
    prompt: int = Field(description="Tokens, as the next three")
    cached: int
    completion: int
    reasoning: int
    charged: str
    charged_nano: int
    fees: str
    fees_nano: int
    earned: str
    earned_nano: int

    @classmethod
    def of(cls, row: Earned, day: str) -> Self:
        amounts: dict[str, Any] = both(charged=row.charged, fees=row.fees, earned=row.earned)
        return cls(
            day=day,
            model=row.model,
            settled=row.settled,
            voided=row.voided,
            prompt=row.prompt,
            cached=row.cached,
            completion=row.completion,
            reasoning=row.reasoning,
            **amounts,
        )


class WorkerDayShown(BaseModel):
    """How long a worker was there on one day (UTC)."""

    day: str
    ready_s: float
    idle_s: float = Field(description="Of these, in which it had no request")
    refused: int = Field(description="Requests that it sent back, since it was full")

    @classmethod
    def of(cls, row: WorkerDay, day: str) -> Self:
        return cls(
            day=day,
            ready_s=row.ready_ms / 1000,
            idle_s=row.idle_ms / 1000,
            refused=row.refused,
        )


class EarningsShown(BaseModel):
    """What a worker earned in a time, and how its account stands now."""

    object: Literal["earnings"] = "earnings"
    worker: str
    data: list[EarningsLine]
    total: EarningsLine
    days: list[WorkerDayShown]
    balance: str
    balance_nano: int
    paid_out: str = Field(description="Since the beginning, less what came back")
    paid_out_nano: int


class PayoutAsked(Asked):
    """``POST /admin/v1/payouts``: of an amount, or what a worker asked for."""

    worker: str | None = None
    amount: Credits | None = None
    amount_nano: NanoCredits | None = None
    id: Id | None = Field(
        None, description="The transfer's id: the same again is done once; made when left out"
    )
    request: Id | None = Field(
        None, description="The id of a payout request, instead of the others"
    )
    note: OneLine = ""


class PayoutShown(BaseModel):
    """A payout, or a worker's request for one that was not paid."""

    object: Literal["payout"] = "payout"
    id: str | None = Field(description="Of the ledger's transfer; null: it was not paid")
    request: str | None
    worker: str
    state: Literal["open", "paid", "refused"]
    amount: str
    amount_nano: int
    returned: str = Field(description="What corrections took back")
    returned_nano: int
    at: str
    at_ms: int
    note: str
    result: Result | None = None

    @classmethod
    def of_request(cls, request: PayoutRequest) -> Self:
        amounts: dict[str, Any] = both(amount=request.amount, returned=0)
        return cls(
            id=None,
            request=request.id,
            worker=request.worker,
            state=request.state,
            at=time_of(request.at_ms),
            at_ms=request.at_ms,
            note="",
            **amounts,
        )

    @classmethod
    def of_payout(cls, payout: Payout, result: Result | None = None) -> Self:
        amounts: dict[str, Any] = both(amount=payout.amount, returned=payout.returned)
        return cls(
            id=payout.id,
            request=request_of(payout.id),
            worker=payout.account.partition(":")[2],
            state="paid",
            at=time_of(payout.at_ms),
            at_ms=payout.at_ms,
            note=payout.note,
            result=result,
            **amounts,
        )
