from pathlib import Path

import pytest
from tests.unit.cli.calling import Caller, rows

MODEL = "Qwen/Qwen3-8B"
SET = ("price", "set", MODEL, "--in", "0.20", "--cached", "0.02", "--out", "0.80")


def test_a_price_from_its_setting_to_its_withdrawal(cli: Caller) -> None:
    cli.begin()
    assert "filature price set" in cli.said("price", "show")
    (row,) = rows(cli.said(*SET))
    assert row[:7] == [MODEL, "1", "0.20", "0.02", "0.80", "0.80", "0.00"]
    price = cli.answer(
        *(*SET[:-1], "1", "--reasoning", "1.5", "--request", "0.000001", "--fee-bp", "500"),
        *("--template-tokens", "100", "--media-tokens", "200"),
    )
    assert (price["version"], price["completion"], price["reasoning"]) == (2, "1", "1.5")
    assert (price["request_nano"], price["fee_bp"]) == (1000, 500)
    assert (price["template_tokens"], price["media_tokens"]) == (100, 200)
    (current,) = rows(cli.said("price", "show"))
    assert current[:7] == [MODEL, "2", "0.20", "0.02", "1.00", "1.50", "0.000001"]
    assert [row[1] for row in rows(cli.said("price", "show", MODEL))] == ["2", "1"]
    assert cli.said("price", "withdraw", MODEL) == f"{MODEL} has no price of its own any more.\n"
    assert "has no price" in cli.failed("price", "withdraw", MODEL)
    assert cli.answer("price", "show", MODEL)["data"][0]["withdrawn_ms"] is not None
    assert cli.answer("price", "show")["prices"] == []


def test_aliases(cli: Caller) -> None:
    cli.said(*SET)
    assert cli.said("price", "alias", "gpt-4o-mini", MODEL) == f"gpt-4o-mini is {MODEL}.\n"
    assert f"gpt-4o-mini  {MODEL}\n" in cli.said("price", "show")
    assert "is an alias of" in cli.failed(*SET[:2], "gpt-4o-mini", *SET[3:], status=2)
    assert "would hide it" in cli.failed("price", "alias", MODEL, "x", status=2)
    assert cli.answer("price", "unalias", "gpt-4o-mini")["id"] == "gpt-4o-mini"
    assert "no alias" in cli.failed("price", "unalias", "gpt-4o-mini")


def test_coefficients(cli: Caller) -> None:
    assert rows(cli.said("price", "coefficient", "http://10.0.0.1:8000", "1.5")) == [
        ["http://10.0.0.1:8000", "*", "1.5"]
    ]
    doubted = cli.run("price", "coefficient", "http://10.0.0.1:8000", "0.9", "--model", MODEL)
    assert doubted.exit_code == 0
    assert doubted.stderr.startswith(f"warning: '{MODEL}' has no price of its own")
    cli.said(*SET)
    cli.said("price", "coefficient", "http://10.0.0.1:8000", "0.9", "--model", MODEL)
    assert cli.answer("price", "coefficient", "http://10.0.0.1:8000", "1.5")["warning"] is None
    found = cli.answer("price", "show")["coefficients"]
    assert [(each["model"], each["coefficient"]) for each in found] == [("*", 1500), (MODEL, 900)]
    assert "http://10.0.0.1:8000  Qwen/Qwen3-8B          0.9\n" in cli.said("price", "show")
    assert "VALUE: " in cli.failed("price", "coefficient", "e", "1.2345", status=2)


def test_an_import_says_of_which_engines_nothing_is_known(cli: Caller, tmp_path: Path) -> None:
    path = tmp_path / "p.toml"
    path.write_text('[coefficients]\n"10.0.0.7:8000" = 1.5\n"http://10.0.0.7:8000" = 1.5\n')
    done = cli.run("price", "import", str(path))
    assert "coefficients: 2" in done.stdout
    (line,) = done.stderr.splitlines()
    assert line.startswith("warning: No engine has the name '10.0.0.7:8000'")
    assert len(cli.answer("price", "import", str(path))["warnings"]) == 1


def test_prices_that_cannot_be(cli: Caller) -> None:
    assert "prompt must be a number" in cli.failed(
        "price", "set", "m", "--in", "1e3", "--out", "1", status=2
    )
    assert "fee_bp must be" in cli.failed(*SET, "--fee-bp", "10001", status=2)
    assert cli.run("price", "set", "m", "--in", "1").exit_code == 2


