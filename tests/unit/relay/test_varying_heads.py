"""Heads of which known lines differ: the same as if each were parsed as a whole, and their rest is parsed once."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from filature.relay.http1 import ProtocolError, RequestHead, parse_request_head
from filature.relay.varying_heads import VaryingHeads

HEAD = (
    b"POST /v1/chat/completions HTTP/1.1\r\nhost: worker\r\naccept: */*\r\nx-ticket: %b\r\nx-request-id: %b\r\n"
    b"content-length: 7\r\n\r\n"
)


def fields(head: RequestHead) -> tuple[object, ...]:
    return (
        head.method,
        head.path,
        head.query,
        head.http_minor,
        head.headers,
        head.content_length,
        head.chunked,
        head.keep_alive,
        head.expect_continue,
    )


def parsed(parse: object, head: bytes) -> object:
    try:
        return fields(parse(head))  # type: ignore[operator]
    except ProtocolError as error:
        return str(error)


@pytest.mark.parametrize(
    ("ticket", "request_id"),
    [
        (b"abc", b"r1"),
        (b"abc", b"r2"),
        (b"", b""),
        (b"a b", b"\xc3\xa9"),
        (b" a ", b"a\tb"),
        (b"", b"! "),
        (b"a\nb", b"r"),
        (b"a\r\nx-ticket: b", b"r"),
        (b"a\r\ntransfer-encoding: chunked", b"r"),
    ],
)
def test_what_is_read_is_what_a_whole_parse_reads(ticket: bytes, request_id: bytes) -> None:
    heads = VaryingHeads(b"x-ticket", b"x-request-id")
    head = HEAD % (ticket, request_id)
    for _ in range(2):
        assert parsed(heads.parse, head) == parsed(parse_request_head, head)


@given(st.binary(max_size=40), st.binary(max_size=20))
def test_whatever_is_in_them(ticket: bytes, request_id: bytes) -> None:
    heads = VaryingHeads(b"x-ticket", b"x-request-id")
    head = HEAD % (ticket, request_id)
    assert parsed(heads.parse, head) == parsed(parse_request_head, head)


def test_each_has_its_own_and_the_rest_is_parsed_once() -> None:
    heads = VaryingHeads(b"x-ticket", b"x-request-id")
    first, second = heads.parse(HEAD % (b"a", b"1")), heads.parse(HEAD % (b"b", b"2"))
    assert (first.headers[b"x-ticket"], second.headers[b"x-ticket"]) == (b"a", b"b")
    assert len(heads._kept) == 1
