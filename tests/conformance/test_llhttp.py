"""llhttp's own test cases against the running proxy, and its responses against what reads an engine's.

Every request is sent twice: as it is, and with a target that is served and a ``Host``, so that it is
its framing that is judged. ``strict_ok`` false must be refused; where we refuse what llhttp accepts,
a table says why.
"""

import json
import re
from pathlib import Path
from typing import Any, Final

import pytest
from tests.conformance.replay import Trial, addressed_to_the_api, replay

from filature.relay.http1 import ChunkedDecoder, ProtocolError, parse_response_head

CASES: Final[list[dict[str, Any]]] = json.loads(
    (Path(__file__).parent.parent / "data/conformance/llhttp.json").read_text("utf-8")
)["cases"]
REQUESTS: Final = {
    f"{number} {case['id'].removeprefix('request/')}": case
    for number, case in enumerate(CASES)
    if case["kind"] == "request"
}
RESPONSES: Final = {
    f"{number} {case['id'].removeprefix('response/')}": case
    for number, case in enumerate(CASES)
    if case["kind"] == "response"
}

FIRST_ONLY: Final = (
    "No restart when keep-alive is off (1.0)",
    "Resetting flags when keep-alive is off (1.0, lenient)",
    "CRLF between requests, explicit `close`",
    "CRLF between requests, explicit `close` followed by tab",
    "CRLF between requests, explicit `close` (lenient)",
)
"""llhttp calls bytes behind a last request an error. We answer that request, read no further, and close."""

STRICTER: Final = {
    "`Content-Length` with zeroes": "leading zeros: some read the number as octal",
    "`Content-Length` with follow-up headers": "leading zeros: some read the number as octal",
    "CONNECT request": "no tunnels are made; the target is no path",
    "CONNECT request with CAPS": "no tunnels are made; the target is no path",
    "CONNECT with body": "no tunnels are made; the target is no path",
    "Underscore in hostname": "no tunnels are made; the target is no path",
    "M-SEARCH request": "the target * is for OPTIONS only",
    "SOURCE request with ICE": "another protocol",
    "OPTIONS request with RTSP": "another protocol",
    "ANNOUNCE request with RTSP": "another protocol",
    "No HTTP version": "HTTP/0.9 has no heads and no framing",
    "POST with `chunked` as last transfer-encoding": "the only coding served is chunked",
    "POST with `chunked` as last transfer-encoding (multiple headers)": "the only coding served is chunked",
}
"""Accepted by llhttp, refused here, with the reason."""

STRICTER_AS_IT_IS: Final = {
    "Fragment in URI": "a fragment is not sent (RFC 9112, 3.2)",
    "`host:port` and basic auth": "a user's name and password in a target are not sent (RFC 9110, 4.2.4)",
}
"""The same for targets, which only the cases as they are have."""


def name_of(key: str) -> str:
    return key.partition(": ")[2]


@pytest.fixture(scope="module")
def as_they_are() -> dict[str, Trial]:
    return dict(zip(REQUESTS, replay([bytes_of(c) for c in REQUESTS.values()]), strict=True))


@pytest.fixture(scope="module")
def to_the_api() -> dict[str, Trial]:
    requests = [addressed_to_the_api(bytes_of(case)) for case in REQUESTS.values()]
    return dict(zip(REQUESTS, replay(requests), strict=True))


def bytes_of(case: dict[str, Any]) -> bytes:
    data: str = case["bytes"]
    return data.encode("latin1")


def has_host(request: bytes) -> bool:
    return b"HTTP/1.1" not in request or re.search(rb"(?i)\nhost:", request) is not None


def is_rejected(case: dict[str, Any]) -> bool:
    """Whether llhttp rejects it, or accepts it only by one of its lenient flags."""
    return case["lenient"] or not case["strict_ok"]


@pytest.mark.parametrize("key", [key for key, case in REQUESTS.items() if is_rejected(case)])
def test_what_llhttp_rejects_is_refused(
    key: str, as_they_are: dict[str, Trial], to_the_api: dict[str, Trial]
) -> None:
    for trial in (as_they_are[key], to_the_api[key]):
        if name_of(key) in FIRST_ONLY:
            assert trial.accepted == 1, trial
            assert len(trial.statuses) == 1, trial
            assert b"\r\nconnection: close\r\n" in trial.answer
            assert not trial.waited
        elif trial is as_they_are[key] and trial.accepted:
            # the head is no error: its unknown target ends it, and with it the connection
            assert trial.statuses == [404], trial
            assert to_the_api[key].refused, to_the_api[key]
        else:
            assert trial.refused, trial
            assert b"\r\nconnection: close\r\n" in trial.answer
            assert trial.accepted <= REQUESTS[key]["messages_complete"], trial


@pytest.mark.parametrize("key", [key for key, case in REQUESTS.items() if not is_rejected(case)])
def test_what_llhttp_accepts_is_accepted_or_the_table_says_why(
    key: str, as_they_are: dict[str, Trial], to_the_api: dict[str, Trial]
) -> None:
    case, name = REQUESTS[key], name_of(key)
    for trial in (as_they_are[key], to_the_api[key]):
        if name in STRICTER or (trial is as_they_are[key] and not_as_it_is(name, trial)):
            assert trial.refused, trial
            assert trial.accepted == 0
        elif case["messages_complete"] and not case["meta"].get("skipBody"):
            assert trial.accepted >= 1, trial
            assert not trial.incomplete or case["upgrade"]  # no upgrade: what follows is a request
        else:
            assert trial.incomplete or trial.accepted, trial  # the case ends early


