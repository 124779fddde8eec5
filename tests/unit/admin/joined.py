"""Workers that have joined, for tests without a proxy."""

from filature.admin.marks import ClaimFigures
from filature.admin.workers import ModelStanding, WorkerStanding


class Joined:
    """See ``admin.workers.Registry``. One worker, ``gpu``; ``told`` is what was asked of it."""

    def __init__(self) -> None:
        self.told: list[tuple[str, str]] = []
        self.state = "ready"

    def standings(self) -> list[WorkerStanding]:
        models = [
            ModelStanding("silk", 1500, 4096, (7, 8)),
            ModelStanding("linen", 1000, None, (10**9, 2 * 10**9)),
            ModelStanding("wool", 1000, None),
        ]
        return [
            WorkerStanding("gpu", self.state, models, 3, 64, 32, 1.25, 2, "9.9", 1_782_907_200_000)
        ]

    def own_engines(self) -> dict[str, set[str]]:
        return {"http://own:1": {"silk", "wool"}, "http://new:1": set()}

    def disable(self, name: str, *, disabled: bool) -> None:
        self.told.append((name, "disable" if disabled else "enable"))

    def figures(self, name: str) -> list[ClaimFigures]:
        return [ClaimFigures("silk", "completion", 8, 900, 100, marked=True)]

    def forgive(self, name: str) -> None:
        self.told.append((name, "forgive"))

    def drain(self, name: str) -> bool:
        self.told.append((name, "drain"))
        self.state = "draining"
        return name == "gpu"
