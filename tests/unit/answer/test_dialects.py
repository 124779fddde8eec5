"""Messages, Responses and embeddings by example, streamed and whole: nothing is stripped in them."""

import orjson
import pytest
from tests.unit.answer.build import (
    ASKED,
    DONE,
    FORWARDED,
    HELD,
    STRIPPED,
    TARIFF,
    event,
    payloads,
    postprocessor,
)

from filature.answer.completion import COMPLETED, Failure, Verdict
from filature.answer.policy import AnswerPolicy
from filature.answer.pricing import COST_KEYS
from filature.answer.usage import Usage
from filature.wire.dialect import Dialect


def started(**usage: int) -> bytes:
    message = {"id": "m-1", "type": "message", "content": [], "model": "up", "usage": usage}
    return event({"type": "message_start", "message": message}, "message_start")


def block(kind: str = "text", **more: object) -> bytes:
    content = {"type": kind, **(more or {"text": ""})}
    payload = {"type": "content_block_start", "index": 0, "content_block": content}
    return event(payload, "content_block_start")


def delta(kind: str, **more: str) -> bytes:
    payload = {"type": "content_block_delta", "index": 0, "delta": {"type": kind, **more}}
    return event(payload, "content_block_delta")


def text(words: str) -> bytes:
    return delta("text_delta", text=words)


def message_delta(**usage: int) -> bytes:
    payload: dict[str, object] = {"type": "message_delta", "delta": {"stop_reason": "end_turn"}}
    return event(payload | ({"usage": usage} if usage else {}), "message_delta")


STOP = event({"type": "message_stop"}, "message_stop")
PING = event({"type": "ping"}, "ping")
UNFINISHED = Verdict(False, Failure.UNFINISHED)


