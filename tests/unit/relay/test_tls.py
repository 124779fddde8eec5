"""TLS between a protocol and the loop's plain transport: what is called, in what order, whatever comes."""

import asyncio
import gc
import itertools
import ssl
import weakref
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.relay.tls_ends import TLS, VERSIONS, Ends, Heard, Keys, Peer

from filature.relay.tls import FED_BYTES, OWN_BYTES_MAX, RECORD_BYTES_MAX

SIDES = pytest.mark.parametrize("server", [True, False], ids=["server", "client"])
EVERY_VERSION = pytest.mark.parametrize("version", VERSIONS, ids=["1.2", "1.3"])

# What comes


@given(
    server=st.booleans(),
    version=st.sampled_from(VERSIONS),
    messages=st.lists(st.integers(0, 40_000), max_size=6),
    cuts=st.lists(st.integers(0, 2**31), max_size=40),
    ends=st.booleans(),
)
async def test_however_it_is_split_the_same_comes_in_order(
    server: bool, version: ssl.TLSVersion, messages: list[int], cuts: list[int], ends: bool
) -> None:
    said = [bytes([number]) * size for number, size in enumerate(messages)]
    ends_at = Ends(server=server, version=version).shaken(*cuts)
    wire = ends_at.peer.says(*said) + (ends_at.peer.ends() if ends else b"")
    ends_at.receive(wire, *cuts)
    assert ends_at.heard.data == b"".join(said)
    assert all(len(event) <= RECORD_BYTES_MAX for event in ends_at.heard.events)
    assert ends_at.heard.told == (["made", "eof"] if ends else ["made"])


@SIDES
@EVERY_VERSION
async def test_byte_by_byte(server: bool, version: ssl.TLSVersion) -> None:
    ends = Ends(server=server, version=version).shaken(*range(20_000))
    wire = ends.peer.says(b"one", b"x" * 300, b"three") + ends.peer.ends()
    for place in range(len(wire)):
        ends.receive(wire[place : place + 1])
    assert ends.heard.data == b"one" + b"x" * 300 + b"three"
    assert ends.heard.told == ["made", "eof"]


async def test_what_comes_with_the_end_of_the_handshake_is_delivered() -> None:
    ends = Ends(server=True)
    ends.peer.shake()
    ends.receive(ends.peer.sent())
    ends.tell_peer()
    ends.peer.shake()
    ends.receive(ends.peer.sent() + ends.peer.says(b"first") + ends.peer.ends())
    assert ends.heard.events == ["made", b"first", "eof"]


async def test_a_record_comes_as_one() -> None:
    """The relay looks at an event where it lies, if it lies in one piece."""
    ends = Ends(server=False).shaken()
    ends.receive(ends.peer.says(b"one", b"two") + ends.peer.says(b"z" * 20_000))
    assert ends.heard.events[1:] == [b"one", b"two", b"z" * 16_384, b"z" * 3_616]


# What is paused


@pytest.mark.parametrize("end", ["none", "fin", "close_notify"])
async def test_a_pause_holds_records_and_the_end_behind_them(end: str) -> None:
    ends = Ends(server=True).shaken().pausing()
    wire = ends.peer.says(b"one", b"two", b"three")
    ends.receive(wire + (ends.peer.ends() if end == "close_notify" else b""))
    if end == "fin":
        ends.plain.end()
    assert ends.heard.events == ["made", b"one"]
    await asyncio.sleep(0)
    assert ends.heard.events == ["made", b"one"]
    ends.heard.on_data = lambda _: None
    ends.tls.resume_reading()
    assert ends.heard.events == ["made", b"one"]  # a protocol is not called by its own call
    await asyncio.sleep(0)
    told = [] if end == "none" else ["eof"]
    assert ends.heard.events == ["made", b"one", b"two", b"three", *told]
    assert ends.plain.closed == (end != "none")


async def test_an_end_that_comes_in_a_pause_begun_by_the_last_record_is_told_after_it() -> None:
    ends = Ends(server=True).shaken()
    wire = ends.peer.says(b"one")
    ends.heard.on_data = lambda _: ends.tls.pause_reading()
    ends.receive(wire)
    ends.plain.end()
    assert ends.heard.events == ["made", b"one"]
    assert not ends.plain.closed
    ends.tls.resume_reading()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert ends.heard.events == ["made", b"one", "eof", "lost"]


