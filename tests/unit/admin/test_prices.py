from pathlib import Path

import pytest
from tests.unit.admin.api import Api, opened
from tests.unit.admin.joined import Joined

PRICE = {"prompt": "0.20", "cached": "0.02", "completion": "0.80", "fee_bp": 500}
MODEL = "/prices/Qwen/Qwen3-8B"


async def test_a_price_is_set_in_versions(api: Api) -> None:
    first = await api.ask("PUT", MODEL, PRICE)
    assert (first["version"], first["prompt_nano"], first["cached"]) == (1, 200_000_000, "0.02")
    assert (first["reasoning"], first["request"], first["template_tokens"]) == ("0.8", "0", 512)
    second = await api.ask("PUT", MODEL, {"prompt_nano": 7, "completion": "1", "request": "0.001"})
    assert (second["version"], second["prompt"], second["cached_nano"]) == (2, "0.000000007", 7)
    versions = (await api.ask("GET", MODEL))["data"]
    assert [each["version"] for each in versions] == [2, 1]
    (current,) = (await api.ask("GET", "/prices"))["data"]
    assert current == second


async def test_a_withdrawn_price_is_told_of(api: Api) -> None:
    await api.ask("PUT", MODEL, PRICE)
    assert (await api.ask("DELETE", MODEL))["id"] == "Qwen/Qwen3-8B"
    assert (await api.ask("GET", "/prices"))["data"] == []
    (version,) = (await api.ask("GET", MODEL))["data"]
    assert version["withdrawn_ms"] is not None
    assert (await api.refused("DELETE", MODEL, status=404))["code"] == "price_not_found"
    assert (await api.refused("GET", "/prices/x", status=404))["code"] == "price_not_found"


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"prompt": "1"}, "completion"),
        ({"prompt": 0.2, "completion": "1"}, "prompt"),
        ({"prompt": "1", "completion": "1000001"}, "completion"),
        ({"prompt": "1", "completion": "1", "fee_bp": 10_001}, "fee_bp"),
        ({"prompt": "1", "completion": "1", "template_tokens": -1}, "template_tokens"),
    ],
)
async def test_a_wrong_price_is_named(api: Api, body: dict[str, object], param: str) -> None:
    assert (await api.refused("PUT", MODEL, body))["param"] == param
    assert (await api.ask("GET", "/prices"))["data"] == []


async def test_a_models_name_is_one_printable_line(api: Api) -> None:
    error = await api.refused("PUT", "/prices/a%07b", PRICE)
    assert error["param"] == "model"


async def test_aliases(api: Api) -> None:
    await api.ask("PUT", MODEL, PRICE)
    await api.ask("PUT", "/aliases/gpt-4o-mini", {"model": "Qwen/Qwen3-8B"})
    (alias,) = (await api.ask("GET", "/aliases"))["data"]
    assert (alias["alias"], alias["model"]) == ("gpt-4o-mini", "Qwen/Qwen3-8B")
    assert (await api.refused("PUT", "/prices/gpt-4o-mini", PRICE))["param"] == "model"
    await api.refused("PUT", "/aliases/Qwen/Qwen3-8B", {"model": "x"})
    await api.ask("DELETE", "/aliases/gpt-4o-mini")
    error = await api.refused("DELETE", "/aliases/gpt-4o-mini", status=404)
    assert error["code"] == "alias_not_found"


async def test_coefficients(api: Api) -> None:
    await api.ask("PUT", "/coefficients", {"engine": "127.0.0.1:8000", "coefficient": 1500})
    await api.ask("PUT", "/coefficients", {"engine": "e", "model": "m", "coefficient": 900})
    shown = [
        (each["engine"], each["model"], each["coefficient"])
        for each in (await api.ask("GET", "/coefficients"))["data"]
    ]
    assert shown == [("127.0.0.1:8000", "*", 1500), ("e", "m", 900)]
    error = await api.refused("PUT", "/coefficients", {"engine": "e", "coefficient": -1})
    assert error["param"] == "coefficient"


@pytest.mark.parametrize(
    ("engine", "model", "said"),
    [
        ("http://own:1", "*", None),
        ("http://own:1", "silk", None),
        ("http://new:1", "silk", None),  # which has not answered yet
        ("http://own:1", "satin", "does not serve 'satin' now. What it serves: silk, wool."),
        ("http://own:1/", "*", "no engine 'http://own:1/' now. Those that it has: http://new:1, h"),
        ("gpu", "*", "gpu is a worker"),
    ],
)
async def test_coefficients_beside_what_a_proxy_has(
    tmp_path: Path, engine: str, model: str, said: str | None
) -> None:
    async with opened(f"sqlite:///{tmp_path}/f.db", Joined()) as api:
        await api.ask("POST", "/worker-tokens", {"worker": "gpu"}, 201)
        asked = {"engine": engine, "model": model, "coefficient": 1500}
        warning = (await api.ask("PUT", "/coefficients", asked))["warning"]
        assert warning == said or said in warning
        done = await api.ask("POST", "/prices/import", {"coefficients": [asked]})
        assert done["warnings"] == ([] if warning is None else [warning])
        assert api.store.prices.coefficients() == [(engine, model, 1500)]


class TestImport:
    async def test_the_same_again_makes_no_new_versions(self, api: Api) -> None:
        asked: dict[str, list[object]] = {
            "prices": [PRICE | {"model": "a"}, PRICE | {"model": "b"}],
            "aliases": [{"alias": "x", "model": "a"}],
            "coefficients": [{"engine": "e", "coefficient": 2000}],
        }
        done = await api.ask("POST", "/prices/import", asked)
        assert (done["set"], done["unchanged"]) == (["a", "b"], [])
        assert (done["aliases"], done["coefficients"]) == (1, 1)
        asked["prices"][1] = PRICE | {"model": "b", "completion": "0.9"}
        done = await api.ask("POST", "/prices/import", asked)
        assert (done["set"], done["unchanged"]) == (["b"], ["a"])
        assert api.store.prices.aliases == {"x": "a"}
        assert api.store.prices.coefficient("e", "a") == 2000

    @pytest.mark.parametrize(
        ("wrong", "param"),
        [
            ({"prices": [{"model": "b", "prompt": "1"}]}, "prices.1.completion"),
            ({"prices": [PRICE | {"model": "a"}]}, "prices.1.model"),
            ({"prices": [PRICE | {"model": "known"}]}, "prices"),
            ({"aliases": [{"alias": "a", "model": "z"}]}, "aliases.0.alias"),
            ({"aliases": [{"alias": "m", "model": "z"}]}, "aliases.0.alias"),
            ({"aliases": [{"alias": "y", "model": "known"}]}, "aliases.0.model"),
            ({"aliases": [{"alias": "y", "model": "y"}]}, "aliases.0.alias"),
            ({"coefficients": [{"engine": "e", "coefficient": -1}]}, "coefficients.0.coefficient"),
        ],
    )
    async def test_nothing_is_set_when_something_is_wrong(
        self, api: Api, wrong: dict[str, list[object]], param: str
    ) -> None:
        await api.ask("PUT", "/prices/m", PRICE)
        await api.ask("PUT", "/aliases/known", {"model": "m"})
        asked = {"prices": [PRICE | {"model": "a"}, *wrong.pop("prices", [])]} | wrong
        error = await api.refused("POST", "/prices/import", asked)
        assert error["param"] == param
        assert [each["model"] for each in (await api.ask("GET", "/prices"))["data"]] == ["m"]
        assert api.store.prices.aliases == {"known": "m"}
        assert api.store.prices.coefficients() == []
