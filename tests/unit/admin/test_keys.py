import pytest
from tests.unit.admin.api import NOW_MS, Api, rich

LIMITS = {
    "budget": "2.5",
    "budget_period": "month",
    "requests_per_minute": 60,
    "tokens_per_minute": 10_000,
    "concurrency": 4,
    "models": ["b", "a"],
    "max_coefficient": 1500,
    "expires_ms": NOW_MS + 1,
}


async def test_a_key_is_told_once(api: Api) -> None:
    await rich(api)
    made = await api.ask("POST", "/keys", {"account": "alice", "name": "laptop"} | LIMITS, 201)
    secret = made.pop("secret")
    assert secret.startswith("sk-fil-")
    assert made["hint"] == secret[-4:]
    found = api.store.keys.find(secret.encode())
    assert found is not None
    assert found.id == made["id"]
    for path in ("/keys", "/keys?account=alice", f"/keys/{made['id']}"):
        answer = await api.client.get(f"/admin/v1{path}")
        assert made["id"] in answer.text
        assert secret not in answer.text
        assert "digest" not in answer.text
    shown = await api.ask("GET", f"/keys/{made['id']}")
    assert shown == made
    wanted = LIMITS | {"models": ["a", "b"], "budget_nano": 2_500_000_000}
    assert {name: shown[name] for name in wanted} == wanted
    assert shown["state"] == "active"


async def test_a_revoked_key_stays_revoked(api: Api) -> None:
    await rich(api)
    made = await api.ask("POST", "/keys", {"account": "alice"}, 201)
    for _ in range(2):
        revoked = await api.ask("POST", f"/keys/{made['id']}/revoke")
        assert (revoked["state"], revoked["revoked_ms"]) == ("revoked", NOW_MS)
    found = api.store.keys.find(made["secret"].encode())
    assert found is not None
    assert found.revoked_ms == NOW_MS
    error = await api.refused("POST", "/keys/key_0/revoke", status=404)
    assert error["code"] == "key_not_found"


@pytest.mark.parametrize(
    ("body", "param", "status"),
    [
        ({"account": "bob"}, "account", 404),
        ({"account": "fees"}, "account", 400),
        ({"account": "alice", "budget": "1"}, "budget_period", 400),
        ({"account": "alice", "budget": "1", "budget_period": "week"}, "budget_period", 400),
        ({"account": "alice", "concurrency": 0}, "concurrency", 400),
        ({"account": "alice", "requests_per_minute": 1.5}, "requests_per_minute", 400),
        ({"account": "alice", "expires_ms": NOW_MS}, "expires_ms", 400),
        ({"account": "alice", "expires_ms": 253_402_300_800_000}, "expires_ms", 400),
        ({"account": "alice", "models": [""]}, "models.0", 400),
        ({"account": "alice", "name": "x" * 129}, "name", 400),
    ],
)
async def test_wrong_limits_are_named(
    api: Api, body: dict[str, object], param: str, status: int
) -> None:
    await rich(api)
    error = await api.refused("POST", "/keys", body, status)
    assert error["param"] == param
    assert (await api.ask("GET", "/keys"))["data"] == []


async def test_keys_of_one_account(api: Api) -> None:
    for name in ("alice", "bob"):
        await api.ask("POST", "/accounts", {"name": name}, 201)
        await api.ask("POST", "/keys", {"account": name}, 201)
    assert len((await api.ask("GET", "/keys"))["data"]) == 2
    (only,) = (await api.ask("GET", "/keys?account=bob"))["data"]
    assert only["account"] == "bob"
