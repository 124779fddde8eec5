"""Answers that are JSON documents: one, several, half of one, none."""

import orjson
import pytest
from tests.unit.answer.build import ASKED, FORWARDED, HELD, STRIPPED, USAGE, postprocessor

from filature.answer.completion import COMPLETED, Failure, Verdict
from filature.answer.policy import AnswerPolicy
from filature.answer.pricing import COST_KEYS
from filature.answer.usage import Usage
from filature.wire.dialect import Dialect
from filature.wire.documents import DOCUMENT_BYTES_MAX, PARSED_BYTES_MAX

CHOICE = {"index": 0, "message": {"role": "assistant", "content": "Hi"}, "finish_reason": "stop"}
DOCUMENT = orjson.dumps({"id": "c-1", "model": "up", "choices": [CHOICE], "usage": USAGE})


def test_the_cost_comes_last_in_usage_and_all_else_stays() -> None:
    answer = postprocessor(STRIPPED)
    out = answer.feed(DOCUMENT)
    added = b',"prompt_total_cost":12,"completion_total_cost":14,"total_cost":26,"cost":0.000000026'
    assert out == DOCUMENT.removesuffix(b"}}") + added + b"}}"
    assert answer.finish(True) == b""
    assert answer.mode == "documents"
    assert answer.usage == Usage(14, 3, 7)
    assert answer.content_bytes == 2
    assert answer.verdict(True) == COMPLETED
    assert not answer.is_no_answer


@pytest.mark.parametrize("policy", [STRIPPED, ASKED, HELD, FORWARDED])
def test_usage_is_never_taken_out(policy: AnswerPolicy) -> None:
    assert orjson.loads(postprocessor(policy).feed(DOCUMENT))["usage"]["total_cost"] == 26


def test_without_a_tariff_it_is_the_same_object() -> None:
    assert postprocessor(AnswerPolicy()).feed(DOCUMENT) is DOCUMENT


@pytest.mark.parametrize("usage", [{}, {"usage": None}])
def test_an_answer_without_usage_gets_an_estimate(usage: dict[str, None]) -> None:
    answer = postprocessor(STRIPPED, prompt_text_bytes=10)
    shown = orjson.loads(answer.feed(orjson.dumps({"choices": [CHOICE]} | usage)))
    assert shown["usage"]["prompt_tokens"] == 3
    assert shown["usage"]["completion_tokens"] == 1
    assert shown["usage"]["estimated"] is True
    assert list(shown["usage"])[-4:] == list(COST_KEYS)


def test_each_of_several_choices_is_estimated() -> None:
    answer = postprocessor(STRIPPED, n=2)
    second = CHOICE | {"index": 1, "message": {"role": "assistant", "content": "Hello there"}}
    shown = orjson.loads(answer.feed(orjson.dumps({"choices": [CHOICE, second]})))
    assert shown["usage"]["completion_tokens"] == 1 + 3  # of four bytes each, begun ones too
    assert shown["usage"]["estimated"] is True


def test_a_message_of_no_blocks_is_an_answer() -> None:
    """As Ollama writes it, where the model has nothing to say."""
    said = {"type": "message", "role": "assistant", "content": None, "stop_reason": "end_turn"}
    usage = {"input_tokens": 9, "output_tokens": 1}
    answer = postprocessor(FORWARDED, Dialect.MESSAGES)
    out = answer.feed(orjson.dumps(said | {"usage": usage})) + answer.finish(True)
    assert not answer.is_no_answer
    assert answer.usage == Usage(9, 0, 1)
    shown = orjson.loads(out)
    assert shown["content"] is None
    assert list(shown["usage"])[-4:] == list(COST_KEYS)


def test_what_is_no_answer_gets_none() -> None:
    refused = (
        b'{"choices":null,"usage":{"total_tokens":0},"base_resp":{"status_code":1008}}',
        b'{"id":"c-1","choices":null}',
    )
    others = (b'{"detail":"Not Found"}', b'{"status":"ok"}', b"[]", b"7", b'"x"', b"null")
    for body in refused + others:
        answer = postprocessor(STRIPPED)
        assert answer.feed(body) + answer.finish(True) == body
        assert (
            answer.verdict(True) == COMPLETED
        )  # as a document; whoever asked for an answer has none
        assert answer.is_no_answer


