"""May this request run, and what is the most it can cost: from a caller and a body to a held grant.

Nothing here waits. Where the bound of the prompt does not fit the balance, ``TooDear`` says so, and
the request may be admitted once more with the count that an engine gave.
"""

from collections.abc import Callable
from typing import Final

from filature.admin.amounts import credits_of
from filature.answer.pricing import Tariff
from filature.errors import (
    InsufficientQuota,
    InternalError,
    InvalidRequest,
    ModelNotFound,
    PermissionDenied,
    Unavailable,
)
from filature.ledger.outcomes import Outcome as LedgerOutcome
from filature.proxy.callers import Caller
from filature.proxy.free_failures import FreeFailures
from filature.proxy.grants import Ends, HeldGrant
from filature.proxy.offer import Offer, context_length
from filature.proxy.rates import RateLimiter
from filature.proxy.tickets import TicketOffice
from filature.relay.clock import CoarseClock
from filature.relay.engines import Engine, EngineDirectory
from filature.request.boundary import check_boundary
from filature.request.parse import ParsedRequest
from filature.request.prefix import prefix_of
from filature.request.quote import TooExpensive, prompt_bound, quote
from filature.store.embedded import EmbeddedLedger
from filature.store.idempotency import Idempotency
from filature.store.prices import ModelPrice, PriceBook
from filature.telemetry.record import UsageRecord
from filature.units import AccountId, HoldId, Nano

HOLD_MARGIN_S: Final = 600.0
"""A hold outlives the longest request by this; only a defect lets one get so old."""
DEFAULTS_MAX: Final = 10_000
"""Models whose price by the settings is kept at hand; above it they are made anew."""
_FREE: Final = Tariff(prompt=0, cached=0, completion=0, reasoning=0)


class TooDear(InsufficientQuota):
    """The balance does not cover the bound of the prompt and a token; its exact count may fit."""


