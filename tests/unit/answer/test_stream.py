"""Chat streams by example: what a client that asked for nothing, or for usage, gets of them."""

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
from filature.answer.events import HELD_BYTES_MAX
from filature.answer.policy import AnswerPolicy
from filature.answer.postprocessor import LEAD_BYTES_MAX
from filature.answer.pricing import COST_KEYS
from filature.answer.usage import Usage


class TestWhatLeavesAsItCame:
    def test_an_event_is_returned_as_the_same_object(self) -> None:
        answer = postprocessor()
        for text in ("a", "b", 'with "quotes" and \n', "日本", "c"):
            data = chunk(text)
            assert answer.feed(data) is data
        assert answer.content_events == 5
        assert answer.content_bytes == len('abwith "quotes" and \n日本c'.encode())

    def test_several_events_in_one_piece_too(self) -> None:
        answer = postprocessor()
        data = role() + chunk("a") + b": ping\n\n" + chunk("b") + chunk("c")
        assert answer.feed(data) is data

    def test_what_is_not_json_or_no_object(self) -> None:
        answer = postprocessor(FORWARDED)
        for payload in (b"null", b"[1]", b'"x"', b"{not json", b"words", b"7"):
            data = b"data: " + payload + b"\n\n"
            assert answer.feed(data) is data
        assert answer.content_events == 0
        assert answer.error is None

    def test_done_verbatim_whatever_stands_around_it(self) -> None:
        data = b": c\ndata:[DONE]\nid: 4\r\n\r\n"
        answer = postprocessor(FORWARDED)
        assert answer.feed(data) == data
        assert not answer.end_mark_seen, "nothing came that it could be the end of"
        assert answer.feed(role() + data) == role() + data
        assert answer.end_mark_seen

    def test_lone_surrogates_and_other_things_that_orjson_refuses(self) -> None:
        data = b'data: {"choices":[{"delta":{"content":"\\ud83d"}}],"x":NaN}\n\n'
        answer = postprocessor()
        assert answer.feed(data) is data
        assert answer.content_events == 1

    def test_one_leading_byte_order_mark_is_dropped(self) -> None:
        answer = postprocessor()
        assert answer.feed(b"\xef\xbb") == b""
        assert answer.feed(b"\xbf" + chunk("a")) == chunk("a")

    def test_white_space_without_end_is_not_kept(self) -> None:
        answer = postprocessor()
        assert answer.feed(b" " * LEAD_BYTES_MAX) == b""
        assert answer.feed(b" ") == b" " * (LEAD_BYTES_MAX + 1)
        assert answer.mode == "documents"

    def test_after_white_space_it_is_still_an_event_stream(self) -> None:
        answer = postprocessor()
        assert answer.feed(b"\r\n \n") == b""
        assert answer.mode is None
        assert answer.feed(chunk("a")) == b"\r\n \n" + chunk("a")
        assert answer.mode == "events"


