"""Tokens, passages and examples of schemas."""

import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from filature.demo.text import Corpus, count_tokens, example_of, seed_of, tokens_of


@given(st.text())
def test_tokens_joined_are_the_text(text: str) -> None:
    tokens = tokens_of(text)
    assert "".join(tokens) == text
    assert count_tokens(text) == len(tokens)
    assert all(tokens)


def test_tokens() -> None:
    assert tokens_of("Say hello, 世界!\n\n") == ["Say", " hello", ",", " 世界", "!", "\n\n"]


@given(st.integers(0, 2**32), st.integers(0, 3000))
def test_a_passage_has_the_length_asked_for(seed: int, count: int) -> None:
    passage = Corpus().passage(seed, count)
    assert len(passage) == count
    assert passage == Corpus().passage(seed, count)


@given(st.integers(0, 2**32))
def test_an_unbounded_passage_is_some_sentences(seed: int) -> None:
    text = "".join(Corpus().passage(seed, None))
    assert len(text) > 60
    assert text.rstrip()[-1] in ".!?"


def test_seeds_do_not_depend_on_the_process() -> None:
    assert seed_of("silk", None, 0) == 3617830039
    assert seed_of("silk", 1, 0) != seed_of("silk", None, 0)


@pytest.mark.parametrize(
    ("schema", "example"),
    [
        ({"type": "object", "properties": {"city": {"type": "string"}}}, {"city": "a"}),
        ({"type": "array", "items": {"type": "integer"}, "minItems": 2}, [1, 1]),
        ({"enum": ["x", "y"]}, "x"),
        ({"const": 5}, 5),
        ({"anyOf": [{"type": "null"}, {"type": "string"}]}, None),
        ({"type": ["number", "null"], "minimum": 7}, 7),
        ({"$ref": "#/$defs/T", "$defs": {"T": {"type": "boolean"}}}, True),
        ({}, "a"),
        ("nonsense", None),
    ],
)
def test_examples_fit_their_schema(schema: Any, example: Any) -> None:
    assert example_of(schema, itertools.cycle("ab")) == example


def test_a_schema_within_itself_ends() -> None:
    schema = {"type": "object", "properties": {"next": {"$ref": "#"}}}
    depth, value = 0, example_of(schema, itertools.cycle("a"))
    while value is not None:
        depth, value = depth + 1, value["next"]
    assert 1 < depth < 20