class TestMessages:
    def test_cost_goes_into_the_last_usage_and_not_into_the_first(self) -> None:
        answer = postprocessor(STRIPPED, Dialect.MESSAGES)
        opening = started(input_tokens=1, cache_read_input_tokens=31, output_tokens=0) + block()
        assert answer.feed(opening) == opening
        assert answer.feed(text("Hi")) == text("Hi")
        (shown,) = payloads(answer.feed(message_delta(output_tokens=8)))
        assert shown["usage"] == {
            "output_tokens": 8,
            "prompt_total_cost": 5,  # 1 + 31 ÷ 10, rounded up
            "completion_total_cost": 16,
            "total_cost": 21,  # 20.1, rounded up once
            "cost": 0.000000021,
        }
        assert answer.feed(STOP) == STOP
        assert answer.usage == Usage(32, 31, 8)
        assert answer.verdict(False) == COMPLETED

    def test_an_end_mark_alone_is_no_answer(self) -> None:
        answer = postprocessor(HELD, Dialect.MESSAGES)
        assert answer.feed(PING + STOP) == b""
        assert answer.finish(True) == b""
        assert answer.verdict(True) == Verdict(False, Failure.EMPTY)

    @pytest.mark.parametrize("begun", [started(), text("a"), message_delta()])
    def test_an_end_mark_behind_a_message_is_one_whatever_was_left_out(self, begun: bytes) -> None:
        answer = postprocessor(FORWARDED, Dialect.MESSAGES)
        assert answer.feed(begun + STOP).endswith(STOP)
        assert answer.verdict(False) == COMPLETED

    def test_cached_and_created_tokens_are_part_of_the_prompt(self) -> None:
        answer = postprocessor(FORWARDED, Dialect.MESSAGES)
        usage = {
            "input_tokens": 2,
            "cache_read_input_tokens": 30,
            "cache_creation_input_tokens": 100,
        }
        answer.feed(started(**usage, output_tokens=1) + text("a") + message_delta(output_tokens=5))
        assert answer.usage == Usage(132, 30, 5)

    def test_a_record_at_the_start_fixes_the_prompt_only(self) -> None:
        answer = postprocessor(FORWARDED, Dialect.MESSAGES)
        answer.feed(started(input_tokens=9, output_tokens=4) + text("a") + text("b"))
        assert answer.usage == Usage(9, 0, 4, estimated=True)  # the larger of record and estimate
        for _ in range(5):
            answer.feed(text("word "))
        assert answer.usage == Usage(9, 0, 7, estimated=True)
        answer.feed(message_delta(output_tokens=0))
        assert answer.usage == Usage(9, 0, 0)  # an explicit 0 in the final record stands

    def test_a_message_delta_without_usage_gets_one(self) -> None:
        answer = postprocessor(FORWARDED, Dialect.MESSAGES)
        answer.feed(started(input_tokens=9) + text("four byt"))
        (shown,) = payloads(answer.feed(message_delta()))
        assert shown["usage"]["output_tokens"] == 2
        assert shown["usage"]["estimated"] is True
        assert list(shown["usage"])[-4:] == list(COST_KEYS)

    def test_what_is_written_in_place_of_a_record_leaves_nothing_of_the_beginning_s(self) -> None:
        answer = postprocessor(FORWARDED, Dialect.MESSAGES)
        usage = {
            "input_tokens": 2,
            "cache_read_input_tokens": 30,
            "cache_creation_input_tokens": 100,
        }
        answer.feed(started(**usage, output_tokens=1) + text("a"))
        (shown,) = payloads(answer.feed(message_delta()))
        seen = usage | shown["usage"]  # by a client, which takes what is told last of each
        assert sum(seen[name] for name in usage) == answer.usage.prompt == 132

    @pytest.mark.parametrize(
        "content",
        [
            text("a"),
            delta("thinking_delta", thinking="hm"),
            delta("input_json_delta", partial_json="{"),
            block("tool_use", id="t-1", name="f", input={}),
        ],
    )
    def test_what_is_content(self, content: bytes) -> None:
        answer = postprocessor(HELD, Dialect.MESSAGES)
        opening = started(input_tokens=1) + PING + block() + delta("signature_delta", signature="s")
        assert answer.feed(opening) == b""
        assert answer.feed(content) == opening + content

    def test_errors(self) -> None:
        answer = postprocessor(STRIPPED, Dialect.MESSAGES)
        frame = {"type": "error", "error": {"type": "overloaded_error", "message": "busy"}}
        assert answer.feed(text("a") + event(frame, "error") + STOP) == text("a")
        assert answer.error == {"type": "overloaded_error", "message": "busy"}

    @pytest.mark.parametrize(
        ("end", "clean", "verdict"),
        [
            (STOP, False, COMPLETED),
            (message_delta(output_tokens=1), True, COMPLETED),
            (message_delta(output_tokens=1), False, Verdict(False, Failure.CUT)),
            (event({"type": "message_delta", "delta": {"stop_reason": ""}}), True, UNFINISHED),
            (b"", True, UNFINISHED),
            (DONE, True, UNFINISHED),  # another dialect's mark
        ],
    )
    def test_verdict(self, end: bytes, clean: bool, verdict: Verdict) -> None:
        answer = postprocessor(STRIPPED, Dialect.MESSAGES)
        answer.feed(started(input_tokens=1) + text("a") + end)
        answer.finish(clean)
        assert answer.verdict(clean) == verdict

    def test_the_model_is_renamed_where_it_stands(self) -> None:
        answer = postprocessor(STRIPPED, Dialect.MESSAGES, model_names=("up", "alias"))
        (shown,) = payloads(answer.feed(started(input_tokens=1)).split(b"\n", 1)[1])
        assert shown["message"]["model"] == "alias"

    def test_text_events_leave_as_the_same_objects(self) -> None:
        answer = postprocessor(STRIPPED, Dialect.MESSAGES)
        for words in ("a", " b", 'c"', "d"):
            data = text(words)
            assert answer.feed(data) is data
        assert answer.content_bytes == 6

    def test_whole(self) -> None:
        usage = {"input_tokens": 10, "cache_read_input_tokens": 5, "output_tokens": 4}
        body = {"type": "message", "content": [{"type": "text", "text": "Hi"}], "usage": usage}
        answer = postprocessor(STRIPPED, Dialect.MESSAGES)
        shown = orjson.loads(answer.feed(orjson.dumps(body)))
        assert answer.usage == Usage(15, 5, 4)
        assert shown["usage"]["total_cost"] == 10 + 1 + 8
        assert answer.content_bytes == 2


def response_event(kind: str, **more: object) -> bytes:
    return event({"type": kind, **more}, kind)


def output(words: str, number: int) -> bytes:
    return response_event("response.output_text.delta", delta=words, sequence_number=number)


RESPONSES_USAGE = {
    "input_tokens": 14,
    "input_tokens_details": {"cached_tokens": 3},
    "output_tokens": 7,
    "output_tokens_details": {"reasoning_tokens": 2},
    "total_tokens": 21,
}


