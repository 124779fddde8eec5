"""Chat streams by example: errors, ends, bounds, oddities and names."""

from itertools import pairwise

import orjson
import pytest
from tests.unit.answer.build import (
    ASKED,
    COSTS,
    DONE,
    FORWARDED,
    HEAD,
    HELD,
    STRIPPED,
    USAGE,
    chunk,
    event,
    payloads,
    postprocessor,
    role,
    usage_chunk,
)

from filature.answer.completion import COMPLETED, Failure, Verdict
from filature.answer.usage import Usage
from filature.wire.dialect import Dialect
from filature.wire.sse import EVENT_BYTES_MAX


class TestErrorFrames:
    @pytest.mark.parametrize(
        ("frame", "error"),
        [
            ({"error": {"message": "boom", "code": 500}}, {"message": "boom", "code": 500}),
            ({"error": "a string"}, "a string"),
            ({"object": "error", "message": "old"}, {"object": "error", "message": "old"}),
            (HEAD | {"choices": [], "error": {"code": 502}}, {"code": 502}),
            (HEAD | {"choices": [{"delta": {}, "error": {"code": 502}}]}, {"code": 502}),
            (
                HEAD | {"choices": [{"delta": {"content": ""}, "finish_reason": "error"}]},
                "The engine ended its answer with an error.",
            ),
        ],
    )
    def test_is_taken_with_all_that_follows(self, frame: object, error: object) -> None:
        answer = postprocessor()
        answer.feed(chunk("a"))
        assert answer.feed(chunk("b") + event(frame) + DONE) == chunk("b")
        assert answer.error == error
        assert answer.feed(chunk("c")) == b""
        assert answer.finish(True) == b""
        assert answer.verdict(True) == Verdict(False, Failure.ERROR_FRAME)

    def test_an_event_named_error_whatever_it_says(self) -> None:
        answer = postprocessor()
        assert answer.feed(b"event: error\ndata: out of memory\n\n") == b""
        assert answer.error == "out of memory"

    def test_passes_where_that_is_wanted(self) -> None:
        answer = postprocessor(FORWARDED)
        stream = chunk("a") + event({"error": "boom"}) + DONE
        assert answer.feed(stream) == stream
        assert answer.error == "boom"
        assert not answer.verdict(True).completed

    def test_a_null_error_is_none(self) -> None:
        answer = postprocessor()
        data = chunk("a", error=None)
        assert answer.feed(data) is data
        assert answer.error is None

    def test_a_waiting_finish_event_leaves_before_it(self) -> None:
        answer = postprocessor()
        answer.feed(chunk("a") + chunk("b", finish="stop"))
        assert answer.feed(event({"error": "boom"})) == chunk("b", finish="stop")

    def test_after_a_template_was_learned(self) -> None:
        answer = postprocessor()
        for text in "abc":
            answer.feed(chunk(text))
        assert answer.feed(chunk("d", error="boom")) == b""
        assert answer.error == "boom"


