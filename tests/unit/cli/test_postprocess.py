"""``filature postprocess``: what goes to which stream, in whose terms."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
DOCUMENT = {
    "choices": [{"index": 0, "message": {"content": "hello"}, "finish_reason": "stop"}],
    "usage": {
        "prompt_tokens": 14,
        "completion_tokens": 7,
        "prompt_tokens_details": {"cached_tokens": 3},
    },
}
STREAM = b'data: {"choices":[{"index":0,"delta":{"content":"hi"}}]}\n\ndata: [DONE]\n\n'


def run(*options: str, given: bytes = b"") -> tuple[int, bytes, str]:
    command = [sys.executable, "-m", "filature", "postprocess", *options]
    environment = {"PYTHONPATH": str(ROOT / "src"), "PATH": ""}
    done = subprocess.run(command, input=given, capture_output=True, env=environment, check=False)
    return done.returncode, done.stdout, done.stderr.decode()


def test_the_selftest_finds_no_bug() -> None:
    status, out, _ = run("--selftest")
    lines = out.decode().splitlines()
    assert status == 0
    assert [line for line in lines if line.startswith("[")] == [
        "[OK] sse_whole_events",
        "[OK] sse_byte_split",
        "[OK] raw_json_non_stream",
    ]
    assert lines.count("usage: prompt=11 cached=3 completion=7 reasoning=0 total=21") == 3
    assert lines.count("=== end ===") == 3


@pytest.mark.parametrize("split", [[], ["--split", "1"], ["--split", "7"]])
def test_a_document_is_priced_and_its_usage_told(split: list[str]) -> None:
    given = json.dumps(DOCUMENT).encode()
    status, out, told = run(*split, "--price-per-token", "1000", given=given)
    assert status == 0
    assert told == "usage: prompt=11 cached=3 completion=7 reasoning=0 total=21\n"
    usage = json.loads(out)["usage"]
    assert usage["total_cost"] == 21_000
    assert list(usage)[-4:] == ["prompt_total_cost", "completion_total_cost", "total_cost", "cost"]


def test_multipliers_and_coefficient_adjust_tokens_and_cost() -> None:
    options = ["--price-per-token", "1000", "--coefficient", "1500", "--cached-multiplier", "1000"]
    _, out, told = run(*options, given=json.dumps(DOCUMENT).encode())
    # 11 × 1.5 = 16.5, 3 × 1.5 × 0.1 = 0.45, 7 × 1.5 = 10.5, each rounded down for display
    assert told == "usage: prompt=16 cached=0 completion=10 reasoning=0 total=26\n"
    assert json.loads(out)["usage"]["total_cost"] == 16_500 + 450 + 10_500


def test_a_tail_is_told_before_the_usage(tmp_path: Path) -> None:
    file = tmp_path / "answer"
    file.write_bytes(STREAM + b"data: {half")
    status, out, told = run(str(file))
    assert status == 0
    assert out == STREAM + b"data: {half"
    assert told.splitlines()[0] == "unprocessed data in answer: bytes=11"
    assert told.splitlines()[1].startswith("usage: prompt=")
    assert len(told.splitlines()) == 2


def test_as_requested_takes_out_what_was_not_asked_for() -> None:
    usage = b'data: {"choices":[],"usage":{"prompt_tokens":5,"completion_tokens":1}}\n\n'
    given = STREAM.replace(b"data: [DONE]", usage + b"data: [DONE]")
    _, forwarded, _ = run(given=given)
    _, stripped, _ = run("--as-requested", given=given)
    assert b'"choices":[]' in forwarded
    assert b'"choices":[]' not in stripped
    assert b': filature {"usage":{"prompt_tokens":5' in stripped


def test_a_missing_file_is_said_plainly() -> None:
    status, out, told = run("nowhere.txt")
    assert (status, out) == (2, b"")
    assert told == "filature postprocess: there is no file nowhere.txt\n"
    status, _, told = run("x" * 300)
    assert (status, told) == (2, f"filature postprocess: {'x' * 300}: File name too long\n")
    assert "Is a directory" in run("/")[2]
