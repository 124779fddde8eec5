"""Ids of requests: never the same twice, and in the order in which they are given."""

import itertools
import random

from filature.relay.plane import RequestIds

GIVEN = 2000


def test_they_are_in_the_order_of_time() -> None:
    seconds = itertools.count(1_795_000_000.25, 0.5)
    ids = RequestIds(lambda: next(seconds))
    given = [ids.next() for _ in range(GIVEN)]
    assert given == sorted(given)
    assert len({len(each) for each in given}) == 1


def test_no_two_are_the_same_while_the_clock_stands_still() -> None:
    draws = [random.Random(seed).randbytes for seed in (1, 2)]
    processes = [RequestIds(lambda: 1_795_000_000.0, draw) for draw in draws]
    given = [ids.next() for ids in processes for _ in range(GIVEN)]
    assert len(set(given)) == len(given)
