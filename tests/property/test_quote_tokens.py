"""Prompts are within their bound as a tokenizer counts them that makes more tokens of a text than others do."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.request.asking import parse

from filature.request.quote import PromptRules, prompt_bound
from filature.wire.dialect import Dialect

pytest.importorskip("tokenizers", reason="there is no wheel of tokenizers for this machine")

SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}|"
    r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""Qwen's; those of Llama 3 and of OpenAI's tokenizers differ in how many digits go together."""
SPACES_MAX = 200


def tokenizer() -> Any:
    """One that has a token for each byte, and for spaces in a row: all others make fewer of a text."""
    from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers

    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    spaces = ["Ġ" * count for count in range(2, SPACES_MAX + 1)]
    vocabulary = {word: place for place, word in enumerate([*byte_level.alphabet(), *spaces])}
    merges = [(word[:end], word[end:]) for word in spaces for end in range(1, len(word))]
    made = Tokenizer(models.BPE(vocabulary, merges))
    made.normalizer = normalizers.NFC()
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(SPLIT), "isolated"), byte_level]
    )
    return made


TOKENIZER = tokenizer()
ODD = st.sampled_from(["\U0001d160", "\u0f76", "\u0958", "\ufb2c", "\u0344"])
"""Characters that composing makes longer."""
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(0, 12) | st.text(max_size=3) | ODD,
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=2), inner),
    max_leaves=30,
)


@given(st.text() | ODD.map(lambda text: text * 300))
def test_no_text_has_more_tokens_than_its_bound(text: str) -> None:
    rules = PromptRules(template_tokens=0, message_tokens=0)
    request = parse(Dialect.CHAT, messages=[{"role": "user", "content": text}])
    assert len(TOKENIZER.encode(text).ids) <= prompt_bound(request, rules, None)


@given(st.lists(JSON, min_size=1, max_size=4), st.sampled_from([None, 2, 4]))
def test_no_tools_have_more_tokens_than_their_bound(tools: list[Any], indent: int | None) -> None:
    rules = PromptRules(template_tokens=0, message_tokens=0)
    told = [{"a": tool} for tool in tools]
    tokens = 0
    for tool in told:
        written = json.dumps(tool, ensure_ascii=False, indent=indent)
        tokens += len(TOKENIZER.encode(written).ids)
    assert tokens <= prompt_bound(parse(Dialect.CHAT, tools=told), rules, None)