async def test_no_more_is_read_before_what_had_come_is_taken() -> None:
    """Else each pause would leave more of it here, with a side that sends faster than it is read."""
    ends = Ends(server=True).shaken().pausing()
    ends.receive(ends.peer.says(*(b"%d" % number for number in range(5))))
    for number in range(1, 5):
        assert ends.plain.calls == ["pause"] * number
        ends.tls.resume_reading()
        assert ends.plain.calls == ["pause"] * number
        await asyncio.sleep(0)
    assert ends.heard.data == b"01234"
    ends.tls.resume_reading()
    await asyncio.sleep(0)
    assert ends.plain.calls == ["pause"] * 5 + ["resume"]


async def test_a_pause_that_follows_at_once_holds() -> None:
    ends = Ends(server=True).shaken().pausing()
    ends.receive(ends.peer.says(b"one", b"two"))
    ends.tls.resume_reading()
    ends.tls.pause_reading()
    await asyncio.sleep(0)
    assert ends.heard.data == b"one"
    assert "resume" not in ends.plain.calls


async def test_who_was_not_paused_has_nothing_to_resume() -> None:
    ends = Ends(server=True).shaken()
    ends.tls.resume_reading()
    await asyncio.sleep(0)
    assert ends.plain.calls == []


# What is written


