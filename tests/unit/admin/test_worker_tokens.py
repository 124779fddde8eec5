import pytest
from tests.unit.admin.api import NOW_MS, Api


async def test_a_token_is_told_once(api: Api) -> None:
    asked = {"worker": "gpu-1", "models": ["b", "a"]}
    made = await api.ask("POST", "/worker-tokens", asked, 201)
    secret = made.pop("secret")
    assert secret.startswith("fil-wrk-")
    found = api.store.worker_tokens.find(secret.encode())
    assert found is not None
    assert found.models == frozenset({"a", "b"})
    assert made == {
        "object": "worker_token",
        "id": found.id,
        "hint": secret[-4:],
        "worker": "gpu-1",
        "state": "active",
        "created_ms": NOW_MS,
        "revoked_ms": None,
        "models": ["a", "b"],
    }
    answer = await api.client.get("/admin/v1/worker-tokens")
    assert answer.json()["data"] == [made]
    assert secret not in answer.text


async def test_without_models_all_may_be_served(api: Api) -> None:
    made = await api.ask("POST", "/worker-tokens", {"worker": "gpu-1"}, 201)
    assert made["models"] is None
    assert api.store.worker_tokens.get(made["id"]).models is None
    none = await api.ask("POST", "/worker-tokens", {"worker": "gpu-1", "models": []}, 201)
    assert none["models"] == []
    assert api.store.worker_tokens.get(none["id"]).models == frozenset()


async def test_a_revoked_token_stays_revoked(api: Api) -> None:
    made = await api.ask("POST", "/worker-tokens", {"worker": "gpu-1"}, 201)
    other = await api.ask("POST", "/worker-tokens", {"worker": "gpu-1"}, 201)
    for _ in range(2):
        revoked = await api.ask("POST", f"/worker-tokens/{made['id']}/revoke")
        assert (revoked["state"], revoked["revoked_ms"]) == ("revoked", NOW_MS)
        assert "secret" not in revoked
    found = api.store.worker_tokens.find(made["secret"].encode())
    assert found is not None
    assert found.revoked_ms == NOW_MS
    states = {t["id"]: t["state"] for t in (await api.ask("GET", "/worker-tokens"))["data"]}
    assert states == {made["id"]: "revoked", other["id"]: "active"}
    error = await api.refused("POST", "/worker-tokens/wt_0/revoke", status=404)
    assert error["code"] == "worker_token_not_found"


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "worker"),
        ({"worker": ""}, "worker"),
        ({"worker": "a" * 65}, "worker"),
        ({"worker": "worker:a"}, "worker"),
        ({"worker": "a\n"}, "worker"),
        ({"worker": 1}, "worker"),
        ({"worker": "a", "models": [""]}, "models.0"),
        ({"worker": "a", "models": "b"}, "models"),
        ({"worker": "a", "models": [str(each) for each in range(1001)]}, "models"),
        ({"worker": "a", "model": "b"}, "model"),
    ],
)
async def test_what_cannot_be_is_named(api: Api, body: dict[str, object], param: str) -> None:
    error = await api.refused("POST", "/worker-tokens", body)
    assert error["param"] == param
    assert (await api.ask("GET", "/worker-tokens"))["data"] == []
