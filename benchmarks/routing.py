"""Which worker a request goes to: what a choice takes, how even the load is, how many stay where they are cached.

``python -m benchmarks --only routing``. No sockets: the simulation of the tests of routing (``tests/unit/relay``) in
made-up time; only the choices themselves are timed.
"""

import time

from tests.unit.relay.choosing import Asked
from tests.unit.relay.simulated import MODELS, Chooses, Network, network_of

from benchmarks.report import Row
from filature.relay.engines import Engine

_WORKERS = (10, 200)
_REQUESTS = 20_000
_MEAN_S = 10.0
_PER_S = 0.55
"""Requests of each worker: 5.5 of its 8 places are taken on average."""
_TALKS = 2
"""Beginnings of prompts for each model and worker, where they repeat."""
_TALKS_NEW = 1_000_000


class Timed:
    """A router whose choices are timed, ns each."""

    def __init__(self, router: Chooses) -> None:
        self._router = router
        self.taken_ns: list[int] = []

    def pick(self, wanted: Asked, tried: list[Engine]) -> Engine | None:
        started = time.perf_counter_ns()
        picked = self._router.pick(wanted, tried)
        self.taken_ns.append(time.perf_counter_ns() - started)
        return picked


def rows(requests: int = _REQUESTS) -> list[Row]:
    found: list[Row] = []
    for workers in _WORKERS:
        found += _rows_of(workers, requests)
    return found


def _rows_of(workers: int, requests: int) -> list[Row]:
    new, _ = _run(workers, requests, _TALKS_NEW)
    network, timed = _run(workers, requests, workers * _TALKS)
    taken = sorted(timed.taken_ns)
    median, most = (taken[int(len(taken) * share)] / 1000 for share in (0.5, 0.99))
    back = network.back / max(1, network.again)
    same = network.same / max(1, network.repeated)
    about = f"routing, {workers} workers, {MODELS} models"
    return [
        Row(
            name=f"routing/{workers}/pick",
            figure=f"{about}: a choice, median",
            target="–",
            measured=f"{median:.2f} µs",
            beside=f"p99 {most:.2f} µs; elapsed time of each of {len(taken):,} choices",
            value=median,
        ),
        Row(
            name=f"routing/{workers}/variation",
            figure=f"{about}: coefficient of variation of requests per worker",
            target="–",
            measured=f"{new.variation():.2f}",
            beside=f"beginnings all new; {network.variation():.2f} where they repeat",
            value=new.variation(),
        ),
        Row(
            name=f"routing/{workers}/same",
            figure=f"{about}: repeated beginnings that reach the same worker",
            target="–",
            measured=f"{back:.1%}",
            beside=f"of {network.again:,}; of those whose worker had room {same:.1%}",
            value=back,
        ),
    ]


def _run(workers: int, requests: int, talks: int) -> tuple[Network, Timed]:
    network = network_of(workers)
    timed = network.router = Timed(network.router)
    network.run(requests, per_s=workers * _PER_S, mean_s=_MEAN_S, talks=talks)
    return network, timed
