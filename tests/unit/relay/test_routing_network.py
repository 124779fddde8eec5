"""Routing over 200 simulated workers: load evens out, conversations stay, the cheaper ones serve more."""

import pytest
from tests.unit.relay.simulated import Network, network_of

from filature.relay.engines import ServedModel


@pytest.fixture
def network() -> Network:
    return network_of(200)


def test_a_network_of_equals_evens_out(network: Network) -> None:
    network.run(20_000, per_s=110, mean_s=10, talks=1_000_000)
    assert network.turned_away == 0
    assert network.variation() < 0.2


def test_a_network_keeps_conversations_where_they_are_cached(network: Network) -> None:
    network.run(20_000, per_s=110, mean_s=10, talks=400)
    assert network.turned_away == 0
    assert network.repeated > 10_000
    assert network.same >= 0.9 * network.repeated
    assert network.variation() < 0.35


def test_a_network_under_more_load_than_it_has_room_for_is_full_and_no_fuller(
    network: Network,
) -> None:
    network.run(20_000, per_s=250, mean_s=10, talks=400)
    assert network.turned_away > 1000
    assert network.same >= 0.9 * network.repeated
    assert max(worker.running for worker in network.workers) == 8
    assert network.variation() < 0.2


def test_in_a_network_cheaper_workers_serve_more(network: Network) -> None:
    cheap = network.workers[::2]
    network.prices = dict.fromkeys(cheap, 900)
    for first in range(10):  # each model has cheap and dear workers
        for worker in network.workers[first * 20 : first * 20 + 20]:
            worker.models = {f"m{first}": ServedModel("m")}
    network.run(20_000, per_s=500, mean_s=0.3, talks=1_000_000)
    theirs = sum(network.served[worker] for worker in cheap)
    assert theirs > 1.5 * (network.served.total() - theirs)