def test_a_count_of_tokens_is_an_answer() -> None:
    answer = postprocessor(STRIPPED, Dialect.COUNT_TOKENS)
    assert answer.feed(b'{"input_tokens":5}') == b'{"input_tokens":5}'
    assert answer.verdict(True) == COMPLETED
    assert not answer.is_no_answer


@pytest.mark.parametrize(
    "text",
    [
        b'{"usage" : {"prompt_tokens":14, "completion_tokens":7 } ,"choices":[]}',
        b'{"choices":[{"message":{"content":"\\"usage\\":{}"}}],"usage":{"prompt_tokens":14,"completion_tokens":7}}',
        b'{"x":{"usage":{"prompt_tokens":1}},"usage":{"prompt_tokens":14,"completion_tokens":7}}',
        b'{"x":["usage",{"usage":1}],"usage":{"prompt_tokens":14,"completion_tokens":7},"y":"usage"}',
        b'{"usag\\u0065":{"prompt_tokens":14,"completion_tokens":7},"x":{"usage":{}}}',
        b'{"usage":{"prompt_tokens":14,"completion_tokens":7,"x":"}{","y":{"z":{"a":[{}]}}}}',
        b'{"usage":{"prompt_tokens":1},"usage":{"prompt_tokens":14,"completion_tokens":7}}',
        b'{"usage":{"prompt_tokens":14,"completion_tokens":7,"cost":1,"c\\u006fst":2,"total_cost":3}}',
    ],
)
def test_wherever_and_however_usage_is_written(text: bytes) -> None:
    out = postprocessor(STRIPPED).feed(text)
    shown, before = orjson.loads(out), orjson.loads(text)
    assert shown["usage"]["total_cost"] == 28
    assert list(shown["usage"])[-4:] == list(COST_KEYS)
    kept = {key: value for key, value in shown["usage"].items() if key not in COST_KEYS}
    assert kept == {key: value for key, value in before["usage"].items() if key not in COST_KEYS}
    assert {**shown, "usage": 0} == {**before, "usage": 0}


def test_several_documents_in_a_row() -> None:
    other = orjson.dumps({"choices": [CHOICE], "usage": USAGE | {"completion_tokens": 9}})
    body = b" \n" + DOCUMENT + b"\n" + other + DOCUMENT + b" \n"
    answer = postprocessor(AnswerPolicy())
    assert answer.feed(body) == body
    assert answer.usage == Usage(14, 3, 9)  # of records of one choice, the largest
    assert answer.progress == 3


def test_several_choices_are_one_record() -> None:
    two = orjson.dumps({"choices": [CHOICE, CHOICE | {"index": 1}], "usage": USAGE})
    for n, prompts in ((1, 1), (2, 1), (1, 2)):
        answer = postprocessor(STRIPPED, n=n, prompts=prompts)
        answer.feed(two)
        assert answer.usage == Usage(14, 3, 7)
        assert answer.content_bytes == 4


def test_a_byte_order_mark_is_dropped() -> None:
    answer = postprocessor(AnswerPolicy())
    assert answer.feed(b"\xef\xbb\xbf" + DOCUMENT) == DOCUMENT


class TestHalfDocuments:
    def test_a_tail_passes_and_is_counted(self) -> None:
        answer = postprocessor(AnswerPolicy())
        assert answer.feed(DOCUMENT + DOCUMENT[:20]) == DOCUMENT
        assert answer.finish(True) == DOCUMENT[:20]
        assert answer.unprocessed_bytes == 20
        assert answer.verdict(True) == Verdict(False, Failure.NOT_AN_ANSWER)

    def test_and_is_discarded_when_http_was_cut(self) -> None:
        answer = postprocessor(AnswerPolicy())
        assert answer.feed(DOCUMENT[:20]) == b""
        assert answer.finish(False) == b""
        assert answer.unprocessed_bytes == 20
        assert not answer.started
        assert answer.verdict(False) == Verdict(False, Failure.CUT)

    def test_a_whole_document_is_complete_however_http_ends(self) -> None:
        answer = postprocessor(STRIPPED)
        answer.feed(DOCUMENT)
        answer.finish(False)
        assert answer.verdict(False) == COMPLETED

    @pytest.mark.parametrize(
        "body", [b"<html>oops</html>", b"Server Error", b"{]", b"}", b"\x00 }"]
    )
    def test_what_is_not_json_passes(self, body: bytes) -> None:
        answer = postprocessor(STRIPPED)
        assert answer.feed(body) + answer.finish(True) == body
        assert answer.unprocessed_bytes == len(body)
        assert answer.verdict(True) == Verdict(False, Failure.NOT_AN_ANSWER)
        assert not answer.usage.completion


