"""Http11Probe's attacks on the running proxy: each is refused, or read in the one way that is safe.

Every case is sent twice: as it is, and with its target made one that is served, so that its body is
read. The second is judged where the first was accepted; a 404 counts as "request accepted", as the
suite's README says.
"""

import json
import re
from pathlib import Path
from typing import Any, Final

import pytest
from tests.conformance.replay import Trial, addressed_to_the_api, replay

CASES: Final[dict[str, dict[str, Any]]] = {
    case["id"]: case
    for case in json.loads(
        (Path(__file__).parent.parent / "data/conformance/http11probe.json").read_text("utf-8")
    )["cases"]
}

WARNED: Final = {
    "COMP-GET-WITH-CL-BODY": "a body of a GET is framed as any other; it is read and ignored",
    "COMP-HTTP10-NO-HOST": "HTTP/1.0 does not ask for a Host (RFC 9112, 3.2)",
    "COMP-DUPLICATE-CT": "Content-Type frames nothing, and no answer depends on it: bodies are JSON",
    "COOK-MULTI-HEADER": "cookies are not looked at, and never cross",
    "MAL-CL-TAB-BEFORE-VALUE": "white space around a value is allowed (RFC 9112, 5.1)",
    "MAL-URL-BACKSLASH": "one path segment to us, which is not found; nothing is normalised",
    "MAL-URL-PERCENT-NULL": "not decoded before routing, so it is just not found",
    "MAL-URL-PERCENT-CRLF": "not decoded before routing, so it is just not found",
    "SMUG-CL-TRAILING-SPACE": "white space around a value is allowed (RFC 9112, 5.1)",
    "SMUG-CL-EXTRA-LEADING-SP": "white space around a value is allowed (RFC 9112, 5.1)",
    "SMUG-TRANSFER_ENCODING": "another field's name, that frames nothing; it does not cross",
    "SMUG-EXPECT-100-CL": "100-continue is served",
    "SMUG-TRAILER-AUTH": "a trailer is checked, then dropped: nothing in it is looked at or crosses",
    "SMUG-TRAILER-CONTENT-TYPE": "a trailer is checked, then dropped: nothing in it is looked at or crosses",
    "SMUG-HEAD-CL-BODY": "a body of a HEAD is framed as any other; it is read and ignored",
    "SMUG-OPTIONS-CL-BODY": "a body of an OPTIONS is framed as any other; it is read and ignored",
}
"""Where the suite would rather see a refusal, and why it is safe to accept."""

UNJUDGED: Final = {
    "COMP-METHOD-TRACE": 405,
    "COMP-TRACE-WITH-BODY": 405,
    "COMP-TRACE-SENSITIVE": 405,
    "COMP-405-ALLOW": 405,
    "COMP-NO-CL-IN-204": 204,
    "COMP-OPTIONS-ALLOW": 204,
    "COMP-POST-CL-UNDERSEND": 408,
    "COMP-CHUNKED-NO-FINAL": 408,
    "MAL-INCOMPLETE-REQUEST": 408,
    "MAL-POST-CL-HUGE-NO-BODY": 413,
    "COMP-EXPECT-UNKNOWN": 417,
    "RFC9112-2.3-INVALID-VERSION": 505,
    "COMP-HTTP12-VERSION": 505,
    "MAL-H2-PREFACE": 505,
    **dict.fromkeys(
        (
            "RFC9112-2.3-HTTP09-REQUEST",
            "COMP-UNKNOWN-TE-501",
            "COMP-METHOD-CASE",
            "COMP-METHOD-CONNECT",
            "COMP-UNKNOWN-METHOD",
            "MAL-WHITESPACE-ONLY-LINE",
            "NORM-SP-BEFORE-COLON-CL",
            "NORM-TAB-IN-NAME",
            "NORM-CASE-TE",
            "SMUG-TE-XCHUNKED",
            "SMUG-TE-TRAILING-SPACE",
            "SMUG-TE-IDENTITY",
        ),
        400,
    ),
}
"""Cases without a table of verdicts whose status matters; the others are accepted."""


