import pytest
from tests.unit.cli.calling import Caller, rows


def test_an_account_from_its_opening_to_its_refund(cli: Caller) -> None:
    assert cli.said("account", "create", "alice") == "Opened the account alice.\n"
    assert cli.said("account", "create", "alice") == "The account alice was there already.\n"
    said = cli.said("account", "top-up", "alice", "12.5", "--id", "invoice-7", "--note", "July")
    assert said == "Topped up alice 12.50 credits (id invoice-7); available: 12.50\n"
    same = ("account", "top-up", "alice", "12.50", "--id", "invoice-7", "--note", "July")
    assert cli.said(*same).startswith("Done before, nothing happened now: alice 12.50")
    assert "409" not in cli.failed("account", "top-up", "alice", "13", "--id", "invoice-7")
    cli.said("account", "refund", "alice", "2.000000001")
    shown = cli.said("account", "show", "alice")
    assert "balance           10.499999999\n" in shown
    account = cli.answer("account", "show", "alice")
    assert (account["balance_nano"], account["credits_nano"]) == (10_499_999_999, 12_500_000_000)


def test_a_top_up_without_an_id_is_one_of_its_own(cli: Caller) -> None:
    cli.said("account", "create", "alice")
    ids = {cli.answer("account", "top-up", "alice", "1")["id"] for _ in range(2)}
    assert len(ids) == 2
    assert cli.answer("account", "show", "alice")["balance"] == "2"


def test_accounts_are_listed(cli: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("filature.cli.account.PAGE", 1)
    cli.begin()
    assert "filature account create" in cli.said("account", "list", "--kind", "client")
    for name in ("bob", "alice"):
        cli.said("account", "create", name)
    cli.said("account", "create", "10.0.0.1:8000", "--worker")
    cli.said("account", "top-up", "bob", "0.123")
    table = cli.said("account", "list", "--kind", "client")
    assert rows(table) == [
        ["alice", "client", "0.000", "0.00", "0.000"],
        ["bob", "client", "0.123", "0.00", "0.123"],
    ]
    listed = [each["id"] for each in cli.answer("account", "list")["data"]]
    assert listed == sorted(
        ["client:alice", "client:bob", "worker:10.0.0.1:8000", "fees", "shortfall", "treasury"]
    )
    assert cli.answer("account", "show", "worker:10.0.0.1:8000")["kind"] == "worker"


def test_what_is_refused_says_why(cli: Caller) -> None:
    cli.said("account", "create", "alice")
    assert "There is no account 'bob'" in cli.failed("account", "show", "bob")
    assert "has only" in cli.failed("account", "refund", "alice", "1")
    assert "has only" not in cli.failed("account", "payout", "alice", "1", status=2)
    assert "at most nine decimals" in cli.failed("account", "top-up", "alice", "much", status=2)
    assert "above zero" in cli.failed("account", "top-up", "alice", "0", status=2)
    assert "name must be" in cli.failed("account", "create", "a b", status=2)
    assert cli.run("account", "top-up", "alice").exit_code == 2
    assert cli.run("account", "list", "--kind", "bank").exit_code == 2


def test_a_worker_is_paid_what_it_has(cli: Caller) -> None:
    cli.said("account", "create", "w", "--worker")
    assert "has only" in cli.failed("account", "payout", "worker:w", "1")


def test_options_may_stand_before_the_command_too(cli: Caller) -> None:
    elsewhere = str(cli.folder / "other")
    cli.said("account", "--data-dir", elsewhere, "create", "carol")
    assert cli.answer("account", "show", "carol", "--data-dir", elsewhere)["name"] == "carol"
    cli.failed("account", "show", "carol")
    cli.env["FILATURE_DATA_DIR"] = elsewhere
    assert cli.answer("account", "show", "carol")["name"] == "carol"
    database = f"sqlite:///{cli.folder}/third.db"
    cli.said("account", "create", "dave", "--database", database)
    assert (cli.folder / "third.db").exists()
    cli.failed("account", "show", "dave")


def test_an_engine_by_url_is_a_worker_of_that_name(cli: Caller) -> None:
    name = "http://10.0.0.1:8000/base"
    cli.said("account", "create", name, "--worker")
    assert cli.answer("account", "show", f"worker:{name}")["name"] == name
    assert "has only" in cli.failed("account", "payout", f"worker:{name}", "1")
