"""Members of an object's text: where they stand, and edits that leave the rest alone."""

import time

import orjson
import pytest

from filature.wire.members import Member, member_at, members
from filature.wire.splice import (
    decoded_key,
    find_members,
    with_members,
    without_member,
    without_members,
)

TEXT = b' { "a" : 1 ,"b":{"a":[1,{"c":"}"}]}, "c\\"d":"x\\\\" , "e":null,"f":[],"a":-1.5e3 } '


def test_members_in_order() -> None:
    found = members(TEXT)
    assert [key for key, _ in found] == [b"a", b"b", b'c\\"d', b"e", b"f", b"a"]
    values = [TEXT[member.value_start : member.value_end] for _, member in found]
    assert values == [b"1", b'{"a":[1,{"c":"}"}]}', b'"x\\\\"', b"null", b"[]", b"-1.5e3"]
    assert all(TEXT[member.key_start] == 0x22 for _, member in found)


@pytest.mark.parametrize("text", [b"{}", b" { } ", b'[{},{"a":1}]'])
def test_an_empty_object(text: bytes) -> None:
    assert members(text) == []


def test_an_object_further_on() -> None:
    assert members(b'{"a":{"b":2}}', 1) == [(b"b", Member(6, 10, 11))]


def test_a_member_by_its_place() -> None:
    for _, member in members(TEXT):
        assert member_at(TEXT, member.key_start) == member


def test_by_name_with_escapes_and_twice() -> None:
    text = b'{"usage":1,"\\u0075sage":2,"x":{"usage":3},"usag\\u0065":4,"usage ":5}'
    values = [text[m.value_start : m.value_end] for m in find_members(text, "usage")]
    assert values == [b"1", b"2", b"4"]
    assert decoded_key(b"\\u0061\\n") == "a\n"
    assert decoded_key(b"\\ud800") is None


@pytest.mark.parametrize(
    ("text", "name", "left"),
    [
        (b'{"a":1}', "a", b"{}"),
        (b'{ "a":1 }', "a", b"{  }"),
        (b'{"a":1,"b":2}', "a", b'{"b":2}'),
        (b'{"a":1,"b":2}', "b", b'{"a":1}'),
        (b'{"a":1 , "b":[2] , "c":3}', "b", b'{"a":1  , "c":3}'),
        (b'{ "a":{"x":","} ,\n "b":2}', "a", b'{ "b":2}'),
    ],
)
def test_one_less(text: bytes, name: str, left: bytes) -> None:
    (member,) = find_members(text, name)
    assert without_member(text, member) == left
    assert name not in orjson.loads(left)


@pytest.mark.parametrize(
    ("text", "result"),
    [
        (b"{}", b'{"n":1}'),
        (b"{ }", b'{"n":1 }'),
        (b'{"a":1}', b'{"a":1,"n":1}'),
        (b'{"a":{} \n}', b'{"a":{},"n":1 \n}'),
    ],
)
def test_one_more(text: bytes, result: bytes) -> None:
    assert with_members(text, b'"n":1', len(text)) == result


def test_long_texts_are_no_trouble() -> None:
    text = b'{"a":"' + b'\\"' * 500_000 + b'","b":[' + b"[1]," * 100_000 + b"2]}"
    assert [key for key, _ in members(text)] == [b"a", b"b"]


@pytest.mark.parametrize(
    "text",
    [
        b'{"a":1}',
        b'{ "a" : 1 }',
        b'{"a":1,"a":2}',
        b'{"a":1 , "a":2,"b":3}',
        b'{"b":{"a":0} , "a":1,"c":[1,2], "a":2,"a":{"a":3}}',
        b'{"a":1, "b":2 ,"a":3 }',
        b'{"b":1,"c":2}',
        b"{}",
    ],
)
def test_several_at_once_are_taken_out_as_one_by_one(text: bytes) -> None:
    found = find_members(text, "a")
    one_by_one = text
    for member in reversed(found):
        one_by_one = without_member(one_by_one, member)
    assert without_members(text, found) == one_by_one
    kept = {key: value for key, value in orjson.loads(text).items() if key != "a"}
    assert orjson.loads(one_by_one) == kept


def test_very_many_are_taken_out_in_a_moment() -> None:
    """Whoever writes them must not hold up everybody else."""
    text = b'{"b":0' + b',"a":[1,2,3,4,5,6,7,8,9,10]' * 100_000 + b"}"
    found = find_members(text, "a")
    began = time.process_time()
    assert without_members(text, found) == b'{"b":0}'
    assert time.process_time() - began < 2