class TestResponses:
    @pytest.mark.parametrize("kind", ["response.completed", "response.incomplete"])
    def test_cost_goes_into_the_last_event(self, kind: str) -> None:
        answer = postprocessor(STRIPPED, Dialect.RESPONSES)
        stream = response_event("response.created", response={"usage": None}) + output("a", 1)
        assert answer.feed(stream) == stream
        response = {"model": "up", "usage": RESPONSES_USAGE}
        out = answer.feed(response_event(kind, response=response, sequence_number=2))
        (shown,) = payloads(out.split(b"\n", 1)[1])
        assert out.startswith(f"event: {kind}\n".encode())
        assert shown["response"]["usage"]["total_cost"] == 12 + 5 * 2 + 2 * 3
        assert list(shown["response"]["usage"])[-4:] == list(COST_KEYS)
        assert answer.usage == Usage(14, 3, 7, 2)
        assert answer.verdict(False) == COMPLETED
        assert answer.next_sequence_number == 3

    def test_one_without_usage_gets_it(self) -> None:
        answer = postprocessor(STRIPPED, Dialect.RESPONSES, prompt_text_bytes=8)
        answer.feed(output("some words", 0))
        for usage in ({}, {"usage": None}):
            out = answer.feed(response_event("response.completed", response={"id": 1} | usage))
            (shown,) = payloads(out.split(b"\n", 1)[1])
            assert shown["response"]["usage"]["input_tokens"] == 2
            assert shown["response"]["usage"]["output_tokens"] == 3
            assert shown["response"]["usage"]["estimated"] is True

    def test_one_without_deltas_has_the_text_of_its_last_event(self) -> None:
        item = {"type": "message", "content": [{"type": "output_text", "text": "some words"}]}
        whole = response_event("response.completed", response={"output": [item]})
        answer = postprocessor(STRIPPED, Dialect.RESPONSES, prompt_text_bytes=8)
        (shown,) = payloads(answer.feed(whole).split(b"\n", 1)[1])
        assert answer.usage == Usage(2, 0, 3, 0, estimated=True)
        assert shown["response"]["usage"]["output_tokens"] == 3
        assert (answer.content_bytes, answer.content_events) == (10, 1)
        answer = postprocessor(STRIPPED, Dialect.RESPONSES)
        answer.feed(output("some words", 0) + whole)
        assert (answer.content_bytes, answer.content_events) == (10, 1)

    def test_failed_is_an_error_and_its_usage_is_no_matter(self) -> None:
        answer = postprocessor(STRIPPED, Dialect.RESPONSES)
        frame = response_event("response.failed", response={"error": {"message": "boom"}})
        assert answer.feed(output("a", 0) + frame) == output("a", 0)
        assert answer.error == {"message": "boom"}
        answer = postprocessor(STRIPPED, Dialect.RESPONSES)
        answer.feed(response_event("error", code="x", message="boom"))
        assert answer.error == {"type": "error", "code": "x", "message": "boom"}

    def test_a_response_whose_status_is_failed_is_an_error(self) -> None:
        for told in ({"message": "boom"}, None):
            response: dict[str, object] = {"object": "response", "status": "failed", "error": told}
            answer = postprocessor(STRIPPED, Dialect.RESPONSES)
            frame = response_event("response.completed", response=response)
            assert answer.feed(output("a", 0) + frame) == output("a", 0)
            assert not answer.verdict(True).completed
            answer = postprocessor(STRIPPED, Dialect.RESPONSES)
            assert answer.feed(orjson.dumps(response)) == b""
            assert answer.error == (told or response)

    @pytest.mark.parametrize(
        "content",
        [
            output("a", 3),
            response_event("response.function_call_arguments.delta", delta="{"),
            response_event("response.reasoning_text.delta", delta="hm"),
            response_event(
                "response.output_item.added", item={"type": "function_call", "name": "f"}
            ),
        ],
    )
    def test_what_is_content(self, content: bytes) -> None:
        answer = postprocessor(HELD, Dialect.RESPONSES)
        message = {"type": "message", "role": "assistant", "content": [], "status": "in_progress"}
        opening = (
            response_event("response.created", response={})
            + response_event("response.in_progress", response={})
            + response_event("response.output_item.added", item=message)
            + response_event(
                "response.content_part.added", part={"type": "output_text", "text": ""}
            )
        )
        assert answer.feed(opening) == b""
        assert answer.feed(content) == opening + content

    def test_sequence_numbers_without_the_engines(self) -> None:
        answer = postprocessor(STRIPPED, Dialect.RESPONSES)
        assert answer.next_sequence_number == 0
        for number in range(4):
            data = response_event("response.output_text.delta", delta=f"word{number}")
            assert answer.feed(data) is data
            assert answer.next_sequence_number == number + 1

    def test_text_in_the_dones_is_not_counted_twice(self) -> None:
        answer = postprocessor(STRIPPED, Dialect.RESPONSES)
        answer.feed(output("word", 0) + response_event("response.output_text.done", text="word"))
        assert answer.content_bytes == 4

    def test_done_is_no_end_mark_here(self) -> None:
        answer = postprocessor(STRIPPED, Dialect.RESPONSES)
        assert answer.feed(output("a", 0) + DONE) == output("a", 0) + DONE
        assert answer.verdict(True) == Verdict(False, Failure.UNFINISHED)

    def test_whole(self) -> None:
        body = {
            "object": "response",
            "error": None,
            "output": [{"type": "message", "content": [{"type": "output_text", "text": "Hi"}]}],
            "usage": RESPONSES_USAGE,
        }
        answer = postprocessor(STRIPPED, Dialect.RESPONSES)
        shown = orjson.loads(answer.feed(orjson.dumps(body)))
        assert shown["usage"]["total_cost"] == 28
        assert answer.content_bytes == 2

    def test_whole_and_failed(self) -> None:
        answer = postprocessor(STRIPPED, Dialect.RESPONSES)
        assert answer.feed(b'{"status":"failed","error":{"code":"x"},"output":[]}') == b""
        assert answer.error == {"code": "x"}


