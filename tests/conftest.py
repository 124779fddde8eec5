"""Databases for every test that asks for one. The tests' own server is started when the first does."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings
from tests.databases import TEMPLATE, NoPostgres, PostgresServer, postgres_server, sqlite_url

settings.register_profile("untimed", parent=settings.default, deadline=None)  # time decides no test
settings.load_profile("untimed")


@pytest.fixture(scope="session")
def postgres_or_reason() -> Iterator[PostgresServer | str]:
    """The session's PostgreSQL server, or why there is none."""
    try:
        with postgres_server() as server:
            server.make_template()
            yield server
    except NoPostgres as error:
        yield str(error)


@pytest.fixture
def postgres(postgres_or_reason: PostgresServer | str) -> PostgresServer:
    """The session's PostgreSQL server. Without one a test is skipped; in CI, which tests both databases, it fails."""
    if isinstance(postgres_or_reason, str):
        leave = pytest.fail if os.environ.get("CI") else pytest.skip
        leave(f"no PostgreSQL: {postgres_or_reason}")
    return postgres_or_reason


@pytest.fixture
def postgres_url(postgres: PostgresServer) -> Iterator[str]:
    """A PostgreSQL database of the test's own, with the schema and nothing in it."""
    url = postgres.create(TEMPLATE)
    yield url
    postgres.drop(url)


@pytest.fixture
def empty_postgres_url(postgres: PostgresServer) -> Iterator[str]:
    """The same without the schema."""
    url = postgres.create()
    yield url
    postgres.drop(url)


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A database of the test's own, with the schema and nothing in it, on either kind in turn."""
    if request.param == "sqlite":
        return sqlite_url(tmp_path / "filature.db")
    url: str = request.getfixturevalue("postgres_url")
    return url


@pytest.fixture(params=["sqlite", "postgresql"])
def empty_database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The same without the schema."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'empty.db'}"
    url: str = request.getfixturevalue("empty_postgres_url")
    return url
