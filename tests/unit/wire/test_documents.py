"""JSON documents in a row: where each ends, and what no document is."""

import math

import pytest

from filature.wire.documents import (
    DOCUMENT_BYTES_MAX,
    Document,
    DocumentSplitter,
    DocumentTooLarge,
    NotJson,
    parse_json,
)

ROW = [
    b'{"a":"}{[]","b":[{"c":"\\"}"}]}',
    b"[1,[2]]",
    b'"a string \\\\"',
    b"{}",
    b"null",
    b"-1.5e3",
]


def texts(splitter: DocumentSplitter, *pieces: bytes) -> list[bytes]:
    found = [document.text for piece in pieces for document in splitter.split(piece)]
    return found + [document.text for document in splitter.finish()]


@pytest.mark.parametrize("space", [b" ", b"\n", b"\r\n\t "])
def test_a_row_of_documents(space: bytes) -> None:
    stream = space + space.join(ROW) + space
    assert texts(DocumentSplitter(), stream) == ROW
    assert texts(DocumentSplitter(), *[bytes([byte]) for byte in stream]) == ROW


def test_without_white_space_between_them() -> None:
    row = [b"{}", b"[]", b'"x"', b"{}"]
    assert texts(DocumentSplitter(), b"".join(row)) == row


def test_what_stands_directly_inside_is_found() -> None:
    for pieces in ([b' {"a": {"b":1}, "c" :"d"}'], [b' {"', b'a": {"b":1}, "c', b'" :"d"}']):
        splitter = DocumentSplitter()
        found: list[Document] = []
        for piece in pieces:
            found += splitter.split(piece)
        (document,) = found
        strings = [document.text[start:end] for start, end in document.strings]
        assert strings == [b'"a"', b'"c"', b'"d"']
        assert document.space == b" "


def test_white_space_can_be_taken_at_once() -> None:
    splitter = DocumentSplitter()
    assert [document.text for document in splitter.split(b'{}\n\n {"a')] == [b"{}"]
    assert splitter.take_space() == b"\n\n "
    (document,) = splitter.split(b'":1}\n')
    assert document == Document(b"", b'{"a":1}', [(1, 4)])
    assert splitter.take_space() == b"\n"
    assert splitter.take_space() == b""


@pytest.mark.parametrize("text", [b"}", b"]", b",", b":", b"{}}", b"{},{}"])
def test_what_cannot_begin_a_document(text: bytes) -> None:
    splitter = DocumentSplitter()
    with pytest.raises(NotJson) as caught:
        splitter.split(text)
    handed_out = b"".join(document.text for document in caught.value.documents)
    assert handed_out + caught.value.rest == text


def test_what_is_left() -> None:
    splitter = DocumentSplitter()
    assert splitter.split(b'{"a": [1') == []
    assert splitter.finish() == []
    assert splitter.take_rest() == b'{"a": [1'
    assert splitter.kept_bytes == 0


def test_a_number_ends_with_the_input() -> None:
    splitter = DocumentSplitter()
    assert splitter.split(b"12") == []
    assert splitter.split(b"34") == []
    assert [document.text for document in splitter.finish()] == [b"1234"]


def test_bounds() -> None:
    splitter = DocumentSplitter(document_bytes_max=10)
    assert splitter.split(b'{}"345678') != []
    with pytest.raises(DocumentTooLarge) as caught:
        splitter.split(b"9012")
    assert caught.value.rest == b'"3456789012'
    assert DOCUMENT_BYTES_MAX == 128 * 1024 * 1024


def test_json_that_only_the_standard_library_takes() -> None:
    assert parse_json(b'{"a":"\\ud800"}') == {"a": "\ud800"}
    value = parse_json(b"[NaN]")
    assert isinstance(value, list)
    assert math.isnan(value[0])


@pytest.mark.parametrize("text", [b"", b"{", b"{} {}", b'"\xff"', b"nul", b"[" * 100_000])
def test_what_is_not_json(text: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - every kind of it
        parse_json(text)