class TestEmbeddings:
    def test_usage_is_the_prompt_alone(self) -> None:
        body = {"data": [{"embedding": [0.5]}], "usage": {"prompt_tokens": 8, "total_tokens": 8}}
        answer = postprocessor(STRIPPED, Dialect.EMBEDDINGS, prompts=3)
        shown = orjson.loads(answer.feed(orjson.dumps(body)))
        assert shown["usage"]["total_cost"] == 8
        assert answer.usage == Usage(8, 0, 0)

    def test_without_usage_it_is_estimated(self) -> None:
        answer = postprocessor(STRIPPED, Dialect.EMBEDDINGS, prompts=3, prompt_text_bytes=100)
        shown = orjson.loads(answer.feed(b'{"data":[]}'))
        assert shown["usage"]["prompt_tokens"] == 25
        assert shown["usage"]["estimated"] is True
        assert answer.usage == Usage(25, 0, 0, estimated=True)


def test_a_token_count_passes_and_costs_nothing() -> None:
    answer = postprocessor(AnswerPolicy(errors="take"), Dialect.COUNT_TOKENS)
    data = b'{"input_tokens": 14}'
    assert answer.feed(data) is data
    assert answer.finish(True) == b""
    assert answer.verdict(True) == COMPLETED


@pytest.mark.parametrize("dialect", [Dialect.MESSAGES, Dialect.RESPONSES])
@pytest.mark.parametrize("policy", [STRIPPED, ASKED])
def test_no_comment_and_no_usage_chunk_in_other_dialects(
    dialect: Dialect, policy: AnswerPolicy
) -> None:
    stream = text("a") + STOP + response_event("response.completed", response={"usage": {}})
    answer = postprocessor(policy, dialect)
    out = answer.feed(stream) + answer.finish(True)
    assert b"filature" not in out
    assert len(payloads(out)) == 3
    assert policy.tariff == TARIFF


@pytest.mark.parametrize("dialect", Dialect)
@pytest.mark.parametrize("value", [{}, [], [{}], {"a": 1}, 7, True, "x"])
def test_a_member_of_any_type_is_no_matter(dialect: Dialect, value: object) -> None:
    """Of those that are looked at; alone, and beside a type that makes them matter."""
    names = (
        *("type", "object", "model", "usage", "choices", "index", "finish_reason", "status"),
        *("delta", "message", "response", "content_block", "item", "output", "content"),
    )
    kinds = ("message_start", "message_delta", "response.completed", "response.x.delta")
    told = [{name: value} for name in names]
    told += [{"type": kind, name: value} for kind in kinds for name in names if name != "type"]
    told += [{name: {inner: value}} for name in names for inner in names]
    told += [{"choices": [{name: value}]} for name in names]
    for payload in told:
        stream = postprocessor(FORWARDED, dialect, model_names=("up", "down"))
        assert stream.feed(event(payload)) + stream.finish(clean=True)
        whole = postprocessor(FORWARDED, dialect, model_names=("up", "down"))
        assert whole.feed(orjson.dumps(payload)) + whole.finish(clean=True)
