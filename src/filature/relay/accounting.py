"""What an answer comes to when it has ended: its usage and cost, in its record."""

from typing import Final

from filature.answer.postprocessor import AnswerPostprocessor
from filature.answer.pricing import cost_of
from filature.answer.usage import Usage
from filature.relay.engines import ServedModel
from filature.relay.outcome import Outcome
from filature.telemetry.record import UsageRecord

_RATIO_WEIGHT: Final = 0.1
"""Of a new answer in a model's running mean of bytes per token."""


def account(
    record: UsageRecord,
    answer: AnswerPostprocessor,
    outcome: Outcome,
    model: ServedModel | None,
) -> None:
    """Write usage and cost into ``record``, as ``docs/money.md`` ("Who pays") has it for the outcome.

    A failed answer costs nothing; a client that left before the engine's first event owes nothing.
    """
    record.events = answer.content_events
    record.unprocessed_bytes = answer.unprocessed_bytes
    tariff = answer.policy.tariff
    if not answer.is_metered:
        return
    if tariff is not None:
        record.coefficient = tariff.coefficient
    if not answer.progress and outcome is not Outcome.COMPLETED:
        return
    usage = answer.usage
    record.prompt = usage.prompt
    record.cached = usage.cached
    record.completion = usage.completion
    record.reasoning = usage.reasoning
    record.estimated = usage.estimated
    if outcome.is_charged and tariff is not None:
        record.prompt_cost, record.completion_cost, record.total_cost = cost_of(usage, tariff)
    if outcome is Outcome.COMPLETED and model is not None and answer.mode == "events":
        _learn_ratio(model, usage, answer.content_bytes)


def _learn_ratio(model: ServedModel, usage: Usage, content_bytes: int) -> None:
    """From streams, whose text was counted as it passed: a document's would have to be."""
    if not usage.estimated and usage.completion > 0 and content_bytes > 0:
        ratio = content_bytes / usage.completion
        model.bytes_per_token += _RATIO_WEIGHT * (ratio - model.bytes_per_token)
