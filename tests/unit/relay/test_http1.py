"""HTTP/1.1 heads and chunked framing: what is read, and what is refused because it is ambiguous."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from filature.relay.http1 import (
    HEADS_KEPT_MAX,
    ChunkedDecoder,
    HeadCache,
    ProtocolError,
    RequestHead,
    parse_request_head,
    parse_response_head,
    refuse_early,
)


def request(*lines: str, start: str = "POST /v1/x HTTP/1.1", host: str | None = "a:80") -> bytes:
    fields = ([] if host is None else [f"Host: {host}"]) + list(lines)
    return "\r\n".join([start, *fields, "", ""]).encode("latin-1")


def test_a_request_head_is_read() -> None:
    head = parse_request_head(
        request(
            "Content-Length: 12",
            "X-A: 1",
            "x-a:  2 ",
            start="POST /v1/x?q=1#".rstrip("#") + " HTTP/1.1",
        )
    )
    assert (head.method, head.path, head.query) == ("POST", "/v1/x", "?q=1")
    assert head.content_length == 12
    assert head.headers[b"x-a"] == b"1, 2"
    assert head.keep_alive
    assert not head.chunked


@pytest.mark.parametrize(
    ("version", "connection", "kept"),
    [
        ("1.1", None, True),
        ("1.1", "close", False),
        ("1.1", "Keep-Alive, Close", False),
        ("1.0", None, False),
        ("1.0", "keep-alive", True),
    ],
)
def test_keep_alive(version: str, connection: str | None, kept: bool) -> None:
    lines = [] if connection is None else [f"Connection: {connection}"]
    assert parse_request_head(request(*lines, start=f"GET / HTTP/{version}")).keep_alive is kept


@pytest.mark.parametrize(
    ("target", "path", "query"),
    [
        ("/", "/", ""),
        ("/a/b?x=/y?z", "/a/b", "?x=/y?z"),
        ("http://a:80/v1", "/v1", ""),
        ("http://A:80", "/", ""),
        ("*", "*", ""),
    ],
)
def test_targets(target: str, path: str, query: str) -> None:
    head = parse_request_head(request(start=f"OPTIONS {target} HTTP/1.1"))
    assert (head.path, head.query) == (path, query)


AMBIGUOUS = {
    "two lengths": request("Content-Length: 5", "Content-Length: 5"),
    "length list": request("Content-Length: 5, 5"),
    "length with sign": request("Content-Length: +5"),
    "length with underscore": request("Content-Length: 1_0"),
    "length with leading zero": request("Content-Length: 05"),
    "length and coding": request("Content-Length: 5", "Transfer-Encoding: chunked"),
    "coding list": request("Transfer-Encoding: chunked, chunked"),
    "other coding": request("Transfer-Encoding: gzip"),
    "two codings": request("Transfer-Encoding: chunked", "Transfer-Encoding: chunked"),
    "coding in 1.0": request("Transfer-Encoding: chunked", start="POST / HTTP/1.0"),
    "folded": request("X-A: 1", " 2"),
    "folded coding": request("Transfer-Encoding:", " chunked"),
    "space before colon": request("Content-Length : 5"),
    "bare LF": b"GET / HTTP/1.1\r\nHost: a\nX: y\r\n\r\n",
    "bare CR": b"GET / HTTP/1.1\r\nHost: a\r\nX: a\rb\r\n\r\n",
    "NUL": b"GET / HTTP/1.1\r\nHost: a\r\nX: a\0b\r\n\r\n",
    "no host": request(host=None),
    "two hosts": request("Host: b"),
    "empty host": request(host=""),
    "host with user": request(host="u@a"),
    "host with path": request(host="a/b"),
    "host list": request(host="a,b"),
    "other authority": request(start="GET http://b/ HTTP/1.1", host="a"),
    "fragment": request(start="GET /a#b HTTP/1.1"),
    "relative target": request(start="GET a HTTP/1.1"),
    "two spaces": request(start="GET  / HTTP/1.1"),
    "tab": request(start="GET\t/ HTTP/1.1"),
    "no version": request(start="GET /"),
    "0.9": request(start="GET / HTTP/0.9"),
    "2.0": request(start="GET / HTTP/2.0"),
    "long version": request(start="GET / HTTP/1.10"),
    "non-ASCII target": request(start="GET /\xe9 HTTP/1.1"),
}


@pytest.mark.parametrize("name", AMBIGUOUS)
def test_an_ambiguous_request_head_is_refused(name: str) -> None:
    with pytest.raises(ProtocolError):
        parse_request_head(AMBIGUOUS[name])


@pytest.mark.parametrize(
    "partial",
    [
        b"GET / HTTP/1.1\nHost: a",
        b"GET /\0",
        b"\x16\x03\x01\x02",
        b"NOT A REQUEST\r\n",
        b"GET / HTTP/1.1\rX",
    ],
)
def test_what_cannot_become_a_head_is_refused_before_its_end(partial: bytes) -> None:
    with pytest.raises(ProtocolError):
        refuse_early(partial)


@pytest.mark.parametrize(
    "partial", [b"G", b"GET / HTTP/1.1", b"GET / HTTP/1.1\r", b"GET / HTTP/1.1\r\nHo"]
)
def test_the_start_of_a_head_is_awaited(partial: bytes) -> None:
    refuse_early(partial)


def test_a_response_head_is_read() -> None:
    head = parse_response_head(b"HTTP/1.1 200 OK\r\nContent-Type: a/b\r\nContent-Length: 3\r\n\r\n")
    assert (head.status, head.content_type, head.content_length) == (200, b"a/b", 3)
    assert head.keep_alive
    close_delimited = parse_response_head(b"HTTP/1.1 200 OK\r\n\r\n")
    assert close_delimited.content_length is None
    assert not close_delimited.keep_alive


@pytest.mark.parametrize(
    "fields",
    [
        b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n",
        b"Content-Length: 3\r\nContent-Length: 4\r\n",
        b"Transfer-Encoding: gzip, chunked\r\n",
    ],
)
def test_an_ambiguous_response_head_is_refused(fields: bytes) -> None:
    with pytest.raises(ProtocolError):
        parse_response_head(b"HTTP/1.1 200 OK\r\n" + fields + b"\r\n")


def test_the_head_cache_parses_once_and_is_bounded() -> None:
    parsed: list[bytes] = []

    def parse(head: bytes) -> RequestHead:
        parsed.append(head)
        return parse_request_head(head)

    cache = HeadCache(parse)
    head = request("X: 1")
    assert cache.parse(head) is cache.parse(bytes(bytearray(head)))
    assert len(parsed) == 1
    for number in range(HEADS_KEPT_MAX):
        cache.parse(request(f"X: a{number}"))
    cache.parse(head)
    assert parsed.count(head) == 2
    long = request("X: " + "y" * 4096)
    assert cache.parse(long) is not cache.parse(long)


chunks = st.lists(st.binary(min_size=1, max_size=40), max_size=8)


@given(
    payloads=chunks,
    cuts=st.lists(st.integers(0, 400)),
    extension=st.sampled_from([b"", b";a", b"; a=b"]),
)
def test_chunked_framing_comes_off_however_it_is_cut(
    payloads: list[bytes], cuts: list[int], extension: bytes
) -> None:
    body = b"".join(b"%x%b\r\n%b\r\n" % (len(p), extension, p) for p in payloads)
    body += b"0\r\nX-T: 1\r\n\r\n"
    stream = body + b"NEXT"
    edges = sorted({0, len(stream), *(cut for cut in cuts if cut < len(stream))})
    decoder, out, rest = ChunkedDecoder(), b"", b""
    for start, end in itertools.pairwise(edges):
        if decoder.done:
            rest += stream[start:end]
            continue
        out += decoder.feed(stream[start:end])
        rest += decoder.rest
    assert decoder.done
    assert out == b"".join(payloads)
    assert rest == b"NEXT"


@given(payloads=chunks, cut=st.integers(0, 300))
def test_whole_says_that_the_bytes_may_go_on_as_they_came(payloads: list[bytes], cut: int) -> None:
    framed = [b"%x\r\n%b\r\n" % (len(p), p) for p in payloads]
    body = b"".join(framed)
    decoder = ChunkedDecoder()
    for data in (body[:cut], body[cut:]):
        at_boundary = decoder.at_boundary
        payload = decoder.feed(data)
        if decoder.whole and payload:
            assert at_boundary
            again = ChunkedDecoder()
            assert again.feed(data) == payload
            assert again.at_boundary
    assert decoder.at_boundary


def test_a_plain_chunk_is_told_from_all_else() -> None:
    decoder = ChunkedDecoder()
    assert decoder.plain_chunk(b"5\r\nhello\r\n") == b"hello"
    for other in (
        b"5\r\nhello\r\n5\r\nhello\r\n",
        b"5;a\r\nhello\r\n",
        b"0x5\r\nhello\r\n",
        b"1_0\r\n0123456789abcdef\r\n",
        b"+5\r\nhello\r\n",
        b" 5\r\nhello\r\n",
        b"5\r\nhell\r\n",
        b"5\r\nhello\n\n",
        b"0\r\n\r\n",
        b"\r\n",
        b"",
    ):
        assert decoder.plain_chunk(other) is None, other
    decoder.feed(b"5\r\nhel")
    assert decoder.plain_chunk(b"5\r\nhello\r\n") is None


@pytest.mark.parametrize(
    "body",
    [
        b"0x5\r\nhello\r\n",
        b"1_0\r\n0123456789abcdef\r\n",
        b"+5\r\nhello\r\n",
        b"-1\r\nhello\r\n",
        b" 5\r\nhello\r\n",
        b"5 \r\nhello\r\n",
        b"5;\r\nhello\r\n",
        b"5;bad[=x\r\nhello\r\n",
        b"5;a=b\nhello\r\n",
        b"5\nhello\r\n",
        b"5\r\nhello0\r\n\r\n",
        b"5\r\nhello!!\r\n",
        b"FFFFFFFFFFFFFFFF0\r\n",
        b"\r\nhello",
        b"5;" + b"a" * 300,
        b"0\r\nContent-Length: 5\r\n\r\n",
        b"0\r\nbad trailer\r\n\r\n",
        b"0\r\n" + b"X: y\r\n" * 2000,
    ],
)
def test_bad_chunk_framing_is_refused(body: bytes) -> None:
    for size in (1, len(body)):
        with pytest.raises(ProtocolError):
            feed_in_pieces(body, size)


def feed_in_pieces(body: bytes, size: int) -> None:
    decoder = ChunkedDecoder()
    for at in range(0, len(body), size):
        decoder.feed(body[at : at + size])
