"""What fuzzing holds of any bytes holds of those that it begins with, and of these with a byte changed."""

import random

import pytest
from fuzz import answers, framing, requests
from fuzz.seeds import SEEDS

CHECKS = {"answers": answers.check, "requests": requests.check, "framing": framing.check}
DAMAGE = (b"", b'"', b"\\", b"{", b"}", b"\n", b"\r", b":", b"\x00", b"\xff", b"0")


@pytest.mark.parametrize("target", SEEDS)
def test_seeds_and_damaged_ones(target: str) -> None:
    check, chance = CHECKS[target], random.Random(target)
    seeds = list(SEEDS[target]())
    assert len(seeds) > 100
    for seed in seeds:
        check(seed)
        at = chance.randrange(len(seed))
        check(seed[:at] + chance.choice(DAMAGE) + seed[at + 1 :])
