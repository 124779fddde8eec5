"""Tokens counted by the operator's files, whatever is in them and in the texts."""

import logging
from pathlib import Path
from typing import Any

import orjson
import pytest
from tests.unit.proxy.audit.build import MODEL, WORDS, chat, make_tokenizer, request, sample

from filature.answer.usage import Usage
from filature.proxy.audit import recount
from filature.proxy.audit.claims import Kind
from filature.proxy.audit.measure import measure
from filature.proxy.audit.recount import BROKEN_TOKENS, Recounter, TokenizersMissing
from filature.wire.dialect import Dialect

pytest.importorskip("tokenizers", reason="there is no wheel of tokenizers for this machine")


@pytest.fixture
def tokenizer(tmp_path: Path) -> Any:
    return make_tokenizer(tmp_path)


@pytest.fixture
def recounter(tokenizer: Any, tmp_path: Path) -> Recounter:
    return Recounter.of(tmp_path)


def count(tokenizer: Any, text: str) -> int:
    return len(tokenizer.encode(text).ids)


def test_a_folder_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(TokenizersMissing, match="no folder"):
        Recounter.of(tmp_path / "none")


def test_texts_are_counted_each_for_itself(recounter: Recounter, tokenizer: Any) -> None:
    texts = ["the worm", " spins silk"]
    assert recounter.completion(MODEL, texts) == sum(count(tokenizer, text) for text in texts)
    assert recounter.completion("linen", texts) is None


def test_characters_that_could_not_be_read_may_have_been_several_tokens(
    recounter: Recounter, tokenizer: Any
) -> None:
    text = "silk \ufffd"
    assert recounter.completion(MODEL, [text]) == count(tokenizer, text) + BROKEN_TOKENS


@pytest.mark.parametrize("text", ["\ud800", "a\udfff", "\ud83d\ude00", "\x00", ""])
def test_any_text_is_counted(recounter: Recounter, text: str) -> None:
    assert recounter.completion(MODEL, [text]) is not None


def test_halves_of_a_character_are_one_again(recounter: Recounter) -> None:
    assert recounter.completion(MODEL, ["\ud83d\ude00"]) == recounter.completion(MODEL, ["😀"])


def test_long_texts_are_counted_in_pieces(
    recounter: Recounter, tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recount, "PIECE_CHARACTERS_MAX", 50)
    counted = recounter.completion(MODEL, [WORDS * 20])
    assert counted == count(tokenizer, WORDS * 20)
    assert recounter.completion(MODEL, ["x" * 1000]) == count(tokenizer, "x") * 1000
    monkeypatch.setattr(recount, "TEXT_CHARACTERS_MAX", 999)
    assert recounter.completion(MODEL, ["x" * 1000]) is None


def test_chats_are_counted_by_the_template(recounter: Recounter, tokenizer: Any) -> None:
    text = f"<|im_start|>user\n{WORDS}<|im_end|>\n<|im_start|>assistant\n"
    system = "<|im_start|>system\nspin<|im_end|>\n"
    parts = [{"role": "user", "content": [{"type": "text", "text": WORDS}]}]
    for asked, rendered in (
        (request(), text),
        (request(messages=parts), text),
        (request(Dialect.MESSAGES), text),
        (request(Dialect.MESSAGES, system="spin"), system + text),
        (request(Dialect.RESPONSES), text),
        (request(Dialect.RESPONSES, instructions="spin"), system + text),
    ):
        assert recounter.prompt(MODEL, asked) == count(tokenizer, rendered)


def test_prompts_without_a_template_are_added_up(recounter: Recounter, tokenizer: Any) -> None:
    one = count(tokenizer, WORDS)
    for dialect, name in ((Dialect.COMPLETIONS, "prompt"), (Dialect.EMBEDDINGS, "input")):
        assert recounter.prompt(MODEL, request(dialect)) == one
        assert recounter.prompt(MODEL, request(dialect, **{name: [WORDS, WORDS]})) == 2 * one
        assert recounter.prompt(MODEL, request(dialect, **{name: [1, 2]})) is None