@SIDES
@EVERY_VERSION
@pytest.mark.parametrize("size", [0, 1, 16_383, 16_384, 16_385, 100_000, 3 << 20])
async def test_what_is_written_arrives_whole(
    server: bool, version: ssl.TLSVersion, size: int
) -> None:
    ends = Ends(server=server, version=version).shaken()
    said = (bytes(range(256)) * (size // 256 + 1))[:size]
    ends.tls.write(said)
    ends.tls.write(b"|")
    ends.tell_peer()
    assert ends.peer.reads() == (said + b"|", False)


async def test_no_more_memory_is_kept_than_a_part_takes() -> None:
    """TLS keeps what it once held, and a connection that carried a large body may stand ready for hours."""
    ends = Ends(server=False).shaken()
    ends.tls.write(b"x" * (10 * FED_BYTES))
    parts = [len(call) for call in ends.plain.calls]
    assert len(parts) == 10
    assert max(parts) < FED_BYTES + 200


async def test_who_writes_hears_of_what_waits() -> None:
    ends = Ends(server=True).shaken()
    ends.plain.waiting = 4711
    assert ends.tls.get_write_buffer_size() == 4711
    ends.tls.pause_writing()
    ends.tls.resume_writing()
    assert ends.heard.told == ["made", "full", "empty"]
    ends.tls.set_write_buffer_limits(high=3, low=1)
    assert ends.plain.calls == ["limits 3 1"]


# Who is above


async def test_another_protocol_gets_what_is_behind() -> None:
    """A tunnel that turns round: the next request may come with the answer that turns it."""
    ends = Ends(server=True).shaken()
    other = Heard()
    ends.heard.on_data = lambda _: ends.tls.set_protocol(other)
    ends.receive(ends.peer.says(b"turn", b"request", b"s") + ends.peer.ends())
    await asyncio.sleep(0)
    assert ends.heard.events == ["made", b"turn"]
    assert other.events == [b"request", b"s", "eof", "lost"]


# How it ends


async def test_a_close_in_the_middle_sends_what_was_written_then_tls_s_end() -> None:
    ends = Ends(server=True).shaken()

    def answer(_: bytes) -> None:
        ends.tls.write(b"answer")
        ends.tls.close()
        assert ends.tls.is_closing()
        ends.tls.write(b"too late")
        ends.tls.close()

    ends.heard.on_data = answer
    ends.receive(ends.peer.says(b"one", b"two"))
    *records, last = ends.plain.calls
    assert (len(records), last) == (2, "close")
    ends.tell_peer()
    assert ends.peer.reads() == (b"answer", True)
    await asyncio.sleep(0)
    assert ends.heard.events == ["made", b"one", "lost"]
    ends.tls.write(b"too late")
    ends.tls.abort()
    ends.tls.close()
    assert ends.plain.calls == [*records, "close"]


async def test_an_abort_delivers_and_sends_no_more() -> None:
    ends = Ends(server=True).shaken()
    ends.heard.on_data = lambda _: ends.tls.abort()
    ends.receive(ends.peer.says(b"one", b"two"))
    ends.tls.write(b"answer")
    await asyncio.sleep(0)
    assert ends.heard.events == ["made", b"one", "lost"]
    assert ends.plain.calls == ["abort"]


async def test_who_waited_to_read_on_when_it_was_over_reads_nothing() -> None:
    ends = Ends(server=True).shaken().pausing()
    ends.receive(ends.peer.says(b"one", b"two"))
    ends.tls.resume_reading()
    ends.tls.abort()
    ends.plain.lose()
    await asyncio.sleep(0)
    ends.tls.resume_reading()
    await asyncio.sleep(0)
    assert ends.heard.events == ["made", b"one", "lost"]
    assert ends.plain.calls == ["pause", "abort"]


async def test_the_other_side_s_end_is_answered_by_ours() -> None:
    ends = Ends(server=True).shaken()
    ends.receive(ends.peer.says(b"bye") + ends.peer.ends())
    await asyncio.sleep(0)
    assert ends.heard.events == ["made", b"bye", "eof", "lost"]
    ends.tell_peer()
    assert ends.peer.reads() == (b"", True)
    assert ends.plain.calls[-1] == "close"


async def test_a_fin_is_an_end_too_and_half_a_record_before_it_nothing() -> None:
    ends = Ends(server=True).shaken()
    ends.receive(ends.peer.says(b"one") + ends.peer.says(b"two")[:-1])
    ends.plain.end()
    await asyncio.sleep(0)
    assert ends.heard.events == ["made", b"one", "eof", "lost"]
    ends.tell_peer()
    assert ends.peer.reads() == (b"", True)


@EVERY_VERSION
@pytest.mark.parametrize("behind", ["garbage", "tampered", "a record again"])
async def test_what_is_not_tls_ends_it_and_is_not_delivered(
    version: ssl.TLSVersion, behind: str
) -> None:
    ends = Ends(server=True, version=version).shaken()
    good = ends.peer.says(b"good")
    bad = {
        "garbage": b"GET / HTTP/1.1\r\n\r\n",
        "tampered": (record := ends.peer.says(b"bad"))[:-1] + bytes([record[-1] ^ 1]),
        "a record again": good,
    }[behind]
    ends.receive(good + bad + ends.peer.says(b"more"))
    await asyncio.sleep(0)
    assert ends.heard.events == ["made", b"good", "lost"]
    assert ends.plain.calls == ["abort"]


ENDINGS: dict[str, Callable[[Ends], None]] = {
    "closed": lambda ends: ends.tls.close(),
    "aborted": lambda ends: ends.tls.abort(),
    "its end": lambda ends: ends.receive(ends.peer.ends()),
    "its fin": lambda ends: ends.plain.end(),
    "reset": lambda ends: ends.plain.lose(ConnectionResetError()),
    "garbage": lambda ends: ends.receive(b"garbage"),
}


@pytest.mark.parametrize(("first", "then"), [*itertools.product(ENDINGS, repeat=2)])
async def test_it_is_lost_once(first: str, then: str) -> None:
    ends = Ends(server=True).shaken()
    ENDINGS[first](ends)
    ENDINGS[then](ends)
    await asyncio.sleep(0)
    ENDINGS[then](ends)
    await asyncio.sleep(0)
    assert ends.heard.events.count("lost") == 1
    assert ends.heard.events[-1] == "lost"
    assert ends.tls.is_closing()


async def test_nothing_is_left_of_it_for_the_collector() -> None:
    """Which looks seldom, and knows nothing of OpenSSL's memory."""
    ends = Ends(server=True).shaken()
    protocol = weakref.ref(ends.heard)
    ends.tls.close()
    await asyncio.sleep(0)
    gc.disable()
    try:
        del ends
        assert protocol() is None
    finally:
        gc.enable()


# The handshake


@SIDES
async def test_garbage_for_a_handshake_is_refused_and_nobody_hears_of_it(server: bool) -> None:
    ends = Ends(server=server)
    ends.receive(b"\x16\x03\x01\x00\x07garbage")
    assert isinstance(ends.plain.calls[-2], bytes)  # it is told why
    assert ends.plain.calls[-1] == "close"
    await asyncio.sleep(0)
    with pytest.raises(ssl.SSLError):
        await ends.tls.ready()
    assert ends.heard.events == []


@SIDES
@pytest.mark.parametrize("how", ["fin", "reset"])
async def test_a_handshake_that_is_cut_is_an_oserror(server: bool, how: str) -> None:
    ends = Ends(server=server)
    if server:
        ends.peer.shake()
        ends.receive(ends.peer.sent()[:-1])
    if how == "fin":
        ends.plain.end()
    else:
        ends.plain.lose(ConnectionResetError("it left"))
    with pytest.raises(ConnectionResetError):
        await ends.tls.ready()
    assert ends.heard.events == []


async def test_a_certificate_of_another_name_is_told_to_both() -> None:
    ends = Ends(server=False, name="elsewhere.example")
    ends.tell_peer()
    ends.peer.shake()
    ends.receive(ends.peer.sent())
    with pytest.raises(ssl.SSLCertVerificationError, match=r"elsewhere\.example"):
        await ends.tls.ready()
    ends.tell_peer()
    with pytest.raises(ssl.SSLError, match="ALERT"):
        ends.peer.session.do_handshake()
    assert ends.heard.events == []


@pytest.mark.parametrize("late", [False, True], ids=["in it", "as it ends"])
async def test_who_gives_up_a_handshake_leaves_nothing_open(late: bool) -> None:
    ends = Ends(server=False)
    waiting = asyncio.create_task(ends.tls.ready())
    await asyncio.sleep(0)
    if late:
        for _ in range(2):
            ends.tell_peer()
            ends.peer.shake()
            ends.receive(ends.peer.sent())
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert ends.plain.calls[-1] == "abort"
    await asyncio.sleep(0)
    assert ends.heard.events == (["made", "lost"] if late else [])


async def test_a_handshake_that_ends_when_nobody_waits_is_given_up() -> None:
    ends = Ends(server=False)
    ends.tls._shaken.cancel()
    ends.tell_peer()
    ends.peer.shake()
    ends.receive(ends.peer.sent())
    assert ends.plain.calls[-1] == "abort"
    assert ends.heard.events == []


# What TLS says by itself


def wishing(tmp_path: Path) -> tuple[Ends, Keys]:
    """A server whose client may want new keys, as Python's TLS never does."""
    ends = Ends(server=True)
    context = ssl.create_default_context(cafile=str(TLS / "cert.pem"))
    context.keylog_filename = str(tmp_path / "keys")
    ends.peer = Peer(context, server=False)
    ends.shaken()
    assert ends.peer.session.version() == "TLSv1.3"
    return ends, Keys.of_client(tmp_path / "keys")


async def test_new_keys_are_given_and_used(tmp_path: Path) -> None:
    ends, keys = wishing(tmp_path)
    ends.receive(keys.wish())
    ends.receive(keys.wish() + keys.wish())
    assert ends.heard.events == ["made"]
    ends.tls.write(b"by the new keys")
    assert sum(map(len, ends.plain.calls)) == 3 * 27 + 15 + 22  # all wishes are answered
    ends.tell_peer()
    assert ends.peer.reads() == (b"by the new keys", False)


async def test_new_keys_are_not_given_without_end(tmp_path: Path) -> None:
    """A side that reads none of them would have all of them kept for it."""
    ends, keys = wishing(tmp_path)
    for _ in range(OWN_BYTES_MAX // 20):
        ends.receive(keys.wish())
    assert ends.plain.calls[-1] == "abort"
    await asyncio.sleep(0)
    assert ends.heard.events == ["made", "lost"]