def not_as_it_is(name: str, trial: Trial) -> bool:
    return name in STRICTER_AS_IT_IS or not has_host(trial.sent)


def test_the_tables_name_cases_that_exist() -> None:
    names = {name_of(key) for key in REQUESTS}
    assert {*FIRST_ONLY, *STRICTER, *STRICTER_AS_IT_IS} <= names


def test_bodies_are_what_llhttp_reads(to_the_api: dict[str, Trial]) -> None:
    """The first message's body, where both accept it."""
    compared = 0
    for key, trial in to_the_api.items():
        case = REQUESTS[key]
        if is_rejected(case) or not trial.served or case["upgrade"]:
            continue
        expected = first_body(case)
        if expected is not None:
            assert trial.served[0][2] == expected, trial
            compared += bool(expected)
    assert compared >= 15


def first_body(case: dict[str, Any]) -> bytes | None:
    """The body of the first message that is not interim, where the log tells it plainly."""
    log: str = case["log"]
    if not case["bytes"].startswith("HTTP/1.1 1"):
        log = log.partition("message complete")[0]
    if re.search(r'span\[body\]=(?:[^"]|".*\\)', log):
        return None
    return "".join(re.findall(r'span\[body\]="(.*)"\n', log)).encode("latin1")


# Responses

STRICTER_RESPONSES: Final = {
    "RTSP response": "another protocol",
    "ICE response": "another protocol",
    "HTTP version 0.9": "has no heads and no framing",
    "`chunked` before other transfer-encoding": "the only coding served is chunked",
    "multiple transfer-encoding where chunked is not the last one": "the only coding served is chunked",
    "`chunkedchunked` transfer-encoding does not enable chunked enconding": "the only coding served is chunked",
    "Response starting with CRLF": "an empty line may stand before a request, not before a response",
    "HTTP 100 first, then 400": "an empty line behind the 100, which we never ask for",
}
FIRST_ONLY_RESPONSES: Final = (
    "HTTP/1.1 with keep-alive disabled and 204 status",
    "HTTP/1.1 with keep-alive disabled, content-length",
    "HTTP/1.1 with keep-alive disabled, content-length (lenient)",
    "HTTP/1.1 with keep-alive disabled and 204 status (lenient)",
)
"""Bytes behind a last answer: the answer is taken, the connection is closed."""
_BODILESS: Final = (204, 304)


def read_response(data: bytes) -> bytes:
    """The first message's body as ``UpstreamConnection`` reads it. Raises ProtocolError."""
    while True:
        end = data.find(b"\r\n\r\n") + 4
        if end < 4:
            raise ProtocolError("the head never ends")
        head = parse_response_head(data[:end])
        data = data[end:]
        if head.status >= 200 or head.status == 101:
            break
    if head.status in _BODILESS or head.status == 101:
        return b""
    if head.chunked:
        return ChunkedDecoder().feed(data)
    return data if head.content_length is None else data[: head.content_length]


@pytest.mark.parametrize("key", [key for key, case in RESPONSES.items() if is_rejected(case)])
def test_responses_that_llhttp_rejects_are_refused(key: str) -> None:
    data = bytes_of(RESPONSES[key])
    if name_of(key) in FIRST_ONLY_RESPONSES:
        read_response(data)
        assert not parse_response_head(data[: data.find(b"\r\n\r\n") + 4]).keep_alive
    else:
        with pytest.raises(ProtocolError):
            read_response(data)


@pytest.mark.parametrize("key", [key for key, case in RESPONSES.items() if not is_rejected(case)])
def test_responses_that_llhttp_accepts_are_read_or_the_table_says_why(key: str) -> None:
    case = RESPONSES[key]
    if name_of(key) in STRICTER_RESPONSES:
        with pytest.raises(ProtocolError):
            read_response(bytes_of(case))
        return
    body = read_response(bytes_of(case))
    expected = first_body(case)
    if case["messages_complete"] and not case["meta"].get("skipBody") and not case["upgrade"]:
        assert expected in (None, body)


def test_the_tables_name_responses_that_exist() -> None:
    names = {name_of(key) for key in RESPONSES}
    assert {*STRICTER_RESPONSES, *FIRST_ONLY_RESPONSES} <= names


def test_the_document_tells_our_verdicts(
    as_they_are: dict[str, Trial], to_the_api: dict[str, Trial]
) -> None:
    """The cases of this suite that docs/http.md names are refused, as it says."""
    document = (Path(__file__).parent.parent.parent / "docs/http.md").read_text("utf-8")
    rows = [row.split("|") for row in re.findall(r"^\| .* \|$", document, re.MULTILINE)]
    told = 0
    for key in REQUESTS:
        for _, _, cases, _, here, *_ in rows:
            if f"`{name_of(key)}`" in cases or f"`` {name_of(key)} ``" in cases:
                trial = as_they_are[key] if as_they_are[key].refused else to_the_api[key]
                assert [here.strip()] == [str(status) for status in trial.statuses]
                told += 1
    assert told == 9