class TestEnds:
    @pytest.mark.parametrize("end", [b"", b"\n", b"\r\n", b"\r"])
    @pytest.mark.parametrize("tail", [b"data: [DONE]", b'data: {"choices":[]}', b"data: null"])
    def test_an_unterminated_event_gets_its_blank_line(self, tail: bytes, end: bytes) -> None:
        answer = postprocessor(FORWARDED)
        answer.feed(chunk("a") + tail + end)
        assert answer.finish(True) == tail + end + (end or b"\n\n")
        assert answer.unprocessed_bytes == 0

    def test_and_is_processed(self) -> None:
        answer = postprocessor(FORWARDED)
        answer.feed(usage_chunk().removesuffix(b"\n\n"))
        (shown,) = payloads(answer.finish(True))
        assert shown["usage"] == USAGE | COSTS

    @pytest.mark.parametrize("tail", [b'data: {"choi', b"da", b": ping", b"event: x\n"])
    def test_any_other_tail_passes_and_is_counted(self, tail: bytes) -> None:
        answer = postprocessor(FORWARDED)
        answer.feed(chunk("a") + tail)
        assert answer.finish(True) == tail
        assert answer.unprocessed_bytes == len(tail)

    @pytest.mark.parametrize("tail", [b'data: {"choi', b"data: [DONE]", b"data: {}\n"])
    def test_a_tail_is_discarded_when_http_was_cut(self, tail: bytes) -> None:
        answer = postprocessor(FORWARDED)
        answer.feed(chunk("a") + tail)
        assert answer.finish(False) == b""
        assert answer.unprocessed_bytes == len(tail)

    def test_a_second_finish_gives_nothing(self) -> None:
        answer = postprocessor(FORWARDED)
        answer.feed(b"data: [DONE]")
        assert answer.finish(True) == DONE
        assert answer.finish(True) == b""

    @pytest.mark.parametrize(
        ("stream", "clean", "verdict"),
        [
            (chunk("a") + DONE, False, COMPLETED),
            (chunk("a", finish="stop"), True, COMPLETED),
            (chunk("a", finish="stop"), False, Verdict(False, Failure.CUT)),
            (chunk("a"), True, Verdict(False, Failure.UNFINISHED)),
            (chunk("a", finish=""), True, Verdict(False, Failure.UNFINISHED)),
            (
                chunk("a") + chunk("b", index=1, finish="stop"),
                True,
                Verdict(False, Failure.UNFINISHED),
            ),
            (b"", True, Verdict(False, Failure.EMPTY)),
            (b"", False, Verdict(False, Failure.CUT)),
            (b"\n\n", True, Verdict(False, Failure.EMPTY)),
            (b": ping\n\n", True, Verdict(False, Failure.EMPTY)),
            (role(), True, Verdict(False, Failure.EMPTY)),
            (DONE, True, Verdict(False, Failure.EMPTY)),
            (DONE, False, Verdict(False, Failure.CUT)),
            (b"data: null\n\n" + DONE, True, Verdict(False, Failure.EMPTY)),
            (role() + DONE, True, COMPLETED),
        ],
    )
    def test_verdict(self, stream: bytes, clean: bool, verdict: Verdict) -> None:
        answer = postprocessor(n=2)
        answer.feed(stream)
        answer.finish(clean)
        assert answer.verdict(clean) == verdict

    def test_an_empty_finish_reason_holds_nothing_back(self) -> None:
        answer = postprocessor()
        for text in "abc":
            data = chunk(text, finish="")
            assert answer.feed(data) is data

    def test_progress_is_data_and_not_comments(self) -> None:
        answer = postprocessor()
        seen = [answer.progress]
        for data in (
            chunk("a"),
            b": ping\n\n",
            chunk("b"),
            b":\n\n",
            chunk("c"),
            b"data: null\n\n",
        ):
            answer.feed(data)
            seen.append(answer.progress)
        changed = [before != now for before, now in pairwise(seen)]
        assert changed == [True, False, True, False, True, True]


class TestBounds:
    def test_an_endless_line_passes_from_the_limit_on(self) -> None:
        answer = postprocessor(HELD)
        answer.feed(role() + chunk("a"))
        megabyte = b"x" * (1024 * 1024)
        pieces = [b"data: " + megabyte, *[megabyte] * 20]
        sizes = [len(answer.feed(piece)) for piece in pieces]
        assert sizes[:15] == [0] * 15
        assert sum(sizes) == 21 * len(megabyte) + 6
        assert answer.overflowed
        assert answer.unprocessed_bytes == sum(sizes)
        assert answer.usage.estimated
        assert answer.usage.completion == 1 + sum(sizes) // 4 + 1
        assert answer.finish(True) == b""
        assert answer.verdict(True) == Verdict(False, Failure.UNFINISHED)

    def test_the_limit_does_not_depend_on_the_split(self) -> None:
        event = b"data: " + b"x" * EVENT_BYTES_MAX + b"\n\n"
        for pieces in ([event], [event[:100], event[100:]], [event[:-1], event[-1:]]):
            answer = postprocessor(FORWARDED)
            assert b"".join(map(answer.feed, pieces)) == event
            assert answer.overflowed