@pytest.mark.parametrize(
    "fields",
    [
        {"tools": [{"type": "function", "function": {"name": "f"}}]},
        {"add_generation_prompt": False},
        {"chat_template_kwargs": {"enable_thinking": False}},
        {"reasoning_effort": "low"},
        {"response_format": {"type": "json_object"}},
        {"messages": [{"role": "tool", "tool_call_id": "c", "content": "x"}]},
        {"messages": [{"role": "user", "name": "abe", "content": "x"}]},
    ],
)
def test_what_changes_a_prompt_in_other_ways_is_not_counted(
    recounter: Recounter, fields: dict[str, Any]
) -> None:
    assert recounter.prompt(MODEL, request(**fields)) is None


def test_a_template_that_refuses_or_is_missing_counts_nothing(tmp_path: Path) -> None:
    make_tokenizer(tmp_path, "refusing", "{{ raise_exception('no') }}")
    make_tokenizer(tmp_path, "curious", "{{ messages.__class__.__mro__ }}")
    make_tokenizer(tmp_path, "bare")
    (tmp_path / "bare" / "chat_template.jinja").unlink()
    recounter = Recounter.of(tmp_path)
    for model in ("refusing", "curious", "bare"):
        assert recounter.prompt(model, request()) is None
        assert recounter.completion(model, ["silk"]) is not None


def test_a_template_of_the_configuration(tmp_path: Path) -> None:
    make_tokenizer(tmp_path)
    place = tmp_path / MODEL
    source = (place / "chat_template.jinja").read_text(encoding="utf-8")
    expected = Recounter.of(tmp_path).prompt(MODEL, request())
    (place / "chat_template.jinja").unlink()
    for template in (
        source,
        [{"name": "tool_use", "template": ""}, {"name": "default", "template": source}],
    ):
        config = {"chat_template": template, "bos_token": {"content": "<s>"}}
        (place / "tokenizer_config.json").write_bytes(orjson.dumps(config))
        assert Recounter.of(tmp_path).prompt(MODEL, request()) == expected


@pytest.mark.parametrize("model", ["../x", "/", "..", "a\0b", "x" * 5000, "", ".", "silk"])
def test_no_name_of_a_model_leads_elsewhere(tmp_path: Path, model: str) -> None:
    make_tokenizer(tmp_path, "x")
    folder = tmp_path / "tokenizers"
    folder.mkdir()
    assert Recounter.of(folder).completion(model, ["silk"]) is None


def test_a_broken_file_is_told_once_and_others_are_the_norm(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    make_tokenizer(tmp_path)
    (tmp_path / MODEL / "tokenizer.json").write_text("{", encoding="utf-8")
    recounter = Recounter.of(tmp_path)
    with caplog.at_level(logging.ERROR):
        for _ in range(3):
            found = measure(sample(request(), chat("Silk."), Usage(9, 0, 2)), recounter)
            assert [claim.counted for claim in found] == [None, None]
    assert len(caplog.records) == 1


def test_models_without_a_file_push_none_out(
    tmp_path: Path, tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recount, "MODELS_MAX", 1)
    recounter = Recounter.of(tmp_path)
    assert recounter.completion(MODEL, ["silk"])
    (tmp_path / MODEL / "tokenizer.json").unlink()  # it is not read again
    for number in range(5):
        assert recounter.completion(f"other{number}", ["silk"]) is None
    assert recounter.completion(MODEL, ["silk"])


def test_claims_are_recounted(recounter: Recounter, tokenizer: Any) -> None:
    found = measure(sample(request(), chat(WORDS), Usage(9, 0, 2)), recounter)
    assert [claim.group.kind for claim in found] == [Kind.PROMPT, Kind.COMPLETION]
    assert (found[0].extra, found[1].extra) == (0, 0)
    assert found[1].counted == count(tokenizer, WORDS)
    hot = measure(sample(request(temperature=1.5), chat(WORDS), Usage(9, 0, 2)), recounter)
    assert hot[1].counted is None  # what is written then is read as fewer tokens
