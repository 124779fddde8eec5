"""The migrations lead to the schema that the program uses, on both databases."""

from typing import Any

from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.operations import Operations
from sqlalchemy import inspect

from filature.store.database import Database
from filature.store.migrations.versions import v0001_accounts
from filature.store.schema import metadata


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


def test_the_first_can_be_undone(empty_database_url: str) -> None:
    database = Database(empty_database_url)
    database.upgrade()
    with database.engine.begin() as connection:
        with Operations.context(MigrationContext.configure(connection)):
            v0001_accounts.downgrade()
        assert inspect(connection).get_table_names() == ["alembic_version"]
    database.close()
