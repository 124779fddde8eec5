"""Collects the tests for the engines that run here, and says which do and which do not."""

import os
from collections.abc import Iterator

import pytest
from tests.engines.chain import Chain, chain
from tests.engines.kinds import SELECTED, Kind, chosen, given_urls

RUN, NOT_RUN = chosen(os.environ)
URLS = given_urls(os.environ)

if SELECTED not in os.environ:  # `make test-engines` runs these, when the engines are installed
    collect_ignore_glob = ["test_*.py"]


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", "engine(what): only for kinds of engine of which this is true"
    )


def suits(kind: Kind, markers: list[pytest.Mark]) -> bool:
    return all(marker.args[0](kind) for marker in markers)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "running" in metafunc.fixturenames:
        markers = list(metafunc.definition.iter_markers("engine"))
        kinds = [kind for kind in RUN if suits(kind, markers)]
        if kinds:
            metafunc.parametrize(
                "running", kinds, ids=[kind.name for kind in kinds], indirect=True, scope="session"
            )


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Drop the tests that no engine here suits, and put the others in the order of the engines, each of
    which is started once."""
    of_kind: dict[str, list[pytest.Item]] = {kind.name: [] for kind in RUN}
    for item in items:
        callspec = getattr(item, "callspec", None)  # set where a test is parametrised
        if callspec is not None and "running" in callspec.params:
            of_kind[callspec.params["running"].name].append(item)
    items[:] = [item for kind in RUN for item in of_kind[kind.name]]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for kind in RUN:
        where = f"at {URLS[kind.name]}" if kind.name in URLS else "started here"
        terminalreporter.write_line(f"engine {kind.name}: {where}")
    for name, reason in NOT_RUN.items():
        terminalreporter.write_line(f"engine {name}: NOT RUN ({reason})")


@pytest.fixture(scope="session")
def running(request: pytest.FixtureRequest) -> Iterator[Chain]:
    """filature in front of one engine; pytest runs all tests of an engine before the next one's."""
    kind: Kind = request.param
    with chain(kind, URLS.get(kind.name)) as chain_of_kind:
        yield chain_of_kind