class TestUsageThatNobodyAskedFor:
    def test_the_usage_chunk_becomes_a_comment(self) -> None:
        answer = postprocessor()
        kept = role() + chunk("a") + chunk("b", finish="stop")
        out = answer.feed(kept + usage_chunk() + DONE)
        comment, done = out.removeprefix(kept).split(b"\n\n", 1)
        assert comment.startswith(b': filature {"usage":{')
        assert orjson.loads(comment.removeprefix(b": filature "))["usage"] == {
            "prompt_tokens": 14,
            "completion_tokens": 7,
            "total_tokens": 21,
            "prompt_tokens_details": {"cached_tokens": 3},
            "completion_tokens_details": {"reasoning_tokens": 0},
            **COSTS,
        }
        assert done == DONE
        assert answer.finish(True) == b""
        assert answer.verdict(True) == COMPLETED

    def test_or_is_hidden(self) -> None:
        answer = postprocessor(AnswerPolicy(strip=True, when_unrequested="hide"))
        kept = chunk("a") + chunk(finish="stop")
        assert answer.feed(kept + usage_chunk() + DONE) == kept + DONE

    def test_or_sent(self) -> None:
        answer = postprocessor(AnswerPolicy(strip=True, when_unrequested="send"))
        stream = chunk("a") + chunk(finish="stop") + usage_chunk() + DONE
        assert answer.feed(stream) == stream

    def test_other_members_of_a_dropped_chunk_move_to_the_finish_event(self) -> None:
        answer = postprocessor()
        assert answer.feed(chunk("a") + chunk(finish="stop")) == chunk("a")  # the finish waits
        out = answer.feed(usage_chunk(timings={"n": 1}, system_fingerprint="f"))
        assert out == chunk(finish="stop", timings={"n": 1}, system_fingerprint="f")

    def test_the_finish_event_waits_through_comments_and_no_further_than_the_next_event(
        self,
    ) -> None:
        answer = postprocessor()
        assert answer.feed(chunk("a")) == chunk("a")
        assert answer.feed(chunk(finish="stop")) == b""
        assert answer.feed(b": ping\n\n") == b""
        assert answer.feed(DONE).startswith(chunk(finish="stop") + b": ping\n\n: filature ")

    def test_a_finish_event_that_gets_none_stays_as_it_came(self) -> None:
        answer = postprocessor()
        finish = b"data\n: x\n" + chunk(finish="stop")
        out = answer.feed(chunk("a") + finish + usage_chunk() + DONE)
        assert out.startswith(chunk("a") + finish + b": filature ")

    def test_with_several_choices_each_finish_event_gets_its_own(self) -> None:
        answer = postprocessor(n=2)
        stream = [
            chunk("a", index=1),
            chunk("b", index=0),
            chunk(index=1, finish="stop"),
            usage_chunk(timings=1),
            chunk("c", index=0),
            chunk(index=0, finish="stop"),
            usage_chunk(timings=2),
            DONE,
        ]
        shown = payloads(b"".join(answer.feed(each) for each in stream))
        finishes = [each for each in shown[:-1] if each["choices"][0]["finish_reason"]]
        assert [each["timings"] for each in finishes] == [1, 2]
        assert len(shown) == 6

    def test_a_record_on_content_or_finish_is_taken_out_and_the_chunk_stays(self) -> None:
        answer = postprocessor()
        out = answer.feed(
            chunk("a", usage=USAGE, more=1) + chunk("b", finish="stop", usage=USAGE) + DONE
        )
        assert out.startswith(chunk("a", more=1) + chunk("b", finish="stop") + b": filature ")

    @pytest.mark.parametrize("where", ["first", "middle", "last"])
    def test_wherever_in_the_chunk_it_stands(self, where: str) -> None:
        members = {"a": 1, "choices": [{"index": 0, "delta": {"content": "x"}}], "z": {"usage": {}}}
        keys = list(members)
        keys.insert({"first": 0, "middle": 1, "last": 3}[where], "usage")
        with_usage = {key: USAGE if key == "usage" else members[key] for key in keys}
        assert postprocessor().feed(event(with_usage)) == event(members)

    def test_however_its_key_is_written_and_however_often(self) -> None:
        text = (
            b'{"usag\\u0065" : {"prompt_tokens":1,"x":"}"},"choices":[{"index":0,"delta":{"content":"x"}}]'
            b',"usage":{"prompt_tokens":2},"usage": {"prompt_tokens":3}}'
        )
        out = postprocessor().feed(b"data: " + text + b"\n\n")
        assert out == b'data: {"choices":[{"index":0,"delta":{"content":"x"}}]}\n\n'

    def test_no_usage_member_slips_through_after_a_template_was_learned(self) -> None:
        answer = postprocessor()
        plain = chunk("a")
        answer.feed(plain)
        hiding = plain.replace(b'"a"', b'"a"},"x":{"content":"b"')
        for sneaky in (
            plain.replace(b'"content":"a"', b'"content":"a","usage":{"prompt_tokens":1}'),
            chunk("b", usage=USAGE),
            hiding,
        ):
            assert answer.feed(sneaky) == (chunk("b") if b"21" in sneaky else sneaky)
        assert answer.feed(chunk("c")) == chunk("c")

    def test_usage_null_is_no_record_and_stays(self) -> None:
        data = chunk("a", usage=None)
        assert postprocessor().feed(data) is data

    def test_several_data_lines(self) -> None:
        data = (
            b'event: x\r\ndata: {"choices": [{"index": 0, "delta":\r\nid: 3\r\n'
            b'data: {"content": "a"}}],\r\ndata:"usage": {"prompt_tokens": 1}}\r\n: c\r\n\r\n'
        )
        out = postprocessor().feed(data)
        assert out == (
            b'event: x\r\ndata: {"choices": [{"index": 0, "delta":\r\n'
            b'data: {"content": "a"}}]}\r\nid: 3\r\n: c\r\n\r\n'
        )

    def test_a_dropped_chunk_in_crlf_leaves_nothing_behind(self) -> None:
        def crlf(data: bytes) -> bytes:
            return data.replace(b"\n", b"\r\n")

        answer = postprocessor(AnswerPolicy(strip=True, when_unrequested="hide"))
        out = b""
        for byte in crlf(chunk("a") + usage_chunk() + DONE):
            out += answer.feed(bytes([byte]))
        assert out + answer.finish(True) == crlf(chunk("a") + DONE)