class TestErrors:
    @pytest.mark.parametrize("error", ["boom", {"message": "boom"}])
    def test_is_taken(self, error: object) -> None:
        answer = postprocessor(STRIPPED)
        assert answer.feed(orjson.dumps({"error": error}) + b"\n" + DOCUMENT) == b""
        assert answer.finish(True) == b""
        assert answer.error == error
        assert answer.verdict(True) == Verdict(False, Failure.ERROR_FRAME)

    def test_passes_where_that_is_wanted(self) -> None:
        answer = postprocessor(FORWARDED)
        body = b'{"error":"boom"}'
        assert answer.feed(body) is body
        assert answer.error == "boom"


class TestLarge:
    def embeddings(self, size: int) -> bytes:
        vector = b"[" + b"0.015625," * (size // 9) + b'"]"]'
        return (
            b'{"object":"list","data":[{"embedding":' + vector + b'}],"model":"up","usage":'
            b'{"prompt_tokens":8,"total_tokens":8}}'
        )

    def test_a_large_document_is_read_without_being_parsed(self) -> None:
        body = self.embeddings(PARSED_BYTES_MAX + 9)
        for pieces in ([body], [body[:-30], body[-30:]]):
            answer = postprocessor(STRIPPED, Dialect.EMBEDDINGS, model_names=("up", "alias"))
            out = b"".join(map(answer.feed, pieces))
            assert len(out) > len(body)
            assert orjson.loads(out)["usage"]["total_cost"] == 8
            assert orjson.loads(out)["model"] == "alias"
            assert answer.usage == Usage(8, 0, 0)
            assert answer.verdict(True) == COMPLETED

    def test_an_error_in_it_is_seen(self) -> None:
        body = b'{"x":"' + b" " * PARSED_BYTES_MAX + b'","error":{"message":"boom"}}'
        answer = postprocessor(STRIPPED)
        assert answer.feed(body) == b""
        assert answer.error == {"message": "boom"}

    def test_one_without_usage_is_estimated(self) -> None:
        text = b"x" * PARSED_BYTES_MAX
        body = b'{"choices":[{"index":0,"message":{"content":"' + text + b'"}}]}'
        answer = postprocessor(STRIPPED)
        shown = orjson.loads(answer.feed(body))
        assert shown["usage"]["estimated"] is True
        assert shown["usage"]["completion_tokens"] == -(-len(body) // 4)

    def test_above_the_limit_it_passes(self) -> None:
        megabyte = b"x" * (1024 * 1024)
        answer = postprocessor(STRIPPED, prompt_text_bytes=8)
        sizes = [len(answer.feed(b'{"x":"'))]
        for _ in range(DOCUMENT_BYTES_MAX // len(megabyte) + 2):
            sizes.append(len(answer.feed(megabyte)))  # noqa: PERF401 - the pieces are not to be kept
        assert set(sizes[:-3]) == {0}
        assert sum(sizes) == DOCUMENT_BYTES_MAX + 2 * len(megabyte) + 6
        assert answer.overflowed
        assert answer.unprocessed_bytes == sum(sizes)
        assert answer.usage == Usage(2, 0, -(-sum(sizes) // 4), estimated=True)
        assert answer.verdict(True) == COMPLETED
        assert answer.verdict(False) == Verdict(False, Failure.CUT)


def test_model_names() -> None:
    answer = postprocessor(STRIPPED, model_names=("up", "alias"))
    assert orjson.loads(answer.feed(DOCUMENT))["model"] == "alias"
