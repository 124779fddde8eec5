"""However an answer's bytes are cut, the same leaves and the same is known."""

from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st
from tests.property.streams import POLICIES, STREAMED, TARIFF, cuts, documents, streams

from filature.answer.policy import AnswerPolicy
from filature.answer.postprocessor import AnswerPostprocessor
from filature.wire.dialect import Dialect

DAMAGE = [
    b"",
    b'"',
    b"\\",
    b"{",
    b"}",
    b"[",
    b",",
    b"\n",
    b"\r",
    b"\x00",
    b"\xff",
    b"u",
    b"\\ud800",
]
METERED = [*STREAMED, Dialect.EMBEDDINGS]
REQUESTS = st.sampled_from(
    [
        {},
        {"n": 2},
        {"prompts": 2, "n": 2},
        {"continuous": True},
        {"model_names": ("up", "alias")},
        {"prompt_text_bytes": 40, "bytes_per_token": 2.5},
    ]
)


def run(
    dialect: Dialect, policy: AnswerPolicy, asked: dict[str, Any], pieces: list[bytes], clean: bool
) -> tuple[bytes, dict[str, Any]]:
    """What left in all, and what is known at the end."""
    answer = AnswerPostprocessor(dialect, policy, **asked)
    out = b"".join([answer.feed(piece) for piece in pieces]) + answer.finish(clean)
    known = {
        name: getattr(answer, name)
        for name in (
            "usage",
            "mode",
            "error",
            "started",
            "has_content",
            "end_mark_seen",
            "content_events",
            "content_bytes",
            "unprocessed_bytes",
            "overflowed",
            "next_sequence_number",
        )
    }
    known["verdict"] = answer.verdict(clean)
    return out, known


@given(st.sampled_from(METERED), POLICIES, REQUESTS, st.booleans(), st.data())
def test_documents_split_anywhere(
    dialect: Dialect, policy: AnswerPolicy, asked: dict[str, Any], clean: bool, data: st.DataObject
) -> None:
    body = data.draw(documents(dialect))
    pieces = data.draw(cuts(body))
    assert run(dialect, policy, asked, pieces, clean) == run(dialect, policy, asked, [body], clean)


@given(st.sampled_from(STREAMED), POLICIES, REQUESTS, st.booleans(), st.data())
def test_streams_split_anywhere(
    dialect: Dialect, policy: AnswerPolicy, asked: dict[str, Any], clean: bool, data: st.DataObject
) -> None:
    body = data.draw(streams(dialect))
    pieces = data.draw(cuts(body))
    assert run(dialect, policy, asked, pieces, clean) == run(dialect, policy, asked, [body], clean)


@given(st.sampled_from(METERED), POLICIES, REQUESTS, st.booleans(), st.data())
def test_damaged_answers_split_anywhere(
    dialect: Dialect, policy: AnswerPolicy, asked: dict[str, Any], clean: bool, data: st.DataObject
) -> None:
    is_stream = dialect in STREAMED and data.draw(st.booleans())
    body = bytearray(data.draw(streams(dialect) if is_stream else documents(dialect)))
    for place in data.draw(st.lists(st.integers(0, max(0, len(body) - 1)), max_size=4)):
        body[place : place + 1] = data.draw(st.sampled_from(DAMAGE))
    pieces = data.draw(cuts(bytes(body)))
    whole = [bytes(body)]
    assert run(dialect, policy, asked, pieces, clean) == run(dialect, policy, asked, whole, clean)


def test_space_before_what_is_no_document_counts_the_same_however_it_comes() -> None:
    body = b'"error" :{"message":"boom"}}'
    pieces = [body[i : i + 1] for i in range(len(body))]
    policy = AnswerPolicy()
    assert run(Dialect.CHAT, policy, {}, pieces, False) == run(
        Dialect.CHAT, policy, {}, [body], False
    )


@given(st.binary(max_size=60), st.sampled_from(METERED), POLICIES, st.booleans(), st.data())
@example(b"data\r\r\ndata: {}", Dialect.CHAT, AnswerPolicy(tariff=TARIFF), True, None)
@example(b"\xef\xbb\xbf\xef\xbb\xbfdata: 1\n\n", Dialect.CHAT, AnswerPolicy(), True, None)
def test_any_bytes_split_anywhere(
    body: bytes,
    dialect: Dialect,
    policy: AnswerPolicy,
    clean: bool,
    data: st.DataObject | None,
) -> None:
    pieces = (
        data.draw(cuts(body)) if data is not None else [body[i : i + 1] for i in range(len(body))]
    )
    assert run(dialect, policy, {}, pieces, clean) == run(dialect, policy, {}, [body], clean)
