import os
import stat
from pathlib import Path

import pytest

from filature.errors import StoreError
from filature.store.database import Database


def test_both_sides_of_a_connection_that_the_network_lost_see_that_it_is_over(
    postgres_url: str,
) -> None:
    """On Unix sockets, as here, what was asked for has no effect; it is there all the same."""
    database = Database(postgres_url)
    wanted = {"tcp_keepalives_idle": 10, "tcp_keepalives_interval": 5, "tcp_keepalives_count": 3}
    wanted["tcp_user_timeout"] = 25_000
    with database.engine.connect() as connection:
        driver = connection.connection.driver_connection
        assert driver is not None
        ours = driver.info.get_parameters()
        settings = connection.exec_driver_sql(
            "SELECT name, reset_val FROM pg_settings WHERE source = 'client' AND name LIKE 'tcp%%'"
        )
        assert {row.name: int(row.reset_val) for row in settings} == wanted
    database.close()
    assert {name: int(ours[name.replace("tcp_keep", "keep")]) for name in wanted} == wanted


@pytest.mark.parametrize("url", ["postgresql://u:secret@h/d", "postgresql://u@h/d?password=secret"])
def test_no_message_has_the_password(url: str) -> None:
    database = Database(url)
    assert database.name == "postgresql+psycopg://u:***@h/d"
    assert database.url.password == "secret"


@pytest.mark.parametrize("name", ["a?b=1", "a%20b", "a%zz", "a#b", "a b", "ü", "m\udce4x"])
def test_a_path_is_taken_as_it_is_whatever_signs_are_in_it(tmp_path: Path, name: str) -> None:
    database = Database(f"sqlite:///{tmp_path / name / 'filature.db'}")
    database.path.parent.mkdir()
    database.upgrade()
    database.close()
    assert [each.name for each in tmp_path.iterdir()] == [name]
    assert (tmp_path / name / "filature.db").is_file()
    assert database.name == f"sqlite:///{tmp_path / name / 'filature.db'}"


@pytest.mark.parametrize(
    "url",
    [
        '"postgresql://u:secret@h/d"',
        "postgresql://u:secret@h:port/d",
        "mysql://u:secret@h/d",
        "mysql://h/d?password=secret",
        "sqlite://",
        "sqlite:///",
        "sqlite:///:memory:",
    ],
)
def test_no_database_s_url_is_refused_without_its_password(url: str) -> None:
    with pytest.raises(StoreError, match=r"write sqlite:///path/to/file\.db or postgresql:") as no:
        Database(url)
    assert "secret" not in no.value.message


def test_a_new_file_is_its_owner_s_alone_from_the_beginning(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path / 'filature.db'}")
    before = os.umask(0)
    try:
        database.upgrade()
    finally:
        os.umask(before)
    database.close()
    assert stat.S_IMODE(database.path.stat().st_mode) == 0o600