class Admission:
    """Decides on one request at a time, against the balances of that moment."""

    def __init__(  # noqa: PLR0913 - all that a decision looks at
        self,
        *,
        ledger: EmbeddedLedger,
        prices: PriceBook,
        engines: EngineDirectory,
        idempotency: Idempotency,
        rates: RateLimiter,
        failures: FreeFailures,
        clock: CoarseClock,
        tickets: TicketOffice,
        default_price: Callable[[str], ModelPrice] | None,
        completion_tokens_default: int,
        request_s: float,
    ) -> None:
        self._ledger = ledger
        self._prices = prices
        self._engines = engines
        self._rates = rates
        self._failures = failures
        self._clock = clock
        self._ends = Ends(ledger, idempotency, failures, tickets)
        self._default_price = default_price
        self._defaults: dict[str, ModelPrice] = {}  # of models that engines serve
        self._offers: dict[tuple[str, int], Offer] = {}
        self._offers_at = -1.0  # the tick that they are of
        self._offers_of = -1  # the prices that they are of
        self._completion_tokens_default = completion_tokens_default
        self._hold_s = request_s + HOLD_MARGIN_S

    def delay_s(self, caller: Caller) -> float:
        """How long a request of this account waits first: 0 as a rule. Raises RateLimited."""
        return self._failures.check(caller.account)

    def offer(self, caller: Caller, request: ParsedRequest) -> Offer:
        """Raises ModelNotFound, Unavailable where the model is sold and nobody serves it now, or PermissionDenied."""
        prices, key = self._prices, caller.key
        model = prices.aliases.get(request.model, request.model)
        allowed = None if key is None else key.limits.models
        if allowed is not None and request.model not in allowed and model not in allowed:
            raise PermissionDenied(
                f"This API key may not use the model {request.model!r}.",
                param="model",
                code="model_not_allowed",
            )
        price = self._price(model, request.model)
        most = request.max_coefficient
        limit = None if key is None else key.limits.max_coefficient
        if limit is not None and (most is None or limit < most):
            most = limit
        if self._offers_at != self._clock.now or self._offers_of != prices.changes:
            self._offers.clear()  # engines may have changed
            self._offers_at, self._offers_of = self._clock.now, prices.changes
        wanted = (model, -1 if most is None else most)
        offer = self._offers.get(wanted)
        if offer is None:
            offer = self._offers[wanted] = self._offer(price, model, most)
        if offer.has_remote:
            try:
                check_boundary(request)
            except InvalidRequest:
                taken = offer.taking(request)
                if taken is None:
                    raise
                return taken
        return offer

    def price_of(self, model: str) -> ModelPrice | None:
        """The price in force; None of a model that is not sold."""
        price = self._prices.in_force.get(model)
        if price is None and self._default_price is not None:
            price = self._default_price(model)
        return price

    def sells(self, model: str) -> bool:
        """Whether the model has a price."""
        return self.price_of(model) is not None

    def _price(self, model: str, asked: str) -> ModelPrice:
        price = self._prices.in_force.get(model)
        if price is None:
            price = self._defaults.get(model)
        if price is not None:
            return price
        if not any(model in engine.models for engine in self._engines.engines):
            raise self._engines.nobody(asked)
        if self._default_price is None:
            raise ModelNotFound(
                f"The model {asked!r} has no price, and nothing is served for free. The operator sets "
                f"one with `filature price set {model}`.",
                param="model",
                code="model_not_priced",
            )
        if len(self._defaults) >= DEFAULTS_MAX:
            self._defaults.clear()
        price = self._defaults[model] = self._default_price(model)
        return price

    def _offer(self, price: ModelPrice, model: str, most: int | None) -> Offer:
        engines: list[Engine] = []
        tariffs: dict[str, Tariff] = {}
        cheapest = -1
        for engine in self._engines.engines:
            served = engine.models.get(model)
            if served is None:
                continue
            coefficient = served.coefficient
            if coefficient is None:
                coefficient = self._prices.coefficient(engine.name, model)
            if most is not None and coefficient > most:
                cheapest = coefficient if cheapest < 0 else min(cheapest, coefficient)
                continue
            engines.append(engine)
            tariffs[engine.name] = self._prices.tariff(price, coefficient)
        if not engines:
            if cheapest >= 0:
                raise PermissionDenied(
                    f"No worker serves {model!r} at a coefficient of {most} or less; can run this query "
                    f"with coefficient={cheapest}: raise max_coefficient.",
                    param="max_coefficient",
                    code="max_coefficient_too_low",
                )
            # it is sold: somebody may serve it soon
            raise Unavailable(f"Nobody serves the model {model!r} now.")
        return Offer(price, engines, tariffs, context_length(engines, model))

    def admit(
        self,
        caller: Caller,
        request: ParsedRequest,
        record: UsageRecord,
        offer: Offer,
        prompt_tokens: int | None = None,
    ) -> HeldGrant:
        """Hold the most that it can cost. ``prompt_tokens``: their exact count, where it is known.

        Raises TooDear, InsufficientQuota, RateLimited, or StoreError while nothing can be stored.
        """
        account, key, price = caller.account, caller.key, offer.price
        ledger = self._ledger
        if request.dialect.is_metered:
            tariff = offer.dearest
            exact = prompt_tokens is not None
            bound = prompt_bound(request, offer.rules, offer.context_length)
            if prompt_tokens is None or prompt_tokens > bound:  # an engine cannot raise the hold
                prompt_tokens = bound
        else:
            tariff, exact, prompt_tokens = _FREE, True, 0
        quoted = quote(
            request,
            tariff,
            prompt_tokens=prompt_tokens,
            available=ledger.available(account),
            context_length=offer.context_length,
            completion_tokens_default=self._completion_tokens_default,
        )
        if isinstance(quoted, TooExpensive):
            error = InsufficientQuota if exact else TooDear
            raise error(self._shortage(account, quoted.needed))
        slot = None
        if key is not None and key.limits.is_counted:
            tokens = quoted.prompt_tokens + quoted.completion_tokens
            slot = self._rates.admit(key, tokens, quoted.hold)
        expires_ms = int((self._clock.now + self._hold_s) * 1000)
        try:
            held = ledger.hold(HoldId(record.id), account, quoted.hold, price.fee_bp, expires_ms)
        except BaseException:
            if slot is not None:
                slot.cancel()
            raise
        if held is not LedgerOutcome.DONE:
            if slot is not None:
                slot.cancel()
            raise InternalError(f"the hold of {record.id} ended as {held}")
        record.held = quoted.hold
        record.clamped = quoted.clamped
        record.tariff_version = price.version
        prefix = prefix_of(request, account) if len(offer.engines) > 1 else 0
        return HeldGrant(self._ends, slot, account, quoted, offer, prefix, request.dialect)

    def expire(self) -> int:
        """Let go of holds that a defect left behind; how many."""
        return self._ledger.expire(int(self._clock.now * 1000))

    def _shortage(self, account: AccountId, needed: Nano) -> str:
        there = self._ledger.state.accounts.get(account)
        available, held = (Nano(0), Nano(0)) if there is None else (there.available, there.held)
        name = account.partition(":")[2]
        return (
            f"This request needs {credits_of(needed)} credits for its prompt and a first token; the account "
            f"{name!r} has {credits_of(available)} available, and running requests hold {credits_of(held)}. "
            f"The operator adds credit with `filature account top-up {name} AMOUNT`."
        )
