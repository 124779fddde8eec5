"""How many tokens a model's texts have per byte: recounted where that was possible, else as its workers claim."""

from collections import deque
from collections.abc import Callable, Iterable
from typing import Final, NamedTuple, TypeVar

from filature.answer.bounds import SIZES
from filature.proxy.audit.claims import Claim, Group, Kind

SEEN_MAX: Final = 32
"""Of each worker, in each group, the latest."""
SEEN_MIN: Final = 4
"""Claims of a worker before they say anything."""
OTHERS_MIN: Final = 2
"""Workers that say something, before another is held against them: one alone may be the odd one."""
WORKERS_MAX: Final = 32
"""In each group; above it the one that was seen first is forgotten, as with what follows."""
GROUPS_MAX: Final = 1024
"""Of a model."""
MODELS_MAX: Final = 4096
KNOWN_MIN: Final = 512
"""Claims for a model, before it is no longer learnt."""
DISTANCE_MAX: Final = 3
"""Classes of sizes, within which texts are compared."""


_K = TypeVar("_K")
_V = TypeVar("_V")


class _Seen(NamedTuple):
    tokens: int
    size: int


class _Claims:
    """Of one group: what was recounted, and what each worker claims."""

    __slots__ = ("by_worker", "counted")

    def __init__(self) -> None:
        self.counted: deque[_Seen] = deque(maxlen=SEEN_MAX)
        self.by_worker: dict[str, deque[_Seen]] = {}


class _Model:
    __slots__ = ("counted", "groups", "seen", "workers")

    def __init__(self) -> None:
        self.groups: dict[Group, _Claims] = {}
        self.seen = 0
        self.counted = False  # whether anything was recounted
        # the first that claimed something: as many as there have to be
        self.workers: set[str] = set()

    def can_tell(self, worker: str) -> bool:
        """Whether there may be anything to hold against a worker."""
        return self.counted or len(self.workers) - (worker in self.workers) >= OTHERS_MIN


class Norms:
    """Of all models. What a worker claims never counts as the norm for itself."""

    def __init__(self) -> None:
        self._models: dict[str, _Model] = {}

    def add(self, worker: str, name: str, claim: Claim) -> None:
        """A claim of a worker that is not marked for its kind, or one that was recounted."""
        model = _kept(self._models, name, _Model, MODELS_MAX)
        model.seen += 1
        claims = _kept(model.groups, claim.group, _Claims, GROUPS_MAX)
        if claim.counted is not None:
            model.counted = True
            claims.counted.append(_Seen(claim.counted, claim.size))
            return
        if len(model.workers) <= OTHERS_MIN:
            model.workers.add(worker)
        seen = _kept(claims.by_worker, worker, _new_seen, WORKERS_MAX)
        seen.append(_Seen(claim.claimed, claim.size))

    def is_known(self, model: str) -> bool:
        """Whether a fair number of claims for a model was seen."""
        found = self._models.get(model)
        return found is not None and found.seen >= KNOWN_MIN

    def expected(self, worker: str, model: str, group: Group) -> float | None:
        """Tokens per byte that ``worker`` is expected to have; None: nobody can tell.

        Of like texts of this size, and of the next sizes where too few of it were seen.
        """
        found = self._models.get(model)
        if found is None or not found.can_tell(worker):
            return None
        groups = found.groups

        def of_size(size: int) -> list[_Claims]:
            claims = groups.get(Group(group.kind, size, group.plain, group.like))
            return [] if claims is None else [claims]

        return _expected(worker, group.kind, group.size, of_size)

    def by_size(self, worker: str, model: str, kind: Kind, *, plain: bool) -> list[float] | None:
        """``expected`` of each class of sizes, of the nearest where one has none, whatever texts are like.

        None: of no class.
        """
        model_seen = self._models.get(model)
        by_size: dict[int, list[_Claims]] = {}
        for group, claims in ({} if model_seen is None else model_seen.groups).items():
            if group.kind is kind and group.plain is plain:
                by_size.setdefault(group.size, []).append(claims)
        found = {
            size: expected
            for size in range(SIZES)
            if (expected := _expected(worker, kind, size, lambda at: by_size.get(at, [])))
            is not None
        }
        if not found:
            return None
        return [found[min(found, key=lambda each: abs(each - size))] for size in range(SIZES)]


def _kept(found: dict[_K, _V], key: _K, make: Callable[[], _V], most: int) -> _V:
    """What stands for a key, made where it is missing; above ``most`` the oldest is forgotten."""
    value = found.get(key)
    if value is None:
        if len(found) >= most:
            del found[next(iter(found))]
        value = found[key] = make()
    return value


def _new_seen() -> deque[_Seen]:
    return deque(maxlen=SEEN_MAX)


def _expected(
    worker: str, kind: Kind, size: int, of_size: Callable[[int], list[_Claims]]
) -> float | None:
    """The middle one of other workers, in doubt what is better for whoever is held against it."""
    others: dict[str, list[_Seen]] = {}
    for distance in range(DISTANCE_MAX + 1):
        for near in {size - distance, size + distance}:
            found = of_size(near)
            counted = [seen for claims in found for seen in claims.counted]
            if counted:
                return _ratio(counted)
            for claims in found:
                for name, seen in claims.by_worker.items():
                    if name != worker:
                        others.setdefault(name, []).extend(seen)
        ratios = sorted(_middle(seen) for seen in others.values() if len(seen) >= SEEN_MIN)
        if len(ratios) >= OTHERS_MIN:
            return ratios[(len(ratios) - (kind is Kind.CACHED)) // 2]
    return None


def _middle(seen: list[_Seen]) -> float:
    """Without a quarter at both ends."""
    seen = sorted(seen, key=lambda each: each.tokens / each.size)
    quarter = len(seen) // 4
    return _ratio(seen[quarter : len(seen) - quarter])


def _ratio(seen: Iterable[_Seen]) -> float:
    seen = list(seen)
    return sum(each.tokens for each in seen) / sum(each.size for each in seen)
