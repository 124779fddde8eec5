"""What a limit of open files means for clients' connections."""

import math
import resource

import pytest

from filature.relay.open_files import (
    FILES_KEPT,
    connections_allowed,
    raise_open_files,
    tunnels_allowed,
)


@pytest.mark.parametrize(
    ("soft", "allowed"),
    [
        (resource.RLIM_INFINITY, 1000),
        (1_000_000, 1000),
        (FILES_KEPT + 2000, 1000),
        (FILES_KEPT + 1999, 999),
        (FILES_KEPT + 20, 10),
        (10, 1),
    ],
)
def test_half_of_the_files_are_for_clients(
    monkeypatch: pytest.MonkeyPatch, soft: int, allowed: int
) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (soft, resource.RLIM_INFINITY))
    assert connections_allowed(1000) == allowed


@pytest.mark.parametrize(
    ("soft", "allowed"),
    [
        (resource.RLIM_INFINITY, math.inf),
        (FILES_KEPT + 1001, 901),
        (FILES_KEPT + 100, 1),
        (10, 1),
    ],
)
def test_what_clients_may_not_have_is_for_engines_and_workers(
    monkeypatch: pytest.MonkeyPatch, soft: int, allowed: float
) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (soft, resource.RLIM_INFINITY))
    assert tunnels_allowed(100) == allowed


@pytest.mark.parametrize("refusal", [None, OSError, ValueError])
def test_the_limit_is_raised_where_that_is_allowed(
    monkeypatch: pytest.MonkeyPatch, refusal: type[Exception] | None
) -> None:
    asked: list[tuple[int, int]] = []

    def setrlimit(_: int, limits: tuple[int, int]) -> None:
        asked.append(limits)
        if refusal is not None:
            raise refusal

    monkeypatch.setattr(resource, "getrlimit", lambda _: (1024, 4096))
    monkeypatch.setattr(resource, "setrlimit", setrlimit)
    raise_open_files()
    assert asked == [(4096, 4096)]
