"""Event streams as blocks: where they end, what they say, how one is rewritten."""

import time

import pytest

from filature.wire.sse import (
    EVENT_BYTES_MAX,
    Event,
    EventSplitter,
    EventTooLarge,
    parse_event,
    replace_data,
    terminate,
)


def split(*pieces: bytes) -> tuple[list[bytes], bytes]:
    splitter = EventSplitter()
    blocks = [block for piece in pieces for block in splitter.split(piece)]
    return blocks, splitter.take_rest()


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
def test_a_block_ends_at_its_blank_line(end: bytes) -> None:
    stream = (
        (b"data: 1" + end + end) + (b"event: x" + end + b"data: 2" + end + end) + b"data: 3" + end
    )
    blocks, rest = split(stream)
    assert b"".join(blocks) + rest == stream
    assert [parse_event(block).data for block in blocks if block.strip(b"\r\n")] == [b"1", b"2"]
    assert rest == b"data: 3" + end


@pytest.mark.parametrize(
    ("stream", "blocks"),
    [
        (b"a\n\nb\n\n", [b"a\n\n", b"b\n\n"]),
        (b"a\r\n\r\nb\r\n\r\n", [b"a\r\n\r", b"\n", b"b\r\n\r", b"\n"]),
        (b"a\r\rb\r\r", [b"a\r\r", b"b\r\r"]),
        (b"a\n\rb\r\n\n", [b"a\n\r", b"b\r\n\n"]),
        (b"a\r\nb\n\r\nc\r\n\r", [b"a\r\nb\n\r", b"\n", b"c\r\n\r"]),
        (b"\n\na\n\n\n", [b"\n\n", b"a\n\n", b"\n"]),
        (b"\r\na\n\n", [b"\r\n", b"a\n\n"]),
    ],
)
def test_mixed_line_ends(stream: bytes, blocks: list[bytes]) -> None:
    assert split(stream) == (blocks, b"")
    one_by_one, rest = split(*[stream[at : at + 1] for at in range(len(stream))])
    assert b"".join(one_by_one) == stream
    assert rest == b""
    said = [block for block in blocks if block.strip(b"\r\n")]
    assert [block for block in one_by_one if block.strip(b"\r\n")] == said


def test_an_event_in_cr_does_not_wait_for_what_may_follow() -> None:
    splitter = EventSplitter()
    assert splitter.split(b"data: 1\r\r") == [b"data: 1\r\r"]
    assert splitter.split(b"\n") == [b"\n"]
    assert splitter.split(b"data: 2\r\n\r") == [b"data: 2\r\n\r"]
    assert splitter.split(b"\ndata: 3\n\n") == [b"\n", b"data: 3\n\n"]


@pytest.mark.parametrize(
    ("block", "name", "data"),
    [
        (b"data: 1\n\n", b"", b"1"),
        (b"data:1\n\n", b"", b"1"),
        (b"data:  1 \n\n", b"", b" 1 "),
        (b"data\n\n", b"", b""),
        (b"data:\ndata\ndata: x\n\n", b"", b"\n\nx"),
        (b"data: 1\r\ndata: 2\rdata: 3\n\n", b"", b"1\n2\n3"),
        (b"event: a\nevent: b\ndata: 1\n\n", b"b", b"1"),
        (b"event\ndata: 1\n\n", b"", b"1"),
        (b"event: x\nid: 7\nretry: 1\n\n", b"x", None),
        (b": data: 1\n\n", b"", None),
        (b" data: 1\ndatab: 2\nDATA: 3\n\n", b"", None),
        (b"\n\n", b"", None),
        (b"data: a:b\n\n", b"", b"a:b"),
        (b"data: \xff\x00\n\n", b"", b"\xff\x00"),
        (b"data: unfinished", b"", b"unfinished"),
        (b"event: x\r\ndata: unfinished\r", b"x", b"unfinished"),
    ],
)
def test_what_a_block_says(block: bytes, name: bytes, data: bytes | None) -> None:
    event = parse_event(block)
    assert (event.name, event.data) == (name, data)
    assert len(event.spans) == (0 if data is None else data.count(b"\n") + 1)


