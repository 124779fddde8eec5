"""The text that was delivered, of each dialect, streamed and whole, broken and hostile."""

import random
from typing import Any

import orjson
import pytest

from filature.answer.delivered import CALL, ITEMS_MAX, TEXT, THOUGHT, Delivered, delivered
from filature.wire.dialect import Dialect


def stream(*payloads: Any, end: bytes = b"") -> bytes:
    return b"".join(b"data: %b\n\n" % orjson.dumps(each) for each in payloads) + end


def delta(index: int = 0, **members: Any) -> dict[str, Any]:
    return {"choices": [{"index": index, "delta": members}]}


def block(index: int, **delta: Any) -> dict[str, Any]:
    return {"type": "content_block_delta", "index": index, "delta": delta}


def item(index: int, kind: str, text: str) -> dict[str, Any]:
    return {"type": f"response.{kind}.delta", "output_index": index, "delta": text}


CALLED: Any = [{"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}]
CASES: list[tuple[str, Dialect, bytes, dict[tuple[int, str], str]]] = [
    (
        "chat stream",
        Dialect.CHAT,
        stream(
            delta(role="assistant", content=""),
            delta(reasoning_content="hm", reasoning="hm"),
            delta(content="Si"),
            delta(content="lk é"),
            delta(tool_calls=CALLED),
            {"choices": [], "usage": {}},
            end=b"data: [DONE]\n\n",
        ),
        {(0, THOUGHT): "hm", (0, TEXT): "Silk é", (0, CALL): "f{}"},
    ),
    (
        "chat stream of several choices",
        Dialect.CHAT,
        stream(delta(1, content="b"), delta(0, content="a"), delta(1, content="c")),
        {(1, TEXT): "bc", (0, TEXT): "a"},
    ),
    (
        "chat document",
        Dialect.CHAT,
        orjson.dumps(
            {"choices": [{"message": {"content": "a", "reasoning": "b", "refusal": "c"}}]}
        ),
        {(0, TEXT): "ac", (0, THOUGHT): "b"},
    ),
    (
        "chat document of parts",
        Dialect.CHAT,
        orjson.dumps(
            {"choices": [{"message": {"content": [{"type": "text", "text": "a", "x": "no"}]}}]}
        ),
        {(0, TEXT): "a"},
    ),
    (
        "completions stream",
        Dialect.COMPLETIONS,
        b"data: null\n\n" + stream({"choices": [{"index": 1, "text": "b"}]}),
        {(1, TEXT): "b"},
    ),
    (
        "completions document",
        Dialect.COMPLETIONS,
        orjson.dumps({"choices": [{"text": "a"}, {"text": "b"}]}),
        {(0, TEXT): "a", (1, TEXT): "b"},
    ),
    (
        "messages stream",
        Dialect.MESSAGES,
        stream(
            {"type": "message_start", "message": {"content": []}},
            {"type": "content_block_start", "index": 0, "content_block": {"thinking": ""}},
            block(0, type="thinking_delta", thinking="hm"),
            block(0, type="signature_delta", signature="no"),
            block(1, type="text_delta", text="Si"),
            block(1, type="text_delta", text="lk"),
            {
                "type": "content_block_start",
                "index": 2,
                "content_block": {"type": "tool_use", "id": "no", "name": "f", "input": {}},
            },
            block(2, type="input_json_delta", partial_json="{}"),
        ),
        {(0, THOUGHT): "hm", (1, TEXT): "Silk", (2, CALL): "f{}"},
    ),
    (
        "messages document",
        Dialect.MESSAGES,
        orjson.dumps(
            {
                "type": "message",
                "content": [
                    {"type": "thinking", "thinking": "hm", "signature": "no"},
                    {"type": "text", "text": "Silk"},
                    {"type": "tool_use", "name": "f", "input": {"text": "y"}},
                ],
            }
        ),
        {(0, THOUGHT): "hm", (1, TEXT): "Silk", (2, CALL): "yf"},
    ),
    (
        "responses stream",
        Dialect.RESPONSES,
        stream(
            item(0, "reasoning_text", "hm"),
            item(1, "output_text", "Si"),
            item(1, "output_text", "lk"),
            item(2, "function_call_arguments", "{}"),
            {"type": "response.output_text.done", "output_index": 1, "text": "Silk"},
            {
                "type": "response.completed",
                "response": {"output": [{"type": "message", "content": [{"text": "Silk"}]}]},
            },
        ),
        {(0, THOUGHT): "hm", (1, TEXT): "Silk", (2, CALL): "{}"},
    ),
    (
        "responses stream without deltas",
        Dialect.RESPONSES,
        stream(
            {
                "type": "response.completed",
                "response": {"output": [{"type": "message", "content": [{"text": "Silk"}]}]},
            }
        ),
        {(0, TEXT): "Silk"},
    ),
    (
        "responses document",
        Dialect.RESPONSES,
        orjson.dumps(
            {
                "output": [
                    {"type": "reasoning", "summary": [], "content": [{"text": "hm"}]},
                    {"type": "message", "id": "no", "content": [{"type": "x", "text": "Silk"}]},
                    {"type": "function_call", "name": "f", "arguments": "{}", "call_id": "no"},
                ]
            }
        ),
        {(0, THOUGHT): "hm", (1, TEXT): "Silk", (2, CALL): "f{}"},
    ),
    ("embeddings", Dialect.EMBEDDINGS, b'{"data":[{"embedding":[1,2]}]}', {}),
]


def read(dialect: Dialect, answer: bytes, choices: int = 2) -> Delivered:
    return delivered(dialect, answer, choices)


@pytest.mark.parametrize(
    ("dialect", "answer", "texts"), [c[1:] for c in CASES], ids=[c[0] for c in CASES]
)
def test_what_was_delivered(
    dialect: Dialect, answer: bytes, texts: dict[tuple[int, str], str]
) -> None:
    found = read(dialect, answer)
    assert found.texts == texts
    assert found.text_bytes == sum(len(text.encode()) for text in texts.values())
    assert found.has(THOUGHT) == sum(name == THOUGHT for _, name in texts)
    for prefix in (b"\xef\xbb\xbf", b"\n \r\n"):
        assert read(dialect, prefix + answer).texts == texts


@pytest.mark.parametrize(("dialect", "answer"), [c[1:3] for c in CASES], ids=[c[0] for c in CASES])
def test_of_one_that_was_cut_there_is_what_came_before(dialect: Dialect, answer: bytes) -> None:
    whole, sizes = read(dialect, answer), []
    for at in range(len(answer) + 1):
        found = read(dialect, answer[:at])
        for key, text in found.texts.items():
            assert whole.texts[key].startswith(text)
        sizes.append(found.text_bytes)
    assert sizes == sorted(sizes)
    assert sizes[-1] == whole.text_bytes


@pytest.mark.parametrize(("dialect", "answer"), [c[1:3] for c in CASES], ids=[c[0] for c in CASES])
def test_what_is_broken_does_no_harm(dialect: Dialect, answer: bytes) -> None:
    chance = random.Random(f"{dialect} {len(answer)}")
    for _ in range(200):
        broken = bytearray(answer)
        for _ in range(chance.randrange(1, 6)):
            broken[chance.randrange(len(broken))] = chance.randrange(256)
        assert read(dialect, bytes(broken)).text_bytes <= 2 * len(answer)


def test_an_end_that_was_forgotten() -> None:
    assert read(Dialect.CHAT, stream(delta(content="a"))[:-2]).texts == {(0, TEXT): "a"}


def test_line_ends_of_any_kind() -> None:
    answer = stream(delta(content="a"), delta(content="b"))
    for end in (b"\r\n", b"\r"):
        assert read(Dialect.CHAT, answer.replace(b"\n", end)).texts == {(0, TEXT): "ab"}


def test_several_documents() -> None:
    one = orjson.dumps({"choices": [{"message": {"content": "a"}}]})
    assert read(Dialect.CHAT, one + b"\n" + one + b"}").texts == {(0, TEXT): "aa"}


@pytest.mark.parametrize("index", [2, 10**9, -1, None, "1", True])
def test_choices_that_nobody_asked_for_are_no_others(index: Any) -> None:
    """Else each letter could be told as a text of its own, which has a token at least."""
    letters = [{"choices": [{"index": index, "delta": {"content": letter}}]} for letter in "silk"]
    assert list(read(Dialect.CHAT, stream(*letters)).texts.values()) == ["silk"]


def test_nor_are_items_without_end() -> None:
    parts = [item(at, "output_text", "x") for at in range(100)]
    assert len(read(Dialect.RESPONSES, stream(*parts)).texts) == ITEMS_MAX
    blocks = [block(at, text="x") for at in range(100)]
    assert len(read(Dialect.MESSAGES, stream(*blocks)).texts) == ITEMS_MAX


@pytest.mark.parametrize(
    ("dialect", "payload"),
    [
        (Dialect.CHAT, delta(x="junk", y={"content": "junk"}, z=[{"text": "junk"}])),
        (Dialect.CHAT, {"choices": [{"text": "junk"}], "content": "junk"}),
        (Dialect.COMPLETIONS, {"choices": [{"delta": {"content": "junk"}, "x": "junk"}]}),
        (Dialect.MESSAGES, {"type": "junk", "index": 0, "delta": {"text": "junk"}}),
        (Dialect.MESSAGES, block(0, junk="junk")),
        (Dialect.RESPONSES, item(0, "junk", "junk")),
        (Dialect.EMBEDDINGS, delta(content="junk")),
        (Dialect.COUNT_TOKENS, delta(content="junk")),
    ],
)
def test_what_no_client_shows_is_no_text(dialect: Dialect, payload: Any) -> None:
    for answer in (stream(payload), orjson.dumps(payload)):
        assert read(dialect, answer).texts == {}
