"""The migrations lead to the schema that the program uses, on both databases."""

from typing import Any

from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.operations import Operations
from sqlalchemy import insert, inspect, select, text

from filature.store.database import Database
from filature.store.migrations.versions import (
    v0001_accounts,
    v0002_worker_tokens,
    v0003_payout_requests,
    v0004_worker_marks,
    v0005_worker_days,
)
from filature.store.schema import aliases, metadata


def differences(database: Database) -> list[Any]:
    with database.engine.connect() as connection:
        found: list[Any] = compare_metadata(MigrationContext.configure(connection), metadata)
        return found


def test_they_lead_to_the_schema(empty_database_url: str) -> None:
    database = Database(empty_database_url)
    assert differences(database)  # the comparison sees what is missing
    database.upgrade()
    assert differences(database) == []
    database.upgrade()  # again: nothing to do
    assert differences(database) == []
    database.close()


def test_the_checks_of_the_schema_are_there(empty_database_url: str) -> None:
    database = Database(empty_database_url)
    database.upgrade()
    for table in metadata.sorted_tables:
        wanted = {c.name for c in table.constraints if type(c).__name__ == "CheckConstraint"}
        made = {c["name"] for c in inspect(database.engine).get_check_constraints(table.name)}
        assert made == wanted, table.name
    database.close()


def test_each_can_be_undone(empty_database_url: str) -> None:
    database = Database(empty_database_url)
    database.upgrade()
    with database.engine.begin() as connection:
        with Operations.context(MigrationContext.configure(connection)):
            left = {*metadata.tables, "alembic_version"}
            for version, tables in (
                (v0005_worker_days, {"worker_days"}),
                (v0004_worker_marks, {"worker_marks"}),
                (v0003_payout_requests, {"payout_requests", "disabled_workers"}),
                (v0002_worker_tokens, {"worker_tokens", "secrets"}),
            ):
                version.downgrade()
                left -= tables
                assert set(inspect(connection).get_table_names()) == left
            v0001_accounts.downgrade()
        assert inspect(connection).get_table_names() == ["alembic_version"]
    database.close()


def test_a_database_of_the_first_version_keeps_its_rows(empty_database_url: str) -> None:
    database = Database(empty_database_url)
    database.upgrade()
    with database.engine.begin() as connection:
        with Operations.context(MigrationContext.configure(connection)):
            v0005_worker_days.downgrade()
            v0004_worker_marks.downgrade()
            v0003_payout_requests.downgrade()
            v0002_worker_tokens.downgrade()
        connection.execute(text("UPDATE alembic_version SET version_num = '0001'"))
        connection.execute(insert(aliases).values(alias="a", model="m"))
    assert differences(database)
    database.upgrade()
    assert differences(database) == []
    with database.engine.connect() as connection:
        assert connection.execute(select(aliases)).all() == [("a", "m")]
    database.close()
