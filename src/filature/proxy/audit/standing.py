"""How one worker stands with one model: suspected, marked, and what is believed of it then. Pure."""

from math import ceil
from typing import Any, Final

from filature.answer.bounds import Belief, size_class
from filature.proxy.audit.claims import Claim, Kind, Tally
from filature.proxy.audit.measure import hides, may_call, shape
from filature.proxy.audit.norms import Norms
from filature.request.parse import ParsedRequest

SAMPLED_ONE_IN: Final = 16
"""Of the answers of a worker that nothing is held against; of others all."""
LEARNT_ONE_IN: Final = 4
"""While little is known of a model."""
CLEAN_AGAIN: Final = 16
"""Samples in a row with nothing wrong, after which a worker is not suspected any more, nor anything counted that made
no mark."""
CONTRADICTIONS_MAX: Final = 5
"""Reports that say what the answer did not, or answers that claim more than is possible, before a mark."""
LEARN_ONE_IN: Final = 16
"""Of the samples of a marked worker, after which it is looked again what others have."""
SUSPENDED_AFTER: Final = 256
"""Claims that are too much after a mark."""

Table = list[float] | None


class Standing:
    """What is believed are tables of tokens per byte, by the class of the size: what others of the model have."""

    __slots__ = (
        "_cached",
        "_clean",
        "_completion",
        "_contradictions",
        "_exceeded",
        "_judged",
        "_prompt",
        "_worker",
        "is_suspect",
        "marks",
        "model",
        "over_since_mark",
        "tallies",
    )

    def __init__(self, worker: str, model: str) -> None:
        self._worker = worker
        self.model = model
        self.tallies: dict[Kind, Tally] = {}
        self.marks: set[Kind] = set()
        self.is_suspect = False
        self.over_since_mark = 0
        self._clean = 0
        self._contradictions = 0
        self._exceeded = 0
        self._judged = 0
        self._completion: dict[bool, Table] = {True: None, False: None}
        self._prompt: dict[bool, Table] = {True: None, False: None}
        self._cached: Table = None

    @property
    def _lies(self) -> bool:
        """Whether it is marked for more than an engine that may have no cache."""
        return not self.marks <= {Kind.CACHED}

    def one_in(self, norms: Norms) -> int:
        """Of so many answers one is sampled."""
        if self.is_suspect or self._lies:
            return 1
        return SAMPLED_ONE_IN if norms.is_known(self.model) else LEARNT_ONE_IN

    def judge(self, claims: list[Claim], norms: Norms) -> list[Kind]:
        """What was sampled; returns what the worker is marked for from now on."""
        is_over = False
        for claim in claims:
            kind = claim.group.kind
            expected = norms.expected(self._worker, self.model, claim.group)
            tally = self.tallies.setdefault(kind, Tally(kind))
            over = tally.add(claim, expected)
            if claim.counted is not None or not (over or kind in self.marks):
                norms.add(self._worker, self.model, claim)
            if over and not (kind is Kind.CACHED and kind in self.marks):
                is_over = True
        self._clean = 0 if is_over else self._clean + 1
        if is_over:
            self.is_suspect = True
            self.over_since_mark += self._lies
        elif self._clean >= CLEAN_AGAIN:
            self.is_suspect = False
            self._contradictions = self._exceeded = 0
        fresh = [
            kind
            for kind, tally in self.tallies.items()
            if tally.is_shown and kind not in self.marks
        ]
        self.marks.update(fresh)
        self._judged += 1
        if self.marks and self._judged % LEARN_ONE_IN == 0:
            self.learn(norms)
        return fresh

    def contradicted(self) -> bool:
        """A report said what the answer did not. Whether that makes a mark."""
        self._contradictions += 1
        return self._count(self._contradictions, Kind.REPORT)

    def exceeded(self) -> bool:
        """More was claimed than is possible. Whether that makes a mark."""
        self._exceeded += 1
        return self._count(self._exceeded, Kind.EXCEEDED)

    def _count(self, number: int, kind: Kind) -> bool:
        self.is_suspect = True
        self._clean = 0
        if number < CONTRADICTIONS_MAX or kind in self.marks:
            return False
        self.marks.add(kind)
        return True

    # what is believed

    def learn(self, norms: Norms) -> None:
        """Take over what others have, where that is known."""
        for plain in (True, False):
            for kind, tables in ((Kind.COMPLETION, self._completion), (Kind.PROMPT, self._prompt)):
                table = norms.by_size(self._worker, self.model, kind, plain=plain)
                if table is not None:
                    tables[plain] = table
        shares = norms.by_size(self._worker, self.model, Kind.CACHED, plain=True)
        if shares is not None:
            self._cached = shares

    def belief(self, request: ParsedRequest, *, is_repeated: bool) -> Belief | None:
        """Of the claims for a request; None: what is possible."""
        if not self.marks:
            return None
        size = request.prompt_text_bytes()
        prompt: int | None = None
        per_byte: Table = None
        if self._lies:  # whoever lies of one thing may lie of others
            table = self._prompt[not request.fields.get("tools")]
            if table is not None and not request.media_parts:
                prompt = ceil(size * table[size_class(size)])
            if not hides(request) and not may_call(request):
                per_byte = self._completion[not shape(request)]
        shares = self._cached
        cached = 0.0 if shares is None or not is_repeated else min(shares[size_class(size)], 1.0)
        if prompt is None and per_byte is None and not cached:
            return None
        return Belief(prompt, per_byte, cached)

    def kept(self) -> dict[str, Any]:
        """What a mark keeps over a restart."""
        return {
            "completion": [self._completion[True], self._completion[False]],
            "prompt": [self._prompt[True], self._prompt[False]],
            "cached": self._cached,
        }

    def restore(self, kind: Kind, kept: dict[str, Any]) -> None:
        """A mark that was kept."""
        self.marks.add(kind)
        self._completion[True], self._completion[False] = kept["completion"]
        self._prompt[True], self._prompt[False] = kept["prompt"]
        self._cached = kept["cached"]