class TestOddities:
    def test_lone_surrogates_in_what_we_write_ourselves(self) -> None:
        odd = (
            b'data: {"id":"\\ud800","model":"\\ud801","choices":[{"index":0,"delta":{"content":"a"}'
        )
        answer = postprocessor(ASKED, model_names=("up", "alias"))
        stream = odd + b',"finish_reason":"stop"}]}\n\n' + DONE
        shown, _done = payloads(answer.feed(stream).split(b"\n\n", 1)[1])
        assert shown["id"] == "?"
        assert shown["model"] == "alias"

    def test_an_error_can_always_be_written_down_again(self) -> None:
        answer = postprocessor()
        assert answer.feed(b'data: {"error":{"message":"\\ud800 boom","x":NaN}}\n\n') == b""
        assert isinstance(answer.error, dict)
        assert answer.error["message"] == "? boom"
        assert orjson.dumps(answer.error)

    @pytest.mark.parametrize("depth", [500, 5000])
    def test_deep_nesting(self, depth: int) -> None:
        for members in (b'"delta":%b', b'"delta":{"content":%b}'):
            nested = members % (b"[" * depth + b'"a"' + b"]" * depth)
            data = b'data: {"choices":[{"index":0,' + nested + b"}]}\n\n"
            answer = postprocessor()
            assert answer.feed(data) is data
            assert answer.content_events == 0

    @pytest.mark.parametrize("depth", [300, 1000, 5000])
    def test_an_error_in_any_nesting(self, depth: int) -> None:
        nested = b"[" * depth + b"]" * depth
        answer = postprocessor()
        answer.feed(b'event: error\ndata: {"error":' + nested + b"}\n\n")
        assert answer.error
        assert answer.feed(chunk("a")) == b""


class TestModelNames:
    NAMES = ("up", "alias")

    def test_the_client_sees_the_name_it_asked_for(self) -> None:
        answer = postprocessor(model_names=self.NAMES)
        for text in ("a", "b", "c"):
            assert payloads(answer.feed(chunk(text)))[0] == orjson.loads(
                chunk(text, model="alias")[6:]
            )

    def test_with_usage_taken_out_too(self) -> None:
        answer = postprocessor(model_names=self.NAMES, continuous=True)
        for number, text in enumerate("abcd"):
            data = chunk(text, usage={"prompt_tokens": 1, "completion_tokens": number})
            assert answer.feed(data) == chunk(text, model="alias")
        assert answer.usage == Usage(1, 0, 3)

    def test_also_where_the_name_stands_behind_the_text(self) -> None:
        answer = postprocessor(model_names=self.NAMES)
        for text in "abc":
            payload = {"choices": [{"index": 0, "delta": {"content": text}}], "model": "up"}
            assert answer.feed(event(payload)) == event(payload | {"model": "alias"})

    def test_a_text_that_is_the_name_is_left_alone(self) -> None:
        answer = postprocessor(model_names=self.NAMES)
        assert answer.feed(chunk('"model":"up"')) == chunk('"model":"up"', model="alias")

    def test_in_our_own_usage_chunk(self) -> None:
        answer = postprocessor(ASKED, model_names=self.NAMES)
        shown = payloads(answer.feed(chunk("a", finish="stop") + DONE))
        assert [each["model"] for each in shown[:-1]] == ["alias", "alias"]

    def test_nothing_is_renamed_where_the_names_are_the_same(self) -> None:
        data = chunk("a", model="another")
        assert postprocessor(model_names=("up", "up")).feed(data) is data


def test_completions_streams_alike() -> None:
    answer = postprocessor(STRIPPED, Dialect.COMPLETIONS)
    for text in ("a", " b", "c"):
        choice = {"text": text, "index": 0, "logprobs": None, "finish_reason": None}
        data = event({"choices": [choice], "object": "text_completion"})
        assert answer.feed(data) is data
    choice = {"text": "", "index": 0, "finish_reason": "length"}
    out = answer.feed(event({"choices": [choice], "usage": USAGE, "timings": {}}))
    assert out == b""
    out = answer.feed(DONE)
    assert payloads(out)[0] == {"choices": [choice], "timings": {}}
    assert answer.usage == Usage(14, 3, 7)