@pytest.mark.parametrize(
    ("block", "data", "result"),
    [
        (b"data: old\n\n", b"new", b"data: new\n\n"),
        (b": c\r\ndata:old\r\nid: 1\r\n\r", b"new", b": c\r\ndata:new\r\nid: 1\r\n\r"),
        (b"data: a\nid: 1\ndata: b\n\n", b"new", b"data: new\nid: 1\n\n"),
        (b"data: a\rid: 1\rdata: b\r\r", b"x\ny", b"data: x\rdata: y\rid: 1\r\r"),
        (b"id: 1\ndata\ndata: b\n: c\n\n", b"new", b"id: 1\ndata: new\n: c\n\n"),
        (b"data: old\n\n", b"x\r\ny", b"data: x\ndata: y\n\n"),
        (b"data\n\n", b"new", b"data: new\n\n"),
        (b"data: a\rdata: b\n\n", b"new", b"data: new\r\n\n"),
        (b"data: a\rdata: b\n\n", b"x\ny", b"data: x\rdata: y\r\n\n"),
        (b"data: a\rid: 1\rdata: b\r\n\n", b"new", b"data: new\rid: 1\r\n\n"),
        (b"data: a\r\ndata: b\n\n", b"new", b"data: new\r\n\n"),
    ],
)
def test_other_data_in_its_place(block: bytes, data: bytes, result: bytes) -> None:
    assert replace_data(block, parse_event(block), data) == result
    blocks, rest = split(result)
    assert rest == b"", "its blank line is there"
    assert parse_event(blocks[0]).data == data.replace(b"\r\n", b"\n")


def test_an_event_of_very_many_lines_is_edited_in_a_moment() -> None:
    """Whoever writes one must not hold up everybody else."""
    block = b"data: [\n" + b"id: 1\ndata:0,\n" * 30_000 + b"data: 0]\n\n"
    event = parse_event(block)
    began = time.process_time()
    edited = replace_data(block, event, b"new")
    assert time.process_time() - began < 2
    assert edited == b"data: new\n" + b"id: 1\n" * 30_000 + b"\n"


@pytest.mark.parametrize(
    ("tail", "block"),
    [
        (b"data: 1", b"data: 1\n\n"),
        (b"data: 1\n", b"data: 1\n\n"),
        (b"data: 1\r\n", b"data: 1\r\n\r\n"),
        (b"data: 1\r", b"data: 1\r\r"),
        (b": x\r\ndata: 1", b": x\r\ndata: 1\r\n\r\n"),
        (b": x\rdata: 1", b": x\rdata: 1\r\r"),
    ],
)
def test_the_blank_line_that_lacks(tail: bytes, block: bytes) -> None:
    assert terminate(tail) == block
    assert parse_event(terminate(tail)).data == b"1"


class TestBounds:
    def test_an_unfinished_event(self) -> None:
        splitter = EventSplitter(event_bytes_max=20)
        assert splitter.split(b"a\n\n" + b"x" * 20) == [b"a\n\n"]
        assert splitter.kept_bytes == 20
        with pytest.raises(EventTooLarge) as caught:
            splitter.split(b"y")
        assert caught.value.blocks == []
        assert caught.value.rest == b"x" * 20 + b"y"
        assert splitter.kept_bytes == 0

    def test_a_whole_one(self) -> None:
        splitter = EventSplitter(event_bytes_max=20)
        with pytest.raises(EventTooLarge) as caught:
            splitter.split(b"a\n\n" + b"x" * 19 + b"\n\nb\n\n")
        assert caught.value.blocks == [b"a\n\n"]
        assert caught.value.rest == b"x" * 19 + b"\n\nb\n\n"
        assert EventSplitter(event_bytes_max=20).split(b"x" * 18 + b"\n\n") == [b"x" * 18 + b"\n\n"]

    def test_the_limit(self) -> None:
        assert EVENT_BYTES_MAX == 16 * 1024 * 1024


def test_an_event_is_what_it_is_called() -> None:
    assert parse_event(b"data: 1\n\n") == Event(b"", b"1", [(6, 7)])


@pytest.mark.parametrize(
    ("block", "last_id"),
    [
        (b"data: 1\n\n", None),
        (b"id: 7\ndata: 1\n\n", b"7"),
        (b"data: 1\r\nid:7\r\n\r", b"7"),
        (b"id: 7\nid: 8\n\n", b"8"),
        (b"id\n\n", b""),
        (b"data: 1\nid:\n\n", b""),
        (b": id: 7\nids: 7\n id: 7\ndata: id: 7\n\n", None),
    ],
)
def test_the_id_of_an_event(block: bytes, last_id: bytes | None) -> None:
    assert parse_event(block).last_id == last_id
