import pytest
from tests.unit.cli.calling import Caller, rows


def test_a_token_from_its_making_to_its_end(cli: Caller) -> None:
    said = cli.said("worker-token", "create", "gpu-1")
    secret, again = [word for word in said.split() if word.startswith("fil-wrk-")]
    assert again == secret
    assert "shown this once" in said
    command = f"filature worker --proxy URL --token {secret} --engine http://127.0.0.1:8000"
    assert said.splitlines()[-1].strip() == command
    listed = cli.said("worker-token", "list")
    assert secret not in listed
    ((token_id, hint, worker, state, *_, models),) = rows(listed)
    assert (hint, worker, state, models) == (f"…{secret[-4:]}", "gpu-1", "active", "all")
    assert cli.said("worker-token", "revoke", token_id).startswith(f"{token_id} was revoked at 20")
    assert cli.answer("worker-token", "list")["data"][0]["state"] == "revoked"
    assert rows(cli.said("worker-token", "list"))[0][3] == "revoked"
    assert secret not in cli.said("worker-token", "list", "--json")


def test_as_json(cli: Caller) -> None:
    made = cli.answer("worker-token", "create", "gpu-1", "--model", "b", "--model", "a")
    assert made.pop("secret").startswith("fil-wrk-")
    assert (made["worker"], made["models"], made["state"]) == ("gpu-1", ["a", "b"], "active")
    assert cli.answer("worker-token", "list")["data"] == [made]
    assert rows(cli.said("worker-token", "list"))[0][-2:] == ["a", "b"]
    revoked = cli.answer("worker-token", "revoke", made["id"])
    assert revoked == made | {"state": "revoked", "revoked_ms": revoked["revoked_ms"]}
    assert revoked["revoked_ms"] >= made["created_ms"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["worker:gpu"], "worker must be 1 to 64 letters"),
        (["a" * 65], "worker must be 1 to 64 letters"),
        (["gpu-1", "--model", "a\tb"], "printable"),
    ],
)
def test_tokens_that_cannot_be(cli: Caller, arguments: list[str], said: str) -> None:
    assert said in cli.failed("worker-token", "create", *arguments, status=2)
    assert cli.said("worker-token", "list").startswith("There are no worker tokens yet")


def test_an_unknown_token_is_named(cli: Caller) -> None:
    cli.begin()
    assert "There is no worker token 'wt_none'" in cli.failed("worker-token", "revoke", "wt_none")