class TestUsageThatWasAskedFor:
    def test_the_usage_chunk_has_the_cost_last(self) -> None:
        answer = postprocessor(ASKED)
        out = answer.feed(chunk("a") + chunk(finish="stop") + usage_chunk(timings=1) + DONE)
        *_, shown, done = payloads(out)
        assert done == "[DONE]"
        assert shown["choices"] == []
        assert shown["timings"] == 1
        assert shown["usage"] == USAGE | COSTS
        assert list(shown["usage"])[-4:] == list(COST_KEYS)

    def test_a_record_on_the_finish_chunk_becomes_a_usage_chunk_of_its_own(self) -> None:
        answer = postprocessor(ASKED)
        out = answer.feed(chunk("a") + chunk(finish="stop", usage=USAGE) + DONE)
        *_, finish, shown, done = payloads(out)
        assert "usage" not in finish
        assert {key: shown[key] for key in HEAD} == HEAD
        assert shown["choices"] == []
        assert shown["usage"]["total_cost"] == 26
        assert done == "[DONE]"

    @pytest.mark.parametrize("head", [HEAD, HEAD | {"id": ""}])
    def test_it_is_called_as_the_others_are(self, head: dict[str, object]) -> None:
        """Azure begins with a chunk that tells of the prompt, and says nothing else."""
        nothing = {"id": "", "object": "", "created": 0, "model": "", "choices": []}
        answer = postprocessor(ASKED)
        answer.feed(event(nothing | {"prompt_filter_results": []}))
        choice = {"index": 0, "delta": {"content": "a"}, "finish_reason": "stop"}
        answer.feed(event(head | {"choices": [choice], "usage": USAGE}))
        shown, _ = payloads(answer.feed(DONE))
        assert {key: shown[key] for key in HEAD} == head

    def test_a_usage_chunk_that_content_followed_is_not_the_last_word(self) -> None:
        answer = postprocessor(ASKED)
        early = usage_chunk({"prompt_tokens": 14, "completion_tokens": 1})
        out = answer.feed(chunk("a") + early + chunk("b" * 40, finish="stop") + DONE)
        _, first, _, last, _ = payloads(out)
        assert first["usage"]["completion_tokens"] == 1
        assert last["choices"] == []
        assert last["usage"]["completion_tokens"] == answer.usage.completion == 11
        assert last["usage"]["total_cost"] == 14 + 22
        assert answer.finish(True) == b""

    @pytest.mark.parametrize("policy", [ASKED, STRIPPED])
    def test_it_is_told_once_however_often_the_end_is(self, policy: AnswerPolicy) -> None:
        answer = postprocessor(policy)
        out = answer.feed(chunk("a", finish="stop") + DONE + DONE) + answer.finish(True)
        assert out.count(b"total_tokens") == 1
        assert out.endswith(DONE + DONE)

    def test_without_an_end_mark_it_comes_when_the_answer_ends(self) -> None:
        answer = postprocessor(ASKED)
        answer.feed(chunk("a") + chunk(finish="stop", usage=USAGE))
        (shown,) = payloads(answer.finish(True))
        assert shown["usage"]["total_cost"] == 26

    def test_it_is_estimated_where_the_engine_gave_none(self) -> None:
        answer = postprocessor(ASKED, prompt_text_bytes=lambda: 40)
        shown = payloads(answer.feed(chunk("a") + chunk("b", finish="stop") + DONE))[-2]
        assert shown["usage"]["estimated"] is True
        assert shown["usage"]["prompt_tokens"] == 10
        assert shown["usage"]["completion_tokens"] == 2

    def test_no_usage_chunk_after_a_failure(self) -> None:
        answer = postprocessor(ASKED)
        answer.feed(chunk("a", usage=USAGE))
        assert answer.finish(False) == b""
        answer = postprocessor(ASKED)
        answer.feed(chunk("a", usage=USAGE))
        assert answer.finish(True) == b""  # nothing was finished

    def test_records_on_every_event_only_if_asked_for(self) -> None:
        stream = [
            chunk(text, usage={"prompt_tokens": 5, "completion_tokens": n})
            for n, text in enumerate("abc", 1)
        ]
        answer = postprocessor(ASKED)
        assert b"".join(map(answer.feed, stream)) == chunk("a") + chunk("b") + chunk("c")
        every = AnswerPolicy(
            strip=True, include_usage=True, continuous_usage=True, tariff=ASKED.tariff
        )
        answer = postprocessor(every)
        shown = payloads(b"".join(map(answer.feed, stream)))
        assert [each["usage"]["total_cost"] for each in shown] == [7, 9, 11]  # the total so far

    def test_a_cost_that_the_engine_claims_is_replaced(self) -> None:
        answer = postprocessor(ASKED)
        (shown,) = payloads(answer.feed(usage_chunk(USAGE | {"cost": 99, "total_cost": 1})))
        assert shown["usage"] == USAGE | COSTS

    def test_an_empty_record(self) -> None:
        out = postprocessor(ASKED).feed(usage_chunk({}))
        (shown,) = payloads(out)
        assert shown["usage"]["estimated"] is True
        assert shown["usage"]["total_cost"] == 1


