"""Who is let in, and what the application says of itself and of what it refuses."""

from collections.abc import AsyncIterator

import httpx
import pytest
from tests.unit.admin.api import TOKEN, Api

from filature.admin.app import create_app
from filature.admin.auth import BODY_BYTES_MAX


@pytest.mark.parametrize(
    "header",
    [
        None,
        "Bearer",
        "Bearer ",
        "Bearer wrong",
        f"Basic {TOKEN}",
        TOKEN,
        f"Bearer {TOKEN}x",
        f"Bearer {TOKEN[:-1]}",
        "Bearer \xe4",
    ],
)
@pytest.mark.parametrize(
    "path", ["/admin/v1/accounts", "/admin/v1/nothing", "/admin", "/admin/v1/ledger/export"]
)
async def test_nothing_without_the_token(api: Api, header: str | None, path: str) -> None:
    headers = [] if header is None else [(b"authorization", header.encode("latin-1"))]
    async with httpx.AsyncClient(transport=api.client._transport, base_url="http://a") as stranger:
        answer = await stranger.get(path, headers=headers)
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == "Bearer"
    assert answer.json()["error"]["code"] == "invalid_admin_token"
    assert TOKEN not in answer.text


async def test_a_scheme_is_known_in_any_case(api: Api) -> None:
    answer = await api.client.get("/admin/v1/keys", headers={"authorization": f"bearer  {TOKEN}"})
    assert answer.status_code == 200


async def test_a_body_that_is_not_said_to_be_json_is_told_so(api: Api) -> None:
    for headers in ({}, {"content-type": "application/x-www-form-urlencoded"}):
        answer = await api.client.post(
            "/admin/v1/accounts", content=b'{"name": "a"}', headers=headers
        )
        assert answer.status_code == 400
        assert "content-type: application/json" in answer.json()["error"]["message"]


async def test_the_token_is_asked_for_before_the_body_is_read(api: Api) -> None:
    read = False

    async def body() -> AsyncIterator[bytes]:
        nonlocal read
        read = True
        yield b"12345"

    async with httpx.AsyncClient(transport=api.client._transport, base_url="http://a") as stranger:
        headers = {"content-length": "5"}
        answer = await stranger.post("/admin/v1/accounts", content=body(), headers=headers)
    assert answer.status_code == 401
    assert not read


async def test_bodies_are_bounded(api: Api) -> None:
    large = {"content-length": str(BODY_BYTES_MAX + 1)}
    answer = await api.client.post("/admin/v1/accounts", content=b"{", headers=large)
    assert answer.status_code == 413
    chunked = await api.client.post(
        "/admin/v1/accounts", content=b"{", headers={"transfer-encoding": "chunked"}
    )
    assert chunked.status_code == 400
    assert "content-length" in chunked.json()["error"]["message"]


async def test_errors_of_every_kind_are_in_the_envelope(api: Api) -> None:
    await api.refused("GET", "/nothing", status=404)
    error = await api.refused("DELETE", "/accounts", status=405)
    assert "DELETE" in error["message"]
    headers = {"content-type": "application/json"}
    broken = await api.client.post("/admin/v1/accounts", content=b"{", headers=headers)
    assert broken.status_code == 400
    assert broken.json()["error"]["message"].startswith("The body is no JSON")
    missing = await api.refused("POST", "/accounts", {})
    assert missing["param"] == "name"
    listed = await api.refused("POST", "/accounts", [1])
    assert listed["message"].startswith("The body: ")
    api.store.keys.list = None  # type: ignore[method-assign,assignment]  # a defect
    transport = httpx.ASGITransport(api.client._transport.app, raise_app_exceptions=False)  # type: ignore[attr-defined]
    async with httpx.AsyncClient(transport=transport, base_url="http://a") as client:
        answer = await client.get("/admin/v1/keys", headers={"authorization": f"Bearer {TOKEN}"})
    assert answer.status_code == 500
    assert answer.json()["error"]["message"] == "internal error"


async def test_the_description_is_whole_and_public(api: Api) -> None:
    async with httpx.AsyncClient(transport=api.client._transport, base_url="http://a") as stranger:
        description = (await stranger.get("/admin/v1/openapi.json")).json()
        assert (await stranger.get("/docs")).status_code == 404
    assert description["security"] == [{"token": []}]
    operations = [
        operation for path in description["paths"].values() for operation in path.values()
    ]
    names = [operation["operationId"] for operation in operations]
    assert len(set(names)) == len(names)
    assert {"accounts_create", "keys_revoke", "prices_set", "usage_sums", "ledger_check"} < set(
        names
    )
    for operation in operations:
        assert "422" not in operation["responses"]
        error = operation["responses"]["default"]["content"]["application/json"]["schema"]
        assert error == {"$ref": "#/components/schemas/ErrorShown"}
    assert "HTTPValidationError" not in description["components"]["schemas"]


async def test_without_a_store_there_is_no_api() -> None:
    transport = httpx.ASGITransport(create_app(None, health=lambda: {"role": "worker"}))
    async with httpx.AsyncClient(transport=transport, base_url="http://a") as client:
        assert (await client.get("/health")).json() == {"status": "ok", "role": "worker"}
        for path in ("/admin/v1/accounts", "/admin/v1/openapi.json", "/metrics"):
            assert (await client.get(path)).status_code == 404


@pytest.mark.parametrize(
    "path",
    ["/usage?model=a%00", "/usage?account=%1b", "/ledger/transfers/a%00", "/prices/a%00"],
)
async def test_what_no_name_can_have_is_not_looked_for(api: Api, path: str) -> None:
    """PostgreSQL would not take it, either."""
    error = await api.refused("GET", path)
    assert "printable" in error["message"]