TOML = """
[prices."Qwen/Qwen3-8B"]
in = 0.20
cached = 0.02
out = 0.80
fee-bp = 500

[prices.free]
in = 0
out = "0.000000001"

[aliases]
gpt-4o-mini = "Qwen/Qwen3-8B"

[coefficients]
"http://10.0.0.7:8000" = 1.5
"http://10.0.0.8:8000" = { "*" = 1, "Qwen/Qwen3-8B" = 0.9 }
"""
JSON = """{"prices": {"Qwen/Qwen3-8B": {"in": 0.20, "cached": "0.02", "out": 0.80, "fee_bp": 500},
"free": {"in": 0, "out": 0.000000001}}, "aliases": {"gpt-4o-mini": "Qwen/Qwen3-8B"},
"coefficients": {"http://10.0.0.7:8000": "1.5", "http://10.0.0.8:8000": {"*": 1.0, "Qwen/Qwen3-8B": 0.9}}}"""
CSV = "model,in,cached,out,fee_bp\nQwen/Qwen3-8B,0.20,0.02,0.80,500\nfree,0,,0.000000001,\n"


@pytest.mark.parametrize(
    ("name", "content"),
    [("p.toml", TOML), ("p.json", JSON), ("p.csv", CSV), ("P.CSV", "\ufeff" + CSV)],
)
def test_a_file_of_prices(cli: Caller, tmp_path: Path, name: str, content: str) -> None:
    path = tmp_path / name
    path.write_text(content, "utf-8")
    extras = 0 if name.lower().endswith("csv") else 1
    assert cli.said("price", "import", str(path)) == (
        f"Prices set: 2, as they were: 0; aliases: {extras}; coefficients: {3 * extras}\n"
    )
    again = cli.answer("price", "import", str(path))
    assert (again["set"], again["unchanged"]) == ([], [MODEL, "free"])
    shown = cli.answer("price", "show")
    qwen, free = shown["prices"]
    assert (qwen["prompt"], qwen["cached"], qwen["completion"], qwen["fee_bp"]) == (
        *("0.2", "0.02", "0.8"),
        500,
    )
    assert (free["prompt_nano"], free["completion_nano"]) == (0, 1)
    if extras:
        assert [each["coefficient"] for each in shown["coefficients"]] == [1500, 1000, 900]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("p.yaml", "", ".toml, .json or .csv"),
        ("p.toml", "[prices", "p.toml: "),
        ("p.json", "[1]", "the file: names with values"),
        ("p.json", '{"price": {}}', "'price' is none of prices"),
        ("p.json", '{"prices": {"m": {"in": true}}}', "prices.m.in: a number is needed"),
        ("p.json", '{"prices": {"m": {"input": 1}}}', "prices.m.input: the names are in,"),
        ("p.json", '{"prices": {"m": {"fee_bp": 1.5}}}', "a whole number is needed"),
        ("p.json", '{"prices": {"m": {"in": 1}}}', "m: completion is missing"),
        ("p.json", '{"coefficients": {"e": "x"}}', "coefficients.e: write a number"),
        ("p.csv", "model,in,out\nm,1\n", "line 2: a row has"),
        ("p.csv", "model,in,out\nm,1,2\nm,1,2\n", "line 3: m is there twice"),
        ("p.json", '{"prices": {"m": {"in": 1, "out": 2}, "m": {"in": 3}}}', "m is there twice"),
        ("p.csv", "model,in,out,fee_bp\nm,1,2,\N{ARABIC-INDIC DIGIT THREE}\n", "a whole number"),
        ("p.csv", f"model,in,out,fee_bp\nm,1,2,{'9' * 5000}\n", "a whole number is needed"),
        ("p.csv", "in,out\n1,2\n", "line 2: a row has a model"),
    ],
)
def test_a_file_that_cannot_be_read(
    cli: Caller, tmp_path: Path, name: str, content: str, said: str
) -> None:
    path = tmp_path / name
    path.write_text(content)
    assert said in cli.failed("price", "import", str(path), status=2)


def test_a_file_that_is_not_there(cli: Caller, tmp_path: Path) -> None:
    missing = str(tmp_path / "none.toml")
    assert "No such file" in cli.failed("price", "import", missing, status=2)
    assert not cli.folder.exists()
