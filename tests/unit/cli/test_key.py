import pytest
from tests.unit.cli.calling import Caller, rows


@pytest.fixture(autouse=True)
def _alice(cli: Caller) -> None:
    cli.said("account", "create", "alice")


def test_a_key_from_its_making_to_its_end(cli: Caller) -> None:
    said = cli.said("key", "create", "alice", "--name", "laptop")
    (secret,) = [word for word in said.split() if word.startswith("sk-fil-")]
    assert "shown this once" in said
    listed = cli.said("key", "list")
    assert secret not in listed
    ((key_id, hint, account, name, state, *_),) = rows(listed)
    assert (hint, account, name, state) == (f"…{secret[-4:]}", "alice", "laptop", "active")
    assert cli.said("key", "revoke", key_id).startswith(f"{key_id} was revoked at 20")
    assert cli.answer("key", "list")["data"][0]["state"] == "revoked"
    assert "There is no key" in cli.failed("key", "revoke", "key_none")
    assert secret not in cli.said("key", "list", "--json")


def test_all_limits(cli: Caller) -> None:
    made = cli.answer(
        *("key", "create", "alice", "--budget", "2.5", "--period", "month"),
        *("--requests-per-minute", "60", "--tokens-per-minute", "10000", "--concurrency", "4"),
        *("--model", "b", "--model", "a", "--max-coefficient", "1.5", "--expires", "30d"),
    )
    assert made["secret"].startswith("sk-fil-")
    assert (made["budget_nano"], made["budget_period"]) == (2_500_000_000, "month")
    assert (made["requests_per_minute"], made["tokens_per_minute"]) == (60, 10_000)
    assert (made["concurrency"], made["models"], made["max_coefficient"]) == (4, ["a", "b"], 1500)
    assert made["expires_ms"] == pytest.approx(made["created_ms"] + 30 * 86_400_000, abs=60_000)
    table = cli.said("key", "list", "--account", "alice")
    assert "2.50 credits/month, 60 requests/min, 10000 tokens/min, 4 at once, models a b" in table
    assert "coefficient ≤ 1.5, until 20" in table
    assert "There is no account 'bob'" in cli.failed("key", "list", "--account", "bob")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--budget", "1"], "belong together"),
        (["--concurrency", "0"], "concurrency must be at least 1"),
        (["--max-coefficient", "1.0005"], "--max-coefficient: write a number"),
        (["--max-coefficient", "much"], "--max-coefficient: write a number"),
        (["--max-coefficient", "-1"], "--max-coefficient: write a number"),
        (["--max-coefficient", "1e3"], "--max-coefficient: write a number"),
        (["--max-coefficient", "1e999999"], "--max-coefficient: write a number"),
        (["--max-coefficient", "+1"], "--max-coefficient: write a number"),
        (["--max-coefficient", "1_5"], "--max-coefficient: write a number"),
        (["--max-coefficient", "1,5"], "--max-coefficient: write a number"),
        (
            ["--max-coefficient", "\N{ARABIC-INDIC DIGIT THREE}"],
            "--max-coefficient: write a number",
        ),
        (["--expires", "soon"], "--expires: write a time"),
        (["--expires", "2001-01-01"], "--expires: 2001-01-01 is past"),
        (["--budget", "5"], "--budget and --period belong together"),
        (["--period", "day"], "--budget and --period belong together"),
        (["--model", "a\tb"], "printable"),
    ],
)
def test_limits_that_cannot_be(cli: Caller, options: list[str], said: str) -> None:
    assert said in cli.failed("key", "create", "alice", *options, status=2)
    assert cli.answer("key", "list")["data"] == []


def test_a_key_belongs_to_an_account(cli: Caller) -> None:
    assert "There is no account 'bob'" in cli.failed("key", "create", "bob")