class TestContinuousUsage:
    def stream(self, count: int) -> list[bytes]:
        def usage(tokens: int) -> dict[str, object]:
            return {
                "prompt_tokens": 17,
                "total_tokens": 17 + tokens,
                "completion_tokens": tokens,
                "completion_tokens_details": None,
            }

        first = event(
            HEAD
            | {
                "choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}}],
                "usage": usage(0),
                "prompt_token_ids": None,
            }
        )
        return [first] + [chunk(f" word{n}", usage=usage(n)) for n in range(1, count + 1)]

    def test_a_stream_cut_after_its_37th_token_costs_37(self) -> None:
        answer = postprocessor(continuous=True)
        stream = self.stream(37)
        out = b"".join(map(answer.feed, stream))
        assert b"usage" not in out
        assert out.endswith(chunk(" word37"))
        assert answer.usage == Usage(17, 0, 37)
        answer.finish(False)
        assert answer.usage == Usage(17, 0, 37)
        assert answer.verdict(False) == Verdict(False, Failure.CUT)

    def test_exact_after_each_event(self) -> None:
        answer = postprocessor(continuous=True)
        for tokens, data in enumerate(self.stream(5)):
            answer.feed(data)
            assert answer.usage == Usage(17, 0, tokens)

    def test_several_tokens_per_event(self) -> None:
        answer = postprocessor(continuous=True)
        for tokens in (3, 9, 14):
            answer.feed(
                chunk("some words", usage={"prompt_tokens": 1, "completion_tokens": tokens})
            )
        assert answer.usage == Usage(1, 0, 14)

    def test_a_record_that_falls_back_does_not_count(self) -> None:
        answer = postprocessor(continuous=True)
        for tokens in (3, 9, 4):
            answer.feed(
                chunk("word", usage={"prompt_tokens": 9 - tokens, "completion_tokens": tokens})
            )
        assert answer.usage == Usage(6, 0, 9)

    def test_a_record_that_is_not_json_leaves_as_it_came(self) -> None:
        answer = postprocessor(continuous=True)
        good = self.stream(3)
        for data in good:
            answer.feed(data)
        broken = good[-1].replace(b'"completion_tokens":3', b'"completion_tokens":')
        assert answer.feed(broken) is broken


class TestHolding:
    def test_content_free_events_wait_for_the_first_content(self) -> None:
        answer = postprocessor(HELD)
        opening = b": ping\n\n" + role() + b"data: null\n\n"
        assert answer.feed(opening) == b""
        assert (answer.started, answer.has_content) == (False, False)
        assert answer.feed(chunk("a")) == opening + chunk("a")
        assert (answer.started, answer.has_content) == (True, True)

    def test_a_failure_before_content_hands_out_nothing(self) -> None:
        for ending in (b"", event({"error": {"message": "boom"}})):
            for clean in (True, False):
                answer = postprocessor(HELD)
                assert answer.feed(role() + ending) == b""
                assert answer.finish(clean) == b""
                assert not answer.started
                assert not answer.verdict(clean).completed

    def test_release_gives_up_waiting(self) -> None:
        answer = postprocessor(HELD)
        answer.feed(role())
        assert answer.release() == role()
        assert answer.started
        assert answer.feed(b": ping\n\n") == b": ping\n\n"
        assert answer.release() == b""

    def test_release_before_anything_came(self) -> None:
        answer = postprocessor(HELD)
        assert answer.release() == b""
        assert answer.feed(role()) == role()

    def test_an_answer_without_content_is_handed_out_at_its_end(self) -> None:
        for done, clean in ((DONE, False), (b"", True)):
            answer = postprocessor(HELD)
            assert answer.feed(role() + chunk(finish="stop") + usage_chunk(timings=1)) == b""
            out = answer.feed(done) + answer.finish(clean)
            assert out.startswith(role() + chunk(finish="stop", timings=1) + b": filature ")
            assert answer.verdict(clean) == COMPLETED

    def test_tool_calls_and_reasoning_are_content(self) -> None:
        call = {"index": 0, "id": "x", "function": {"name": "f", "arguments": ""}}
        for delta in ({"tool_calls": [call]}, {"reasoning_content": "hm"}, {"refusal": "no"}):
            data = event(HEAD | {"choices": [{"index": 0, "delta": delta}]})
            assert postprocessor(HELD).feed(data) == data

    def test_what_is_held_is_bounded(self) -> None:
        answer = postprocessor(HELD)
        ping = b": " + b"x" * 1021 + b"\n\n"
        out = [answer.feed(ping) for _ in range(HELD_BYTES_MAX // len(ping) + 2)]
        assert sum(map(len, out)) == len(ping) * len(out)