@pytest.fixture(scope="module")
def trials() -> dict[str, Trial]:
    requests = [
        case["bytes"].replace("{HOST}", "127.0.0.1:80").encode("latin1") for case in CASES.values()
    ]
    as_they_are = replay(requests)
    to_the_api = replay(map(addressed_to_the_api, requests))
    return {
        case_id: plain if plain.refused else addressed
        for case_id, plain, addressed in zip(CASES, as_they_are, to_the_api, strict=True)
    }


def verdict(verdicts: dict[str, str], trial: Trial) -> str:
    """As the suite's own script judges, a message that was read to its end counting as 2xx."""
    status = 200 if trial.accepted else trial.statuses[0]
    keys = (f"{status // 100}xx then closed", str(status), f"{status // 100}xx", "other")
    return next(verdicts[key] for key in keys if key in verdicts)


@pytest.mark.parametrize("case_id", [i for i, case in CASES.items() if case["verdicts"]])
def test_judged(case_id: str, trials: dict[str, Trial]) -> None:
    trial = trials[case_id]
    expected = "warn" if case_id in WARNED else "pass"
    assert verdict(CASES[case_id]["verdicts"], trial) == expected, trial


@pytest.mark.parametrize("case_id", [i for i, case in CASES.items() if not case["verdicts"]])
def test_unjudged(case_id: str, trials: dict[str, Trial]) -> None:
    trial = trials[case_id]
    status = UNJUDGED.get(case_id)
    if status is None:
        assert trial.accepted == 1, trial
        assert not trial.refused, trial
    else:
        assert trial.statuses == [status], trial


def test_what_is_refused_is_told_so_and_closed_at_once(trials: dict[str, Trial]) -> None:
    for trial in trials.values():
        if trial.refused:
            assert b"\r\nconnection: close\r\n" in trial.answer
            assert not trial.waited or trial.incomplete, trial


def test_no_message_is_found_in_another(trials: dict[str, Trial]) -> None:
    """Each case is one request: never two of them, and never a body that was not sent."""
    for case_id, trial in trials.items():
        assert trial.accepted <= 1, trial
        for _, _, body in trial.served:
            assert body in (b"", b"hello", b"helloworld", b"hello world"), case_id


def test_upgrades_are_not_made(trials: dict[str, Trial]) -> None:
    assert not any(101 in trial.statuses for trial in trials.values())


def test_answers_have_what_the_suite_looks_for(trials: dict[str, Trial]) -> None:
    def answer(case_id: str) -> bytes:
        return trials[case_id].answer.lower()

    assert re.search(
        rb"\r\ndate: [a-z]{3}, \d\d [a-z]{3} \d{4} \d\d:\d\d:\d\d gmt\r\n",
        answer("COMP-DATE-FORMAT"),
    )
    assert b"\r\ncontent-type: application/json\r\n" in answer("COMP-CONTENT-TYPE")
    assert b"\r\nallow: post, options\r\n" in answer("COMP-405-ALLOW")
    assert b"\r\nallow: post, options\r\n" in answer("COMP-OPTIONS-ALLOW")
    assert b"content-length" not in answer("COMP-NO-CL-IN-204")
    assert b"100 continue" not in answer("COMP-NO-1XX-HTTP10")
    assert answer("COMP-HEAD-NO-BODY").endswith(b"\r\n\r\n")
    assert b"secret-token" not in answer("COMP-TRACE-SENSITIVE")
    for case_id in ("COMP-CONNECTION-CLOSE", "COMP-HTTP10-DEFAULT-CLOSE"):
        assert b"\r\nconnection: close\r\n" in answer(case_id)
        assert not trials[case_id].waited


def test_the_document_tells_our_verdicts(trials: dict[str, Trial]) -> None:
    """The rows of docs/http.md that name cases of this suite."""
    document = (Path(__file__).parent.parent.parent / "docs/http.md").read_text("utf-8")
    told = 0
    for row in re.findall(r"^\| .* \|$", document, re.MULTILINE):
        _, _, cases, _, here, *_ = row.split("|")
        for case_id in CASES.keys() & set(re.findall(r"`([^` ]+)`", cases)):
            trial = trials[case_id]
            verdict_here = "accepted" if trial.served else str(trial.statuses[0])
            assert here.strip() == verdict_here, trial
            told += 1
    assert told == 23
    counts = [len([c for c in CASES.values() if c["verdicts"]]) - len(WARNED), len(WARNED)]
    assert f"{counts[0]} passed, {counts[1]} tolerated, none failed" in document
