"""Fixtures of the client tests, and the table that is made of their outcomes."""

from collections.abc import Generator, Iterator
from importlib.util import find_spec

import pytest

if find_spec("langchain_openai") is None:  # `make test-clients` runs these, in .venv-clients
    collect_ignore_glob = ["test_*.py"]
else:
    import sys
    from pathlib import Path

    sys.path.insert(0, str(Path(__file__).parent))

    from ask import Sdk
    from chain import BUILD, Chain, chain
    from node_sdks import NodeDriver
    from sdks import all_traits, node_sdks, python_sdks, versions
    from table import RED, Table, row_id

    TABLE = pytest.StashKey[Table]()

    def pytest_configure(config: pytest.Config) -> None:
        config.stash[TABLE] = Table(all_traits())

    @pytest.hookimpl(hookwrapper=True)
    def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, None, None]:
        outcome = yield
        report = outcome.get_result()  # type: ignore[attr-defined]  # typed as None by pytest
        cell = dict(item.user_properties).get("cell")
        if cell is None:
            return
        if report.failed:
            item.config.stash[TABLE].cells[cell] = RED
        elif report.when == "call":
            note = dict(item.user_properties).get("note", "ok")
            item.config.stash[TABLE].cells[cell] = note

    def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
        table = terminalreporter.config.stash[TABLE]
        if not table.cells:
            return
        markdown = table.markdown(versions(table.rows))
        BUILD.mkdir(parents=True, exist_ok=True)
        (BUILD / "clients.md").write_text(markdown)
        terminalreporter.write_line("")
        terminalreporter.write_line(markdown[markdown.index("| |") :])

    @pytest.fixture(scope="session")
    def running_chain() -> Iterator[Chain]:
        with chain() as running:
            yield running

    @pytest.fixture(scope="session")
    def sdks() -> Iterator[dict[str, Sdk]]:
        """Every entry point by its row's id."""
        driver = NodeDriver()
        yield {row_id(sdk.traits): sdk for sdk in (*python_sdks(), *node_sdks(driver))}
        driver.close()
