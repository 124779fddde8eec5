"""How many tokens a model's texts have per byte: recounted where that was possible, else as its workers claim."""

from collections import deque
from typing import Final, NamedTuple

from filature.answer.bounds import SIZES
from filature.proxy.audit.claims import Claim, Group, Kind

SEEN_MAX: Final = 64
"""Of each group, the latest."""
SEEN_MIN: Final = 8
"""Claims of others before they say anything."""
KNOWN_MIN: Final = 128
"""Claims for a model, before it is no longer learnt."""
DISTANCE_MAX: Final = 3
"""Classes of sizes, within which texts are compared."""
MODELS_MAX: Final = 4096
"""Above it the model that was seen first is forgotten."""


class _Seen(NamedTuple):
    worker: str
    tokens: int
    size: int
    counted: bool


class Norms:
    """Of all models. What a worker claims never counts as the norm for itself."""

    def __init__(self) -> None:
        self._models: dict[str, dict[Group, deque[_Seen]]] = {}

    def add(self, worker: str, model: str, claim: Claim) -> None:
        """A claim of a worker that is not marked for its kind, or one that was recounted."""
        groups = self._models.get(model)
        if groups is None:
            if len(self._models) >= MODELS_MAX:
                del self._models[next(iter(self._models))]
            groups = self._models[model] = {}
        seen = groups.get(claim.group)
        if seen is None:
            seen = groups[claim.group] = deque(maxlen=SEEN_MAX)
        counted = claim.counted is not None
        tokens = claim.claimed if claim.counted is None else claim.counted
        seen.append(_Seen(worker, tokens, claim.size, counted))

    def is_known(self, model: str) -> bool:
        """Whether a fair number of claims for a model was seen."""
        groups = self._models.get(model)
        return groups is not None and sum(map(len, groups.values())) >= KNOWN_MIN

    def expected(self, worker: str, model: str, group: Group) -> float | None:
        """Tokens per byte that ``worker`` is expected to have; None: nobody can tell.

        Of texts of this size, and of the next sizes where too few of it were seen.
        """
        groups = self._models.get(model, {})
        others: list[_Seen] = []
        for distance in range(DISTANCE_MAX + 1):
            for size in {group.size - distance, group.size + distance}:
                seen = groups.get(Group(group.kind, size, group.plain), ())
                counted = [each for each in seen if each.counted]
                if counted:
                    return _ratio(counted)
                others += [each for each in seen if each.worker != worker]
            if len(others) >= SEEN_MIN:
                others.sort(key=lambda each: each.tokens / each.size)
                quarter = len(others) // 4  # of both ends: liars are few
                return _ratio(others[quarter : len(others) - quarter])
        return None

    def by_size(self, worker: str, model: str, kind: Kind, *, plain: bool) -> list[float] | None:
        """``expected`` of each class of sizes, of the nearest where one has none; None: of no class."""
        found = {
            size: expected
            for size in range(SIZES)
            if (expected := self.expected(worker, model, Group(kind, size, plain))) is not None
        }
        if not found:
            return None
        return [found[min(found, key=lambda each: abs(each - size))] for size in range(SIZES)]


def _ratio(seen: list[_Seen]) -> float:
    return sum(each.tokens for each in seen) / sum(each.size for each in seen)
