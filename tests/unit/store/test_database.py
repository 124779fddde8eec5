import pytest

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
